//! Memories of the caller: remembered with consent, encrypted, recalled, and forgotten.
//!
//! Every call says what it may remember, by the header `X-LogLine-Memory`: without it, nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use logline_memory::envelope::EnvelopeError;
use logline_memory::{
    Hit, Kind, Layer, Memories, Memory, MemoryError, Mode, Recalled, Sensitivity, Vault, VaultError, Wanted, What,
};
use serde_json::{Value, json};

use crate::idempotency;
use crate::identity::Permission;
use crate::params::{Params, header};
use crate::problem::{Code, Problem};
use crate::routes::{not_known, path_id};
use crate::service::{Caller, Service, answer, caller};
use crate::wire::memory::{Consent, Remember};

const MODE: &str = "x-logline-memory";
const SESSION: &str = "x-logline-session";
const SENSITIVITY: &str = "x-logline-sensitivity";

/// The most memories of an answer.
const MAX_HITS: usize = 50;

/// The session that a call names.
fn session(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let session = header::<String>(headers, SESSION, "1 to 128 visible ASCII characters, once")?;
    match session {
        Some(session) if session.is_empty() || session.len() > 128 || !session.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Problem::parameter(SESSION, "1 to 128 visible ASCII characters, once"))
        }
        session => Ok(session),
    }
}

/// The memories of the caller, as the headers of the call permit.
fn memories<'s>(service: &'s Service, caller: &Caller, headers: &HeaderMap) -> Result<Memories<'s>, Problem> {
    let vault: &Vault = service.options.vault.as_ref().ok_or_else(Problem::not_found)?;
    let mode = header::<String>(headers, MODE, "`off`, `session-only` or `on`")?;
    let mode = mode.as_deref().unwrap_or("off").parse::<Mode>();
    let mode = mode.map_err(|_| Problem::parameter(MODE, "`off`, `session-only` or `on`"))?;
    let identity = &caller.identity;
    let memories = Memories::new(&service.host, vault, &identity.tenant, &identity.user, mode);
    match session(headers)? {
        Some(session) => Ok(memories.session(session)),
        None if mode == Mode::SessionOnly => Err(Problem::parameter(SESSION, "given with `session-only`")),
        None => Ok(memories),
    }
}

/// The member `memory` of a question to a model, as the headers of the call permit. `None` if they permit no memories.
#[cfg(feature = "prompts")]
pub(crate) async fn for_prompt(service: &Service, caller: &Caller, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
    // One that comes twice is refused below.
    let mut modes = headers.get_all(MODE).iter();
    if modes.next().is_none_or(|mode| mode == "off") && modes.next().is_none() {
        return Ok(None);
    }
    let memories = memories(service, caller, headers)?;
    memories.for_prompt(&Wanted::default()).await.map(Some).map_err(refused)
}

fn refused(error: MemoryError) -> Problem {
    match error {
        MemoryError::NoConsent { reason } => Problem::new(Code::NoConsent, reason),
        MemoryError::Invalid { reason } => Problem::new(Code::InvalidBody, reason),
        MemoryError::Failed(failure) => Problem::new(Code::MemoryRefused, format!("{}: {}", failure.code, failure.message)),
        MemoryError::Vault(VaultError::Erased) => Problem::not_found(),
        MemoryError::Vault(error @ VaultError::Envelope(EnvelopeError::TooLong)) => {
            Problem::new(Code::TooLarge, error.to_string())
        }
        MemoryError::Vault(error) if error.may_retry() => {
            tracing::warn!(%error, "the keys of memories cannot be had");
            Problem::new(Code::Unavailable, "the keys of memories cannot be had: try again later")
        }
        MemoryError::Vault(error) => {
            tracing::error!(%error, "a memory cannot be sealed or opened");
            Problem::new(Code::Internal, "the service's log says what happened; nothing was kept")
        }
        MemoryError::Host(error) => (*error).into(),
        MemoryError::Ledger(error) => error.into(),
        error => {
            tracing::error!(%error, "a call on memories failed");
            Problem::new(Code::Internal, "the service's log says what happened")
        }
    }
}

/// As [`refused`], where the kernel refuses what is not there.
fn absent(error: MemoryError) -> Problem {
    match error {
        MemoryError::Failed(failure) if failure.code == "memory_refused" => Problem::not_found(),
        error => refused(error),
    }
}

/// Records whether the caller permits what the header `X-LogLine-Memory` names: for the session, or for all.
#[utoipa::path(post, path = "/api/memory/consent", tag = "memory", params(crate::wire::memory::Headers), request_body = Consent, responses(
    (status = 200, description = "It is recorded", body = crate::wire::memory::Consent),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn consent(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    let headers = request.headers().clone();
    let asked: Consent = service.json(&caller, request).await?;
    let memories = memories(&service, &caller, &headers)?;
    match asked.decision.as_str() {
        "grant" => {
            let until = asked.until.as_ref().map(|text| text.parse()).transpose();
            memories.grant(until.map_err(|_| Problem::parameter("until", "an RFC 3339 time"))?).await.map_err(refused)?;
        }
        "revoke" => memories.revoke().await.map_err(refused)?,
        _ => return Err(Problem::parameter("decision", "`grant` or `revoke`")),
    }
    Ok(answer(StatusCode::OK, &json!({"decision": asked.decision, "until": asked.until})))
}

/// Remembers a text for the caller.
#[utoipa::path(post, path = "/api/memory", tag = "memory", params(crate::wire::memory::Headers), request_body = Remember, responses(
    (status = 201, description = "It is remembered", body = crate::wire::memory::Kept),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn remember(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    let headers = request.headers().clone();
    idempotency::none(&headers, "two calls keep two memories, unless both name the same `key`")?;
    let asked: Remember = service.json(&caller, request).await?;
    let memories = memories(&service, &caller, &headers)?;
    let named = |name: &str, error: String| Problem::parameter(name, &error);
    let kind = asked.r#type.as_deref().unwrap_or("note").parse::<Kind>().map_err(|error| named("type", error))?;
    let mut memory = Memory::new(kind, asked.text);
    if let Some(layer) = asked.layer {
        memory = memory.layer(layer.parse::<Layer>().map_err(|error| named("layer", error))?);
    } else if headers.get(MODE).is_some_and(|mode| mode == "session-only") {
        memory = memory.layer(Layer::Session);
    }
    if let Some(sensitivity) = header::<String>(&headers, SENSITIVITY, "`public`, `internal`, `secret` or `pii`, once")? {
        memory = memory.sensitivity(sensitivity.parse::<Sensitivity>().map_err(|error| named(SENSITIVITY, error))?);
    }
    for tag in asked.tags.unwrap_or_default() {
        memory = memory.tag(tag);
    }
    if let Some(key) = asked.key {
        memory = memory.key(key);
    }
    if let Some(data) = asked.data {
        memory = memory.data(data);
    }
    if let Some(until) = asked.ttl_at {
        memory = memory.ttl_at(until.parse().map_err(|_| Problem::parameter("ttl_at", "an RFC 3339 time"))?);
    }
    let kept = memories.remember(&memory).await.map_err(refused)?;
    let body = json!({"id": kept.id.to_string(), "seq": kept.seq, "superseded": kept.superseded});
    Ok(answer(StatusCode::CREATED, &body))
}

fn shown(memory: &Recalled) -> Value {
    let (terms, body) = (&memory.terms, &memory.body);
    json!({
        "id": memory.id.to_string(),
        "seq": memory.seq,
        "type": terms.kind.as_str(),
        "layer": terms.layer.as_str(),
        "sensitivity": terms.sensitivity.as_str(),
        "tags": terms.tags,
        "session": terms.session,
        "ttl_at": terms.ttl_at.map(|at| at.to_string()),
        "text": body.text,
        "data": body.data,
        "key": body.key,
    })
}

/// A memory of the caller, in the clear.
#[utoipa::path(get, path = "/api/memory/{id}", tag = "memory", params(crate::wire::memory::Headers, ("id" = uuid::Uuid, Path, description = "The memory")), responses(
    (status = 200, description = "The memory", body = crate::wire::memory::Memory),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn show(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let found = memories(&service, &caller, request.headers())?.get(id).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &shown(&found.ok_or_else(Problem::not_found)?)))
}

/// Searches the memories of the caller, and the public ones that the caller may read.
#[utoipa::path(get, path = "/api/memory/search", tag = "memory", params(
    crate::wire::memory::Headers,
    ("q" = String, Query, description = "What is looked for, 1 to 1000 characters", min_length = 1, max_length = 1000),
    ("limit" = Option<u32>, Query, description = "1 to 50, 10 if absent", minimum = 1, maximum = 50),
    ("type" = Option<String>, Query, description = "This type only", pattern = "^(note|fact|profile|preference|relationship|plan|action|other)$"),
    ("tag" = Option<String>, Query, description = "With this tag only", min_length = 1, max_length = 64),
), responses(
    (status = 200, description = "The memories, the best first, and the span that says why", body = crate::wire::memory::Found),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn search(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    // A search is recorded, with the consent that it cites.
    caller.identity.need(Permission::Write)?;
    let params = Params::read(request.uri().query(), &["q", "limit", "type", "tag"])?;
    let query = params.text("q").filter(|query| (1..=1000).contains(&query.chars().count()));
    let query = query.ok_or_else(|| Problem::parameter("q", "1 to 1000 characters"))?;
    let limit = params.parsed::<usize>("limit", "a whole number")?.unwrap_or(10);
    if !(1..=MAX_HITS).contains(&limit) {
        return Err(Problem::parameter("limit", "from 1 to 50"));
    }
    let mut wanted = Wanted::most(limit);
    if let Some(kind) = params.text("type") {
        wanted.kinds = BTreeSet::from([kind.parse::<Kind>().map_err(|error| Problem::parameter("type", &error))?]);
    }
    wanted.tags = params.text("tag").map(str::to_owned).into_iter().collect();
    let found = memories(&service, &caller, request.headers())?.search(query, &wanted).await.map_err(refused)?;
    let hit = |hit: &Hit| json!({"memory": shown(&hit.memory), "score": hit.score, "scope": hit.scope, "preview": hit.preview});
    let hits: Vec<_> = found.hits.iter().map(hit).collect();
    let body = json!({"result": found.result.to_string(), "hits": hits, "is_truncated": found.is_truncated});
    Ok(answer(StatusCode::OK, &body))
}

/// Asks that a temporary memory become a permanent one: a reviewer decides.
#[utoipa::path(post, path = "/api/memory/{id}/promote", tag = "memory", params(crate::wire::memory::Headers, ("id" = uuid::Uuid, Path, description = "The memory")), responses(
    (status = 202, description = "A reviewer is asked", body = crate::wire::memory::Asked),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn promote(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    memories(&service, &caller, request.headers())?.ask_for_review(id).await.map_err(absent)?;
    Ok(answer(StatusCode::ACCEPTED, &json!({"id": id.to_string(), "status": "needs_review"})))
}

/// Forgets every memory of a session of the caller, whatever the headers permit: the keys of their texts are destroyed.
#[utoipa::path(post, path = "/api/memory/session/{id}/forget", tag = "memory", params(("id" = String, Path, description = "The session", pattern = "^[!-~]{1,128}$")), responses(
    (status = 200, description = "They are forgotten", body = crate::wire::memory::Forgotten),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn forget(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    let expected = || Problem::parameter("id", "a session of 1 to 128 visible ASCII characters");
    let Path(session) = path.map_err(|_| expected())?;
    if session.is_empty() || session.len() > 128 || !session.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(expected());
    }
    let receipt = memories(&service, &caller, request.headers())?.forget(&What::Session(session)).await.map_err(absent)?;
    let body = json!({"receipt": receipt.id.to_string(), "memories": receipt.memories, "in_the_clear": receipt.in_the_clear});
    Ok(answer(StatusCode::OK, &body))
}

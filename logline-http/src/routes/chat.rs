//! Prompts: a question whose answer comes as it is made, and how an answer came about.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header as names};
use logline_core::contract::Reader;
use logline_core::contract::provider::Chunk;
use logline_core::ledger::LedgerExt as _;
use logline_core::{HostError, Scope, ids, request};
use logline_prompts::{ExplainError, PROMPT_RUN, VerifyBuildError, explain_with};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::idempotency;
use crate::identity::Permission;
use crate::params::header;
use crate::problem::{Code, Problem};
use crate::routes::{not_known, path_id};
use crate::service::{Caller, Service, answer, call_trace, caller};
use crate::slots::Slot;
use crate::wire::chat::Ask;

const SENSITIVITY: &str = "x-logline-sensitivity";

/// Asks a model by a prompt that is in the ledger. The answer comes as events: `delta` with a piece of the text, then one `done` with the
/// run, or one `error`. The pieces are not recorded, the run is. With a sensitivity that is not `public`, or with memories, nothing of it is
/// recorded in the clear.
#[utoipa::path(post, path = "/api/chat", tag = "prompts", params(crate::wire::chat::Headers), request_body = Ask, responses(
    (status = 200, description = "Events `delta`, then `done` or `error`", body = String, content_type = "text/event-stream"),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn chat(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Execute)?;
    not_known(&request)?;
    let streams = service.options.prompts.clone().ok_or_else(Problem::not_found)?;
    let (trace, headers) = (call_trace(request.extensions(), request.headers()), request.headers().clone());
    // Two calls would be two answers, each paid.
    idempotency::none(&headers, "an answer that comes in pieces is not repeated")?;
    let asked: Ask = service.json(&caller, request).await?;
    let slot = service.slot(caller.tenant())?;
    let prompt = prompt(&service, &caller, &asked.prompt).await?;
    let mut input = json!({"question": asked.question});
    for (name, value) in [("vars", asked.vars), ("context", asked.context), ("session", asked.session.map(Value::from))] {
        if let (Some(value), Some(members)) = (value, input.as_object_mut()) {
            members.insert(name.to_owned(), value);
        }
    }
    let identity = &caller.identity;
    let recalled = recalled(&service, &caller, &headers).await?;
    let is_confidential = recalled.is_some() || is_sensitive(&headers)?;
    if let (Some(recalled), Some(members)) = (recalled, input.as_object_mut()) {
        members.insert("memory".to_owned(), recalled);
    }
    let mut run = request::Request::new(&identity.tenant, &identity.user, prompt, input).this(PROMPT_RUN);
    if is_confidential {
        run = run.confidential();
        if let Err(HostError::Missing { .. }) = service.host.confidential(&identity.tenant, &identity.user).await {
            return Err(Problem::parameter(SENSITIVITY, "`public`: this service has no keys to encrypt with"));
        }
    }
    (run.trace_id, run.parent_span) = (Some(trace.id), trace.parent);
    // This host carries it out, so that the pieces come here. If a worker of another host is faster, the answer comes in one piece.
    let submitted = service.host.submit(run).await?;
    let pieces = streams.listen(&identity.tenant, submitted.id);
    let carried_out = carry_out(Arc::clone(&service), caller.clone(), submitted.id);
    // It is carried out whether the client stays or not, and takes its place for as long: whoever leaves and asks again waits for a place
    // like everybody.
    let slot = Arc::new(slot);
    let held = Arc::clone(&slot);
    let outcome = async move {
        let _held = held;
        carried_out.await
    };
    let outcome = tokio::spawn(outcome.instrument(tracing::Span::current()));
    let frames = Answering { pieces, outcome: Some(outcome), request: submitted.id, _slot: slot };
    let events = stream::unfold(frames, |mut frames| async move { frames.next().await.map(|frame| (frame, frames)) });
    let mut response = Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(names::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(names::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What may be asked with.
const PROMPTS: [&str; 2] = ["prompt_variant", "prompt_family"];

/// The id of a prompt that the caller may see, by its id or its name.
async fn prompt(service: &Service, caller: &Caller, text: &str) -> Result<Uuid, Problem> {
    let ids = match Uuid::try_parse(text) {
        Ok(id) => vec![id],
        Err(_) => PROMPTS.iter().map(|kind| ids::published(caller.tenant(), kind, text)).collect(),
    };
    for id in ids {
        let found = service.ledger().find(&caller.scope(), caller.tenant(), id).await?;
        if found.is_some_and(|found| PROMPTS.contains(&found.entity_type.as_str())) {
            return Ok(id);
        }
    }
    Err(Problem::new(Code::NotFound, "there is no prompt of this id or name that this token may see"))
}

/// Which memories the model may be told, as the headers of the call say it. `None`: none.
#[cfg(feature = "memory")]
async fn recalled(service: &Service, caller: &Caller, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
    crate::routes::memory::for_prompt(service, caller, headers).await
}

#[cfg(not(feature = "memory"))]
async fn recalled(_: &Service, _: &Caller, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
    match headers.get("x-logline-memory") {
        Some(mode) if mode != "off" => Err(Problem::parameter("x-logline-memory", "`off`: this service has no memories")),
        _ => Ok(None),
    }
}

/// Whether the call is to leave nothing in the clear.
fn is_sensitive(headers: &HeaderMap) -> Result<bool, Problem> {
    const EXPECTED: &str = "`public`, `internal`, `secret` or `pii`, once";
    match header::<String>(headers, SENSITIVITY, EXPECTED)?.as_deref() {
        None | Some("public") => Ok(false),
        Some("internal" | "secret" | "pii") => Ok(true),
        Some(_) => Err(Problem::parameter(SENSITIVITY, EXPECTED)),
    }
}

/// Carries out the request here, or waits for the worker that was faster.
async fn carry_out(service: Arc<Service>, caller: Caller, id: Uuid) -> Result<Value, Problem> {
    let _turn = service.chats.take(caller.tenant()).await;
    let done = match service.host.run_request(caller.tenant(), id).await {
        Err(error) if matches!(error, HostError::NotRunnable(_)) || error.is_conflict() => {
            service.host.outcome(caller.tenant(), id).await?
        }
        done => done?,
    };
    match done.result {
        Ok(output) => Ok(output),
        Err(failure) => {
            let detail = format!("{}: {}", failure.code, failure.message);
            Err(Problem::new(Code::RunFailed, detail))
        }
    }
}

/// How often a client hears that the answer is still being made.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// An answer that is being made.
struct Answering {
    pieces: mpsc::Receiver<Chunk>,
    outcome: Option<tokio::task::JoinHandle<Result<Value, Problem>>>,
    request: Uuid,
    _slot: Arc<Slot>,
}

impl Answering {
    async fn next(&mut self) -> Option<Bytes> {
        let outcome = loop {
            let Answering { pieces, outcome, .. } = self;
            let outcome = outcome.as_mut()?;
            // Pieces first: those that wait are delivered before the end. The end may come without them, such as from another host, or if
            // the model was never asked.
            let ended = tokio::select! {
                biased;
                piece = pieces.recv(), if !pieces.is_closed() || !pieces.is_empty() => match piece {
                    Some(Chunk::Text(text)) => return Some(event("delta", &json!({"text": text}))),
                    _ => continue,
                },
                ended = outcome => ended,
                () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(b": alive\n\n")),
            };
            self.outcome = None;
            break ended;
        };
        let request = self.request.to_string();
        Some(match outcome {
            Ok(Ok(output)) => {
                let of = |name: &str| output.get(name).cloned().unwrap_or_default();
                event(
                    "done",
                    &json!({"request": request, "run": of("run"), "answer": of("answer"), "contract": of("contract")}),
                )
            }
            Ok(Err(problem)) => {
                let mut body = problem.body();
                if let Some(members) = body.as_object_mut() {
                    members.insert("request".to_owned(), request.into());
                }
                event("error", &body)
            }
            Err(_) => event("error", &Problem::new(Code::Internal, "the call broke off").body()),
        })
    }
}

/// An event. JSON has no line ends, so nothing that a model says can begin another event.
fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// How an answer came about: prompt, blocks, context, and every try with its cost.
#[utoipa::path(get, path = "/api/prompts/runs/{id}/explain", tag = "prompts", params(("id" = Uuid, Path, description = "The run, which `done` names")), responses(
    (status = 200, description = "What the ledger says, after it was verified", body = crate::wire::chat::Explained),
    crate::refusals::Refused,
))]
pub(crate) async fn explained(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let run = service.ledger().get(&caller.read_scope(), caller.tenant(), id).await?;
    if run.entity_type != "prompt_run" {
        return Err(Problem::not_found());
    }
    // Prompt and blocks belong to the run, which the caller may see.
    let reader = Reader::new(&**service.ledger(), Scope::runtime(caller.tenant()));
    let trusted = service.host.trusted();
    // What was said in confidence is told to nobody but who has said it.
    let key = match run.owner_id == caller.identity.user {
        true => match service.host.confidential(caller.tenant(), &run.owner_id).await {
            Ok(key) => Some(key),
            Err(HostError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        false => None,
    };
    let explaining = explain_with(&reader, &trusted.authorities, caller.tenant(), id, key.as_ref());
    let explained = service.in_turn(caller.tenant(), explaining).await?;
    let explained = explained.map_err(|error| match error {
        ExplainError::Ledger(error) => error.into(),
        ExplainError::Build(VerifyBuildError::Confidential { .. }) => {
            Problem::new(Code::NotPermitted, "it was said in confidence: its owner alone may read it")
        }
        error => Problem::new(Code::NotVerified, error.to_string()),
    })?;
    Ok(answer(StatusCode::OK, &serde_json::to_value(explained).unwrap_or_default()))
}

//! Spans: lists, single rows, versions, and appending.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::{AppendOptions, AppendReceipt, Ledger as _, LedgerError, Outcome, Query};
use logline_core::{
    Draft, HostError, ParsedSpan, VerifiedSpan, Verifier, canonical, ids, json as strict, parse_draft, parse_line, request,
};
use serde_json::{Value, json};

use crate::idempotency::{Answer, Keyed, key, once};
use crate::identity::Permission;
use crate::params::Params;
use crate::problem::{Code, Problem, ProblemBody};
use crate::routes::{not_known, path_id};
use crate::rows;
use crate::service::{Caller, Service, Trace, answer, caller, json_bytes, media_type, trace};

/// The last versions of spans.
#[utoipa::path(get, path = "/api/spans", tag = "spans", params(
    crate::wire::Filters,
    crate::wire::OfType,
    crate::wire::Paging,
), responses(
    (status = 200, description = "A page of spans", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::new()).await
}

/// The bytes that a row may have on average, if a page is long. Pages of fewer rows are written at once.
pub(crate) const ROW: usize = 4 << 10;

/// One page of what `query` begins with.
pub(crate) async fn rows_of(service: &Service, request: Request, query: Query) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    let scope = caller.read_scope();
    let params = Params::read(request.uri().query(), &[&rows::FILTERS[..], &rows::PAGING[..]].concat())?;
    let (fixed, fixed_status) = (query.entity_type.clone(), query.status.clone());
    let mut query = rows::filter(query, &params, &caller.identity)?;
    if let Some(fixed) = fixed {
        // A list of one type answers a filter of another with nothing.
        if query.entity_type.as_ref().is_some_and(|asked| *asked != fixed) {
            return Err(Problem::parameter("type", "left out here"));
        }
        query.entity_type = Some(fixed);
    }
    if let Some(status) = fixed_status {
        if query.status.as_ref().is_some_and(|asked| *asked != status) {
            return Err(Problem::parameter("status", "left out here"));
        }
        query.status = Some(status);
    }
    let (query, cursor) = rows::paging(query, &params, &scope, &service.options.key, service.options.max_page)?;
    let query = query.max_visited(service.options.max_visited);
    let page = service.reading(caller.tenant(), service.ledger().scan(&scope, &query, cursor.as_ref())).await?;
    let (key, size) = (service.options.key.clone(), page.rows.len() * ROW);
    service.work(caller.tenant(), size, move || rows::page(&key, &scope, page)).await
}

/// The last version of a span.
#[utoipa::path(get, path = "/api/spans/{id}", tag = "spans", params(("id" = uuid::Uuid, Path, description = "The span")), responses(
    (status = 200, description = "The row, as canonical JSON with its seal", body = crate::wire::Span),
    crate::refusals::Refused,
))]
pub(crate) async fn show(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let span = service.ledger().get(&caller.read_scope(), caller.tenant(), id).await?;
    Ok(json_bytes(StatusCode::OK, span.to_line()))
}

/// The versions of a span, oldest first, with tombstones.
#[utoipa::path(get, path = "/api/spans/{id}/versions", tag = "spans", params(
    ("id" = uuid::Uuid, Path, description = "The span"),
    ("from_seq" = Option<u32>, Query, description = "Begin with this version"),
    ("limit" = Option<u32>, Query, description = "1 to 500, 50 if absent", minimum = 1, maximum = 500),
), responses(
    (status = 200, description = "A page of versions", body = crate::wire::VersionPage),
    crate::refusals::Refused,
))]
pub(crate) async fn versions(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    let params = Params::read(request.uri().query(), &["from_seq", "limit"])?;
    let from = params.parsed::<u32>("from_seq", "a whole number")?.unwrap_or(0);
    let most = service.options.max_page;
    let limit = params.parsed::<usize>("limit", "a whole number")?.unwrap_or(50);
    if limit == 0 || limit > most {
        return Err(Problem::parameter("limit", &format!("from 1 to {most}")));
    }
    let limit = limit.min(service.ledger().capability().max_page);
    let (scope, tenant) = (caller.read_scope(), caller.tenant());
    let found = service.reading(tenant, service.ledger().history(&scope, tenant, id, from, limit)).await?;
    let Some(last) = found.last() else { return Err(Problem::not_found()) };
    // Fewer than were asked for may be all, or as many as fit.
    let next = match last.seq.checked_add(1) {
        Some(next) if !service.ledger().history(&scope, tenant, id, next, 1).await?.is_empty() => Some(next),
        _ => None,
    };
    let mut body = format!("{{\"next_seq\":{},\"spans\":", next.map_or(Value::Null, Value::from)).into_bytes();
    rows::write_list(&mut body, &found);
    body.push(b'}');
    Ok(json_bytes(StatusCode::OK, body))
}

/// Appends spans: those that the caller has sealed are verified, drafts are sealed by the host.
#[utoipa::path(post, path = "/api/spans", tag = "spans", params(
    ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the call; `X-Idempotency-Key` is the same", pattern = "^[!#-~]{1,255}$"),
), request_body(description = "One span, `{\"spans\": [...]}`, or one span on each line", content(
    (crate::wire::NewSpans = "application/json"), (String = "application/x-ndjson"),
)), responses(
    (status = 201, description = "What was appended", body = crate::wire::Receipts),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn append(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    let (parts, body) = request.into_parts();
    let key = key(&parts.headers, service.options.require_idempotency_key)?;
    let lines = media_type(&parts.headers) == "application/x-ndjson";
    if !lines && media_type(&parts.headers) != "application/json" {
        return Err(Problem::new(Code::UnsupportedType, "send application/json or application/x-ndjson"));
    }
    let received = service.body(caller.tenant(), &parts.headers, body).await?;
    let size = received.bytes.len();
    let most = service.options.max_batch.min(service.ledger().capability().max_batch);
    let digests = key.is_some().then(|| service.options.key.clone());
    let parse = move || {
        let items = if lines { items_of_lines(&received.bytes)? } else { items_of_json(&received.bytes)? };
        if items.is_empty() || items.len() > most {
            return Err(Problem::new(Code::InvalidBody, format!("it has {} spans: send 1 to {most}", items.len())));
        }
        let digest = digests.map(|key| key.digest(&canonical::to_vec(&Value::from(items.clone()))));
        Ok((items, digest))
    };
    let (items, digest) = service.work(caller.tenant(), size, parse).await??;
    for item in &items {
        let named = |column: &str| item.get(column).and_then(Value::as_str);
        caller.identity.check_named(named("tenant_id"), named("owner_id"))?;
    }
    let keyed = key.clone().zip(digest).map(|(key, body)| Keyed { key, method: "POST", path: "/api/spans", body });
    let work = write(Arc::clone(&service), caller.clone(), Items { items, size }, key, trace(&parts.headers));
    let done = once(&service, &caller, keyed, work).await?;
    Ok(finished(done))
}

/// An answer that was given once or again.
pub(crate) fn finished(done: Answer) -> Response {
    let mut response = answer(done.status, &done.body);
    if done.is_repeated {
        if done.status.is_client_error() {
            let problem = http::HeaderValue::from_static(crate::problem::PROBLEM_JSON);
            response.headers_mut().insert(http::header::CONTENT_TYPE, problem);
            response.extensions_mut().insert(ProblemBody(done.body));
        }
        response.headers_mut().insert("idempotency-replayed", http::HeaderValue::from_static("true"));
    }
    response
}

fn invalid_json(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::InvalidBody, format!("it is not JSON as the ledger takes it: {error}"))
}

fn items_of_json(bytes: &[u8]) -> Result<Vec<Value>, Problem> {
    let value = strict::parse(bytes).map_err(|error| invalid_json(&error))?;
    match value {
        Value::Object(mut members) if members.len() == 1 && members.contains_key("spans") => match members.remove("spans") {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(Problem::new(Code::InvalidBody, "`spans` must be an array")),
        },
        value @ Value::Object(_) => Ok(vec![value]),
        _ => Err(Problem::new(Code::InvalidBody, "it must be a span, or an object with `spans`")),
    }
}

fn items_of_lines(bytes: &[u8]) -> Result<Vec<Value>, Problem> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| strict::parse(line).map_err(|error| invalid_json(&error))).collect()
}

/// What a call has brought, and the bytes of its text.
struct Items {
    items: Vec<Value>,
    size: usize,
}

/// Appends `items`, all of them or none.
async fn write(
    service: Arc<Service>,
    caller: Caller,
    Items { items, size }: Items,
    key: Option<String>,
    trace: Option<Trace>,
) -> Result<Answer, Problem> {
    let is_sealed = |item: &Value| item.get("signature").is_some_and(|signature| !signature.is_null());
    let sealed = items.iter().filter(|item| is_sealed(item)).count();
    let receipts = if sealed == 0 {
        seal(&service, &caller, Items { items, size }, key, trace).await?
    } else if sealed == items.len() {
        admit(&service, &caller, Items { items, size }).await?
    } else {
        let detail = "some of its spans are sealed and some are not: send them in two calls";
        return Err(Problem::new(Code::InvalidBody, detail));
    };
    let by = if sealed == 0 { "host" } else { "caller" };
    Ok(Answer::new(StatusCode::CREATED, json!({"sealed_by": by, "spans": receipts})))
}

fn invalid(index: usize, error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::InvalidSpan, format!("span {index}: {error}"))
}

/// What became of each span.
fn outcomes(receipts: &[AppendReceipt]) -> Vec<Value> {
    let outcome = |receipt: &AppendReceipt| match receipt.outcome {
        Outcome::Appended => "appended",
        _ => "existing",
    };
    let row = |of: &AppendReceipt| json!({"id": of.key.id.to_string(), "seq": of.key.seq, "curr_hash": of.curr_hash.to_string(), "outcome": outcome(of)});
    receipts.iter().map(row).collect()
}

/// Appends one span that the caller has sealed.
pub(crate) async fn admit_one(service: &Service, caller: &Caller, item: Value) -> Result<(), Problem> {
    admit(service, caller, Items { items: vec![item], size: 0 }).await.map(drop)
}

async fn admit(service: &Service, caller: &Caller, Items { items, size }: Items) -> Result<Vec<Value>, Problem> {
    let rules = *service.host.rules();
    let verify = move || {
        let mut verifier = Verifier::new();
        let mut spans: Vec<VerifiedSpan> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match parse_line(&canonical::to_vec(item), &rules).map_err(|error| invalid(index, &error))? {
                ParsedSpan::Signed(span) => spans.push(span.verify(&mut verifier).map_err(|error| invalid(index, &error))?),
                _ => return Err(invalid(index, &"it has a signature, but no seal")),
            }
        }
        Ok(spans)
    };
    let spans = service.work(caller.tenant(), size, verify).await??;
    for (index, span) in spans.iter().enumerate() {
        // It is a request whoever has sealed it.
        if span.entity_type == "request" {
            caller.identity.need(Permission::Execute)?;
            if !service.options.kinds.contains(span.this.as_str()) {
                return Err(Problem::new(Code::NotPermitted, "this service takes no requests of this kind"));
            }
        }
        if span.meta(SEALED_BY).is_some() {
            return Err(invalid(index, &"`metadata.sealed_by` is set by hosts for what they seal: leave it out"));
        }
    }
    match service.host.admit(&caller.scope(), spans).await {
        Ok(receipts) => Ok(outcomes(&receipts)),
        Err(error) => Err(refused_append(service, caller, error).await),
    }
}

/// The member of metadata that says for whom a host has sealed a span.
const SEALED_BY: &str = "sealed_by";

/// Columns of a draft that the host sets.
const SET_BY_HOST: [&str; 4] = ["who", "at", "seq", "curr_hash"];

async fn seal(
    service: &Service,
    caller: &Caller,
    Items { items, size }: Items,
    key: Option<String>,
    trace: Option<Trace>,
) -> Result<Vec<Value>, Problem> {
    let options = if key.is_some() { AppendOptions::keep() } else { AppendOptions::default() };
    let of = caller.clone();
    let parse = move || {
        let mut drafts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            if let Some(column) = SET_BY_HOST.iter().find(|column| item.get(**column).is_some_and(|value| !value.is_null())) {
                return Err(invalid(
                    index,
                    &format!("`{column}` of a draft is set by the host: leave it out, or seal the span"),
                ));
            }
            let draft = parse_draft(item).map_err(|error| invalid(index, &error))?;
            drafts.push(draft_for(&of, draft, index, key.as_deref(), trace.as_ref()));
        }
        Ok(drafts)
    };
    let drafts = service.work(caller.tenant(), size, parse).await??;
    match service.host.seal_for(&caller.scope(), drafts, &options).await {
        Ok(receipts) => Ok(outcomes(&receipts)),
        Err(error) => Err(refused_append(service, caller, error).await),
    }
}

/// Why spans were not appended. The ledger compares a span with the stored versions of its id, also with those that the caller may not
/// see: then the answer is the same as for an id that has no versions, and names nothing of them.
async fn refused_append(service: &Service, caller: &Caller, error: HostError) -> Problem {
    let of_id = match error.ledger_error() {
        Some(LedgerError::Conflict(conflict)) => Some(conflict.key().clone()),
        Some(LedgerError::ChangedIdentity { key, .. } | LedgerError::KeepMismatch { key }) => Some(key.clone()),
        _ => None,
    };
    let Some(key) = of_id else { return error.into() };
    match service.ledger().history(&caller.read_scope(), caller.tenant(), key.id, 0, 1).await {
        Ok(seen) if !seen.is_empty() => error.into(),
        Ok(_) => Problem::new(
            Code::Conflict,
            format!(
                "span {} does not begin or continue anything that this token may see: read it again, or take a new id",
                key.id
            ),
        ),
        Err(error) => error.into(),
    }
}

/// A draft in the name of the caller. With an idempotency key its id follows from the key, so that even a host that repeats the call
/// after another was lost writes the same spans.
fn draft_for(caller: &Caller, draft: Draft, index: usize, key: Option<&str>, trace: Option<&Trace>) -> Draft {
    let identity = &caller.identity;
    let by = json!({"by": "host", "for": identity.user, "credential": identity.credential});
    let mut draft = draft
        .tenant(&identity.tenant)
        .owner(&identity.user)
        .who(format!("user:{}", identity.user))
        .without_meta(logline_core::request::CAUSE)
        .meta(SEALED_BY, by);
    // A repeated call may have another trace, and must make the same draft.
    if let Some(trace) = trace.filter(|_| draft.columns().trace_id.is_none() && key.is_none()) {
        draft = draft.meta(request::PARENT_SPAN, trace.parent.as_str());
        draft.columns_mut().trace_id = Some(trace.id.clone());
    }
    let columns = draft.columns_mut();
    if columns.this.is_empty() {
        columns.this = columns.entity_type.clone();
    }
    let Some(key) = key else { return draft };
    if draft.has_id() {
        return draft.deterministic();
    }
    // No key has a space, so that the second span of one is not the first of another.
    let key = if index == 0 { key.to_owned() } else { format!("{key} {index}") };
    let id = ids::idempotent(&identity.tenant, &identity.user, &draft.columns().entity_type, &key);
    draft.meta("idempotency_key", key).id(id).deterministic()
}

//! Requests: submitting, looking, waiting, cancelling and reviving.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, WorkQueue as _};
use logline_core::request::{self, State as RequestState};
use logline_core::{SignedSpan, Timestamp, Visibility, canonical, ids, json as strict};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::idempotency::{Answer, Keyed, key, once};
use crate::identity::Permission;
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::routes::spans::{finished, rows_of};
use crate::routes::{not_known, path_id};
use crate::rows;
use crate::service::{CallTrace, Caller, Service, answer, call_trace, caller, media_type, preferred_wait};
use crate::tail::has_ended;
use crate::wire::Execute;

/// Submits a request. With `Prefer: wait=N` the answer comes when it has ended, or after N seconds.
#[utoipa::path(post, path = "/api/execute", tag = "requests", params(
    ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the call; `X-Idempotency-Key` is the same", pattern = "^[!#-~]{1,255}$"),
    ("Prefer" = Option<String>, Header, description = "`wait=N`: waits up to N seconds for its end"),
), request_body = crate::wire::Execute, responses(
    (status = 200, description = "It has ended", body = crate::wire::RequestBody),
    (status = 202, description = "It was submitted and has not ended", body = crate::wire::RequestBody),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn execute(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Execute)?;
    not_known(&request)?;
    let (parts, body) = request.into_parts();
    let key = key(&parts.headers, service.options.require_idempotency_key)?;
    if media_type(&parts.headers) != "application/json" {
        return Err(Problem::new(Code::UnsupportedType, "send application/json"));
    }
    let received = service.body(caller.tenant(), &parts.headers, body).await?;
    let (size, digests) = (received.bytes.len(), key.is_some().then(|| service.options.key.clone()));
    let parse = move || {
        let invalid = |error: &dyn std::fmt::Display| Problem::new(Code::InvalidBody, error.to_string());
        let value = strict::parse(&received.bytes).map_err(|error| invalid(&error))?;
        let digest = digests.map(|key| key.digest(&canonical::to_vec(&value)));
        let asked: Execute = serde_json::from_value(value).map_err(|error| invalid(&error))?;
        Ok::<_, Problem>((asked, digest))
    };
    let (asked, digest) = service.work(caller.tenant(), size, parse).await??;
    let keyed = key.clone().zip(digest).map(|(key, body)| Keyed { key, method: "POST", path: "/api/execute", body });
    caller.identity.check_named(asked.tenant_id.as_deref(), asked.owner_id.as_deref())?;
    let work = submit(Arc::clone(&service), caller.clone(), asked, key, call_trace(&parts.extensions, &parts.headers));
    let done = once(&service, &caller, keyed, work).await?;
    let id = done.body.get("request").and_then(Value::as_str).and_then(|id| id.parse::<Uuid>().ok());
    // A refusal that is repeated.
    let Some(id) = id else { return Ok(finished(done)) };
    // It is submitted. Whatever keeps this call from waiting must not look as if it were not, or the client would submit it again.
    let mut response = match after(&service, &caller, id, wait_of(&service, &parts.headers), true).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(code = problem.code().as_str(), request = %id, "a call does not wait");
            after(&service, &caller, id, None, true).await?
        }
    };
    if done.is_repeated {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// How long a call is to wait, within the limit.
fn wait_of(service: &Service, headers: &HeaderMap) -> Option<Duration> {
    preferred_wait(headers).map(|seconds| Duration::from_secs(seconds).min(service.options.max_wait))
}

/// The state of a request, after a wait if there is one. `is_new`: it has probably not ended yet.
async fn after(
    service: &Service,
    caller: &Caller,
    id: Uuid,
    wait: Option<Duration>,
    is_new: bool,
) -> Result<Response, Problem> {
    let found = match wait.filter(|wait| !wait.is_zero()) {
        None => find(service, caller, id).await?,
        Some(wait) => {
            let _slot = service.slot(caller.tenant())?;
            ended(service, caller, id, wait, is_new).await?
        }
    };
    let status = if has_ended(&found) { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = answer(status, &body(service, caller, &found).await?);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/requests/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if let Some(wait) = wait {
        let applied = HeaderValue::from_str(&format!("wait={}", wait.as_secs()));
        applied.map(|applied| response.headers_mut().insert("preference-applied", applied)).ok();
    }
    Ok(response)
}

/// A request when it has ended, or when the time is over.
async fn ended(service: &Service, caller: &Caller, id: Uuid, wait: Duration, is_new: bool) -> Result<SignedSpan, Problem> {
    let (until, tenant) = (Instant::now() + wait, caller.tenant());
    if !is_new {
        let found = find(service, caller, id).await?;
        if has_ended(&found) {
            return Ok(found);
        }
    }
    // From before the next look, so that no end is missed.
    let mut ending = service.tails.ending(tenant, id).await?;
    loop {
        // A revival may have followed an end, which counts only if it is still the last version.
        let found = find(service, caller, id).await?;
        if has_ended(&found) {
            return Ok(found);
        }
        let is_over = tokio::select! {
            () = service.options.drain.wait() => true,
            ended = tokio::time::timeout_at(until, ending.wait()) => ended.is_err(),
        };
        if is_over {
            return find(service, caller, id).await;
        }
    }
}

/// The last version of a request that the caller may see.
async fn find(service: &Service, caller: &Caller, id: Uuid) -> Result<SignedSpan, Problem> {
    let scope = caller.read_scope();
    let found = service.ledger().get(&scope, caller.tenant(), id).await?;
    if found.entity_type != "request" {
        return Err(Problem::not_found());
    }
    // Whoever can write to the store must not end a request by a version that nobody may have signed.
    Ok(service.host.trusted().last_that_counts(service.ledger(), &scope, found).await?)
}

async fn submit(
    service: Arc<Service>,
    caller: Caller,
    asked: Execute,
    key: Option<String>,
    trace: CallTrace,
) -> Result<Answer, Problem> {
    let identity = &caller.identity;
    let function = function(&service, &caller, &asked.function).await?;
    let kind = asked.this.as_deref().unwrap_or(request::FUNCTION_RUN);
    // The host signs the request, so a kind that only hosts may ask for must not be asked for here.
    if !service.options.kinds.contains(kind) {
        return Err(Problem::new(Code::NotPermitted, "this service takes no requests of this kind"));
    }
    let time = |name: &str, text: &Option<String>| -> Result<Option<Timestamp>, Problem> {
        let parse = |text: &String| text.parse().map_err(|_| Problem::parameter(name, "an RFC 3339 time"));
        text.as_ref().map(parse).transpose()
    };
    let mut request = request::Request::new(&identity.tenant, &identity.user, function, asked.input.clone()).this(kind);
    request.terms.due_at = time("due_at", &asked.due_at)?;
    request.terms.deadline = time("deadline", &asked.deadline)?;
    request.terms.backoff = asked.backoff_ms.map(|pause| Duration::from_millis(pause).min(request::MAX_BACKOFF));
    if let Some(attempts) = asked.max_attempts {
        if !(1..=request::MAX_ATTEMPTS).contains(&attempts) {
            return Err(Problem::parameter("max_attempts", "from 1 to 1000"));
        }
        request.terms.max_attempts = Some(attempts);
    }
    if let Some(priority) = asked.priority {
        let members = service.host.trusted().manifest.throttle.member_max_priority;
        let most = members.unwrap_or(request::MAX_PRIORITY).min(request::MAX_PRIORITY);
        if priority > most {
            return Err(Problem::parameter("priority", &format!("from 0 to {most}")));
        }
        request.terms.priority = Some(priority);
    }
    if let Some(visibility) = &asked.visibility {
        let parsed = visibility.parse::<Visibility>();
        request.visibility = parsed.map_err(|()| Problem::parameter("visibility", "`private`, `tenant` or `public`"))?;
    }
    (request.trace_id, request.parent_span) = (Some(trace.id), trace.parent);
    request.idempotency_key = key;
    let submitted = service.host.submit(request).await?;
    Ok(Answer::new(StatusCode::ACCEPTED, json!({"request": submitted.id.to_string()})))
}

/// The id of a function that the caller may see, by its id or its name.
async fn function(service: &Service, caller: &Caller, text: &str) -> Result<Uuid, Problem> {
    let id = text.parse().unwrap_or_else(|_| ids::derive("function", &[caller.tenant(), text]));
    let seen = (caller.tenant().to_owned(), caller.identity.user.clone(), id);
    if service.functions.was_true(&seen) {
        return Ok(id);
    }
    let now = std::time::Instant::now();
    let found = service.ledger().find(&caller.scope(), caller.tenant(), id).await?;
    match found {
        Some(span) if span.entity_type == "function" => {
            service.functions.is_true(seen, now);
            Ok(id)
        }
        _ => Err(Problem::new(Code::NotFound, "there is no function of this id or name that this token may see")),
    }
}

/// A request with its last execution and why it waits.
async fn body(service: &Service, caller: &Caller, last: &SignedSpan) -> Result<Value, Problem> {
    let (ledger, scope, tenant) = (service.ledger(), caller.read_scope(), caller.tenant());
    let state = RequestState::of(last).ok();
    let execution = match state.as_ref().and_then(|state| state.execution) {
        Some(id) => ledger.history(&scope, tenant, id, 0, 1).await?.into_iter().next(),
        None => None,
    };
    let waiting = if has_ended(last) { None } else { ledger.waiting(tenant, last.id).await? };
    let waiting = waiting.map(|waiting| {
        json!({"due": waiting.due.map(|due| due.to_string()), "is_leased": waiting.is_leased, "parked": waiting.parked})
    });
    Ok(json!({
        "id": last.id.to_string(),
        "status": last.status,
        "attempts": state.map(|state| state.attempts),
        "output": execution.as_ref().and_then(|execution| execution.output.clone()),
        "error": execution.as_ref().and_then(|execution| execution.error.clone()),
        "waiting": waiting,
        "request": rows::value(last),
        "execution": execution.as_ref().map(rows::value),
    }))
}

/// The last versions of requests.
#[utoipa::path(get, path = "/api/requests", tag = "requests", params(
    crate::wire::Filters,
    crate::wire::Paging,
), responses(
    (status = 200, description = "A page of requests", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::new().entity_type("request")).await
}

/// A request, its last execution, and why it waits.
#[utoipa::path(get, path = "/api/requests/{id}", tag = "requests", params(("id" = uuid::Uuid, Path, description = "The request")), responses(
    (status = 200, description = "It has ended", body = crate::wire::RequestBody),
    (status = 202, description = "It has not ended", body = crate::wire::RequestBody),
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
    after(&service, &caller, id, None, false).await
}

/// Waits for the end of a request.
#[utoipa::path(get, path = "/api/requests/{id}/wait", tag = "requests", params(
    ("id" = uuid::Uuid, Path, description = "The request"),
    ("seconds" = Option<u64>, Query, description = "How long; at most and by default what the service allows"),
), responses(
    (status = 200, description = "It has ended", body = crate::wire::RequestBody),
    (status = 202, description = "It has not ended in this time", body = crate::wire::RequestBody),
    crate::refusals::Refused,
))]
pub(crate) async fn wait(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    let params = Params::read(request.uri().query(), &["seconds"])?;
    let most = service.options.max_wait;
    let wait = params.parsed("seconds", "a whole number")?.map_or(most, Duration::from_secs).min(most);
    after(&service, &caller, id, Some(wait), false).await
}

/// Cancels a request that has not ended.
#[utoipa::path(post, path = "/api/requests/{id}/cancel", tag = "requests", params(("id" = uuid::Uuid, Path, description = "The request")), responses(
    (status = 200, description = "It is cancelled", body = crate::wire::RequestBody),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn cancel(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let change = may_change(&service, path, request).await?;
    let changed = service.host.cancel(change.caller.tenant(), change.id, &change.who).await?;
    changed_to(&service, &change.caller, &changed).await
}

/// Schedules a request again that is dead, cancelled or ended in error.
#[utoipa::path(post, path = "/api/requests/{id}/revive", tag = "requests", params(("id" = uuid::Uuid, Path, description = "The request")), responses(
    (status = 200, description = "It has ended again already", body = crate::wire::RequestBody),
    (status = 202, description = "It is scheduled", body = crate::wire::RequestBody),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn revive(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let change = may_change(&service, path, request).await?;
    let changed = service.host.revive(change.caller.tenant(), change.id, &change.who).await?;
    changed_to(&service, &change.caller, &changed).await
}

/// What became of a request. Who may change it without seeing it is told its status alone.
async fn changed_to(service: &Service, caller: &Caller, changed: &SignedSpan) -> Result<Response, Problem> {
    match after(service, caller, changed.id, None, false).await {
        Err(problem) if problem.code() == Code::NotFound => {
            let status = if has_ended(changed) { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok(answer(status, &json!({"id": changed.id.to_string(), "status": changed.status})))
        }
        answered => answered,
    }
}

/// Who changes which request.
struct Change {
    caller: Caller,
    id: Uuid,
    /// Who is recorded as the one who asked for it.
    who: String,
}

/// Refuses a caller who may not change the request.
async fn may_change(service: &Service, path: Result<Path<String>, PathRejection>, request: Request) -> Result<Change, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    not_known(&request)?;
    caller.identity.need(Permission::Manage)?;
    let found = service.ledger().get(&caller.scope(), caller.tenant(), id).await;
    let of_tenant = caller.identity.permissions.contains(&Permission::ManageTenant);
    let found = match found {
        Err(error) if error.is_not_found() && of_tenant => {
            service.ledger().get(&logline_core::Scope::runtime(caller.tenant()), caller.tenant(), id).await?
        }
        found => found?,
    };
    if found.entity_type != "request" {
        return Err(Problem::not_found());
    }
    if found.owner_id != caller.identity.user && !of_tenant {
        return Err(Problem::new(Code::NotPermitted, "only its owner may change it"));
    }
    let who = format!("user:{}", caller.identity.user);
    Ok(Change { caller, id, who })
}

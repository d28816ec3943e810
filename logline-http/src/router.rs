//! The router: routes and the layers around them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use logline_core::Host;
use serde_json::Value;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::identity::Identity;
use crate::openapi;
use crate::options::Options;
use crate::peers;
use crate::problem::{Code, Problem, ProblemBody};
#[cfg(feature = "prompts")]
use crate::routes::chat;
#[cfg(feature = "policies")]
use crate::routes::dry_run;
#[cfg(feature = "log")]
use crate::routes::logs;
#[cfg(feature = "memory")]
use crate::routes::memory;
use crate::routes::{
    executions, governed, health, identity, keys, metrics as metric_routes, proofs, proposals, requests, spans, timeline, trust,
};
use crate::service::{CallTrace, Caller, Service, token};

const REQUEST_ID: &str = "x-request-id";

/// The routes of `docs/http.md` over a host, to be merged into any axum application. Tokens are checked by `auth`.
///
/// The host's key must be a runtime key of the tenants that call. Requests are carried out by whoever runs workers: this router only
/// submits them.
pub fn router(host: Host, auth: impl Authenticator, options: Options) -> Router {
    let has_metrics = options.metrics.is_some();
    let service = Arc::new(Service::new(host, Arc::new(auth), options));
    let api = Router::new()
        .route("/api/spans", get(spans::list).post(spans::append))
        .route("/api/spans/{id}", get(spans::show))
        .route("/api/spans/{id}/versions", get(spans::versions))
        .route("/api/timeline", get(timeline::list))
        .route("/api/timeline/stream", get(timeline::stream))
        .route("/api/execute", post(requests::execute))
        .route("/api/executions", get(executions::list))
        .route("/api/requests", get(requests::list))
        .route("/api/requests/{id}", get(requests::show))
        .route("/api/requests/{id}/wait", get(requests::wait))
        .route("/api/requests/{id}/cancel", post(requests::cancel))
        .route("/api/requests/{id}/revive", post(requests::revive))
        .route("/api/metrics", get(metric_routes::list))
        .route("/api/spans/{id}/proof", get(proofs::proof))
        .route("/api/proposals/{id}", get(proposals::show))
        .route("/api/identity", get(identity::show))
        .route("/api/trust", get(trust::trust))
        .route("/api/schedules", get(governed::schedules))
        .route("/api/policies", get(governed::policies))
        .route("/api/proposals", get(proposals::waiting))
        .route("/api/approvals", post(proposals::approve));
    let api = optional(api, &service).route_layer(from_fn_with_state(Arc::clone(&service), authenticate));
    let mut open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(openapi::document));
    if has_metrics {
        open = open.route("/metrics", get(metric_routes::prometheus));
    }
    #[cfg(feature = "page")]
    {
        open = open.merge(crate::page::routes());
    }
    // A stream that is compressed waits in the compressor.
    let compressed = DefaultPredicate::new()
        .and(NotForContentType::const_new("text/event-stream"))
        .and(NotForContentType::const_new("application/x-ndjson"))
        .and(has_no_tag);
    api.merge(open)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "the header `Allow` lists the methods of this path")
        })
        .layer(from_fn_with_state(Arc::clone(&service), within_time))
        .layer(from_fn(name_problem))
        .layer(CompressionLayer::new().gzip(true).compress_when(compressed))
        .layer(from_fn(observe))
        .with_state(service)
}

/// A strong `ETag` is that of the bytes as they are, so they are sent as they are.
fn has_no_tag(_: StatusCode, _: http::Version, headers: &HeaderMap, _: &http::Extensions) -> bool {
    !headers.contains_key(header::ETAG)
}

/// Finds out who calls, and counts the call.
async fn authenticate(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let token = match token(request.headers()) {
        Ok(token) => token,
        Err(problem) => return problem.into_response(),
    };
    let address = peers::address(&request, service.options.client_header.as_ref());
    let identity = match identify(&service, address, &token).await {
        Ok(identity) => identity,
        Err(problem) => return problem.into_response(),
    };
    let left = match service.rates.take(&identity) {
        Ok(left) => left,
        Err((problem, left)) => {
            let mut response = problem.into_response();
            left.write(response.headers_mut());
            return response;
        }
    };
    request.extensions_mut().insert(Caller { identity, token: Arc::new(token) });
    let mut response = next.run(request).await;
    left.write(response.headers_mut());
    response
}

/// The routes of what the host has chosen to offer.
fn optional(mut api: Router<Arc<Service>>, service: &Service) -> Router<Arc<Service>> {
    if service.options.keys.is_some() {
        api = api
            .route("/api/keys", get(keys::list).post(keys::issue))
            .route("/api/keys/{id}/rotate", post(keys::rotate))
            .route("/api/keys/{id}/revoke", post(keys::revoke));
    }
    #[cfg(feature = "policies")]
    {
        api = api.route("/api/policies/{id}/dry-run", post(dry_run::dry_run));
    }
    #[cfg(feature = "memory")]
    if service.options.vault.is_some() {
        api = api
            .route("/api/memory", post(memory::remember))
            .route("/api/memory/consent", post(memory::consent))
            .route("/api/memory/search", get(memory::search))
            .route("/api/memory/{id}", get(memory::show))
            .route("/api/memory/{id}/promote", post(memory::promote))
            .route("/api/memory/session/{id}/forget", post(memory::forget));
    }
    #[cfg(feature = "prompts")]
    if service.options.prompts.is_some() {
        api = api.route("/api/chat", post(chat::chat)).route("/api/prompts/runs/{id}/explain", get(chat::explained));
    }
    #[cfg(feature = "log")]
    if service.options.logs.is_some() {
        api = api.route("/api/log/checkpoint", get(logs::checkpoint));
    }
    api
}

/// Whose token it is. An address that has sent many wrong ones waits, unless this one was accepted lately.
async fn identify(service: &Service, address: Option<IpAddr>, token: &str) -> Result<Identity, Problem> {
    let (peers, digest) = (&service.peers, service.options.key.token(token));
    // Many calls may come at once with a token that is not known yet: one of them has it checked, and the others wait for what comes of it.
    let turn = match peers.knows(&digest) {
        true => None,
        false => service.checks.take(&blake3::Hash::from_bytes(digest).to_hex()).await,
    };
    let _turn = turn.filter(|_| !peers.knows(&digest));
    let counted = address.filter(|_| !peers.knows(&digest));
    if let Some(address) = counted
        && let Err(pause) = peers.take(address)
    {
        metrics::counter!("logline_http_rate_limited_total", "limit" => "refused").increment(1);
        let problem =
            Problem::new(Code::RateLimited, "too many tokens from this address were refused: wait, and check the token");
        return Err(problem.retry_after(pause));
    }
    let identified = service.identify(token).await;
    match &identified {
        Ok(_) => peers.accept(digest),
        Err(problem) if problem.code() == Code::InvalidToken => {
            peers.forget(&digest);
            return identified;
        }
        Err(_) => {}
    }
    if let Some(address) = counted {
        peers.give_back(address);
    }
    identified
}

/// Ends calls that take too long. A stream has begun by then, and goes on.
async fn within_time(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let most = service.options.call_timeout + service.options.max_wait;
    match tokio::time::timeout(most, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Code::Timeout, "it was given up: a write may have been carried out").into_response(),
    }
}

/// The id of a call.
#[derive(Clone)]
struct CallId(String);

/// Puts the id of the call into the body of a problem, before the body is compressed.
async fn name_problem(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<CallId>().cloned();
    let mut response = next.run(request).await;
    if let Some(ProblemBody(mut body)) = response.extensions_mut().remove::<ProblemBody>() {
        if let (Value::Object(members), Some(CallId(id))) = (&mut body, id) {
            members.insert("request_id".to_owned(), id.into());
        }
        *response.body_mut() = Body::from(body.to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Gives each call an id, logs and counts it, and completes its answer.
async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    request.extensions_mut().insert(CallId(id.clone()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| route_name(path.as_str()));
    // An unknown method would be a label of the client's choice.
    let method = if matches!(method.as_str(), "GET" | "POST" | "HEAD") { method.as_str() } else { "other" };
    let trace = CallTrace::of(request.headers());
    // Whoever exports traces names the span by the conventions for HTTP servers.
    let span = tracing::info_span!(
        "http",
        "otel.name" = format!("{method} {route}"),
        "otel.kind" = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        request_id = %id,
        trace_id = trace.id,
        parent_span = trace.parent,
    );
    request.extensions_mut().insert(trace);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), "answered"));
    metrics::counter!("logline_http_requests_total", "method" => method.to_owned(), "route" => route, "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!("logline_http_request_seconds", "route" => route).record(began.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The name of a route in metrics: one of those that exist.
fn route_name(path: &str) -> &'static str {
    const ROUTES: [&str; 40] = [
        "/",
        "/page/{*file}",
        "/api/spans",
        "/api/spans/{id}",
        "/api/spans/{id}/versions",
        "/api/timeline",
        "/api/timeline/stream",
        "/api/execute",
        "/api/executions",
        "/api/requests",
        "/api/requests/{id}",
        "/api/requests/{id}/wait",
        "/api/requests/{id}/cancel",
        "/api/requests/{id}/revive",
        "/api/metrics",
        "/api/spans/{id}/proof",
        "/api/identity",
        "/api/trust",
        "/api/schedules",
        "/api/policies",
        "/api/policies/{id}/dry-run",
        "/api/proposals",
        "/api/proposals/{id}",
        "/api/approvals",
        "/api/keys",
        "/api/keys/{id}/rotate",
        "/api/keys/{id}/revoke",
        "/api/memory",
        "/api/memory/{id}",
        "/api/memory/consent",
        "/api/memory/search",
        "/api/memory/{id}/promote",
        "/api/memory/session/{id}/forget",
        "/api/chat",
        "/api/prompts/runs/{id}/explain",
        "/api/log/checkpoint",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/metrics",
    ];
    // An application may have nested the router below a path of its own.
    ROUTES.iter().rev().find(|route| path.ends_with(**route)).copied().unwrap_or("other")
}

/// The id that the client or a proxy has given, if it is plain, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(is_plain).map_or_else(new_id, str::to_owned)
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    // An id that repeats confuses a reader of logs, nothing else.
    getrandom::fill(&mut bytes).ok();
    Uuid::from_bytes(bytes).simple().to_string()
}

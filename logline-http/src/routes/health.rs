//! Whether the process is alive, and whether it should be sent calls.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::WorkQueue as _;
use serde_json::json;

use crate::problem::{Code, Problem};
use crate::service::{Service, answer};

/// How long the ledger may take to say the time.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "The process is alive")))]
pub(crate) async fn healthz() -> Response {
    answer(StatusCode::OK, &json!({"status": "alive"}))
}

/// The service can answer: the ledger is there, and no shutdown has begun.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "The service can answer"),
    (status = 503, description = "The ledger is away, or the service shuts down", body = crate::wire::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn readyz(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    if service.options.drain.has_begun() {
        return Err(Problem::new(Code::Draining, "send no more calls to this instance"));
    }
    match tokio::time::timeout(PATIENCE, service.ledger().now()).await {
        Ok(now) => now.map_err(Problem::from)?,
        Err(_) => return Err(Problem::new(Code::Unavailable, "the ledger does not answer in time")),
    };
    Ok(answer(StatusCode::OK, &json!({"status": "ready"})))
}

//! Whether the process is alive, and whether it should be sent calls.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::problem::{Code, Problem};
use crate::service::{Service, answer};

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "The process is alive")))]
pub(crate) async fn healthz() -> Response {
    answer(StatusCode::OK, &json!({"status": "alive"}))
}

/// The service can answer: a row of the ledger was read within the last second, and no shutdown has begun.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "The service can answer"),
    (status = 503, description = "The ledger is away, or the service shuts down", body = crate::wire::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn readyz(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    if service.options.drain.has_begun() {
        return Err(Problem::new(Code::Draining, "send no more calls to this instance"));
    }
    service.readiness.of(&**service.ledger()).await?;
    Ok(answer(StatusCode::OK, &json!({"status": "ready"})))
}

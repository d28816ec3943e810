//! Metrics: those of the process for Prometheus, and the spans of type `metric`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, header};
use logline_core::ledger::Query;

use crate::problem::Problem;
use crate::routes::spans::rows_of;
use crate::service::Service;

/// The spans of type `metric`.
#[utoipa::path(get, path = "/api/metrics", tag = "metrics", params(
    crate::wire::Filters,
    crate::wire::Paging,
), responses(
    (status = 200, description = "A page of metrics", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::new().entity_type("metric")).await
}

/// The metrics of the process, for Prometheus. Mounted only if the host has an exporter.
pub(crate) async fn prometheus(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let render = service.options.metrics.as_ref().ok_or_else(Problem::not_found)?;
    service.queue.refresh(&service.host).await;
    #[allow(clippy::cast_precision_loss, reason = "a gauge of a few thousand")]
    metrics::gauge!("logline_http_tails").set(service.tails.count() as f64);
    let mut response = Response::new(Body::from(render()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

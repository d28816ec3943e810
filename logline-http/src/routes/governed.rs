//! What runs by itself: schedules and policies.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use logline_core::ledger::Query;

use crate::problem::Problem;
use crate::routes::spans::rows_of;
use crate::service::Service;

/// The functions that run by themselves.
#[utoipa::path(get, path = "/api/schedules", tag = "governance", params(crate::wire::ScheduleFilters, crate::wire::Paging), responses(
    (status = 200, description = "A page of functions with status `scheduled`", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn schedules(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::new().entity_type("function").status("scheduled")).await
}

/// The policies, whatever their status.
#[utoipa::path(get, path = "/api/policies", tag = "governance", params(crate::wire::Filters, crate::wire::Paging), responses(
    (status = 200, description = "A page of policies", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn policies(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::new().entity_type("policy")).await
}

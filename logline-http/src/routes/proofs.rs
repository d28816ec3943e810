//! Proofs of inclusion: that a version is in a transparency log, for whoever verifies it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::SignedSpan;
use logline_core::ledger::Ledger as _;
use serde_json::{Value, json};

use crate::identity::Permission;
use crate::params::Params;
use crate::problem::Problem;
#[cfg(feature = "log")]
use crate::routes::logs;
use crate::routes::path_id;
use crate::service::{Service, answer, caller};

/// The proof that a version is in a transparency log, for the caller to verify. Without a proof the answer says why there is none.
#[utoipa::path(get, path = "/api/spans/{id}/proof", tag = "spans", params(
    ("id" = uuid::Uuid, Path, description = "The span"),
    ("seq" = Option<u32>, Query, description = "The version; the first if absent"),
), responses(
    (status = 200, description = "The proof, or why there is none", body = crate::wire::ProofBody),
    crate::refusals::Refused,
))]
pub(crate) async fn proof(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, id) = (caller(&request)?, path_id(path)?);
    caller.identity.need(Permission::Read)?;
    let params = Params::read(request.uri().query(), &["seq"])?;
    let seq = params.parsed::<u32>("seq", "a whole number")?;
    let found = service.ledger().history(&caller.read_scope(), caller.tenant(), id, seq.unwrap_or(0), 1).await?;
    let row = found.into_iter().next().filter(|row| seq.is_none_or(|seq| row.seq == seq)).ok_or_else(Problem::not_found)?;
    prove(&service, row).await
}

#[cfg(feature = "log")]
async fn prove(service: &Service, row: SignedSpan) -> Result<Response, Problem> {
    let Some(folders) = &service.options.logs else { return Ok(none(NO_LOG)) };
    Ok(match logs::prove_row(service, folders, row).await? {
        Ok(found) => answer(StatusCode::OK, &json!({"proof": found.proof, "log_key": found.log_key, "reason": Value::Null})),
        Err(reason) => none(&reason),
    })
}

#[cfg(not(feature = "log"))]
async fn prove(_: &Service, _: SignedSpan) -> Result<Response, Problem> {
    Ok(none(NO_LOG))
}

const NO_LOG: &str = "this service has no transparency log";

fn none(reason: &str) -> Response {
    answer(StatusCode::OK, &json!({"proof": Value::Null, "log_key": Value::Null, "reason": reason}))
}

//! Proofs of inclusion: that a version is in a transparency log, for whoever verifies it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::Ledger as _;
use serde_json::{Value, json};

use crate::identity::Permission;
use crate::params::Params;
use crate::problem::{Code, Problem};
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
    let Some(prove) = service.options.prove.clone() else { return from_folders(&service, row).await };
    let proving = async { Ok(tokio::task::spawn_blocking(move || prove(&row)).await) };
    match service.reading(caller.tenant(), proving).await? {
        Ok(Ok(inclusion)) => {
            let body = json!({"proof": inclusion.proof, "log_key": inclusion.log_key, "reason": Value::Null});
            Ok(answer(StatusCode::OK, &body))
        }
        Ok(Err(reason)) => Ok(none(&reason)),
        Err(error) => {
            tracing::error!(%error, "a proof was not made");
            Err(Problem::new(Code::Internal, "the service's log says what happened"))
        }
    }
}

/// The proof from the folders of the service's logs, if it has any. It does not know their keys.
#[cfg(feature = "log")]
async fn from_folders(service: &Service, row: logline_core::SignedSpan) -> Result<Response, Problem> {
    let Some(folders) = &service.options.logs else { return Ok(none(NO_LOG)) };
    Ok(match crate::routes::logs::proof(service, folders, row).await? {
        Ok(proof) => answer(StatusCode::OK, &json!({"proof": proof, "log_key": Value::Null, "reason": Value::Null})),
        Err(reason) => none(&reason),
    })
}

#[cfg(not(feature = "log"))]
async fn from_folders(_: &Service, _: logline_core::SignedSpan) -> Result<Response, Problem> {
    Ok(none(NO_LOG))
}

const NO_LOG: &str = "this service has no transparency log";

fn none(reason: &str) -> Response {
    answer(StatusCode::OK, &json!({"proof": Value::Null, "log_key": Value::Null, "reason": reason}))
}

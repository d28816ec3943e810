//! Proposals: what is proposed, what is in force instead, and how the votes stand.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::{Ledger as _, WorkQueue as _};
use logline_core::trust::governance::{Counted, ReadError, Version};
use logline_core::{Scope, SignedSpan};
use serde_json::{Value, json};

use crate::identity::Permission;
use crate::problem::Problem;
use crate::routes::{not_known, path_id};
use crate::rows;
use crate::service::{Service, answer, caller};

/// A proposal with the version that is proposed, the version in force, and the count of its votes, as a host counts them.
#[utoipa::path(get, path = "/api/proposals/{id}", tag = "governance", params(("id" = uuid::Uuid, Path, description = "The proposal")), responses(
    (status = 200, description = "The proposal and its votes", body = crate::wire::ProposalBody),
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
    let (ledger, scope, tenant) = (service.ledger(), caller.read_scope(), caller.tenant());
    let row = ledger.get(&scope, tenant, id).await?;
    if row.entity_type != "proposal" {
        return Err(Problem::not_found());
    }
    let now = ledger.now().await?;
    let trusted = service.host.trusted();
    let docket = service.reading(tenant, async { Ok(trusted.docket(ledger.as_ref(), tenant, id, now).await) }).await?;
    let docket = match docket {
        Ok(docket) => docket,
        Err(ReadError::Ledger(error)) => return Err(error.into()),
        Err(ReadError::NoProposal { .. }) => return Err(Problem::not_found()),
        // It stands in the ledger, and no host will carry it out.
        Err(error) => return Ok(answer(StatusCode::OK, &not_counted(&row, &error))),
    };
    let replaced = match docket.pointer.in_force(now) {
        Some(held) => version(&service, &scope, tenant, &held.subject).await?,
        None => None,
    };
    let counted = |votes: &[Counted]| -> Vec<Value> {
        votes.iter().map(|vote| json!({"id": vote.id.to_string(), "key": vote.key.to_string()})).collect()
    };
    let tally = &docket.tally;
    let void: Vec<Value> = (tally.void.iter())
        .map(|void| json!({"id": void.id.to_string(), "key": void.key.to_string(), "reason": void.reason.to_string()}))
        .collect();
    // Once it is carried out, what counted then is what counts: another version is in force now than the voters have seen.
    let carried = docket.carried();
    let approvals = carried.map_or(&tally.counted, |held| &held.approvals);
    let void = if carried.is_some() { Vec::new() } else { void };
    let refusal = tally.verdict.as_ref().err().filter(|_| carried.is_none());
    Ok(answer(
        StatusCode::OK,
        &json!({
            "id": id.to_string(),
            "proposal": rows::value(&row),
            // Who may see a proposal may not be one who may see its subject.
            "subject": scope.may_read(&docket.subject, None).then(|| rows::value(&docket.subject)),
            "in_force": replaced.as_ref().map(rows::value),
            "needed": tally.needed,
            "counted": counted(approvals),
            "rejected": counted(&tally.rejected),
            "void": void,
            "refusal": refusal.map(|refusal| json!({"code": refusal.code(), "reason": refusal.to_string()})),
            "carried_out": carried.map(|held| held.at.to_string()),
        }),
    ))
}

/// A proposal that does not count.
fn not_counted(row: &SignedSpan, error: &ReadError) -> Value {
    json!({
        "id": row.id.to_string(),
        "proposal": rows::value(row),
        "subject": null,
        "in_force": null,
        "needed": 0,
        "counted": [],
        "rejected": [],
        "void": [],
        "refusal": {"code": "proposal_invalid", "reason": error.to_string()},
        "carried_out": null,
    })
}

/// A version that the caller may see.
async fn version(service: &Service, scope: &Scope, tenant: &str, named: &Version) -> Result<Option<SignedSpan>, Problem> {
    let found = service.ledger().history(scope, tenant, named.id, named.seq, 1).await?;
    Ok(found.into_iter().find(|row| row.seal.curr_hash == named.curr_hash))
}

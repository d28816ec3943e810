//! Proposals: what is proposed, what is in force instead, and how the votes stand.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::{Ledger as _, Order, Query, WorkQueue as _};
use logline_core::trust::governance::{Counted, ReadError, Version};
use logline_core::{Scope, SignedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::Permission;
use crate::problem::{Code, Problem};
use crate::routes::spans::admit_one;
use crate::routes::{not_known, path_id};
use crate::rows;
use crate::service::{Caller, Service, answer, caller};

/// The most proposals that are looked at for the list of those that wait.
const MOST: usize = 50;

/// A proposal with the version that is proposed, the version in force, and the count of its votes, as a host counts them.
#[utoipa::path(get, path = "/api/proposals/{id}", tag = "governance", params(("id" = Uuid, Path, description = "The proposal")), responses(
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
    let row = service.ledger().get(&caller.read_scope(), caller.tenant(), id).await?;
    if row.entity_type != "proposal" {
        return Err(Problem::not_found());
    }
    Ok(answer(StatusCode::OK, &standing(&service, &caller, &row).await?))
}

/// The newest proposals that wait: for votes, for a gate, or to be carried out.
#[utoipa::path(get, path = "/api/proposals", tag = "governance", responses(
    (status = 200, description = "Those of the newest 50 proposals that are neither carried out nor ended", body = crate::wire::ProposalList),
    crate::refusals::Refused,
))]
pub(crate) async fn waiting(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let query = Query::new().tenant(caller.tenant()).entity_type("proposal").order(Order::Newest).limit(MOST);
    let query = query.max_visited(service.options.max_visited);
    let page = service.reading(caller.tenant(), service.ledger().scan(&caller.read_scope(), &query, None)).await?;
    let (mut proposals, mut damaged) = (Vec::new(), Vec::new());
    for row in page.rows {
        let row = match row.span {
            Ok(row) => row,
            Err(row) => {
                damaged.push(rows::damage(&row));
                continue;
            }
        };
        let shown = standing(&service, &caller, &row).await?;
        let refusal = shown.pointer("/refusal/code").and_then(Value::as_str);
        let waits = matches!(refusal, None | Some("not_approved" | "gate_not_passed"));
        if waits && shown.get("carried_out").is_some_and(Value::is_null) {
            proposals.push(shown);
        }
    }
    Ok(answer(StatusCode::OK, &json!({"proposals": proposals, "damaged": damaged})))
}

/// A proposal as it stands now, as a caller may see it.
pub(crate) async fn standing(service: &Service, caller: &Caller, row: &SignedSpan) -> Result<Value, Problem> {
    let (ledger, scope, tenant, id) = (service.ledger(), caller.read_scope(), caller.tenant(), row.id);
    let now = ledger.now().await?;
    let trusted = service.host.trusted();
    let docket = service.reading(tenant, async { Ok(trusted.docket(ledger.as_ref(), tenant, id, now).await) }).await?;
    let docket = match docket {
        Ok(docket) => docket,
        Err(ReadError::Ledger(error)) => return Err(error.into()),
        Err(ReadError::NoProposal { .. }) => return Err(Problem::not_found()),
        // It stands in the ledger, and no host will carry it out.
        Err(error) => return Ok(not_counted(row, &error)),
    };
    let replaced = match docket.pointer.in_force(now) {
        Some(held) => version(service, &scope, tenant, &held.subject).await?,
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
    Ok(json!({
        "id": id.to_string(),
        "proposal": rows::value(row),
        // Who may see a proposal may not be one who may see its subject.
        "subject": scope.may_read(&docket.subject, None).then(|| rows::value(&docket.subject)),
        "in_force": replaced.as_ref().map(rows::value),
        "needed": tally.needed,
        "counted": counted(approvals),
        "rejected": counted(&tally.rejected),
        "void": void,
        "refusal": refusal.map(|refusal| json!({"code": refusal.code(), "reason": refusal.to_string()})),
        "carried_out": carried.map(|held| held.at.to_string()),
    }))
}

/// Records an approval or a rejection that the approver has sealed. The service cannot make one.
#[utoipa::path(post, path = "/api/approvals", tag = "governance", request_body = crate::wire::Span, responses(
    (status = 201, description = "It is recorded; the proposal as it stands with it", body = crate::wire::ProposalBody),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn approve(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Write)?;
    not_known(&request)?;
    let span = service.value(&caller, request).await?;
    let named = |column: &str| span.get(column).and_then(Value::as_str);
    caller.identity.check_named(named("tenant_id"), named("owner_id"))?;
    if !matches!(named("entity_type"), Some("approval" | "rejection")) {
        return Err(Problem::new(Code::InvalidBody, "send one sealed span of type `approval` or `rejection`"));
    }
    let proposal = named("parent_id").and_then(|id| id.parse().ok());
    let proposal: Uuid = proposal.ok_or_else(|| Problem::new(Code::InvalidBody, "`parent_id` must be the proposal"))?;
    let row = service.ledger().get(&caller.read_scope(), caller.tenant(), proposal).await?;
    admit_one(&service, &caller, span).await?;
    Ok(answer(StatusCode::CREATED, &standing(&service, &caller, &row).await?))
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

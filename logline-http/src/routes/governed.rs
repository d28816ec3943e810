//! What is in force and what waits for a decision: schedules, policies, proposals and approvals.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::{Order, Query};
use logline_core::trust::governance::{Docket, ReadError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::Permission;
use crate::problem::{Code, Problem};
use crate::routes::spans::{admit_one, rows_of};
use crate::routes::{not_known, path_id};
use crate::service::{Caller, Service, answer, caller};

/// The most proposals that are looked at for the list of those that wait.
const MOST: usize = 50;

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

/// The newest proposals that wait for approvals, with what they have.
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
    let mut proposals = Vec::new();
    for row in page.rows.into_iter().filter_map(|row| row.span.ok()) {
        // A proposal that cannot be counted is not one that waits.
        let Some(docket) = docket(&service, &caller, row.id).await? else { continue };
        let shown = shown(&docket);
        if shown.get("state").and_then(Value::as_str) == Some("waiting") {
            proposals.push(shown);
        }
    }
    Ok(answer(StatusCode::OK, &json!({"proposals": proposals})))
}

/// Records an approval or a rejection that the approver has sealed. The service cannot make one.
#[utoipa::path(post, path = "/api/approvals", tag = "governance", request_body = crate::wire::Span, responses(
    (status = 201, description = "It is recorded; the proposal as it stands with it", body = crate::wire::ProposalState),
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
    service.ledger().get(&caller.read_scope(), caller.tenant(), proposal).await?;
    admit_one(&service, &caller, span).await?;
    let docket = docket(&service, &caller, proposal).await?.ok_or_else(Problem::not_found)?;
    Ok(answer(StatusCode::CREATED, &shown(&docket)))
}

/// A proposal with everything that it depends on; `None` if it is none that counts.
async fn docket(service: &Service, caller: &Caller, id: Uuid) -> Result<Option<Docket>, Problem> {
    let now = service.ledger().now().await?;
    match service.host.trusted().docket(&**service.ledger(), caller.tenant(), id, now).await {
        Ok(docket) => Ok(Some(docket)),
        Err(ReadError::Ledger(error)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "a proposal does not count");
            Ok(None)
        }
    }
}

fn shown(docket: &Docket) -> Value {
    let proposed = &docket.proposed;
    let state = match (&docket.tally.verdict, docket.carried()) {
        (_, Some(_)) => "carried_out",
        (Ok(()), None) => "approved",
        (Err(refusal), None) if ["not_approved", "gate_not_passed"].contains(&refusal.code()) => "waiting",
        (Err(_), None) => "refused",
    };
    let votes = |votes: &[logline_core::trust::governance::Counted]| {
        votes.iter().map(|vote| json!({"id": vote.id.to_string(), "key": vote.key.to_string()})).collect::<Vec<_>>()
    };
    let void = docket.tally.void.iter();
    let void: Vec<_> = void
        .map(|vote| json!({"id": vote.id.to_string(), "key": vote.key.to_string(), "reason": vote.reason.to_string()}))
        .collect();
    json!({
        "id": proposed.id.to_string(),
        "state": state,
        "refusal": docket.tally.verdict.as_ref().err().map(|refusal| json!({"code": refusal.code(), "reason": refusal.to_string()})),
        "proposal": proposed.proposal.to_value(),
        "needed": docket.tally.needed,
        "approvals": votes(&docket.tally.counted),
        "rejections": votes(&docket.tally.rejected),
        "void": void,
    })
}

/// What a policy would have decided about the newest spans of the tenant. Nothing is written.
#[cfg(feature = "policies")]
#[utoipa::path(post, path = "/api/policies/{id}/dry-run", tag = "governance", params(
    ("id" = Uuid, Path, description = "The policy, whatever its status"),
    ("spans" = Option<u32>, Query, description = "How many of the newest spans to look at: 1 to 10000, 1000 if absent", minimum = 1, maximum = 10000),
), responses(
    (status = 200, description = "What it would have done, oldest first", body = crate::wire::DryRun),
    crate::refusals::Refused,
))]
pub(crate) async fn dry_run(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    use logline_policy::{Decision, DryRunOptions};

    use crate::params::Params;

    let (caller, id) = (caller(&request)?, path_id(path)?);
    // A policy sees every row of its tenant.
    caller.identity.need(Permission::ReadTenant)?;
    let params = Params::read(request.uri().query(), &["spans"])?;
    let spans = params.parsed::<usize>("spans", "a whole number")?.unwrap_or(1000);
    if !(1..=10_000).contains(&spans) {
        return Err(Problem::parameter("spans", "from 1 to 10000"));
    }
    let policy = service.ledger().get(&caller.read_scope(), caller.tenant(), id).await?;
    if policy.entity_type != "policy" {
        return Err(Problem::not_found());
    }
    let options = DryRunOptions::default().spans(spans);
    let ran = service.in_turn(caller.tenant(), logline_policy::dry_run(&service.host, &policy, &options)).await?;
    let foreseen: Vec<_> = ran?
        .into_iter()
        .map(|one| {
            let (decision, error) = match one.decision {
                Ok(Decision::Act(actions)) => (json!({"actions": actions.len(), "detail": format!("{actions:?}")}), None),
                Ok(Decision::Later(at)) => (json!({"again_at": at.to_string()}), None),
                Ok(_) => (Value::Null, None),
                Err(failure) => (Value::Null, Some(json!({"code": failure.code, "message": failure.message}))),
            };
            json!({"id": one.span.id.to_string(), "seq": one.span.seq, "at": one.at.to_string(), "decision": decision, "error": error})
        })
        .collect();
    Ok(answer(StatusCode::OK, &json!({"foreseen": foreseen})))
}

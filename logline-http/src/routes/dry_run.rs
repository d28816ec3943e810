//! What a policy would have done. Nothing is written.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_policy::{Action, Decision, DryRunOptions};
use serde_json::{Value, json};

use crate::identity::Permission;
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::path_id;
use crate::service::{Service, answer, caller};

/// What a policy would have decided about the newest spans of the tenant. Nothing is written.
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
                Ok(Decision::Act(actions)) => {
                    (json!({"actions": actions.iter().map(Action::to_value).collect::<Vec<_>>()}), None)
                }
                Ok(Decision::Later(at)) => (json!({"again_at": at.to_string()}), None),
                Ok(_) => (Value::Null, None),
                Err(failure) => (Value::Null, Some(json!({"code": failure.code, "message": failure.message}))),
            };
            json!({"id": one.span.id.to_string(), "seq": one.span.seq, "at": one.at.to_string(), "decision": decision, "error": error})
        })
        .collect();
    Ok(answer(StatusCode::OK, &json!({"foreseen": foreseen})))
}

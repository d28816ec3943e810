//! Who may sign what: the facts from which a client checks the role of a signer by itself.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::{Ledger as _, Query};
use logline_core::roles::{ENTITY_TYPES, RESERVED_PREFIX, Role, Signed};
use logline_core::trust::Delegation;
use logline_core::{SYSTEM_TENANT, Scope};
use serde_json::{Value, json};

use crate::identity::Permission;
use crate::problem::Problem;
use crate::routes::not_known;
use crate::rows;
use crate::service::{Service, answer, caller};

/// The most delegations in one answer: the newest.
const MAX_DELEGATIONS: usize = 200;

/// The manifest that the service obeys, as its signed row; the delegations to hosts of the token's tenant; and which roles may sign which
/// type. Delegations name other tenants too, so of those only key and interval are told.
#[utoipa::path(get, path = "/api/trust", tag = "identity", responses(
    (status = 200, description = "What decides who may sign", body = crate::wire::TrustBody),
    crate::refusals::Refused,
))]
pub(crate) async fn trust(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let trusted = service.host.trusted();
    let tenant = caller.tenant();
    let query = Query::new().tenant(SYSTEM_TENANT).entity_type("delegation").limit(MAX_DELEGATIONS);
    let scope = Scope::runtime(SYSTEM_TENANT);
    let page = service.reading(tenant, service.ledger().scan(&scope, &query, None)).await?;
    let delegations: Vec<Value> = page
        .rows
        .into_iter()
        .filter_map(|row| Delegation::from_span(&row.span.ok()?.span))
        .filter(|delegation| delegation.covers(tenant, delegation.not_before))
        // Whether its signer could give it, and no end has taken it back, is the host's to say: the rows are not for tenants.
        .filter(|delegation| trusted.authorities.has(&delegation.key, Role::Runtime, tenant, delegation.not_before))
        .map(|delegation| {
            json!({
                "key": delegation.key.to_string(),
                "not_before": delegation.not_before.to_string(),
                "expires": delegation.expires.to_string(),
            })
        })
        .collect();
    let roles = |signed: Signed, is_first| signed.roles(is_first).iter().map(|role| role.as_str()).collect::<Vec<_>>();
    let of_type = |signed| json!({"first": roles(signed, true), "later": roles(signed, false)});
    let types: serde_json::Map<String, Value> =
        ENTITY_TYPES.iter().map(|row| (row.name.to_owned(), of_type(row.signed))).collect();
    Ok(answer(
        StatusCode::OK,
        &json!({
            "ledger": trusted.ledger.to_string(),
            "environment": trusted.environment.as_str(),
            "manifest": rows::value(&trusted.span),
            "delegations": delegations,
            "has_all_delegations": page.next.is_none(),
            "types": types,
            "other_types": of_type(Signed::Anyone),
            "reserved_prefix": RESERVED_PREFIX,
        }),
    ))
}

//! Who calls: what the service takes a token for.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::identity::Permission;
use crate::problem::Problem;
use crate::routes::not_known;
use crate::service::{answer, caller};

/// Whom the token stands for, and what it permits. It never has the token itself.
#[utoipa::path(get, path = "/api/identity", tag = "identity", responses(
    (status = 200, description = "Tenant, user and permissions of the token", body = crate::wire::IdentityBody),
    crate::refusals::Refused,
))]
pub(crate) async fn show(request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    not_known(&request)?;
    let identity = &caller.identity;
    let permissions: Vec<&str> = identity.permissions.iter().copied().map(Permission::as_str).collect();
    Ok(answer(
        StatusCode::OK,
        &json!({
            "tenant": identity.tenant,
            "user": identity.user,
            "permissions": permissions,
            "expires": identity.expires.map(|end| end.to_string()),
        }),
    ))
}

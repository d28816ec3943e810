//! The routes.

#[cfg(feature = "prompts")]
pub(crate) mod chat;
#[cfg(feature = "policies")]
pub(crate) mod dry_run;
pub(crate) mod executions;
pub(crate) mod governed;
pub(crate) mod health;
pub(crate) mod identity;
pub(crate) mod keys;
#[cfg(feature = "log")]
pub(crate) mod logs;
#[cfg(feature = "memory")]
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod proofs;
pub(crate) mod proposals;
pub(crate) mod requests;
pub(crate) mod spans;
pub(crate) mod timeline;
pub(crate) mod trust;

use axum::extract::Path;
use axum::extract::Request;
use axum::extract::rejection::PathRejection;
use uuid::Uuid;

use crate::params::Params;
use crate::problem::Problem;
use crate::service::id;

/// The id in a path.
pub(crate) fn path_id(path: Result<Path<String>, PathRejection>) -> Result<Uuid, Problem> {
    let Path(text) = path.map_err(|_| Problem::parameter("id", "a UUID"))?;
    id(&text)
}

/// Refuses every parameter of the query, except that a caller may name the token's own tenant and owner.
pub(crate) fn not_known(request: &Request) -> Result<(), Problem> {
    let params = Params::read(request.uri().query(), &["tenant_id", "owner_id"])?;
    crate::service::caller(request)?.identity.check_named(params.text("tenant_id"), params.text("owner_id"))
}

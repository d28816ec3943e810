//! API keys: issuing, rotating and revoking. Mounted if the host says that it accepts them ([`Options::keys`](crate::Options::keys)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use logline_core::ledger::Query;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{ApiKeys, IssuedKey, KeyError, NewKey};
use crate::idempotency;
use crate::identity::Permission;
use crate::problem::{Code, Problem};
use crate::routes::spans::rows_of;
use crate::routes::{not_known, path_id};
use crate::service::{Caller, Service, answer, caller};
use crate::wire::{AskedKey, Rotation};

/// The longest life of a key, and the longest overlap of two secrets.
const MAX_DAYS: u32 = 365;
const MAX_OVERLAP: u64 = 7 * 24 * 60 * 60;

fn keys(service: &Service) -> Result<&ApiKeys, Problem> {
    service.options.keys.as_ref().ok_or_else(Problem::not_found)
}

fn refused(error: KeyError) -> Problem {
    match error {
        KeyError::Name { .. } => Problem::new(Code::InvalidBody, error.to_string()),
        KeyError::NoKey { .. } => Problem::not_found(),
        KeyError::TooManySecrets { .. } => Problem::new(Code::WrongState, error.to_string()),
        KeyError::Host(error) => error.into(),
        KeyError::Ledger(error) => error.into(),
        KeyError::Random(_) => Problem::new(Code::Unavailable, "the machine gives no random bytes: try again"),
    }
}

/// Why a call that makes a token cannot be repeated: no token is kept.
const SHOWN_ONCE: &str = "a token is shown once; after a lost answer, revoke the key and issue another";

fn issued(status: StatusCode, key: &IssuedKey) -> Response {
    answer(status, &json!({"id": key.id.to_string(), "seq": key.span.seq, "token": *key.token}))
}

/// The API keys that the caller may see, as spans: without their secrets.
#[utoipa::path(get, path = "/api/keys", tag = "keys", params(crate::wire::Filters, crate::wire::Paging), responses(
    (status = 200, description = "A page of keys", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    keys(&service)?;
    rows_of(&service, request, Query::new().entity_type("api_key")).await
}

/// Issues a key. It permits nothing that the caller's token does not. A key that was issued with another key ends no later than that one,
/// unless that has `tenant:manage`. The secret is in the answer and nowhere else.
#[utoipa::path(post, path = "/api/keys", tag = "keys", request_body = AskedKey, responses(
    (status = 201, description = "The key", body = crate::wire::NewToken),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn issue(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    let keys = keys(&service)?;
    caller.identity.need(Permission::ManageKeys)?;
    not_known(&request)?;
    idempotency::none(request.headers(), SHOWN_ONCE)?;
    let asked: AskedKey = service.json(&caller, request).await?;
    // The token may have ended while the body came: nobody makes another one with it.
    let identity = service.identify(&caller.token).await?;
    identity.need(Permission::ManageKeys)?;
    let invalid = |detail: &str| Problem::new(Code::InvalidBody, detail);
    let user = asked.user.unwrap_or_else(|| identity.user.clone());
    if user != identity.user && !identity.permissions.contains(&Permission::ManageTenant) {
        return Err(Problem::new(Code::OtherIdentity, "a key for another user needs the permission `tenant:manage`"));
    }
    let named: Option<BTreeSet<_>> = asked.permissions.iter().map(|name| Permission::of(name)).collect();
    let named = named.ok_or_else(|| invalid("a permission is not known: the page of the routes lists them"))?;
    if let Some(more) = named.iter().find(|permission| !identity.permissions.contains(*permission)) {
        let detail = format!("the token does not have `{}` itself, so it cannot give it", more.as_str());
        return Err(Problem::new(Code::NotPermitted, detail));
    }
    let days = asked.days.unwrap_or(90);
    if named.is_empty() || asked.name.is_empty() || asked.name.len() > 200 || !(1..=MAX_DAYS).contains(&days) {
        return Err(invalid("it needs a name of at most 200 bytes, a permission, and 1 to 365 days"));
    }
    let mut new =
        NewKey::new(&identity.tenant, user, asked.name, named).lifetime(Duration::from_secs(u64::from(days) * 24 * 60 * 60));
    new.issued_with = Some(identity.credential.clone());
    // Whoever has stolen a key must not be able to outlive it. Other tokens are short, and stand for a person who has signed in.
    let is_key = identity.credential.parse::<Uuid>().is_ok();
    if is_key && !identity.permissions.contains(&Permission::ManageTenant) {
        new.until = identity.expires;
    }
    let key = keys.issue(new, &who(&caller)).await.map_err(refused)?;
    Ok(issued(StatusCode::CREATED, &key))
}

/// Gives a key a new secret; the old ones count a while longer. Without `overlap_seconds` they end at once.
#[utoipa::path(post, path = "/api/keys/{id}/rotate", tag = "keys", params(("id" = Uuid, Path, description = "The key")), request_body = Rotation, responses(
    (status = 200, description = "The key with its new secret", body = crate::wire::NewToken),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn rotate(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, path) = asked_for(&service, path, &request)?;
    idempotency::none(request.headers(), SHOWN_ONCE)?;
    let id = own(&service, &caller, path).await?;
    let asked: Rotation = service.json(&caller, request).await?;
    let overlap = asked.overlap_seconds.unwrap_or(0);
    if overlap > MAX_OVERLAP {
        return Err(Problem::new(Code::InvalidBody, "`overlap_seconds` may be a week"));
    }
    let keys = keys(&service)?;
    // INVARIANT: first the key, then the token. If the key gets another secret before this, the token has ended with the old one; if after
    // this, the new version follows no more.
    let key = keys.active(caller.tenant(), id).await.map_err(refused)?;
    service.identify(&caller.token).await?;
    let key = keys.rotate_seen(&key, Duration::from_secs(overlap), &who(&caller)).await;
    Ok(issued(StatusCode::OK, &key.map_err(refused)?))
}

/// Ends a key at once.
#[utoipa::path(post, path = "/api/keys/{id}/revoke", tag = "keys", params(("id" = Uuid, Path, description = "The key")), responses(
    (status = 200, description = "It is revoked", body = crate::wire::Revoked),
    crate::refusals::RefusedWrite,
))]
pub(crate) async fn revoke(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, path) = asked_for(&service, path, &request)?;
    let id = own(&service, &caller, path).await?;
    keys(&service)?.revoke(caller.tenant(), id, &who(&caller)).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &json!({"id": id.to_string(), "status": "revoked"})))
}

/// Who changes which key.
fn asked_for(
    service: &Service,
    path: Result<Path<String>, PathRejection>,
    request: &Request,
) -> Result<(Caller, Uuid), Problem> {
    let (caller, id) = (caller(request)?, path_id(path)?);
    keys(service)?;
    caller.identity.need(Permission::ManageKeys)?;
    not_known(request)?;
    Ok((caller, id))
}

/// The key in a path, if it is the caller's own, or the caller manages the tenant. All others are not found.
async fn own(service: &Service, caller: &Caller, id: Uuid) -> Result<Uuid, Problem> {
    let of_tenant = caller.identity.permissions.contains(&Permission::ManageTenant);
    let scope = if of_tenant { logline_core::Scope::runtime(caller.tenant()) } else { caller.scope() };
    let found = service.ledger().get(&scope, caller.tenant(), id).await?;
    if found.entity_type != "api_key" || (found.owner_id != caller.identity.user && !of_tenant) {
        return Err(Problem::not_found());
    }
    // A new secret has the key's rights, which may be more than the caller's.
    let permits = |name: &str| caller.identity.permissions.iter().any(|permission| permission.as_str() == name);
    let names = found.metadata.as_ref().and_then(|metadata| metadata.get("permissions")?.as_array().cloned());
    if !names.into_iter().flatten().all(|name| name.as_str().is_some_and(permits)) {
        return Err(Problem::new(Code::NotPermitted, "the key permits more than the token"));
    }
    Ok(id)
}

fn who(caller: &Caller) -> String {
    format!("user:{}", caller.identity.user)
}

//! The OpenAPI 3.1 document, made from the types and the routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::problem::Problem;
#[cfg(feature = "prompts")]
use crate::routes::chat;
#[cfg(feature = "policies")]
use crate::routes::dry_run;
#[cfg(feature = "log")]
use crate::routes::logs;
#[cfg(feature = "memory")]
use crate::routes::memory;
use crate::routes::{
    executions, governed, health, identity, keys, metrics, proofs, proposals, requests, spans, timeline, trust,
};
use crate::service::{Service, json_bytes};

#[derive(OpenApi)]
#[openapi(
    info(title = "LogLine", description = "Spans, timelines and requests of one host. Every error is a problem (RFC 9457) with a stable code."),
    paths(
        health::healthz, health::readyz, spans::list, spans::append, spans::show, spans::versions, timeline::list, timeline::stream, executions::list,
        requests::execute, requests::list, requests::show, requests::wait, requests::cancel, requests::revive, metrics::list,
        identity::show, trust::trust, proposals::show, proofs::proof,
        governed::schedules, governed::policies, proposals::waiting, proposals::approve,
        keys::list, keys::issue, keys::rotate, keys::revoke,
    ),
    components(schemas(crate::wire::ProblemBody)),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Document;

#[cfg(feature = "policies")]
#[derive(OpenApi)]
#[openapi(paths(dry_run::dry_run))]
struct WithPolicies;

#[cfg(feature = "memory")]
#[derive(OpenApi)]
#[openapi(paths(memory::remember, memory::consent, memory::search, memory::show, memory::promote, memory::forget))]
struct WithMemory;

#[cfg(feature = "prompts")]
#[derive(OpenApi)]
#[openapi(paths(chat::chat, chat::explained))]
struct WithPrompts;

#[cfg(feature = "log")]
#[derive(OpenApi)]
#[openapi(paths(logs::checkpoint))]
struct WithLog;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key, or a JWT of the issuer")).build();
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The OpenAPI 3.1 document of the routes that the features of this crate have, as JSON with two spaces of indentation.
#[must_use]
pub fn openapi() -> String {
    let mut document = Document::openapi();
    #[cfg(feature = "policies")]
    document.merge(WithPolicies::openapi());
    #[cfg(feature = "memory")]
    document.merge(WithMemory::openapi());
    #[cfg(feature = "prompts")]
    document.merge(WithPrompts::openapi());
    #[cfg(feature = "log")]
    document.merge(WithLog::openapi());
    name_operations(&mut document);
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Gives each operation a name of its own, as generated clients need it: the tag and the name of its function, such as `spans_list`.
fn name_operations(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            let tag = operation.tags.iter().flatten().next();
            if let (Some(tag), Some(name)) = (tag, &operation.operation_id) {
                operation.operation_id = Some(format!("{tag}_{name}"));
            }
        }
    }
}

/// The document without the routes of these tags.
pub(crate) fn without(tags: &[&str]) -> String {
    let mut document: Value = serde_json::from_str(&openapi()).unwrap_or_default();
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        let is_absent = |operation: &Value| {
            operation["tags"].as_array().into_iter().flatten().any(|tag| tags.iter().any(|absent| tag == absent))
        };
        paths.retain(|_, item| !item.as_object().is_some_and(|item| item.values().any(is_absent)));
    }
    format!("{document:#}\n")
}

/// Answers `GET /openapi.json`: the routes that this service has.
pub(crate) async fn document(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    // Made once: anybody may ask for it.
    let text = service.document.get_or_init(|| without(&service.options.absent()));
    Ok(json_bytes(StatusCode::OK, text.as_bytes().to_vec()))
}

//! The OpenAPI 3.1 document, made from the types and the routes.

use std::sync::LazyLock;

use axum::response::Response;
use http::StatusCode;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::problem::Problem;
use crate::routes::{health, identity, metrics, proofs, proposals, requests, spans, timeline, trust};
use crate::service::json_bytes;

#[derive(OpenApi)]
#[openapi(
    info(title = "LogLine", description = "Spans, timelines and requests of one host. Every error is a problem (RFC 9457) with a stable code."),
    paths(
        health::healthz, health::readyz, spans::list, spans::append, spans::show, spans::versions, timeline::list, timeline::stream,
        requests::execute, requests::list, requests::show, requests::wait, requests::cancel, requests::revive, metrics::list,
        identity::show, trust::show, proposals::show, proofs::show,
    ),
    components(schemas(crate::wire::ProblemBody)),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key, or a JWT of the issuer")).build();
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The OpenAPI 3.1 document of the routes, as JSON with two spaces of indentation.
#[must_use]
pub fn openapi() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Answers `GET /openapi.json`.
pub(crate) async fn document() -> Result<Response, Problem> {
    // Made once: anybody may ask for it.
    static TEXT: LazyLock<String> = LazyLock::new(openapi);
    Ok(json_bytes(StatusCode::OK, TEXT.as_bytes().to_vec()))
}

//! The page at `/`: plain HTML, CSS and modules that are in the binary. `docs/page.md` says what it shows.
//!
//! It has no data of its own: it reads the routes below `/api` with the token that its user gives it.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::problem::Problem;

/// Nothing comes from elsewhere, nothing is inline, and the one text that becomes a script's address is checked by the policy `logline`
/// of `stream.js`.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types logline";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

struct Asset {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal: $media_type:ident,)*) => {
        [$(Asset { name: $name, media_type: $media_type, text: include_str!(concat!("../page/", $name)) }),*]
    };
}

/// Every file of the folder `page`.
const ASSETS: [Asset; 32] = assets! {
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": IMAGE,
    "api.js": SCRIPT,
    "blake3.js": SCRIPT,
    "canonical.js": SCRIPT,
    "chart.js": SCRIPT,
    "diff.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "format.js": SCRIPT,
    "inclusion.js": SCRIPT,
    "list.js": SCRIPT,
    "main.js": SCRIPT,
    "router.js": SCRIPT,
    "session.js": SCRIPT,
    "signature.js": SCRIPT,
    "store.js": SCRIPT,
    "stream-worker.js": SCRIPT,
    "stream.js": SCRIPT,
    "value.js": SCRIPT,
    "verify.js": SCRIPT,
    "views/approvals.js": SCRIPT,
    "views/offered.js": SCRIPT,
    "views/overview.js": SCRIPT,
    "views/problems.js": SCRIPT,
    "views/prompts.js": SCRIPT,
    "views/request.js": SCRIPT,
    "views/requests.js": SCRIPT,
    "views/sign_in.js": SCRIPT,
    "views/span.js": SCRIPT,
    "views/spans.js": SCRIPT,
};

/// The strong tags of the assets, in their order.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| ASSETS.iter().map(|asset| format!("\"{}\"", blake3::hash(asset.text.as_bytes()).to_hex())).collect());

/// The page, and its files below `/page/`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(index)).route("/page/{*file}", get(file))
}

async fn index(headers: HeaderMap) -> Response {
    serve("index.html", &headers)
}

async fn file(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    match path {
        Ok(Path(name)) => serve(&name, &headers),
        Err(_) => Problem::not_found().into_response(),
    }
}

fn serve(name: &str, asked: &HeaderMap) -> Response {
    let found = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.name == name);
    let Some((asset, tag)) = found else { return Problem::not_found().into_response() };
    let is_known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok()).any(|tags| {
        tags.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    });
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { asset.text.into_response() };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, asset.media_type),
        // The browser keeps it, and asks whether it is still the same: after an update no old module meets a new one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // A tag is hexadecimal digits in quotes.
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

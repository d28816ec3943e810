//! What the provider says if it fails.

use std::time::{Duration, SystemTime};

use logline_core::contract::provider::{ErrorKind, ProviderError, retry_after, retry_after_ms};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::error as of;

/// The error behind a status that is not success.
pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap, body: &str) -> ProviderError {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |place: &str| body.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let code = [text("/error/code"), text("/error/type")];
    let says = |what: &str| code.iter().any(|code| code.contains(what));
    let kind = match status.as_u16() {
        401 | 403 | 404 => ErrorKind::Denied,
        402 => ErrorKind::Quota,
        408 | 504 => ErrorKind::TimedOut,
        429 if says("insufficient_quota") || says("billing") => ErrorKind::Quota,
        429 => ErrorKind::Throttled,
        400..=499 if says("content_filter") || says("content_policy") => ErrorKind::ContentFiltered,
        400..=499 => ErrorKind::Invalid,
        503 | 529 => ErrorKind::NotReady,
        _ => ErrorKind::ModelError,
    };
    let said = [text("/error/message"), text("/error"), text("/message"), text("/detail")];
    let said = said.into_iter().find(|text| !text.is_empty()).unwrap_or("it says no more");
    let message = format!("status {}: {said}", status.as_u16());
    of(kind, message).retry_after(pause(headers))
}

/// The error in an event of a stream.
pub(crate) fn in_body(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = match (text("code"), text("type")) {
        (code, _) if code.contains("rate_limit") => ErrorKind::Throttled,
        (code, _) if code.contains("content_filter") => ErrorKind::ContentFiltered,
        (_, "overloaded_error") => ErrorKind::NotReady,
        _ => ErrorKind::ModelError,
    };
    let said = error.as_str().unwrap_or_else(|| text("message"));
    of(kind, format!("the provider failed while it answered: {said}"))
}

/// The pause that the provider asks for: milliseconds, seconds, or a date. Milliseconds that make no sense are as none.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ms = text("retry-after-ms").and_then(retry_after_ms);
    ms.or_else(|| retry_after(text("retry-after")?, SystemTime::now()))
}

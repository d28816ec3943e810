//! What the provider says if it fails.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use logline_core::contract::provider::{ErrorKind, ProviderError, Secret};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::error as of;

/// The most characters of a provider's message that are kept.
const MAX_MESSAGE: usize = 500;

/// The error behind a status that is not success.
pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap, body: &str, secret: Option<&Secret>) -> ProviderError {
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
    let message = format!("status {}: {}", status.as_u16(), without_secret(said, secret));
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
    of(kind, format!("the provider failed while it answered: {}", without_secret(said, None)))
}

/// The error without the secret, wherever the provider repeats it.
pub(crate) fn hide(mut error: ProviderError, secret: Option<&Secret>) -> ProviderError {
    error.message = without_secret(&error.message, secret);
    error.request_id = error.request_id.map(|id| without_secret(&id, secret));
    error
}

/// The message without the secret, which some providers repeat, and not longer than need be.
fn without_secret(said: &str, secret: Option<&Secret>) -> String {
    // In this order: without its control characters, a text may have the secret that it did not have before.
    let plain: String = said.chars().filter(|c| !c.is_control()).collect();
    let hidden = match secret.map(Secret::reveal).filter(|secret| !secret.is_empty()) {
        Some(secret) => plain.replace(secret, "…"),
        None => plain,
    };
    let mut cut: String = hidden.chars().take(MAX_MESSAGE).collect();
    if hidden.chars().count() > MAX_MESSAGE {
        cut.push('…');
    }
    cut
}

/// The pause that the provider asks for: milliseconds, seconds, or a date.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until: SystemTime = DateTime::parse_from_rfc2822(after).ok()?.into();
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

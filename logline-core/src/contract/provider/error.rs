//! Why a provider gave no answer.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime};
use thiserror::Error;

use crate::contract::provider::Usage;
use crate::value::failure::Failure;

/// What kind of error it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The provider was not reached: no request was sent.
    Unreachable,
    /// The provider limits how often it may be called.
    Throttled,
    /// The answer did not come in time.
    TimedOut,
    /// The model is being loaded, or the provider is overloaded.
    NotReady,
    /// The account's quota or credit is used up.
    Quota,
    /// The provider refuses the request as it is.
    Invalid,
    /// The credentials are missing, wrong, or do not allow the call.
    Denied,
    /// The provider refuses the content of the request or of the answer.
    ContentFiltered,
    /// The model or the provider failed.
    ModelError,
    /// The answer broke off.
    StreamBroken,
    /// The answer cannot be understood, or lacks what every answer has.
    BadAnswer,
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Try the same again, after a pause.
    Retry,
    /// Trying the same again will not help soon. Another provider may help.
    Elsewhere,
    /// Nothing helps but another request.
    GiveUp,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Throttled,
        Self::TimedOut,
        Self::NotReady,
        Self::Quota,
        Self::Invalid,
        Self::Denied,
        Self::ContentFiltered,
        Self::ModelError,
        Self::StreamBroken,
        Self::BadAnswer,
    ];

    /// The code of the recorded failure.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "provider:unreachable",
            Self::Throttled => "provider:throttled",
            Self::TimedOut => "provider:timed_out",
            Self::NotReady => "provider:not_ready",
            Self::Quota => "provider:quota",
            Self::Invalid => "provider:invalid",
            Self::Denied => "provider:denied",
            Self::ContentFiltered => "provider:content_filtered",
            Self::ModelError => "provider:model_error",
            Self::StreamBroken => "provider:stream_broken",
            Self::BadAnswer => "provider:bad_answer",
        }
    }

    /// The kind with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// What to do after it.
    #[must_use]
    pub fn advice(self) -> Advice {
        match self {
            Self::Unreachable | Self::Throttled | Self::TimedOut | Self::NotReady | Self::ModelError | Self::StreamBroken => {
                Advice::Retry
            }
            Self::Quota | Self::Denied | Self::BadAnswer => Advice::Elsewhere,
            Self::Invalid | Self::ContentFiltered => Advice::GiveUp,
        }
    }

    /// Whether it says something about the state of the provider. The others may be due to what was asked, and whoever asks must not be
    /// able to make the provider look as if it failed.
    #[must_use]
    pub fn is_providers(self) -> bool {
        !matches!(self, Self::Invalid | Self::ContentFiltered | Self::BadAnswer)
    }

    /// Whether the provider did no work that it charges for.
    #[must_use]
    pub fn is_free(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled | Self::NotReady | Self::Quota | Self::Invalid | Self::Denied)
    }
}

/// Why a provider gave no answer. The message is for people, and contains no secret.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{}: {message}", kind.code())]
#[non_exhaustive]
pub struct ProviderError {
    /// What kind of error it was.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
    /// The provider asks not to be called again before this time has passed.
    pub retry_after: Option<Duration>,
    /// The provider's own id of the call.
    pub request_id: Option<String>,
    /// How many pieces of the answer were delivered before the error. After the first one a call must not be repeated unasked.
    pub chunks: u32,
    /// What the provider says it charges for the failed call.
    pub usage: Option<Box<Usage>>,
}

impl ProviderError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, request_id: None, chunks: 0, usage: None }
    }

    /// Sets [`ProviderError::retry_after`].
    #[must_use]
    pub fn retry_after(mut self, pause: Option<Duration>) -> Self {
        self.retry_after = pause;
        self
    }

    /// Sets [`ProviderError::request_id`].
    #[must_use]
    pub fn request_id(mut self, id: Option<String>) -> Self {
        self.request_id = id;
        self
    }

    /// Sets [`ProviderError::chunks`].
    #[must_use]
    pub fn chunks(mut self, delivered: u32) -> Self {
        self.chunks = delivered;
        self
    }

    /// Sets [`ProviderError::usage`].
    #[must_use]
    pub fn usage(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage.map(Box::new);
        self
    }

    /// The error without `secrets`, wherever the provider repeats them, and not longer than need be. Adapters return no other.
    #[must_use]
    pub fn hiding(mut self, secrets: &[&str]) -> Self {
        self.message = cut(hide(&self.message, secrets));
        self.request_id = self.request_id.map(|id| cut(hide(&id, secrets)));
        self
    }

    /// The failure that is recorded.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        Failure::new(self.kind.code(), self.message.clone())
    }
}

/// The most characters of a provider's message that are kept.
const MAX_MESSAGE: usize = 500;

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A text of a provider without control characters, and with `…` in place of each of the secrets.
#[must_use]
pub fn hide(text: &str, secrets: &[&str]) -> String {
    // In this order: without its control characters, a text may have a secret that it did not have before.
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    secrets.iter().filter(|secret| !secret.is_empty()).fold(plain, |text, secret| text.replace(secret, "…"))
}

/// The pause that a `Retry-After` asks for (RFC 9110): seconds, also with a fraction, or a date in one of the three forms. More seconds than
/// there are is the longest pause. `None` if it is neither.
#[must_use]
pub fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return of_seconds(seconds);
    }
    let old = |form: &str| NaiveDateTime::parse_from_str(text, form).ok().map(|date| date.and_utc().into());
    let date = DateTime::parse_from_rfc2822(text).ok().map(SystemTime::from);
    let until: SystemTime = date.or_else(|| old("%A, %d-%b-%y %H:%M:%S GMT")).or_else(|| old("%a %b %e %H:%M:%S %Y"))?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// The same for a header with milliseconds, which some providers have beside it.
#[must_use]
pub fn retry_after_ms(text: &str) -> Option<Duration> {
    of_seconds(text.trim().parse::<f64>().ok()? / 1000.0)
}

/// `None` for what is no time: less than nothing, or no number.
fn of_seconds(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_torn_apart() {
        let error =
            ProviderError::new(ErrorKind::Denied, "not with hun\u{0}ter2 or k9").request_id(Some("id-hunter2".to_owned()));
        let error = error.hiding(&["hunter2", "", "k9"]);
        assert_eq!((error.message.as_str(), error.request_id.as_deref()), ("not with … or …", Some("id-…")));
        let long = ProviderError::new(ErrorKind::Denied, "é".repeat(600)).hiding(&[]);
        assert_eq!(long.message.chars().count(), MAX_MESSAGE + 1);
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("7", Some(7.0)),
            (" 0.5 ", Some(0.5)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10.0)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0.0)),
            ("-1", None),
            ("NaN", None),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10.0)),
            ("Sun Nov  6 08:49:47 1994", Some(10.0)),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs_f64), "{text}");
        }
        for endless in ["1e300", "99999999999999999999999", "inf"] {
            assert_eq!(retry_after(endless, now), Some(Duration::MAX), "{endless}");
        }
    }
}

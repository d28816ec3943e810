//! Errors as clients see them: RFC 9457 problems, each with a code that stays the same. `docs/http.md` explains every code.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use logline_core::contract::CipherError;
use logline_core::ledger::{LedgerError, Retry};
use logline_core::request::NotRunnable;
use logline_core::{AdmitError, HostError, SealError};
use serde_json::{Value, json};

/// The page that explains the codes. A code is the name of its section.
pub const PAGE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/http.md");

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// The code of a problem. Codes are stable: clients may act on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes, in the order of their status.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The text in the member `code`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// The member `title`: the same for all problems of this code.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

codes! {
    /// A parameter of path, query or header cannot be read.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "a parameter is not valid";
    /// The cursor was not made for this caller by this service.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "the cursor is not valid here";
    /// The body is not what the route takes.
    InvalidBody = "invalid_body", BAD_REQUEST, "the body is not valid";
    /// There is no token.
    NoToken = "no_token", UNAUTHORIZED, "a token is needed";
    /// The token is not accepted. It is not said why.
    InvalidToken = "invalid_token", UNAUTHORIZED, "the token is not accepted";
    /// The token lacks the permission.
    NotPermitted = "not_permitted", FORBIDDEN, "the token does not permit this";
    /// The call names another tenant or owner than the token does.
    OtherIdentity = "other_identity", FORBIDDEN, "the call names another tenant or owner than the token";
    /// The signer of a span lacks the role that its type needs.
    NotAuthorised = "not_authorised", FORBIDDEN, "the signer may not sign this span";
    /// The user has not permitted that this be remembered or recalled.
    NoConsent = "no_consent", FORBIDDEN, "the user has not permitted this";
    /// There is nothing that the caller may see.
    NotFound = "not_found", NOT_FOUND, "there is nothing here that this token may see";
    /// The path exists, with other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "the path has other methods";
    /// The body took too long to arrive, or the answer to make.
    Timeout = "timeout", REQUEST_TIMEOUT, "the call took too long";
    /// The span does not follow the stored versions of its id.
    Conflict = "conflict", CONFLICT, "the stored versions are not those that the call expects";
    /// A call with this idempotency key has no outcome yet.
    InFlight = "in_flight", CONFLICT, "a call with this idempotency key is still running";
    /// The request is not in a state that allows this.
    WrongState = "wrong_state", CONFLICT, "the request is not in a state that allows this";
    /// The body is too large.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "the body is too large";
    /// The body has another type than the route takes.
    UnsupportedType = "unsupported_type", UNSUPPORTED_MEDIA_TYPE, "the body has a type that is not taken here";
    /// A span breaks a rule, or its seal is not valid.
    InvalidSpan = "invalid_span", UNPROCESSABLE_ENTITY, "a span is not valid";
    /// What the ledger has of this does not verify.
    NotVerified = "not_verified", UNPROCESSABLE_ENTITY, "the record does not verify";
    /// The memory is not taken.
    MemoryRefused = "memory_refused", UNPROCESSABLE_ENTITY, "the memory is not taken";
    /// The prompt was not answered.
    RunFailed = "run_failed", UNPROCESSABLE_ENTITY, "the run failed";
    /// The idempotency key was used for another call.
    KeyReused = "key_reused", UNPROCESSABLE_ENTITY, "the idempotency key was used for another call";
    /// Too many calls.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "too many calls";
    /// A quota of the tenant is used up.
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, "a quota of the tenant is used up";
    /// Too many streams or waits are open.
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "too many streams are open";
    /// A fault of the service.
    Internal = "internal", INTERNAL_SERVER_ERROR, "a fault of the service";
    /// The ledger is away.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "the ledger cannot be reached";
    /// The service is shutting down.
    Draining = "draining", SERVICE_UNAVAILABLE, "the service is shutting down";
}

/// The most bytes of a detail. Errors quote what was sent, which may be a whole body.
const MAX_DETAIL: usize = 2_000;

fn cut(mut detail: String) -> String {
    if detail.len() > MAX_DETAIL {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        detail.push('…');
    }
    detail
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem. `detail` says what happened and what to do, for people; it is cut after 2,000 bytes. It must not have values that the
    /// caller may not see.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after = match code {
            Code::Unavailable | Code::Draining | Code::InFlight | Code::TooManyStreams => Some(Duration::from_secs(1)),
            _ => None,
        };
        Self { code, detail: cut(detail.into()), retry_after }
    }

    /// Sets the header `Retry-After`, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The body: `{type, title, status, code, detail}`.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({
            "type": format!("{PAGE}#{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        })
    }

    /// What a token may not see does not exist.
    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "check the id; what this token may not see is not found either")
    }

    pub(crate) fn parameter(name: &str, expected: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self::new(Code::InvalidParameter, format!("`{name}` must be {expected}"))
    }

    /// Logs the cause of a fault that the client is not told.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        let error = cut(error.to_string());
        tracing::error!(%error, "a call failed because of a fault of the service");
        Self::new(Code::Internal, "the service's log says what happened; a retry does not help until it is mended")
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::NotFound { .. } => Self::not_found(),
            LedgerError::Conflict(_) => Self::new(Code::Conflict, error.to_string()),
            LedgerError::KeepMismatch { .. } => {
                Self::new(Code::KeyReused, "the key was used for other content: send the same again, or use another key")
            }
            LedgerError::Forbidden(_) => Self::new(Code::NotPermitted, error.to_string()),
            LedgerError::InvalidSpan { .. } | LedgerError::ChangedIdentity { .. } => {
                Self::new(Code::InvalidSpan, error.to_string())
            }
            LedgerError::QuotaExceeded { .. } => Self::new(Code::QuotaExceeded, error.to_string()),
            LedgerError::BatchTooLarge { .. } => Self::new(Code::InvalidBody, error.to_string()),
            // The text of the ledger's cursor is not for clients.
            LedgerError::InvalidCursor { .. } => Self::cursor(),
            LedgerError::Moved { .. } => {
                tracing::error!(%error, "this instance must be started again");
                Self::new(
                    Code::Unavailable,
                    "the ledger was replaced, and this instance must be started again: try another one, or later",
                )
            }
            LedgerError::Closed => Self::new(Code::Unavailable, "the ledger is closed: try again later"),
            _ if error.retry() == Retry::Later => {
                tracing::warn!(%error, "a call failed because the ledger is away");
                Self::new(Code::Unavailable, "try again later; a call with an idempotency key is safe to repeat")
            }
            _ => Self::internal(&error),
        }
    }
}

impl Problem {
    pub(crate) fn cursor() -> Self {
        Self::new(
            Code::InvalidCursor,
            "it was changed, or made for another token or by another service: start without a cursor",
        )
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => error.into(),
            HostError::Admit(AdmitError::NotAuthorised(error)) | HostError::NotAuthorised(error) => {
                Self::new(Code::NotAuthorised, error.to_string())
            }
            HostError::Admit(AdmitError::Seal(SealError::Invalid(error))) => Self::new(Code::InvalidSpan, error.to_string()),
            HostError::NotValid { reason, .. } => Self::new(Code::InvalidSpan, reason.to_string()),
            HostError::OtherRequest { differ, .. } => Self::new(
                Code::KeyReused,
                format!("it was used for another request, which differs in {differ}: send the same again, or use another key"),
            ),
            HostError::NotRunnable(reason) => reason.into(),
            HostError::NotVerified(error) => Self::internal(&error),
            HostError::Cipher(CipherError::Erased) => Self::not_found(),
            HostError::Cipher(error @ CipherError::TooLong { .. }) => Self::new(Code::TooLarge, error.to_string()),
            error => match error.retry() {
                Retry::Later => Self::new(Code::Unavailable, "try again later"),
                _ => Self::internal(&error),
            },
        }
    }
}

impl From<NotRunnable> for Problem {
    fn from(reason: NotRunnable) -> Self {
        match &reason {
            NotRunnable::NotARequest { .. } => Self::not_found(),
            NotRunnable::Malformed { .. } => Self::new(Code::InvalidSpan, reason.to_string()),
            _ => Self::new(Code::WrongState, reason.to_string()),
        }
    }
}

/// The body of a problem, to which the outermost layer adds the id of the call.
#[derive(Debug, Clone)]
pub(crate) struct ProblemBody(pub(crate) Value);

/// The type of a problem's body.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(pause) = self.retry_after {
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.code, Code::TooLarge | Code::Timeout) {
            // What the client still sends is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(ProblemBody(self.body()));
        response
    }
}

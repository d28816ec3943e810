//! Why there is no answer.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_sdk_bedrockruntime::types::error::{ConverseStreamOutputError, ResponseStreamError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::event_stream::RawMessage;
use http_body_util::LengthLimitError;
use logline_core::contract::provider::{ErrorKind, ProviderError, retry_after, retry_after_ms};

use crate::http::{MAX_ANSWER, NotSent, chain, find};

/// An error without details of the provider.
pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError::new(kind, message)
}

pub(crate) fn bad(reason: impl std::fmt::Display) -> ProviderError {
    error(ErrorKind::BadAnswer, format!("the answer cannot be understood: {reason}"))
}

pub(crate) fn too_late(what: &str, wait: Duration) -> ProviderError {
    error(ErrorKind::TimedOut, format!("{what} within {} ms", wait.as_millis()))
}

/// The error of a call that was not answered with success.
pub(crate) fn of_call<E>(failed: SdkError<E, HttpResponse>) -> ProviderError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let id = failed.request_id().map(str::to_owned);
    let SdkError::ServiceError(refused) = &failed else { return of_transport(&failed).request_id(id) };
    let (status, headers) = (refused.raw().status().as_u16(), refused.raw().headers());
    if (200..300).contains(&status) {
        return bad("it has another form than the service's description").request_id(id);
    }
    let (code, said) = (refused.err().code().unwrap_or_default(), refused.err().message().unwrap_or_default());
    let text = match (code, said) {
        ("", "") => format!("status {status}"),
        ("", said) => format!("status {status}: {said}"),
        (code, "") => format!("status {status}: {code}"),
        (code, said) => format!("status {status}: {code}: {said}"),
    };
    error(kind(code, status, said), text).retry_after(pause(headers)).request_id(id)
}

/// What kind of error a code of the service is. A code that is not known goes by its status.
fn kind(code: &str, status: u16, said: &str) -> ErrorKind {
    let says = |what: &str| said.to_ascii_lowercase().contains(what);
    match code {
        // Bedrock has no code of its own for these.
        "ThrottlingException" if says("per day") || says("daily") => ErrorKind::Quota,
        "ValidationException" if says("content filter") => ErrorKind::ContentFiltered,
        "ThrottlingException" | "TooManyRequestsException" => ErrorKind::Throttled,
        "ServiceQuotaExceededException" => ErrorKind::Quota,
        "ValidationException" => ErrorKind::Invalid,
        "ModelNotReadyException" | "ServiceUnavailableException" => ErrorKind::NotReady,
        "ModelTimeoutException" | "RequestTimeoutException" => ErrorKind::TimedOut,
        "ModelErrorException" | "ModelStreamErrorException" | "InternalServerException" => ErrorKind::ModelError,
        "AccessDeniedException" | "ResourceNotFoundException" => ErrorKind::Denied,
        _ => match status {
            // Keys that are wrong, unknown or old.
            401 | 403 | 404 => ErrorKind::Denied,
            402 => ErrorKind::Quota,
            408 | 504 => ErrorKind::TimedOut,
            429 => ErrorKind::Throttled,
            503 => ErrorKind::NotReady,
            400..=499 => ErrorKind::Invalid,
            _ => ErrorKind::ModelError,
        },
    }
}

/// The error in a stream, after `delivered` pieces of the answer.
pub(crate) fn of_stream(failed: &SdkError<ConverseStreamOutputError, RawMessage>, delivered: u32) -> ProviderError {
    use ConverseStreamOutputError as Of;
    of_events(failed, delivered, |exception| match exception {
        Of::InternalServerException(_) => Some(("InternalServerException", 500)),
        Of::ModelStreamErrorException(_) => Some(("ModelStreamErrorException", 424)),
        Of::ValidationException(_) => Some(("ValidationException", 400)),
        Of::ThrottlingException(_) => Some(("ThrottlingException", 429)),
        Of::ServiceUnavailableException(_) => Some(("ServiceUnavailableException", 503)),
        _ => None,
    })
}

/// As [`of_stream`], of a stream of chunks.
pub(crate) fn of_chunks(failed: &SdkError<ResponseStreamError, RawMessage>, delivered: u32) -> ProviderError {
    use ResponseStreamError as Of;
    of_events(failed, delivered, |exception| match exception {
        Of::InternalServerException(_) => Some(("InternalServerException", 500)),
        Of::ModelStreamErrorException(_) => Some(("ModelStreamErrorException", 424)),
        Of::ModelTimeoutException(_) => Some(("ModelTimeoutException", 408)),
        Of::ValidationException(_) => Some(("ValidationException", 400)),
        Of::ThrottlingException(_) => Some(("ThrottlingException", 429)),
        Of::ServiceUnavailableException(_) => Some(("ServiceUnavailableException", 503)),
        _ => None,
    })
}

/// The error that an event of Anthropic's messages tells.
pub(crate) fn of_event(code: &str, said: &str, delivered: u32) -> ProviderError {
    let known = match code {
        "overloaded_error" => ErrorKind::NotReady,
        "rate_limit_error" => ErrorKind::Throttled,
        "invalid_request_error" | "request_too_large" => ErrorKind::Invalid,
        "authentication_error" | "permission_error" | "not_found_error" => ErrorKind::Denied,
        "timeout_error" => ErrorKind::TimedOut,
        _ => ErrorKind::ModelError,
    };
    after(known, code, said, delivered)
}

/// An error after `delivered` pieces of the answer.
fn after(kind: ErrorKind, code: &str, said: &str, delivered: u32) -> ProviderError {
    let kind = match kind {
        // It is about what was asked, so it must not count against the provider.
        kind if delivered == 0 || !kind.is_providers() => kind,
        _ => ErrorKind::StreamBroken,
    };
    error(kind, format!("{code} after {delivered} pieces of the answer: {said}"))
}

fn of_events<E>(
    failed: &SdkError<E, RawMessage>,
    delivered: u32,
    named: impl Fn(&E) -> Option<(&'static str, u16)>,
) -> ProviderError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let exception = match failed {
        SdkError::ServiceError(exception) => exception,
        // The frame is whole, so it is what the provider said.
        SdkError::ResponseError(read) if matches!(read.raw(), RawMessage::Decoded(_)) => {
            return bad("an event of the stream has another form than the service's description");
        }
        _ => return of_transport(failed),
    };
    let (code, status) =
        named(exception.err()).unwrap_or_else(|| (exception.err().code().unwrap_or("an exception without a name"), 500));
    let said = exception.err().message().unwrap_or("it says no more");
    after(kind(code, status, said), code, said, delivered)
}

/// The error of a call that was not answered at all, or whose answer did not come whole.
fn of_transport<E, R>(failed: &SdkError<E, R>) -> ProviderError
where
    E: Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if find::<LengthLimitError>(failed).is_some() {
        return error(ErrorKind::BadAnswer, format!("the answer has more than {MAX_ANSWER} bytes"));
    }
    if let Some(not_sent) = find::<NotSent>(failed) {
        return error(ErrorKind::Unreachable, not_sent.to_string());
    }
    if let Some(reason) = find::<CredentialsError>(failed) {
        return of_credentials(reason);
    }
    let reason = chain(failed);
    match failed {
        // What the SDK refuses to send.
        SdkError::ConstructionFailure(_) => error(ErrorKind::Invalid, reason),
        SdkError::DispatchFailure(failure) if failure.is_user() => error(ErrorKind::Invalid, reason),
        SdkError::DispatchFailure(failure) if failure.is_other() && reason.contains("auth scheme") => {
            error(ErrorKind::Denied, format!("there is no way to sign the call: {reason}"))
        }
        _ => error(ErrorKind::StreamBroken, format!("the answer broke off, or its frames are damaged: {reason}")),
    }
}

/// Why there are no credentials.
pub(crate) fn of_credentials(reason: &CredentialsError) -> ProviderError {
    let said = chain(reason);
    match reason {
        CredentialsError::CredentialsNotLoaded(_) => error(
            ErrorKind::Denied,
            format!(
                "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), a role, or \
                 AWS_BEARER_TOKEN_BEDROCK ({said})"
            ),
        ),
        CredentialsError::ProviderTimedOut(_) => {
            error(ErrorKind::Unreachable, format!("no AWS credentials came in time: {said}"))
        }
        _ => error(ErrorKind::Denied, format!("AWS credentials cannot be had: {said}")),
    }
}

/// The pause that the provider asks for: milliseconds, seconds, or a date. Milliseconds that make no sense are as none.
fn pause(headers: &Headers) -> Option<Duration> {
    let ms = headers.get("x-amz-retry-after").and_then(retry_after_ms);
    ms.or_else(|| retry_after(headers.get("retry-after")?, SystemTime::now()))
}

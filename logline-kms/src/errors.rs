//! What the service answers, as this library tells it.

use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use logline_core::contract::KeyError;

/// An answer that is no success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// There is no such key or alias.
    NotFound,
    /// The alias is there already.
    AlreadyExists,
    /// The key is disabled, or waits for its deletion.
    Unusable,
    /// The ciphertext was changed, or belongs to another key or context.
    NotOpened,
    /// The call is not permitted, or malformed. A retry does not help.
    Refused(String),
    /// The service was not reached, or has too much to do.
    Away(String),
}

impl Said {
    /// The error where this answer has no meaning of its own.
    pub(crate) fn into_error(self) -> KeyError {
        match self {
            Self::NotOpened => KeyError::NotOpened,
            Self::Refused(reason) => KeyError::Refused { reason },
            Self::Away(reason) => KeyError::Unavailable { reason },
            Self::NotFound => {
                KeyError::Refused { reason: "AWS KMS does not know the key: check account and region".to_owned() }
            }
            Self::AlreadyExists => unexpected("the alias is there already"),
            Self::Unusable => unexpected("the key is disabled, or waits for its deletion"),
        }
    }
}

/// An answer that should not come. A retry may help.
pub(crate) fn unexpected(what: &str) -> KeyError {
    KeyError::Unavailable { reason: format!("AWS KMS: {what}") }
}

/// Reads an error of the SDK.
pub(crate) fn said<E>(error: &SdkError<E>) -> Said
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let shown = || {
        let told = error.as_service_error().and_then(|error| Some(format!("{}: {}", error.code()?, error.message()?)));
        format!("AWS KMS: {}", told.unwrap_or_else(|| DisplayErrorContext(error).to_string()))
    };
    let SdkError::ServiceError(_) = error else { return Said::Away(shown()) };
    match error.code().unwrap_or_default() {
        "NotFoundException" => Said::NotFound,
        "AlreadyExistsException" => Said::AlreadyExists,
        "KMSInvalidStateException" | "DisabledException" => Said::Unusable,
        "InvalidCiphertextException" | "IncorrectKeyException" => Said::NotOpened,
        "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "ThrottlingException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "ServiceUnavailable"
        | "InternalFailure" => Said::Away(shown()),
        _ => Said::Refused(format!("{}; check the policy of the role", shown())),
    }
}

//! Secrets that a host gives to adapters by reference.

use std::fmt;

use async_trait::async_trait;
use thiserror::Error;
use zeroize::Zeroizing;

/// A secret text, such as an API key. It is not shown by `Debug`, cannot be serialised, and its memory is cleared when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text` as a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Give it to the provider, and to nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a host keeps its secrets.
///
/// Provider spans name a secret by reference. A publisher writes the reference and the URL to which the secret is sent, so a source must
/// decide for both together. If it gave every secret to every URL, a publisher could send the host's secrets to a server of their own.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret with this reference, to be sent to `url`.
    ///
    /// # Errors
    /// See [`SecretError`].
    async fn secret(&self, reference: &str, url: Option<&str>) -> Result<Secret, SecretError>;
}

/// Why there is no secret. The message never contains one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The host has no secret with this reference.
    #[error("this host has no secret `{reference}`: {advice}")]
    Missing {
        /// The reference.
        reference: String,
        /// What the operator can do.
        advice: String,
    },
    /// The host has the secret and does not send it to this URL.
    #[error("this host does not send the secret `{reference}` to `{url}`: allow it where the host's secrets are set up")]
    NotAllowed {
        /// The reference.
        reference: String,
        /// The URL, or `the default URL`.
        url: String,
    },
    /// The place where secrets are kept did not answer.
    #[error("the secret `{reference}` cannot be read now: {reason}; try again later")]
    Unavailable {
        /// The reference.
        reference: String,
        /// Why.
        reason: String,
    },
}

//! From a token to an identity.

mod api_key;
mod jwt;
mod signatures;

use async_trait::async_trait;
use logline_core::HostError;
use logline_core::ledger::LedgerError;
use thiserror::Error;

pub use api_key::{ApiKeys, IssuedKey, KeyError, NewKey};
pub use jwt::{Jwt, JwtError, JwtOptions, KeySource};

use crate::identity::Identity;

/// Says whose token it is.
///
/// # Contract
/// A token is accepted only if it proves the identity. [`AuthError::Refused`] says why not, for the log alone: the client is never
/// told. [`AuthError::Unavailable`] is for what the client cannot help, so that it tries again. Long streams call this again with
/// the same token, so a key that was revoked in the meantime must be refused then.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token it is.
    ///
    /// # Errors
    /// [`AuthError`].
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError>;
}

/// Why there is no identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The token proves nothing.
    #[error("the token is refused: {reason}")]
    Refused {
        /// Why, for the log. It has no part of the token.
        reason: &'static str,
    },
    /// It cannot be found out now.
    #[error("tokens cannot be checked at the moment: {reason}; retry later")]
    Unavailable {
        /// What is away.
        reason: String,
    },
}

impl AuthError {
    pub(crate) fn refused(reason: &'static str) -> Self {
        Self::Refused { reason }
    }
}

impl From<LedgerError> for AuthError {
    fn from(error: LedgerError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

impl From<HostError> for AuthError {
    fn from(error: HostError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

#[async_trait]
impl Authenticator for Box<dyn Authenticator> {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        (**self).authenticate(token).await
    }
}

#[async_trait]
impl<A: Authenticator + ?Sized> Authenticator for std::sync::Arc<A> {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        (**self).authenticate(token).await
    }
}

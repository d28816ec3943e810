//! What encrypts confidential requests: their input, and everything that comes of them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ledger::LedgerError;
use crate::span::canonical;
use crate::trust::Authorities;
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::json;

/// The member that stands in a column in place of the clear value: `{"sealed": TEXT}`.
pub const SEALED: &str = "sealed";

/// The code of a failure if the keys of a text were destroyed.
pub const ERASED: &str = "erased";

/// A place in the ledger. A text that was encrypted for it can be decrypted nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The user whose key protects the text.
    pub owner: &'a str,
    /// The span.
    pub span: Uuid,
    /// The member of the span, such as `input`.
    pub member: &'a str,
}

/// One of the keys that a user has one after the other. A user who forgets something gets another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub Uuid);

/// Encrypts texts under the keys of users.
///
/// # Contract
/// - A text is bound to its [`Slot`], and to a [`Generation`] of the user's key. With another key it is [`CipherError::Erased`]: what
///   was derived from a text that the user has forgotten must not be written under the key that came after.
/// - It fails closed: if a key is missing, nothing is encrypted.
/// - Errors contain no text and no key.
#[async_trait]
pub trait Cipher: Send + Sync {
    /// The user's key of now. Makes one if the user has none. `authorities` say which rows of the ledger count, such as those by which a
    /// user has forgotten something.
    async fn generation(&self, authorities: &Authorities, tenant: &str, owner: &str) -> Result<Generation, CipherError>;

    /// Encrypts `clear`. The result is plain ASCII.
    async fn encrypt(&self, slot: &Slot<'_>, key: Generation, clear: &[u8]) -> Result<String, CipherError>;

    /// Decrypts what [`Cipher::encrypt`] made for the same slot.
    async fn decrypt(&self, slot: &Slot<'_>, key: Generation, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CipherError>;

    /// A hash that only those can compute who have the user's key. `purpose` keeps hashes for different uses apart.
    async fn keyed_hash(
        &self,
        tenant: &str,
        owner: &str,
        key: Generation,
        purpose: &str,
        bytes: &[u8],
    ) -> Result<Hash, CipherError>;
}

/// Why a text was not encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CipherError {
    /// The key was destroyed, because the user has forgotten something since. A retry does not help.
    #[error("erased: the user's key was replaced since, and nothing can open what was encrypted with it")]
    Erased,
    /// It cannot be decrypted. A retry does not help.
    #[error("a sealed text does not open: {reason}")]
    NotOpened {
        /// Why.
        reason: String,
    },
    /// It is too long to be encrypted. A retry does not help.
    #[error("the text has more than {most} bytes, and no more can be encrypted: send less")]
    TooLong {
        /// The most bytes.
        most: usize,
    },
    /// It cannot be encrypted. A retry does not help.
    #[error("a text cannot be encrypted: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// Keys or their store are away. A retry may help.
    #[error("keys cannot be used now: {reason}; try again later")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl CipherError {
    /// The failure that is recorded, or the error of the ledger after which the attempt is made again.
    ///
    /// # Errors
    /// If a retry may help.
    pub fn into_failure(self) -> Result<Failure, LedgerError> {
        let code = match &self {
            Self::Erased => ERASED,
            Self::NotOpened { .. } => "not_opened",
            Self::TooLong { .. } | Self::Refused { .. } => "not_encrypted",
            Self::Unavailable { reason } => {
                return Err(LedgerError::Unavailable { reason: reason.clone(), source: None });
            }
        };
        Ok(Failure::new(code, self.to_string()))
    }
}

/// The means to read and write one confidential request: a cipher, the request's owner, and the owner's key at the time when the attempt
/// began.
#[derive(Clone)]
pub struct Confidential {
    cipher: Arc<dyn Cipher>,
    tenant: String,
    owner: String,
    key: Generation,
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confidential(…)")
    }
}

impl Confidential {
    /// With the key that the user has now.
    ///
    /// # Errors
    /// The cipher's.
    pub async fn of(
        cipher: &Arc<dyn Cipher>,
        authorities: &Authorities,
        tenant: &str,
        owner: &str,
    ) -> Result<Self, CipherError> {
        let key = cipher.generation(authorities, tenant, owner).await?;
        Ok(Self { cipher: Arc::clone(cipher), tenant: tenant.to_owned(), owner: owner.to_owned(), key })
    }

    fn slot<'a>(&'a self, span: Uuid, member: &'a str) -> Slot<'a> {
        Slot { tenant: &self.tenant, owner: &self.owner, span, member }
    }

    /// Encrypts a value for a member of a span: `{"sealed": TEXT}`.
    ///
    /// # Errors
    /// [`CipherError::Erased`] if the user has another key by now; the cipher's.
    pub async fn seal(&self, span: Uuid, member: &str, value: &Value) -> Result<Value, CipherError> {
        let clear = Zeroizing::new(canonical::to_vec(value));
        let sealed = self.cipher.encrypt(&self.slot(span, member), self.key, &clear).await?;
        Ok(json!({SEALED: sealed}))
    }

    /// Decrypts the value of a member of a span.
    ///
    /// # Errors
    /// [`CipherError::NotOpened`] if it is not `{"sealed": TEXT}`, or does not belong here; the cipher's.
    pub async fn open(&self, span: Uuid, member: &str, value: &Value) -> Result<Value, CipherError> {
        let malformed = |reason: &str| CipherError::NotOpened { reason: reason.to_owned() };
        let sealed = sealed_text(value).ok_or_else(|| malformed("it is not `{\"sealed\": TEXT}`"))?;
        let clear = self.cipher.decrypt(&self.slot(span, member), self.key, sealed).await?;
        json::parse(&clear).map_err(|_| malformed("what it contains is not JSON"))
    }

    /// A hash of `bytes` that only those can compute who have the user's key.
    ///
    /// # Errors
    /// As [`Confidential::seal`].
    pub async fn hash(&self, purpose: &str, bytes: &[u8]) -> Result<Hash, CipherError> {
        self.cipher.keyed_hash(&self.tenant, &self.owner, self.key, purpose, bytes).await
    }
}

/// The text of `{"sealed": TEXT}`. `None` if `value` is something else.
#[must_use]
pub fn sealed_text(value: &Value) -> Option<&str> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get(SEALED)?.as_str()
}

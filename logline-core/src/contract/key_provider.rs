//! Keys of tenants, kept outside the ledger: what wraps the keys of memories.

use std::fmt;

use async_trait::async_trait;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::value::timestamp::Timestamp;

/// A key of 32 bytes that encrypts data or other keys. It is not shown by `Debug`, cannot be serialised, and its memory is cleared when
/// it is dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// Keeps these bytes as a key. The caller clears its own copy.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new key from the operating system's source of random bytes.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] if the system gives none.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|e| KeyError::Unavailable { reason: format!("no random bytes: {e}") })?;
        Ok(Self(bytes))
    }

    /// The bytes. Give them to a cipher, and to nobody else.
    #[must_use]
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// Keeps the keys of tenants and never gives them out: it wraps other keys with them.
///
/// A tenant has a key for each **epoch**, a number that only grows. An epoch ends when its key is destroyed. What was wrapped under it,
/// in whatever backup, can then be opened by nobody.
///
/// # Contract
/// - The context is authenticated and not encrypted: a wrapped key opens only with the tenant, the epoch and the context that it was
///   wrapped with.
/// - A destroyed epoch is never opened again: [`KeyProvider::open_epoch`] refuses its number.
/// - All calls may be repeated.
#[async_trait]
pub trait KeyProvider: Send + Sync {
    /// Makes the key of an epoch. Does nothing if it is there.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] if the key was there and was destroyed; [`KeyError::Unavailable`].
    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<(), KeyError>;

    /// Encrypts `key` under the key of an epoch.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::Destroyed`], [`KeyError::Unavailable`].
    async fn wrap(&self, tenant: &str, epoch: u64, context: &str, key: &DataKey) -> Result<Vec<u8>, KeyError>;

    /// Decrypts what [`KeyProvider::wrap`] made.
    ///
    /// # Errors
    /// [`KeyError::NotOpened`] if it was changed, or was wrapped with another key or context; as [`KeyProvider::wrap`].
    async fn unwrap(&self, tenant: &str, epoch: u64, context: &str, wrapped: &[u8]) -> Result<DataKey, KeyError>;

    /// Destroys the key of an epoch for good.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]. The key may then be destroyed or not: call again.
    async fn destroy_epoch(&self, tenant: &str, epoch: u64) -> Result<Destruction, KeyError>;
}

/// When a key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destruction {
    /// It is gone.
    Done,
    /// It cannot be used any more, and is gone at this time. (A key management service waits before it deletes.)
    At(Timestamp),
}

/// Why a key could not be used. The message never contains key material.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no key of this epoch here.
    #[error("this host has no key of epoch {epoch} of tenant `{tenant}`: give it the tenant's keys")]
    Missing {
        /// The tenant.
        tenant: String,
        /// The epoch.
        epoch: u64,
    },
    /// The key of this epoch was destroyed. A retry does not help.
    #[error("the key of epoch {epoch} of tenant `{tenant}` was destroyed: nothing can open what it wrapped")]
    Destroyed {
        /// The tenant.
        tenant: String,
        /// The epoch.
        epoch: u64,
    },
    /// The wrapped key does not open. A retry does not help.
    #[error("a wrapped key does not open: it was changed, or belongs to another tenant, epoch or subject")]
    NotOpened,
    /// What keeps the keys failed. A retry may help.
    #[error("keys cannot be used now: {reason}; try again later")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The place of the keys is not safe, or not what it should be. A retry does not help.
    #[error("keys are not used: {reason}")]
    Refused {
        /// What is wrong, and what to do.
        reason: String,
    },
}

#![doc = include_str!("../README.md")]

mod errors;
mod names;
mod setup;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyMetadata, KeyState};
use logline_core::contract::{DataKey, Destruction, KeyError, KeyProvider};
use logline_core::{Clock as _, SystemClock, Timestamp};
use zeroize::Zeroize as _;

use errors::{Said, said};
use names::Names;

/// The fewest and the most days that AWS waits before it deletes a key.
const WAITING_DAYS: std::ops::RangeInclusive<u8> = 7..=30;

/// Keeps tenants' keys in AWS Key Management Service. Each epoch of a tenant is a symmetric key of the account, found by its alias.
///
/// Key material never leaves the service. A call needs the rights `kms:CreateKey`, `kms:CreateAlias`, `kms:UpdateAlias`,
/// `kms:DescribeKey`, `kms:Encrypt`, `kms:Decrypt` and `kms:ScheduleKeyDeletion`. Nothing here needs `kms:CancelKeyDeletion`: deny it to
/// everybody, or a key can be brought back as long as AWS waits.
#[derive(Clone)]
pub struct KmsKeys {
    client: Client,
    names: Names,
    waiting_days: u8,
}

impl std::fmt::Debug for KmsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsKeys")
            .field("prefix", &self.names.prefix())
            .field("waiting_days", &self.waiting_days)
            .finish_non_exhaustive()
    }
}

impl KmsKeys {
    /// Keys of the account and region of `client`. Its own retries and time limits apply: every call may be repeated.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, names: Names::default(), waiting_days: *WAITING_DAYS.start() }
    }

    /// Begins the names of aliases with `alias/PREFIX/`, so that several services can share an account. Default `logline`.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if it has other characters than letters, digits, `-` and `_`, is empty, or is longer than 64.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, KeyError> {
        self.names = Names::new(prefix)?;
        Ok(self)
    }

    /// How long AWS waits before it deletes a key: 7 to 30 days; other values are taken as the nearest of these. Default 7.
    #[must_use]
    pub fn waiting_days(mut self, days: u8) -> Self {
        self.waiting_days = days.clamp(*WAITING_DAYS.start(), *WAITING_DAYS.end());
        self
    }

    /// What an alias names. `None` if there is no such alias, or its key is gone.
    async fn described(&self, alias: &str) -> Result<Option<KeyMetadata>, KeyError> {
        match self.client.describe_key().key_id(alias).send().await {
            Ok(found) => Ok(found.key_metadata),
            Err(error) => match said(&error) {
                Said::NotFound => Ok(None),
                other => Err(other.into_error()),
            },
        }
    }

    /// The newest epoch that was opened; 0 if none was. Epochs before it whose alias is gone were destroyed.
    async fn newest(&self, tenant: &str) -> Result<u64, KeyError> {
        let found = self.described(&self.names.newest(tenant)).await?;
        Ok(found.and_then(|key| names::epoch_of(key.description()?)).unwrap_or(0))
    }

    /// Lets the newest alias of a tenant name this epoch, unless a later one has it.
    async fn remember(&self, tenant: &str, epoch: u64, key: &str) -> Result<(), KeyError> {
        let alias = self.names.newest(tenant);
        for _ in 0..2 {
            let before = self.newest(tenant).await?;
            if before >= epoch {
                return Ok(());
            }
            let told = if before == 0 {
                let made = self.client.create_alias().alias_name(&alias).target_key_id(key).send().await;
                made.map(drop).map_err(|error| said(&error))
            } else {
                let moved = self.client.update_alias().alias_name(&alias).target_key_id(key).send().await;
                moved.map(drop).map_err(|error| said(&error))
            };
            match told {
                Ok(()) => return Ok(()),
                // Another host was faster: it is looked at again.
                Err(Said::AlreadyExists | Said::NotFound) => {}
                Err(other) => return Err(other.into_error()),
            }
        }
        Err(KeyError::Unavailable { reason: "other hosts open epochs of the tenant at the same time".to_owned() })
    }

    /// Why a key cannot be used.
    async fn unusable(&self, tenant: &str, epoch: u64) -> KeyError {
        let tenant = tenant.to_owned();
        match self.described(&self.names.epoch(&tenant, epoch)).await {
            Ok(Some(key)) if is_ending(&key) => KeyError::Destroyed { tenant, epoch },
            Ok(Some(_)) => KeyError::Unavailable { reason: format!("the key of epoch {epoch} is disabled: enable it again") },
            Ok(None) => match self.newest(&tenant).await {
                Ok(newest) if epoch < newest => KeyError::Destroyed { tenant, epoch },
                Ok(_) => KeyError::Missing { tenant, epoch },
                Err(error) => error,
            },
            Err(error) => error,
        }
    }
}

fn is_ending(key: &KeyMetadata) -> bool {
    matches!(key.key_state(), Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion))
}

/// When a key that waits for its deletion is gone. If the service does not say, it is the longest time that AWS waits from now.
fn gone_at(key: &KeyMetadata) -> Destruction {
    let stated = key.deletion_date().and_then(|date| date.secs().checked_mul(1_000_000));
    let stated = stated.and_then(|micros| Timestamp::from_unix_micros(micros).ok());
    let longest = std::time::Duration::from_secs(u64::from(*WAITING_DAYS.end()) * 86_400);
    Destruction::At(stated.unwrap_or_else(|| SystemClock.now().saturating_add(longest)))
}

#[async_trait]
impl KeyProvider for KmsKeys {
    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<(), KeyError> {
        let alias = self.names.epoch(tenant, epoch);
        if let Some(key) = self.described(&alias).await? {
            if is_ending(&key) {
                return Err(KeyError::Destroyed { tenant: tenant.to_owned(), epoch });
            }
            // Somebody may have stopped between the two aliases.
            return self.remember(tenant, epoch, key.key_id()).await;
        }
        if epoch <= self.newest(tenant).await? {
            return Err(KeyError::Destroyed { tenant: tenant.to_owned(), epoch });
        }
        let made = self.client.create_key().description(names::description(epoch)).send().await;
        let made = made.map_err(|error| said(&error).into_error())?;
        let key = made.key_metadata.ok_or_else(|| errors::unexpected("it made a key and does not say which"))?;
        match self.client.create_alias().alias_name(&alias).target_key_id(key.key_id()).send().await {
            Ok(_) => self.remember(tenant, epoch, key.key_id()).await,
            Err(error) => {
                // Nothing was wrapped under a key without an alias.
                self.give_up(key.key_id()).await;
                match said(&error) {
                    // Another host was faster: both use its key.
                    Said::AlreadyExists => match self.described(&alias).await? {
                        Some(key) => self.remember(tenant, epoch, key.key_id()).await,
                        None => Err(errors::unexpected("an alias is there and names no key")),
                    },
                    other => Err(other.into_error()),
                }
            }
        }
    }

    async fn wrap(&self, tenant: &str, epoch: u64, context: &str, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        let call = self.client.encrypt().key_id(self.names.epoch(tenant, epoch)).plaintext(Blob::new(key.reveal().to_vec()));
        let call = self
            .names
            .context(tenant, epoch, context)
            .into_iter()
            .fold(call, |call, (name, value)| call.encryption_context(name, value));
        match call.send().await {
            Ok(done) => done.ciphertext_blob.map(Blob::into_inner).ok_or_else(|| errors::unexpected("it gave no ciphertext")),
            Err(error) => match said(&error) {
                Said::NotFound | Said::Unusable => Err(self.unusable(tenant, epoch).await),
                other => Err(other.into_error()),
            },
        }
    }

    async fn unwrap(&self, tenant: &str, epoch: u64, context: &str, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        // With the key named, the service refuses what another key of the account has encrypted.
        let call = self.client.decrypt().key_id(self.names.epoch(tenant, epoch)).ciphertext_blob(Blob::new(wrapped));
        let call = self
            .names
            .context(tenant, epoch, context)
            .into_iter()
            .fold(call, |call, (name, value)| call.encryption_context(name, value));
        match call.send().await {
            Ok(done) => {
                let mut bytes = done.plaintext.map(Blob::into_inner).unwrap_or_default();
                let key = <[u8; 32]>::try_from(bytes.as_slice()).map(DataKey::new).map_err(|_| KeyError::NotOpened);
                bytes.zeroize();
                key
            }
            Err(error) => match said(&error) {
                Said::NotFound | Said::Unusable => Err(self.unusable(tenant, epoch).await),
                other => Err(other.into_error()),
            },
        }
    }

    async fn destroy_epoch(&self, tenant: &str, epoch: u64) -> Result<Destruction, KeyError> {
        let newest = self.newest(tenant).await?;
        let Some(key) = self.described(&self.names.epoch(tenant, epoch)).await? else {
            return match epoch < newest {
                true => Ok(Destruction::Done),
                false => Err(KeyError::Missing { tenant: tenant.to_owned(), epoch }),
            };
        };
        if is_ending(&key) {
            return Ok(gone_at(&key));
        }
        if epoch >= newest {
            // Nothing would say that it ever was, once AWS has deleted it.
            let reason = format!("epoch {epoch} is the newest of the tenant: open the next one before this one is destroyed");
            return Err(KeyError::Refused { reason });
        }
        let days = i32::from(self.waiting_days);
        let told = self.client.schedule_key_deletion().key_id(key.key_id()).pending_window_in_days(days).send().await;
        if let Err(error) = told {
            match said(&error) {
                // Another host was faster.
                Said::Unusable | Said::NotFound => {}
                other => return Err(other.into_error()),
            }
        }
        match self.described(key.key_id()).await? {
            None => Ok(Destruction::Done),
            Some(key) if is_ending(&key) => Ok(gone_at(&key)),
            Some(_) => Err(errors::unexpected("it was asked to delete a key and has not begun")),
        }
    }
}

impl KmsKeys {
    /// Deletes a key that no alias names. If that fails, an unused key is left, which the log names.
    async fn give_up(&self, key: &str) {
        let days = i32::from(self.waiting_days);
        if let Err(error) = self.client.schedule_key_deletion().key_id(key).pending_window_in_days(days).send().await {
            let error = said(&error).into_error();
            tracing::warn!(key, %error, "a key that was made and is not used could not be deleted: delete it by hand");
        }
    }
}

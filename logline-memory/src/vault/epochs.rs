//! Ends epochs of a tenant's key, so that backups open nothing of what was forgotten.

use logline_core::contract::{Destruction, Kept, KeyError, MAX_KEY_PAGE, SubjectKey};

use super::{TRIES, Vault, VaultError, of_subject};

/// The epochs that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The epoch that goes on. All before it have ended.
    pub newest: u64,
    /// When the last of their keys is gone.
    pub destroyed: Destruction,
}

impl Vault {
    /// The newest epoch; begins the first one.
    pub(super) async fn newest_epoch(&self, tenant: &str) -> Result<u64, VaultError> {
        if let Some(epoch) = self.store()?.epoch(tenant).await? {
            return Ok(epoch.newest);
        }
        // A store that was lost begins again after the epochs that have ended. If another host was first, it is the same epoch.
        let mut first = 1;
        while let Err(error) = self.provider()?.open_epoch(tenant, first).await {
            if !matches!(error, KeyError::Destroyed { .. }) {
                return Err(error.into());
            }
            self.store()?.open_epoch(tenant, first).await?;
            first += 1;
        }
        self.store()?.open_epoch(tenant, first).await?;
        Ok(self.store()?.epoch(tenant).await?.map_or(first, |epoch| epoch.newest))
    }

    /// Ends the newest epoch of a tenant, and all that were not ended before: begins the next one, wraps every subject's key under it, and
    /// destroys the old keys. A call that was stopped anywhere is completed by the next one.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn close_epoch(&self, tenant: &str) -> Result<Closed, VaultError> {
        let mut next = self.newest_epoch(tenant).await? + 1;
        // A store from a backup may be behind the keys: it catches up.
        while let Err(error) = self.provider()?.open_epoch(tenant, next).await {
            if !matches!(error, KeyError::Destroyed { .. }) {
                return Err(error.into());
            }
            self.store()?.open_epoch(tenant, next).await?;
            next += 1;
        }
        // If another host was first, both go on with the same epoch.
        self.store()?.open_epoch(tenant, next).await?;
        self.finish_epochs(tenant).await
    }

    /// Completes what [`Vault::close_epoch`] has begun, and begins nothing.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn finish_epochs(&self, tenant: &str) -> Result<Closed, VaultError> {
        let mut destroyed = Destruction::Done;
        for _ in 0..TRIES {
            let Some(epochs) = self.store()?.epoch(tenant).await? else {
                return Ok(Closed { newest: 0, destroyed });
            };
            let (oldest, newest) = (epochs.oldest, epochs.newest);
            if oldest == newest {
                return Ok(Closed { newest, destroyed });
            }
            if let Some(damaged) = self.empty(tenant, oldest, newest).await? {
                return Err(damaged);
            }
            // The key goes first: a crash leaves an epoch without a key, which the next call drops.
            if self.store()?.subject_keys(tenant, oldest, 1).await?.is_empty() {
                match self.provider()?.destroy_epoch(tenant, oldest).await? {
                    Destruction::At(time) if !matches!(destroyed, Destruction::At(last) if last >= time) => {
                        destroyed = Destruction::At(time);
                    }
                    _ => {}
                }
                self.store()?.drop_epoch(tenant, oldest).await?;
                tracing::info!(tenant, epoch = oldest, "an epoch of a tenant's key has ended");
            }
        }
        Err(VaultError::Busy)
    }

    /// Wraps every key of an old epoch under the newest one. Keys that are damaged are left where they are, and told at the end: the
    /// epoch cannot end before they are restored or forgotten, and all others are safe by then.
    async fn empty(&self, tenant: &str, oldest: u64, newest: u64) -> Result<Option<VaultError>, VaultError> {
        loop {
            let rows = self.store()?.subject_keys(tenant, oldest, MAX_KEY_PAGE).await?;
            if rows.is_empty() {
                return Ok(None);
            }
            let (mut moved, mut damaged) = (false, None);
            for row in rows {
                let context = of_subject(row.id, &row.subject);
                let key = match self.provider()?.unwrap(tenant, oldest, &context, &row.wrapped).await {
                    Ok(key) => key,
                    Err(KeyError::NotOpened) => {
                        damaged = Some(VaultError::Damaged { subject: row.subject, epoch: oldest });
                        continue;
                    }
                    // Another host has ended the epoch meanwhile.
                    Err(KeyError::Destroyed { .. })
                        if self.store()?.epoch(tenant).await?.is_none_or(|epochs| epochs.oldest > oldest) =>
                    {
                        return Ok(None);
                    }
                    Err(error) => return Err(error.into()),
                };
                let wrapped = self.provider()?.wrap(tenant, newest, &context, &key).await?;
                let row = SubjectKey { epoch: newest, wrapped, ..row };
                moved |= self.store()?.rewrap_subject_key(tenant, oldest, &row).await? == Kept::Stored;
            }
            // Not one was moved: a still newer epoch has begun, or all that are left are damaged.
            if !moved {
                return Ok(damaged);
            }
        }
    }
}

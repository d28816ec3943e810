//! Keys of records by their age: those whose text never came into a span, and those that are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use logline_core::Timestamp;
use logline_core::contract::{MAX_KEY_PAGE, RecordKey};
use uuid::Uuid;

use super::{Sealed, TRIES, Text, Vault, VaultError};
use crate::envelope;

impl Vault {
    /// Opens a text of one subject that was encrypted at `since` or later. One that is older counts as erased: its key may be deleted at
    /// any moment.
    pub(crate) async fn open_since(
        &self,
        tenant: &str,
        subject: &str,
        text: Sealed<'_>,
        since: Timestamp,
    ) -> Result<Text, VaultError> {
        let opened = self.open_all(tenant, subject, &[text], since).await?.pop();
        opened.unwrap_or(Err(VaultError::Erased))
    }

    /// Which of these record keys are gone.
    pub(crate) async fn missing(&self, tenant: &str, keys: &[Uuid]) -> Result<BTreeSet<Uuid>, VaultError> {
        let mut missing: BTreeSet<Uuid> = keys.iter().copied().collect();
        for keys in keys.chunks(MAX_KEY_PAGE) {
            for row in self.store()?.record_keys(tenant, keys).await? {
                missing.remove(&row.id);
            }
        }
        Ok(missing)
    }

    /// Deletes the key of a text that was encrypted and then refused. The subject's other texts, and letters, stay.
    pub(crate) async fn drop_key_of(&self, tenant: &str, envelope: &[u8]) -> Result<(), VaultError> {
        let id = envelope::key_id(envelope)?;
        // Whatever its age: its text is in no span, and nobody else has the envelope.
        let later = self.store()?.now(tenant).await?.saturating_add(Duration::from_secs(60));
        self.store()?.drop_records(tenant, &[id], later).await?;
        Ok(())
    }

    /// Deletes the keys by which `key` leads to a memory that has ended: those of texts that were never kept.
    pub(crate) async fn drop_tagged(&self, tenant: &str, subject: &str, key: &str, ended: Uuid) -> Result<(), VaultError> {
        let later = self.store()?.now(tenant).await?.saturating_add(Duration::from_secs(60));
        for _ in 0..TRIES {
            let Some(opened) = self.subject(tenant, subject).await? else { return Ok(()) };
            let tag = opened.tag(tenant, key.as_bytes())?;
            match self.store()?.tagged(tenant, opened.row.id, &tag).await? {
                Some(row) if row.span == ended => self.store()?.drop_records(tenant, &[row.id], later).await?,
                _ => return Ok(()),
            };
        }
        Err(VaultError::Busy)
    }

    /// Whether the key of a text is gone.
    pub(crate) async fn is_lost(&self, tenant: &str, envelope: &[u8]) -> Result<bool, VaultError> {
        Ok(!self.missing(tenant, &[envelope::key_id(envelope)?]).await?.is_empty())
    }

    /// The time by the clock of the store of keys.
    pub(crate) async fn now(&self, tenant: &str) -> Result<Timestamp, VaultError> {
        Ok(self.store()?.now(tenant).await?)
    }

    /// Keys of records that were added before `before`, the oldest first.
    pub(crate) async fn aged(
        &self,
        tenant: &str,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, VaultError> {
        Ok(self.store()?.aged_records(tenant, before, after, limit).await?)
    }

    /// Deletes keys that were added before `before`.
    pub(crate) async fn drop_aged(&self, tenant: &str, keys: &[Uuid], before: Timestamp) -> Result<usize, VaultError> {
        Ok(self.store()?.drop_records(tenant, keys, before).await?)
    }
}

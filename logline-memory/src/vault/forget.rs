//! Destroys keys.

use std::collections::{BTreeMap, BTreeSet};

use logline_core::contract::{Forgetting, Kept, KeyError, MAX_KEY_PAGE, RecordKey, Replacement};
use uuid::Uuid;

use super::{NOTE, Opened, TRIES, Vault, VaultError};
use crate::wrap;

/// What a subject forgets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forget {
    /// The texts of these spans.
    Spans(BTreeSet<Uuid>),
    /// Of these spans, the texts under these keys of records: those of the versions that were seen. A version that is written meanwhile
    /// keeps its text.
    Versions(BTreeMap<Uuid, BTreeSet<Uuid>>),
    /// Everything.
    All,
}

impl Forget {
    fn takes(&self, record: &RecordKey) -> bool {
        match self {
            Self::Spans(spans) => spans.contains(&record.span),
            Self::Versions(versions) => versions.get(&record.span).is_some_and(|keys| keys.contains(&record.id)),
            Self::All => true,
        }
    }
}

/// What was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// How many keys of records. 0 if they were destroyed before.
    pub records: usize,
    /// The epoch that must end before a backup opens nothing of it.
    pub epoch: u64,
}

impl Vault {
    /// Destroys the keys of a subject's texts, in one transaction, and remembers `receipt`. What stays is wrapped under a new key of the
    /// subject, so that old wraps of the destroyed keys become useless with the epoch. Every letter of the subject becomes unreadable.
    ///
    /// It may be repeated with the same receipt.
    ///
    /// # Errors
    /// See [`VaultError`]. Nothing is destroyed then, except after [`VaultError::Store`], where everything may be: repeat the call.
    pub async fn forget(&self, tenant: &str, receipt: Uuid, subject: &str, what: &Forget) -> Result<Forgotten, VaultError> {
        for _ in 0..TRIES {
            let Some(row) = self.store()?.subject_key(tenant, subject).await? else {
                self.store()?.forget(tenant, receipt, &[]).await?;
                return Ok(Forgotten { records: 0, epoch: self.newest_epoch(tenant).await? });
            };
            let records = self.all_records(tenant, row.id).await?;
            let gone = records.iter().filter(|record| what.takes(record)).count();
            let replacement = match what {
                Forget::All => None,
                Forget::Spans(_) | Forget::Versions(_) => {
                    // Read again, opened: the keys that stay are needed.
                    let Some(old) = self.subject(tenant, subject).await?.filter(|old| old.row.id == row.id) else { continue };
                    let new = match self.new_subject(tenant, subject).await {
                        // The epoch ended between two calls.
                        Err(VaultError::Key(KeyError::Destroyed { .. })) => continue,
                        new => new?,
                    };
                    let stay = records.iter().filter(|record| !what.takes(record));
                    let mut records = Vec::new();
                    for record in stay {
                        match again(tenant, &old, &new, record) {
                            Ok(record) => records.push(record),
                            // Nobody can open it as it is, and it keeps nobody from forgetting.
                            Err(error) if error.is_of_text() => {
                                tracing::error!(tenant, span = %record.span, %error, "the key of a record is damaged, and is lost");
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    Some(Replacement { key: new.row, records })
                }
            };
            // INVARIANT: also if there is nothing to destroy, the store confirms that what was read is still so. Another act of forgetting
            // may have replaced the key since, and then the records are under the new one.
            let forgetting = Forgetting { subject_key: row.id, added: row.added, replacement };
            if self.store()?.forget(tenant, receipt, &[forgetting]).await? == Kept::Stored {
                metrics::counter!("logline_memory_forgotten_keys_total").increment(u64::try_from(gone).unwrap_or(u64::MAX));
                // Read afterwards: every copy of what was destroyed is wrapped under this epoch or an earlier one.
                return Ok(Forgotten { records: gone, epoch: self.newest_epoch(tenant).await? });
            }
        }
        Err(VaultError::Busy)
    }

    async fn all_records(&self, tenant: &str, subject_key: Uuid) -> Result<Vec<RecordKey>, VaultError> {
        let mut records: Vec<RecordKey> = Vec::new();
        loop {
            let after = records.last().map(|record| record.id);
            let page = self.store()?.records(tenant, subject_key, after, MAX_KEY_PAGE).await?;
            if page.is_empty() {
                return Ok(records);
            }
            records.extend(page);
        }
    }

    /// Whether a subject has a key.
    pub(crate) async fn has_key(&self, tenant: &str, subject: &str) -> Result<bool, VaultError> {
        Ok(self.store()?.subject_key(tenant, subject).await?.is_some())
    }

    /// The spans whose texts this subject's keys still open.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn spans(&self, tenant: &str, subject: &str) -> Result<BTreeSet<Uuid>, VaultError> {
        match self.store()?.subject_key(tenant, subject).await? {
            Some(row) => Ok(self.all_records(tenant, row.id).await?.into_iter().map(|record| record.span).collect()),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Which of these receipts the store does not remember. After the restore of a backup what they destroyed may be here again.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn not_forgotten(&self, tenant: &str, receipts: &[Uuid]) -> Result<Vec<Uuid>, VaultError> {
        Ok(self.store()?.not_forgotten(tenant, receipts).await?)
    }
}

/// A record that stays: the same key under the new key of its subject, and found by the same text.
fn again(tenant: &str, old: &Opened, new: &Opened, record: &RecordKey) -> Result<RecordKey, VaultError> {
    let key = old.unwrap(tenant, record)?;
    let tag = match &record.note {
        Some(note) => {
            let text = wrap::open(&key, NOTE, &[record.id.as_bytes()], note)?;
            Some(new.tag(tenant, &text)?)
        }
        None => None,
    };
    let wrapped = new.wrap(tenant, record.id, record.span, &key)?;
    Ok(RecordKey { subject_key: new.row.id, wrapped, tag, ..record.clone() })
}

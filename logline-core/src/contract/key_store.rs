//! Wrapped keys beside the ledger, in a store where rows can be deleted.

use async_trait::async_trait;
use uuid::Uuid;

use crate::ledger::LedgerError;
use crate::value::timestamp::Timestamp;

/// The most bytes of a wrapped key.
pub const MAX_WRAPPED_BYTES: usize = 4096;

/// The most uses of one wrapping key. Nonces are random, so a key must be replaced long before 2^32 of them (NIST SP 800-38D).
pub const MAX_WRAPS: u64 = 1 << 31;

/// The most record keys of one subject. Forgetting wraps those that stay again, in one transaction.
pub const MAX_RECORDS: usize = 100_000;

/// The most rows that one call returns.
pub const MAX_KEY_PAGE: usize = 1000;

/// The key of a subject, wrapped under an epoch of the tenant's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKey {
    /// The id of the key.
    pub id: Uuid,
    /// The user whose memories it protects: an `owner_id`.
    pub subject: String,
    /// The epoch of the tenant's key that wraps it.
    pub epoch: u64,
    /// The wrapped key, at most [`MAX_WRAPPED_BYTES`].
    pub wrapped: Vec<u8>,
    /// How many record keys were ever added under it. The store counts; what a caller writes here is not stored.
    pub added: u64,
}

/// The key of one encrypted record, wrapped under the key of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordKey {
    /// The id of the key.
    pub id: Uuid,
    /// The subject's key that wraps it.
    pub subject_key: Uuid,
    /// The span whose text it encrypts.
    pub span: Uuid,
    /// The wrapped key, at most [`MAX_WRAPPED_BYTES`].
    pub wrapped: Vec<u8>,
    /// By what the record is found again: a keyed hash, never a plain one.
    pub tag: Option<[u8; 32]>,
    /// What `tag` was made of, encrypted under the record's key, at most [`MAX_WRAPPED_BYTES`].
    pub note: Option<Vec<u8>>,
    /// When it was added, or wrapped again by an act of forgetting, by the store's clock. What a caller writes here is not stored.
    pub added_at: Timestamp,
}

/// What takes the place of a subject's key that is destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The new key of the same subject.
    pub key: SubjectKey,
    /// The records that stay, wrapped under the new key.
    pub records: Vec<RecordKey>,
}

/// What is to be destroyed. All of it happens in one transaction, or nothing does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgetting {
    /// The key to be destroyed, with every record under it.
    pub subject_key: Uuid,
    /// [`SubjectKey::added`] when the caller read the records. If a record was added since, nothing happens.
    pub added: u64,
    /// What stays. `None`: nothing.
    pub replacement: Option<Replacement>,
}

/// The epochs of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Epoch {
    /// The newest epoch. New keys are wrapped under it.
    pub newest: u64,
    /// The oldest epoch that is not yet dropped.
    pub oldest: u64,
}

impl Epoch {
    /// The epochs from `oldest` to `newest`.
    #[must_use]
    pub fn new(oldest: u64, newest: u64) -> Self {
        Self { newest, oldest }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is durable.
    Stored,
    /// Nothing was changed, because what it builds on has changed. Read again, and decide again.
    Stale,
}

/// Wrapped keys of memories. Whoever destroys a row here makes a record of the ledger unreadable for good.
///
/// # Contract
/// - Every call sees the rows of one tenant, and a store that serves several tenants enforces that itself.
/// - A change is durable when the call returns, and atomic.
/// - Deleted rows are overwritten as far as the store can do so: not on the pages of the file, and not in its log.
/// - Limits: [`MAX_WRAPPED_BYTES`], [`MAX_RECORDS`], [`MAX_WRAPS`], [`MAX_KEY_PAGE`]. What exceeds them is [`LedgerError::Refused`].
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// The epochs of the tenant; `None` if it has none yet.
    async fn epoch(&self, tenant: &str) -> Result<Option<Epoch>, LedgerError>;

    /// Begins the epoch `number`: 1, or the newest plus 1. [`Kept::Stale`] for any other number.
    async fn open_epoch(&self, tenant: &str, number: u64) -> Result<Kept, LedgerError>;

    /// Forgets the oldest epoch. [`Kept::Stale`] if `number` is not the oldest, is the newest, or still wraps a subject's key.
    async fn drop_epoch(&self, tenant: &str, number: u64) -> Result<Kept, LedgerError>;

    /// The key of a subject.
    async fn subject_key(&self, tenant: &str, subject: &str) -> Result<Option<SubjectKey>, LedgerError>;

    /// Keys that an epoch wraps, at most `limit`, in the order of their ids.
    async fn subject_keys(&self, tenant: &str, epoch: u64, limit: usize) -> Result<Vec<SubjectKey>, LedgerError>;

    /// Adds the first key of a subject. [`Kept::Stale`] if the subject has one, or if the epoch is not the newest.
    async fn add_subject_key(&self, tenant: &str, key: &SubjectKey) -> Result<Kept, LedgerError>;

    /// Replaces the wrap of a key by one under the newest epoch. [`Kept::Stale`] if the key is gone or no longer under `from`, or if the
    /// epoch of `key` is not the newest.
    async fn rewrap_subject_key(&self, tenant: &str, from: u64, key: &SubjectKey) -> Result<Kept, LedgerError>;

    /// Adds the key of a record, and counts it in [`SubjectKey::added`]. [`Kept::Stale`] if its subject's key is gone.
    async fn add_record_key(&self, tenant: &str, key: &RecordKey) -> Result<Kept, LedgerError>;

    /// The keys with these ids, in any order. Those that are gone are left out.
    async fn record_keys(&self, tenant: &str, ids: &[Uuid]) -> Result<Vec<RecordKey>, LedgerError>;

    /// A record of the subject with this tag: the one whose id is the lowest.
    async fn tagged(&self, tenant: &str, subject_key: Uuid, tag: &[u8; 32]) -> Result<Option<RecordKey>, LedgerError>;

    /// The records under a subject's key with ids after `after`, at most `limit`, in the order of their ids.
    async fn records(
        &self,
        tenant: &str,
        subject_key: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError>;

    /// Records of all subjects that were added before `before`, in the order of (`added_at`, id), after the pair `after`, at most `limit`.
    async fn aged_records(
        &self,
        tenant: &str,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError>;

    /// Deletes those of these records that were added before `before`, and returns how many. It is for keys whose text stands in no span:
    /// the subject's key stays, so a copy of the store from before still opens them, until the subject forgets something and the epoch
    /// ends.
    async fn drop_records(&self, tenant: &str, ids: &[Uuid], before: Timestamp) -> Result<usize, LedgerError>;

    /// The time by the store's clock, which dates what is added.
    async fn now(&self, tenant: &str) -> Result<Timestamp, LedgerError>;

    /// Destroys keys, and remembers `receipt` as done. [`Kept::Stale`] if the subject's key is gone, or a record was added since it was
    /// read; then `receipt` is not remembered.
    async fn forget(&self, tenant: &str, receipt: Uuid, forgetting: &[Forgetting]) -> Result<Kept, LedgerError>;

    /// Which of these receipts are not remembered: what they destroyed may be here again, as after the restore of a backup.
    async fn not_forgotten(&self, tenant: &str, receipts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError>;
}

/// Checks that a wrapped key has 1 to [`MAX_WRAPPED_BYTES`] bytes. Stores call it before they write one.
///
/// # Errors
/// [`LedgerError::Refused`].
pub fn check_wrapped(wrapped: &[u8]) -> Result<(), LedgerError> {
    if (1..=MAX_WRAPPED_BYTES).contains(&wrapped.len()) {
        return Ok(());
    }
    let reason = format!("a wrapped key has {} bytes: 1 to {MAX_WRAPPED_BYTES} are allowed", wrapped.len());
    Err(LedgerError::Refused { reason })
}

impl RecordKey {
    /// Checks the sizes of the wrapped key and of the note.
    ///
    /// # Errors
    /// As [`check_wrapped`].
    pub fn check(&self) -> Result<(), LedgerError> {
        check_wrapped(&self.wrapped)?;
        self.note.as_deref().map_or(Ok(()), check_wrapped)
    }
}

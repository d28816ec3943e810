//! What can go wrong at a ledger, by meaning.

use std::error::Error as StdError;

use thiserror::Error;

use crate::ledger::scope::Denied;
use crate::span::SpanKey;
use crate::span::rules::InvalidSpan;
use crate::value::hex::Hash;

type Source = Box<dyn StdError + Send + Sync>;

/// An error of a ledger. [`LedgerError::retry`] says what may help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Somebody else wrote first, or the same id stands there with other content.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// No such span, or none that this scope may see.
    #[error("no span {id} in tenant `{tenant}` that this scope can see")]
    NotFound {
        /// The tenant that was named.
        tenant: String,
        /// The id.
        id: uuid::Uuid,
    },
    /// The scope may not do this.
    #[error("not permitted: {0}")]
    Forbidden(#[from] Denied),
    /// The span can never be stored.
    #[error("span {key} is invalid: {source}")]
    InvalidSpan {
        /// Which.
        key: SpanKey,
        /// Why.
        source: InvalidSpan,
    },
    /// A version that changes what a version must keep.
    #[error("span {key} changes `{column}`: every version keeps its predecessor's owner_id and entity_type")]
    ChangedIdentity {
        /// Which.
        key: SpanKey,
        /// The column.
        column: &'static str,
    },
    /// The same draft digest key stands in the ledger with other content.
    #[error("span {key} exists with other content than the deterministic draft: do not retry, find out which writer differs")]
    KeepMismatch {
        /// Which.
        key: SpanKey,
    },
    /// The tenant has used what it may of a quota today.
    #[error("tenant `{tenant}` has used its {per_day} of `{key}` on {day} (UTC): wait for the next day, or raise the limit")]
    QuotaExceeded {
        /// The tenant.
        tenant: String,
        /// The quota.
        key: String,
        /// Its limit.
        per_day: u64,
        /// The day.
        day: chrono::NaiveDate,
    },
    /// The claim uses a quota of another day than the ledger's.
    #[error("claim {key} uses quota of {claimed}, but the ledger's day is {today} (UTC): make the claim anew for today")]
    WrongDay {
        /// The claim.
        key: SpanKey,
        /// The day it names.
        claimed: chrono::NaiveDate,
        /// The ledger's day.
        today: chrono::NaiveDate,
    },
    /// More spans in one append than the backend takes.
    #[error("batch of {spans} spans is over the limit of {max}: append it in parts")]
    BatchTooLarge {
        /// Spans given.
        spans: usize,
        /// The limit.
        max: usize,
    },
    /// A cursor that this ledger did not give, or gave for another order.
    #[error("cursor `{cursor}` is not one of this ledger's for this order: start without a cursor")]
    InvalidCursor {
        /// The cursor.
        cursor: String,
    },
    /// A stored row that cannot be read as a span. Run fsck.
    #[error("row {row} is damaged: {reason}; run fsck and restore it from an export")]
    Damaged {
        /// Which, as far as it can be read.
        row: String,
        /// Why.
        reason: String,
    },
    /// The store is something else.
    #[error("{reason}: check the path; if it was a ledger, restore it from a copy")]
    NotALedger {
        /// What it is.
        reason: String,
    },
    /// The store's files are damaged.
    #[error("ledger storage is corrupt: {reason}; restore it from a copy")]
    Corrupt {
        /// What the store says.
        reason: String,
        /// Its error.
        source: Option<Source>,
    },
    /// The store was written by another version of this library.
    #[error("ledger has schema version {found}, this library supports {supported}: {advice}")]
    SchemaVersion {
        /// Found in the store.
        found: i64,
        /// The newest that this library knows.
        supported: i64,
        /// What to do.
        advice: &'static str,
    },
    /// The store is open for reading only.
    #[error("ledger is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The store refuses this caller or this set-up; the same call fails until that is changed.
    #[error("the ledger's store refuses: {reason}")]
    Refused {
        /// Why, and what to change.
        reason: String,
    },
    /// No room for more.
    #[error("ledger is full: {reason}; nothing of this batch was stored, free space and retry")]
    Full {
        /// What is full.
        reason: String,
    },
    /// The store cannot answer now.
    #[error("ledger is unavailable: {reason}; retry later")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The store's error.
        source: Option<Source>,
    },
    /// The ledger was closed.
    #[error("ledger is closed")]
    Closed,
}

/// What may help after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Nothing: the same call fails again.
    No,
    /// Read the span again, decide anew, and append a successor of what is there now.
    Rebase,
    /// The same call, later. An append may be repeated: identical bytes are stored once.
    Later,
}

impl LedgerError {
    /// What may help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict(_) | Self::WrongDay { .. } => Retry::Rebase,
            Self::Unavailable { .. } | Self::Full { .. } => Retry::Later,
            _ => Retry::No,
        }
    }

    /// Whether the error is about the append itself: another append to the same ledger may succeed.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        matches!(
            self,
            Self::Conflict(_)
                | Self::Forbidden(_)
                | Self::ChangedIdentity { .. }
                | Self::KeepMismatch { .. }
                | Self::Damaged { .. }
                | Self::InvalidSpan { .. }
                | Self::QuotaExceeded { .. }
                | Self::WrongDay { .. }
        )
    }

    /// Whether the span or id is simply not there (or not visible).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// The compare-and-swap that every append is was lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Conflict {
    /// This version exists with other content.
    #[error("span {key} exists already with other content: read it and append its next version")]
    Exists {
        /// Which.
        key: SpanKey,
    },
    /// The id exists, so it cannot begin again.
    #[error("span {key} has no prev_hash, but the id exists up to seq {head}: append seq {} with its hash", head.saturating_add(1))]
    AlreadyBegun {
        /// Which.
        key: SpanKey,
        /// The last version.
        head: u32,
    },
    /// The predecessor is not there.
    #[error("span {key} has a prev_hash, but its id does not exist: append its predecessors first")]
    NoPredecessor {
        /// Which.
        key: SpanKey,
    },
    /// The version is not the one after the last.
    #[error("span {key} does not follow the last version, which is seq {head}")]
    Gap {
        /// Which.
        key: SpanKey,
        /// The last version.
        head: u32,
    },
    /// The predecessor has another hash: a fork.
    #[error("span {key} follows {claimed}, but the version before it hashes to {stored}: read it again")]
    Fork {
        /// Which.
        key: SpanKey,
        /// `prev_hash` of the new span.
        claimed: Hash,
        /// `curr_hash` of the version there.
        stored: Hash,
    },
}

//! The errors of a ledger, one for each cause.

use std::error::Error as StdError;

use thiserror::Error;

use crate::ledger::scope::Denied;
use crate::span::SpanKey;
use crate::span::rules::InvalidSpan;
use crate::value::hex::Hash;

type Source = Box<dyn StdError + Send + Sync>;

/// An error of a ledger. [`LedgerError::retry`] says whether a retry can help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The span does not continue the stored versions of its id, for example because another writer was first.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The span does not exist, its last version is a tombstone, or the scope may not see it.
    #[error("no span {id} in tenant `{tenant}` that this scope can see")]
    NotFound {
        /// The tenant that the call named.
        tenant: String,
        /// The id that the call asked for.
        id: uuid::Uuid,
    },
    /// The scope may not append this span.
    #[error("not permitted: {0}")]
    Forbidden(#[from] Denied),
    /// The span breaks a rule for spans and cannot be stored anywhere.
    #[error("span {key} is invalid: {source}")]
    InvalidSpan {
        /// The span that was to be appended.
        key: SpanKey,
        /// The rule that it breaks.
        source: InvalidSpan,
    },
    /// The new version has another owner or type than the version before it.
    #[error("span {key} changes `{column}`: every version keeps its predecessor's owner_id and entity_type")]
    ChangedIdentity {
        /// The span that was to be appended.
        key: SpanKey,
        /// The column that differs: `owner_id` or `entity_type`.
        column: &'static str,
    },
    /// The append asked for [`OnExisting::Keep`](crate::ledger::OnExisting::Keep), but the stored version has another draft
    /// digest: two writers made different content for the same id.
    #[error("span {key} exists already, but its content differs from this draft: do not retry, find out which writer is wrong")]
    KeepMismatch {
        /// The span that was to be appended.
        key: SpanKey,
    },
    /// The tenant has used up a quota for today. Nothing of the batch was stored.
    #[error(
        "tenant `{tenant}` has used its {per_day} units of `{key}` on {day} (UTC): wait for the next day, or raise the limit"
    )]
    QuotaExceeded {
        /// The tenant of the claim.
        tenant: String,
        /// The name of the quota.
        key: String,
        /// The limit, in units per UTC day.
        per_day: u64,
        /// The ledger's UTC day.
        day: chrono::NaiveDate,
    },
    /// A limit applies to the claim, but the claim is charged to another day than the ledger's.
    #[error("claim {key} is charged to {claimed}, but the ledger's day is {today} (UTC): make a new claim for today")]
    WrongDay {
        /// The claim that was to be appended.
        key: SpanKey,
        /// The day that the claim names in `metadata.quota`.
        claimed: chrono::NaiveDate,
        /// The ledger's UTC day.
        today: chrono::NaiveDate,
    },
    /// The append has more spans than the backend allows ([`Capability::max_batch`](crate::ledger::Capability::max_batch)).
    #[error("batch of {spans} spans is over the limit of {max}: append it in parts")]
    BatchTooLarge {
        /// The number of spans in the batch.
        spans: usize,
        /// The largest number that the backend allows.
        max: usize,
    },
    /// The cursor is malformed, comes from a scan in another order, or points where this ledger has no row. A cursor of another ledger may point
    /// where this one has rows, and is then not noticed: keep cursors with the ledger that they are of.
    #[error("cursor `{cursor}` is not valid for this ledger and this order: start without a cursor")]
    InvalidCursor {
        /// The text of the cursor. Backends may shorten it.
        cursor: String,
    },
    /// A stored row cannot be read as a span. Run fsck.
    #[error("row {row} is damaged: {reason}; run fsck and restore it from an export")]
    Damaged {
        /// The row as `tenant/id/seq`, with the columns as they are stored.
        row: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// The store is not a ledger.
    #[error("{reason}: check the path; if it was a ledger, restore it from a copy")]
    NotALedger {
        /// What was found instead.
        reason: String,
    },
    /// The ledger that is open is not the one at its place any more: it was moved or replaced while it was open.
    #[error(
        "the ledger {place} was moved or replaced while it was open, and what was appended since then is not in it: stop this process, and \
         start it again"
    )]
    Moved {
        /// Where it was.
        place: String,
    },
    /// The store's files are damaged.
    #[error("ledger storage is corrupt: {reason}; restore it from a copy")]
    Corrupt {
        /// What the store reports.
        reason: String,
        /// The store's error, if there is one.
        source: Option<Source>,
    },
    /// The store has the schema of another version of this library.
    #[error("ledger has schema version {found}, this library supports {supported}: {advice}")]
    SchemaVersion {
        /// The schema version of the store.
        found: i64,
        /// The newest schema version that this library supports.
        supported: i64,
        /// What to do about it.
        advice: &'static str,
    },
    /// The store is open for reading only.
    #[error("ledger is read-only: {reason}")]
    ReadOnly {
        /// Why it is read-only.
        reason: String,
    },
    /// The ledger or its store refuses this call, this login or this configuration. The same call fails until that is changed.
    #[error("the ledger refuses the call: {reason}")]
    Refused {
        /// Why, and what to change.
        reason: String,
    },
    /// The store has no space left.
    #[error("ledger is full: {reason}; nothing of this batch was stored, free space and retry")]
    Full {
        /// What is full, for example the disk.
        reason: String,
    },
    /// The store cannot answer at the moment. It is not known whether an append was stored.
    #[error("ledger is unavailable: {reason}; retry later")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The store's error, if there is one.
        source: Option<Source>,
    },
    /// The ledger was closed.
    #[error("ledger is closed: open it again")]
    Closed,
}

/// Whether a retry can help after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Do not retry: the same call fails again.
    No,
    /// Read the span again, decide again, and append the successor of its present last version.
    Rebase,
    /// Retry the same call later. It is safe to repeat an append: identical bytes are stored once.
    Later,
}

impl LedgerError {
    /// Whether and how to retry.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict(_) | Self::WrongDay { .. } => Retry::Rebase,
            Self::Unavailable { .. } | Self::Full { .. } => Retry::Later,
            _ => Retry::No,
        }
    }

    /// Whether the error concerns only the append that failed. Another append to the same ledger may still succeed.
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

    /// Whether the span does not exist or is not visible to the scope.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// An append failed because the stored versions of its id, or of one that it relies on, are not the ones that it expects.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Conflict {
    /// A version with this `seq` exists and has other content.
    #[error("span {key} exists already with other content: read it and append its next version")]
    Exists {
        /// The span that was to be appended.
        key: SpanKey,
    },
    /// The span is a first version (no `prev_hash`), but its id exists already.
    #[error("span {key} has no prev_hash, but the id exists up to seq {head}: append seq {} with its hash", head.saturating_add(1))]
    AlreadyBegun {
        /// The span that was to be appended.
        key: SpanKey,
        /// The `seq` of the last stored version.
        head: u32,
    },
    /// The span has a `prev_hash`, but no version of its id exists.
    #[error("span {key} has a prev_hash, but its id does not exist: append its predecessors first")]
    NoPredecessor {
        /// The span that was to be appended.
        key: SpanKey,
    },
    /// The `seq` of the span is not the next one after the last version.
    #[error("span {key} does not follow the last version, which is seq {head}: read it again and append its next version")]
    Gap {
        /// The span that was to be appended.
        key: SpanKey,
        /// The `seq` of the last stored version.
        head: u32,
    },
    /// The `prev_hash` of the span is not the `curr_hash` of the stored version before it: storing it would make a fork.
    #[error("span {key} has prev_hash {claimed}, but the version before it has curr_hash {stored}: read it again")]
    Fork {
        /// The span that was to be appended.
        key: SpanKey,
        /// The `prev_hash` of that span.
        claimed: Hash,
        /// The `curr_hash` of the stored version before it.
        stored: Hash,
    },
    /// The append relies on a version ([`Premise`](crate::ledger::Premise)) that is not the last one of its id any more.
    #[error("the append relies on {key}, which is not the last version of its id any more: read it again and decide again")]
    Premise {
        /// The version that it relies on.
        key: SpanKey,
    },
    /// The append is for a claim ([`HeldClaim`](crate::ledger::HeldClaim)) that is not held any more.
    #[error("the claim {key} is lost: the request has ended, or another attempt has begun; stop this one")]
    ClaimLost {
        /// The version that was the claim.
        key: SpanKey,
    },
}

impl Conflict {
    /// The span that was to be appended, or the version that must be the last one for it.
    #[must_use]
    pub fn key(&self) -> &SpanKey {
        match self {
            Self::Exists { key }
            | Self::AlreadyBegun { key, .. }
            | Self::NoPredecessor { key }
            | Self::Gap { key, .. }
            | Self::Fork { key, .. }
            | Self::Premise { key }
            | Self::ClaimLost { key } => key,
        }
    }
}

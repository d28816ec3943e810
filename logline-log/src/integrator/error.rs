//! Why an integrator does not go on.

use logline_core::ledger::{LedgerError, Retry};
use logline_core::{SignError, SpanKey, VerifyError};
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::TreeHash;
use crate::note::{KeyName, NoteError, NoteKeyError};
use crate::store::StoreError;
use crate::tile::GrowthError;

/// Why an integrator does not go on. In every case the last signed checkpoint still holds.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IntegrateError {
    /// The ledger failed, or a row is damaged.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log's key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The ledger lacks the last row that the log has: it was restored from a copy.
    #[error(
        "the ledger of tenant `{tenant}` lacks the last row of its log ({checkpoint}): it was restored from a copy. Nothing more is signed under this origin. Import the lost rows or accept their loss, then begin a new log that names the old checkpoint (`logline log run --begin-again`)"
    )]
    Restored {
        /// The tenant.
        tenant: String,
        /// The last checkpoint that was signed.
        checkpoint: Checkpoint,
    },
    /// What was published is not older than what was signed last: the lock store was restored from a copy.
    #[error(
        "published are {published}, and signed last were {signed}: the lock store was restored from a copy, or two logs write to one place. Nothing more is signed under this origin. Begin a new log (`logline log run --begin-again`)"
    )]
    SetBack {
        /// The published checkpoint.
        published: Checkpoint,
        /// The checkpoint in the lock store.
        signed: Checkpoint,
    },
    /// The last checkpoint is not by this key.
    #[error(
        "the last checkpoint of log `{origin}` is not by this key: {source}; use the log's key, or begin a new log with the new one"
    )]
    NotOurs {
        /// The log.
        origin: KeyName,
        /// What is wrong.
        source: Box<CheckpointError>,
    },
    /// The published checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The record in the lock store cannot be read.
    #[error(
        "the record in the lock store is damaged: {reason}; do not delete it: find the last signed checkpoint, and begin a new log"
    )]
    Record {
        /// What is wrong.
        reason: String,
    },
    /// The tenant has no last signed checkpoint, and the stores are in use.
    #[error(
        "tenant `{tenant}` has no last signed checkpoint, and the stores are in use: is this the right place, and is its disk there? If the tenant has had a log here{}, put its file back. If that is lost, keep the log as it is, and begin another in new stores. Only for a tenant that is new here, begin one (`logline log run --begin`)",
        maybe(.unclaimed)
    )]
    Missing {
        /// The tenant.
        tenant: String,
        /// Logs that may be its own.
        unclaimed: Vec<String>,
    },
    /// The rows of the ledger are not those that were entered.
    #[error(
        "the {rows} rows that the ledger has up to the end of the log give root {found}, and {checkpoint} was signed: rows are missing or were changed (`logline verify EXPORT --log DIR` names them). Nothing was written"
    )]
    OtherRows {
        /// The last checkpoint that was signed.
        checkpoint: Checkpoint,
        /// How many entries there are now.
        rows: u64,
        /// Their root.
        found: TreeHash,
    },
    /// The first entry of the log is no row, and it is lost.
    #[error(
        "the first entry of {checkpoint} is the last checkpoint of the log before it, and the bundle with it is lost: name the file with that checkpoint (`--continues`). Nothing was written"
    )]
    FirstEntry {
        /// The last checkpoint that was signed.
        checkpoint: Checkpoint,
    },
    /// There is no log that could be continued or made again.
    #[error("the tenant has no log yet: there is nothing to begin or make again")]
    NoLog,
    /// Tiles were truncated, replaced or deleted.
    #[error(transparent)]
    Tiles(#[from] GrowthError),
    /// A row of the ledger is not valid, so it cannot be entered.
    #[error("row {key} cannot be entered: {source}; run fsck, and restore the row from an export")]
    Row {
        /// The row.
        key: SpanKey,
        /// What is wrong with it.
        source: VerifyError,
    },
    /// What was staged is not what was hashed: memory or disk is failing. Nothing was signed.
    #[error("{what} has changed between hashing and signing: memory or disk of this machine is failing; nothing was signed")]
    Rehash {
        /// What has changed.
        what: String,
    },
    /// An entry is longer than 65,535 bytes.
    #[error("an entry has {bytes} bytes, more than the format allows")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a new origin: {reason}")]
    Random {
        /// What it said.
        reason: String,
    },
    /// Too few witnesses have cosigned the last signed checkpoint, so it is not published yet. They are asked again.
    #[error(
        "{checkpoint} is signed and not published: {cosigned} of the witnesses have cosigned it, fewer than the policy asks for; they are asked again"
    )]
    Quorum {
        /// The checkpoint.
        checkpoint: Checkpoint,
        /// How many witnesses have cosigned.
        cosigned: usize,
    },
    /// A note or a key is malformed.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The log's key is weak or malformed.
    #[error(transparent)]
    Key(#[from] NoteKeyError),
}

fn maybe(unclaimed: &[String]) -> String {
    if unclaimed.is_empty() { String::new() } else { format!(" (it may be one of {})", unclaimed.join(", ")) }
}

impl IntegrateError {
    /// Whether the same step may succeed later, without anybody doing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Ledger(error) => error.retry() == Retry::Later,
            Self::Store(error) => matches!(error, StoreError::Unavailable { .. }),
            Self::Sign(error) => error.retryable,
            Self::Quorum { .. } => true,
            _ => false,
        }
    }
}

//! The rule by which every append is a compare-and-swap. It is a pure function that all backends share.

use crate::ledger::error::{Conflict, LedgerError};
use crate::ledger::{AppendOptions, OnExisting, Outcome};
use crate::span::SignedSpan;
use crate::span::canonical;
use crate::span::seal::VerifiedSpan;
use crate::value::hex::Hash;

/// The columns of the last version of an id that the decision needs.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The `seq` of the last version.
    pub seq: u32,
    /// The `curr_hash` of the last version.
    pub curr_hash: &'a Hash,
    /// The owner, which every version keeps.
    pub owner_id: &'a str,
    /// The type, which every version keeps.
    pub entity_type: &'a str,
}

/// What a backend must do with a new span, given the last version of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Insert the span.
    Insert,
    /// A version with this `seq` may exist: read it and call [`decide_existing`].
    LookUp,
}

/// Decides whether `new` may be inserted after `head`, the last version of its id in its tenant. `head` is `None` if the id
/// does not exist.
///
/// # Errors
/// [`Conflict`], or [`LedgerError::ChangedIdentity`] if `new` has another owner or type than `head`.
pub fn decide(new: &VerifiedSpan, head: Option<Head<'_>>) -> Result<Decision, LedgerError> {
    let key = || new.key();
    let Some(head) = head else {
        return match new.prev_hash {
            None => Ok(Decision::Insert),
            Some(_) => Err(Conflict::NoPredecessor { key: key() }.into()),
        };
    };
    if new.seq <= head.seq {
        return Ok(Decision::LookUp);
    }
    let Some(claimed) = new.prev_hash else {
        return Err(Conflict::AlreadyBegun { key: key(), head: head.seq }.into());
    };
    if new.seq != head.seq.saturating_add(1) {
        return Err(Conflict::Gap { key: key(), head: head.seq }.into());
    }
    for (column, ours, theirs) in
        [("owner_id", new.owner_id.as_str(), head.owner_id), ("entity_type", new.entity_type.as_str(), head.entity_type)]
    {
        if ours != theirs {
            return Err(LedgerError::ChangedIdentity { key: key(), column });
        }
    }
    // Compare the hashes only after the owners: the error names the stored hash, and only the owner may learn that of a private
    // row.
    if claimed != *head.curr_hash {
        return Err(Conflict::Fork { key: key(), claimed, stored: *head.curr_hash }.into());
    }
    Ok(Decision::Insert)
}

/// Decides about `new` if its id already has versions up to its `seq` or beyond. `head` is the `seq` of the last version.
/// `existing` is the stored row with exactly the `seq` of `new`, if there is one.
///
/// # Errors
/// [`Conflict`], or [`LedgerError::KeepMismatch`].
pub fn decide_existing(
    new: &VerifiedSpan,
    head: u32,
    existing: Option<&SignedSpan>,
    options: &AppendOptions,
) -> Result<Outcome, LedgerError> {
    let key = new.key();
    let Some(existing) = existing else {
        return Err(Conflict::AlreadyBegun { key, head }.into());
    };
    if existing.seal.curr_hash == new.seal.curr_hash {
        return Ok(Outcome::Existing);
    }
    match options.on_existing {
        OnExisting::Conflict => Err(Conflict::Exists { key }.into()),
        // Compute the digest from the stored columns. A digest that is stored in the row could be false: the writer of the row
        // may have copied it.
        OnExisting::Keep if canonical::draft_digest(&existing.span) == new.draft_digest() => Ok(Outcome::Kept),
        OnExisting::Keep => Err(LedgerError::KeepMismatch { key }),
    }
}

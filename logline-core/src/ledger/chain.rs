//! The compare-and-swap at the heart of every ledger, as a pure decision that all backends share.

use crate::ledger::error::{Conflict, LedgerError};
use crate::ledger::{AppendOptions, OnExisting, Outcome};
use crate::span::SignedSpan;
use crate::span::canonical;
use crate::span::seal::VerifiedSpan;
use crate::value::hex::Hash;

/// The last version of an id, as far as the decision needs it.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its version.
    pub seq: u32,
    /// Its hash.
    pub curr_hash: &'a Hash,
    /// Its owner.
    pub owner_id: &'a str,
    /// Its type.
    pub entity_type: &'a str,
}

/// What a backend does with a span whose id has this head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Insert it.
    Insert,
    /// A version of this `seq` may exist: look it up and ask [`decide_existing`].
    LookUp,
}

/// Decides whether `new` may be inserted after `head`, the last version of its id in its tenant.
///
/// # Errors
/// [`Conflict`], or a change of what versions must keep.
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
    // Only now: the hash of a private row is told to nobody but its owner.
    if claimed != *head.curr_hash {
        return Err(Conflict::Fork { key: key(), claimed, stored: *head.curr_hash }.into());
    }
    Ok(Decision::Insert)
}

/// Decides about `new` where its id is known up to its `seq` or beyond; `existing` is the stored row of exactly that version.
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
        // Computed anew from what is stored: a digest that merely stands in the row could be a squatter's claim.
        OnExisting::Keep if canonical::draft_digest(&existing.span) == new.draft_digest() => Ok(Outcome::Kept),
        OnExisting::Keep => Err(LedgerError::KeepMismatch { key }),
    }
}

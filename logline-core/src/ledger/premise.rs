//! What an append relies on: versions of other spans that must still be the last ones when it is stored.

use crate::ledger::error::{Conflict, LedgerError};
use crate::span::{SignedSpan, SpanKey};
use crate::value::hex::Hash;

/// The types of spans that an append may rely on. A backend keeps the append that relies on a version apart from the one that adds the
/// next version, which costs something for each version of such a type. So these are types that change seldom.
pub const PREMISES: &[&str] = &["consent"];

/// A version that must still be the last one of its id when a batch is stored. Otherwise nothing of the batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Premise {
    key: SpanKey,
    curr_hash: Hash,
}

impl Premise {
    /// Relies on this version.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if its type is none of [`PREMISES`].
    pub fn of(version: &SignedSpan) -> Result<Self, LedgerError> {
        if PREMISES.contains(&version.entity_type.as_str()) {
            return Ok(Self { key: version.key(), curr_hash: version.seal.curr_hash });
        }
        let reason = format!("an append cannot rely on a span of type `{}`", version.entity_type.escape_debug());
        Err(LedgerError::Refused { reason })
    }

    /// Relies on `seq` being the last version of the same id instead: a row that was appended after the version which counts, and that
    /// does not count itself. Whoever can write to the store can append such rows, and must not end by them what others rely on.
    #[must_use]
    pub fn followed_by(mut self, seq: u32, curr_hash: Hash) -> Self {
        (self.key.seq, self.curr_hash) = (seq, curr_hash);
        self
    }

    /// The version.
    #[must_use]
    pub fn key(&self) -> &SpanKey {
        &self.key
    }

    /// Its hash.
    #[must_use]
    pub fn curr_hash(&self) -> &Hash {
        &self.curr_hash
    }

    /// Checks the premise, where `head` is the `curr_hash` of the last version of its id, whoever may see that. Backends call it in the
    /// transaction that stores the batch, while nobody can add a version.
    ///
    /// # Errors
    /// [`Conflict::Premise`].
    pub fn check(&self, head: Option<&Hash>) -> Result<(), Conflict> {
        if head == Some(&self.curr_hash) { Ok(()) } else { Err(Conflict::Premise { key: self.key.clone() }) }
    }
}

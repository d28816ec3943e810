//! Searching the texts of public memories, and vectors made from them.
//!
//! The last version of a memory alone decides whether it is found, and where ([`SearchEntry`]). Backends keep the result in an
//! index that changes in the transaction of the append, as the [work queue](crate::ledger::work) does. Text that is not public
//! reaches no index, whatever the columns of its span say.

mod entry;
mod query;
mod score;
mod vector;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::ledger::error::LedgerError;
use crate::ledger::scope::Scope;
use crate::value::hex::Hash;

pub use entry::{MAX_INDEXED, MAX_TAG_BYTES, MAX_TAGS, Place, SearchEntry};
pub use query::{MAX_HITS, MAX_QUERY_BYTES, MAX_WORDS, SearchQuery, SearchScope, Searched, words};
pub use score::{Match, Statistics, best};
pub use vector::{InvalidVector, MAX_DIMENSIONS, MAX_SCANNED_VECTORS, Vector, VectorModel};

/// The most entries that [`Search::pending`] returns.
pub const MAX_PENDING: usize = 1000;

/// A memory that a search has found: enough to read it. It has nothing of the content.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The tenant of the memory. Not the caller's, if a public memory of another tenant was found.
    pub tenant_id: String,
    /// The id of the memory.
    pub id: Uuid,
    /// The `seq` of the version that was found, the last one.
    pub seq: u32,
    /// The `curr_hash` of that version.
    pub curr_hash: Hash,
    /// How well it matches, the more the better. Scores of one answer can be compared with each other, and with nothing else.
    pub score: f64,
}

/// An entry without a vector of some model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The id of the memory.
    pub id: Uuid,
    /// The `seq` of its last version. [`Search::put_vector`] takes a vector for this version only.
    pub seq: u32,
    /// The `curr_hash` of that version.
    pub curr_hash: Hash,
}

/// How a ledger searches vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VectorSupport {
    /// It compares the vectors of the scope one by one, up to [`MAX_SCANNED_VECTORS`].
    Flat,
    /// It has an index for vectors.
    Indexed,
    /// It keeps none: [`Search::put_vector`] and [`Search::search_vector`] refuse. Search by text works.
    Missing {
        /// What to do about it.
        advice: &'static str,
    },
}

/// A ledger that finds public memories by their words, and by vectors.
///
/// # Contract
/// - An entry exists for each memory whose last version [`SearchEntry::of`] accepts. It changes in the same transaction as the rows,
///   and with it its vectors go: a vector belongs to one version.
/// - The caller's [`Scope`] and the [`SearchScope`] are part of the store's query. No other entry takes part in it: not in what is
///   found, not among the best that are counted against the limit, and not in the numbers that scores are made from.
/// - Words are compared without case and, except by the in-memory ledger, by their English stems. An entry is found if it has any of
///   the words. What the text of a query contains besides words means nothing.
/// - Entries whose `ttl_at` is not after [`SearchQuery::now`] are not found.
/// - An entry without a vector is found by text, and listed as [pending](Search::pending).
///
/// A scope without identity finds nothing. An operator's scope is refused: an operator searches as the runtime of a tenant.
#[async_trait]
pub trait Search: Ledger {
    /// Finds entries by the words of the query, the best first. Entries with the same score are ordered by id, the newest first.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] for an operator's scope, or for a scope of a runtime in which no owner was named.
    async fn search_text(&self, scope: &Scope, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError>;

    /// Finds entries that have a vector of the same model, those with the greatest cosine first. The words of the query are not used.
    ///
    /// # Errors
    /// As [`Search::search_text`], and [`LedgerError::Refused`] if the ledger keeps no vectors.
    async fn search_vector(&self, scope: &Scope, query: &SearchQuery, vector: &Vector) -> Result<Vec<Hit>, LedgerError>;

    /// Stores the vector of an entry of the scope's tenant, in place of an earlier one of the same model. False if there is no entry
    /// with this `seq`: the memory has changed, or is not found any more.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the scope is not that of a runtime, or if the ledger keeps no vectors.
    async fn put_vector(&self, scope: &Scope, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError>;

    /// Up to `limit` (at most [`MAX_PENDING`]) entries of the scope's tenant that have no vector of this model, ordered by id and after
    /// `after`.
    ///
    /// # Errors
    /// As [`Search::put_vector`].
    async fn pending(
        &self,
        scope: &Scope,
        model: &VectorModel,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Pending>, LedgerError>;

    /// Whether and how this ledger searches vectors.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn vector_support(&self) -> Result<VectorSupport, LedgerError>;
}

/// The tenant for which a scope may put vectors.
///
/// # Errors
/// [`LedgerError::Refused`] unless it is the scope of a runtime.
pub fn runtime_of(scope: &Scope) -> Result<&str, LedgerError> {
    match scope {
        Scope::Runtime { tenant } if !tenant.is_empty() => Ok(tenant),
        _ => Err(LedgerError::Refused { reason: "only the runtime of a tenant keeps its vectors".to_owned() }),
    }
}

/// Forwards every call, so that an `Arc` of a ledger can be used as a ledger.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Search + ?Sized> Search for Arc<S> {
    async fn search_text(&self, scope: &Scope, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError> {
        (**self).search_text(scope, query).await
    }

    async fn search_vector(&self, scope: &Scope, query: &SearchQuery, vector: &Vector) -> Result<Vec<Hit>, LedgerError> {
        (**self).search_vector(scope, query, vector).await
    }

    async fn put_vector(&self, scope: &Scope, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError> {
        (**self).put_vector(scope, id, seq, vector).await
    }

    async fn pending(
        &self,
        scope: &Scope,
        model: &VectorModel,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Pending>, LedgerError> {
        (**self).pending(scope, model, after, limit).await
    }

    async fn vector_support(&self) -> Result<VectorSupport, LedgerError> {
        (**self).vector_support().await
    }
}

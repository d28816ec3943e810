//! From texts to vectors. A search that has no vectors still finds by text, so no failure here ends a search: the [breaker](Breaker)
//! leaves an embedder alone that keeps failing, and what has no vector yet stays
//! [pending](logline_core::ledger::Search::pending).
//!
//! Only texts whose sensitivity is public have vectors that are stored: a text can be guessed from its vector. Vectors of other texts are
//! made if the embedder is [in this process](Embedder::is_local), and kept in its memory alone.

mod breaker;
mod hashed;
mod pending;
mod provider;

use async_trait::async_trait;
use logline_core::contract::provider::{ProviderError, Purpose};
use logline_core::ledger::LedgerError;
use logline_core::ledger::search::{InvalidVector, Vector, VectorModel};
use thiserror::Error;

pub use breaker::{Breaker, BreakerOptions, BreakerState};
pub use hashed::HashedEmbedder;
pub use pending::{Filled, Permits, fill_pending};
pub use provider::ProviderEmbedder;

/// Makes vectors of texts.
///
/// # Contract
/// - The answer has one vector for each text, in their order, all of [`Embedder::model`].
/// - It makes one call of its provider for one call of its own. It does not retry.
/// - Dropping the future ends the call.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model, its version and its dimensions. Vectors of different models are never compared.
    fn model(&self) -> &VectorModel;

    /// Whether it makes vectors within this process, so that no text leaves it. Only such an embedder is given texts that are not public;
    /// another one is given queries and public texts. The default is false.
    fn is_local(&self) -> bool {
        false
    }

    /// Makes vectors of 1 to [`EmbedRequest::MAX_TEXTS`](logline_core::contract::provider::EmbedRequest::MAX_TEXTS) texts.
    ///
    /// # Errors
    /// Why there are none.
    async fn embed(&self, texts: &[String], purpose: Purpose) -> Result<Vec<Vector>, EmbedError>;
}

/// Why there are no vectors. No error contains a text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The embedder has failed too often of late, and is left alone.
    #[error(
        "the embedder `{model}` is left alone for {seconds} more seconds, because it keeps failing: searches find by text meanwhile"
    )]
    Open {
        /// The name of the model.
        model: String,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The provider gave no vectors.
    #[error("the embedder failed: {0}")]
    Provider(#[from] ProviderError),
    /// The credentials cannot be read.
    #[error("the embedder's credentials cannot be read: {0}")]
    Secret(String),
    /// The provider gave other vectors than those that were asked for.
    #[error("the embedder's answer cannot be used: {0}")]
    Vector(#[from] InvalidVector),
    /// The provider gave another number of vectors than there were texts.
    #[error("the embedder gave {found} vectors for {expected} texts")]
    Count {
        /// The number of texts.
        expected: usize,
        /// The number of vectors.
        found: usize,
    },
    /// The ledger could not be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl EmbedError {
    /// Whether it says something about the state of the provider. What is wrong with a text must not make the provider look as if it
    /// failed.
    #[must_use]
    pub fn is_providers(&self) -> bool {
        match self {
            Self::Provider(error) => error.kind.is_providers(),
            Self::Count { .. } | Self::Vector(_) | Self::Secret(_) => true,
            Self::Open { .. } | Self::Ledger(_) => false,
        }
    }
}

//! An embedder for tests. It knows nothing of meanings.

use async_trait::async_trait;
use logline_core::Hash;
use logline_core::contract::provider::Purpose;
use logline_core::ledger::search::{InvalidVector, Vector, VectorModel, words};

use super::{EmbedError, Embedder};

/// Makes vectors from the hashes of a text's words: texts that share words have near vectors, and texts that mean the same in other words
/// do not. It is for tests of everything around an embedder, never for search: FTS finds words better.
#[derive(Debug, Clone)]
pub struct HashedEmbedder {
    model: VectorModel,
}

impl HashedEmbedder {
    /// An embedder that makes vectors of so many dimensions.
    ///
    /// # Errors
    /// [`InvalidVector::Dimensions`].
    pub fn new(dimensions: usize) -> Result<Self, InvalidVector> {
        Ok(Self { model: VectorModel::new("hashed-words", "1", dimensions)? })
    }

    fn vector(&self, text: &str) -> Result<Vector, InvalidVector> {
        let mut values = vec![0.0_f32; self.model.dimensions()];
        // A text without words has a direction, too.
        let mut words = words(text);
        if words.is_empty() {
            words.push(String::new());
        }
        for word in words {
            let Hash(hash) = Hash::of(word.as_bytes());
            let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            let sign = if hash.last().is_some_and(|byte| byte & 1 == 1) { 1.0 } else { -1.0 };
            let at = usize::try_from(number % values.len() as u64).unwrap_or_default();
            if let Some(value) = values.get_mut(at) {
                *value += sign;
            }
        }
        if values.iter().all(|value| *value == 0.0)
            && let Some(first) = values.first_mut()
        {
            *first = 1.0;
        }
        Vector::new(&self.model, values)
    }
}

#[async_trait]
impl Embedder for HashedEmbedder {
    fn model(&self) -> &VectorModel {
        &self.model
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn embed(&self, texts: &[String], _purpose: Purpose) -> Result<Vec<Vector>, EmbedError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect::<Result<_, _>>()?)
    }
}

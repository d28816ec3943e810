//! Vectors, and the models that they are of.

use thiserror::Error;

/// The most dimensions of a vector.
pub const MAX_DIMENSIONS: usize = 4096;

/// The most vectors that a search looks at where there is no index: those of the newest entries.
pub const MAX_SCANNED_VECTORS: usize = 50_000;

const MAX_NAME_BYTES: usize = 128;

/// Why a vector or a model is refused. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidVector {
    /// The name or the version of the model is empty or too long.
    #[error("a model has a name and a version of 1 to 128 bytes each")]
    Name,
    /// The model has no dimensions, or too many.
    #[error("a model has 1 to 4096 dimensions, not {0}")]
    Dimensions(usize),
    /// The vector has other dimensions than its model.
    #[error("a vector of {found} dimensions is not one of a model of {expected}: embed the text again with that model")]
    OtherDimensions {
        /// Those of the model.
        expected: usize,
        /// Those of the vector.
        found: usize,
    },
    /// A value is not a finite number.
    #[error("the vector has a value that is not a finite number")]
    NotFinite,
    /// All values are zero, or so small that the vector has no direction.
    #[error("the vector has no direction: all its values are zero")]
    Zero,
}

/// A model that makes vectors. Vectors of different models are never compared, nor of different versions of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorModel {
    name: String,
    version: String,
    dimensions: usize,
}

impl VectorModel {
    /// A model of this name and version.
    ///
    /// # Errors
    /// [`InvalidVector::Name`] and [`InvalidVector::Dimensions`].
    pub fn new(name: impl Into<String>, version: impl Into<String>, dimensions: usize) -> Result<Self, InvalidVector> {
        let (name, version) = (name.into(), version.into());
        let is_named = |text: &str| (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains('\0');
        if !is_named(&name) || !is_named(&version) {
            return Err(InvalidVector::Name);
        }
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(InvalidVector::Dimensions(dimensions));
        }
        Ok(Self { name, version, dimensions })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The dimensions of its vectors.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }
}

/// A vector of length 1. `Debug` does not show its values: a text can be guessed from them.
#[derive(Clone, PartialEq)]
pub struct Vector {
    model: VectorModel,
    values: Vec<f32>,
}

impl std::fmt::Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vector").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Vector {
    /// A vector of `model` in the direction of `values`.
    ///
    /// # Errors
    /// [`InvalidVector`], if the values cannot be a vector of this model.
    pub fn new(model: &VectorModel, mut values: Vec<f32>) -> Result<Self, InvalidVector> {
        if values.len() != model.dimensions {
            return Err(InvalidVector::OtherDimensions { expected: model.dimensions, found: values.len() });
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(InvalidVector::NotFinite);
        }
        let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length < f64::from(f32::MIN_POSITIVE) {
            return Err(InvalidVector::Zero);
        }
        for value in &mut values {
            *value = (f64::from(*value) / length) as f32;
        }
        Ok(Self { model: model.clone(), values })
    }

    /// The model that it is of.
    #[must_use]
    pub fn model(&self) -> &VectorModel {
        &self.model
    }

    /// Its values.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Its values as bytes, each in little-endian order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The cosine of the angle between it and a vector whose bytes are `other`. `None` if that has other dimensions.
    #[must_use]
    pub fn cosine(&self, other: &[u8]) -> Option<f64> {
        let (chunks, rest) = other.as_chunks::<4>();
        if chunks.len() != self.values.len() || !rest.is_empty() {
            return None;
        }
        // Eight sums side by side, which the compiler can compute at once.
        let mut sums = [0.0_f32; 8];
        for (values, chunks) in self.values.chunks(8).zip(chunks.chunks(8)) {
            for ((sum, value), bytes) in sums.iter_mut().zip(values).zip(chunks) {
                *sum += value * f32::from_le_bytes(*bytes);
            }
        }
        Some(f64::from(sums.iter().sum::<f32>()))
    }
}

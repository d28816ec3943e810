//! What refuses to have a span published that would not work.

use crate::span::Span;
use crate::value::failure::Failure;

/// Knows what spans of some type must say to work.
pub trait Validator: Send + Sync {
    /// Whether a span will work; `Ok` for types that it does not know.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    fn validate(&self, span: &Span) -> Result<(), Failure>;
}

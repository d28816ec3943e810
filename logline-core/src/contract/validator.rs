//! The check of spans before they are published.

use crate::span::Span;
use crate::value::failure::Failure;

/// Checks spans of some types before they are published, so that no span is published that cannot work.
pub trait Validator: Send + Sync {
    /// Checks `span`. Returns `Ok` for types that this validator does not know.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    fn validate(&self, span: &Span) -> Result<(), Failure>;
}

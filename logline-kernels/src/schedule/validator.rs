//! What refuses to have a function published that could not run as it says.

use logline_core::contract::Validator;
use logline_core::trust::Limits;
use logline_core::{Failure, Span};

use super::rule::Schedule;

/// Refuses functions whose limits cannot be read, and scheduled ones whose schedule names no time.
#[derive(Debug, Clone, Copy, Default)]
pub struct FunctionValidator;

impl Validator for FunctionValidator {
    fn validate(&self, span: &Span) -> Result<(), Failure> {
        if span.entity_type != "function" || span.is_deleted {
            return Ok(());
        }
        if let Some(limits) = span.meta("limits") {
            let invalid = |reason| Failure::new("invalid_limits", format!("metadata.{reason}"));
            Limits::default().with(limits).map_err(invalid)?;
        }
        if span.status.as_deref() == Some("scheduled") { Schedule::of(span).map(drop) } else { Ok(()) }
    }
}

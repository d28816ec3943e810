//! Refuses to publish a function whose limits or schedule are invalid.

use logline_core::contract::Validator;
use logline_core::roles::is_near;
use logline_core::trust::Limits;
use logline_core::{Failure, Span};

use super::rule::Schedule;

/// Refuses to publish functions with invalid `metadata.limits`, and scheduled functions with an invalid `metadata.schedule`.
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
        if span.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return Err(Failure::new("invalid_function", "its name is empty: name it, or leave the column out"));
        }
        if span.meta("schedule").is_some() {
            let status = span.status.as_deref().unwrap_or_default();
            let is_like = is_near(&status.to_lowercase(), "scheduled") || status.is_empty();
            if status != "scheduled" && is_like {
                let message = format!(
                    "it has a schedule and the status `{status}`: `scheduled` puts it to work, any other such as `paused` does not"
                );
                return Err(Failure::new("invalid_schedule", message));
            }
        }
        if span.status.as_deref() == Some("scheduled") { Schedule::of(span).map(drop) } else { Ok(()) }
    }
}

//! The one error shape that crosses the boundary: `{"code", "message"}`.

use serde_json::{json, Value};

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable, for programs.
    pub code: String,
    /// What was wrong and what was expected, for people.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    /// The error object that the host reads.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

/// What was found in place of the expected value, for messages. It names the type and never repeats the value:
/// messages end up in ledgers and logs, and a payment event holds personal data.
pub(crate) fn found(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(n)) if n.is_f64() => "a number with a fraction",
        Some(Value::Number(n)) if n.is_i64() && !n.is_u64() => "a negative number",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(s)) if s.is_empty() => "an empty string",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}

//! A failure that is recorded: a stable code for machines and a message for people.

use serde_json::{Value, json};

/// Why something that was asked for has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// For machines: `fuel_exhausted`, `timeout`, `trap`, …. A guest's own error code is prefixed with `guest:`.
    pub code: String,
    /// For people: what happened and what to do.
    pub message: String,
}

/// The longest message that is stored, bytes.
const MAX_MESSAGE: usize = 4096;

/// The longest code that is stored, bytes.
const MAX_CODE: usize = 128;

impl Failure {
    /// A failure. Longer texts are cut, so that the row that records it always fits.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let cut = |text: String, max: usize| {
            if text.len() <= max {
                text
            } else {
                text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned() + "…"
            }
        };
        // U+0000 cannot be stored and may come from a guest.
        Self {
            code: cut(code.into().replace('\0', "\u{fffd}"), MAX_CODE),
            message: cut(message.into().replace('\0', "\u{fffd}"), MAX_MESSAGE),
        }
    }

    /// Whether another attempt would fail in the same way: the function itself refused, the request can never be carried out, or
    /// nobody knows whether a call to the outside has happened.
    #[must_use]
    pub fn is_final(&self) -> bool {
        const FINAL: &[&str] = &[
            "answer_limit",
            "invalid_call",
            "input_limit",
            "invalid_limits",
            "invalid_output",
            "not_a_function",
            "function_not_verified",
            "outcome_unknown",
            "request_malformed",
        ];
        self.code.starts_with("guest:") || FINAL.contains(&self.code.as_str())
    }

    /// The value of an `error` column: an object of `code` and `message`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }

    /// The failure in an `error` column. Members that are missing are empty.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("code"), text("message"))
    }
}

//! A failure that is recorded: a stable code for machines and a message for people.

use serde_json::{Value, json};

/// Why an operation gave no output, such as the attempt of a request or a call to the outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// For machines: `fuel_exhausted`, `timeout`, `trap`, …. A guest's own error code has the prefix `guest:`.
    pub code: String,
    /// For people: what happened and what to do.
    pub message: String,
}

/// A longer message is cut to this many bytes, and `…` is added.
const MAX_MESSAGE: usize = 4096;

/// A longer code is cut to this many bytes, and `…` is added.
const MAX_CODE: usize = 128;

impl Failure {
    /// Makes a failure. A code over 128 bytes or a message over 4,096 bytes is cut, so that the row that records it always
    /// fits. U+0000 becomes U+FFFD.
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

    /// Whether the failure must not be retried: the function itself returned an error, the request can never be carried out, a
    /// provider will never accept it, or nobody knows whether a call to the outside has happened.
    #[must_use]
    pub fn is_final(&self) -> bool {
        const FINAL: &[&str] = &[
            "answer_limit",
            "confidential_not_kept",
            "erased",
            "invalid_call",
            "input_limit",
            "invalid_limits",
            "invalid_output",
            "not_a_function",
            "not_encrypted",
            "not_opened",
            "function_not_verified",
            "outcome_unknown",
            "provider:content_filtered",
            "provider:denied",
            "provider:invalid",
            "request_malformed",
        ];
        self.code.starts_with("guest:") || FINAL.contains(&self.code.as_str())
    }

    /// The value of an `error` column: an object with the members `code` and `message`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }

    /// Reads the value of an `error` column. A member that is missing or is not a string is read as empty.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("code"), text("message"))
    }
}

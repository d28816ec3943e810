//! The variables of a block: their types, and what a value must be.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Variable {
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The value, if neither the variant nor the caller gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The most bytes of its value in canonical JSON. Default 16 KiB, at most 64 KiB.
    #[serde(default = "usual_bytes")]
    pub max_bytes: usize,
    /// Whether its value says something of a person. A caller may give it in a confidential request alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub personal: bool,
}

/// The type of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number from −(2^53 − 1) to 2^53 − 1.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list of texts.
    Texts,
    /// A list of objects, whose members are texts, numbers and booleans.
    Rows,
}

/// The most bytes of a value.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// The largest integer that every JSON reader keeps.
const MAX_INTEGER: i64 = (1 << 53) - 1;

fn usual_bytes() -> usize {
    16 << 10
}

impl Variable {
    /// A variable of this type, without default.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, default: None, max_bytes: usual_bytes(), personal: false }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What it must be, and what it is. The message does not contain the value.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let is_right = match (self.kind, value) {
            (Kind::Text, Value::String(_)) | (Kind::Number, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => true,
            (Kind::Integer, Value::Number(number)) => {
                number.as_i64().is_some_and(|number| (-MAX_INTEGER..=MAX_INTEGER).contains(&number))
            }
            (Kind::Texts, Value::Array(items)) => items.iter().all(Value::is_string),
            (Kind::Rows, Value::Array(items)) => items.iter().all(is_row),
            _ => false,
        };
        if !is_right {
            return Err(format!("must be {}, and is {}", self.kind.described(), described(value)));
        }
        let (bytes, most) = (logline_core::canonical::to_vec(value).len(), self.max_bytes.min(MAX_BYTES));
        if bytes > most {
            return Err(format!("has {bytes} bytes, the most are {most}"));
        }
        Ok(())
    }
}

fn is_row(value: &Value) -> bool {
    let is_plain = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
    value.as_object().is_some_and(|members| members.values().all(is_plain))
}

impl Kind {
    fn described(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Texts => "a list of texts",
            Self::Rows => "a list of objects with plain members",
        }
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

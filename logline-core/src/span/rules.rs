//! The input rules: what may stand in a span, each with its own error.
//!
//! Texts are held to them while they are read ([`crate::value::json`], [`crate::parse_line`]); drafts built in code when they are sealed;
//! rows again when they are verified.

use serde_json::Value;
use thiserror::Error;

use crate::span::Span;
use crate::value::hex::HexError;
use crate::value::json::{self, JsonError, MAX_CONTAINERS, MAX_DEPTH};
use crate::value::timestamp::TimestampError;

/// The largest `seq` and `duration_ms`: what a Postgres `integer` holds.
pub const MAX_INTEGER: u32 = i32::MAX as u32;

/// Of [`MAX_CONTAINERS`], what a row needs for itself.
const ROW: usize = 8;

/// The longest tenant, owner, type, status or trace id, in bytes: they are index keys in every backend.
pub const MAX_NAME_BYTES: usize = 256;

/// Limits that a host may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// The largest canonical payload of one span, bytes. Default 1 MiB.
    pub max_span_bytes: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_span_bytes: 1 << 20 }
    }
}

impl Rules {
    /// The longest line that is read as one span: escapes and white space may make it longer than its payload.
    #[must_use]
    pub fn max_line_bytes(&self) -> usize {
        self.max_span_bytes.saturating_mul(4)
    }
}

/// Why something cannot be a span. Sending the same again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidSpan {
    /// The text breaks a rule of [`crate::value::json`].
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The text is JSON, but not an object.
    #[error("a span is a json object, this is {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A member that is no column: no seal would cover it.
    #[error("unknown column `{column}`: put it under metadata")]
    UnknownColumn {
        /// The member's name.
        column: String,
    },
    /// A required column is absent or empty.
    #[error("column `{column}` is missing: it is required and must not be empty")]
    Missing {
        /// The column.
        column: &'static str,
    },
    /// A column holds another JSON type.
    #[error("column `{column}` must be {expected}")]
    Type {
        /// The column.
        column: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// An identifier longer than [`MAX_NAME_BYTES`].
    #[error("column `{column}` is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong {
        /// The column.
        column: &'static str,
    },
    /// A control character in an identifier.
    #[error("column `{column}` holds a control character")]
    ControlCharacter {
        /// The column.
        column: &'static str,
    },
    /// A visibility that is none.
    #[error("visibility `{found}` is unknown: use private, tenant or public")]
    Visibility {
        /// What was given.
        found: String,
    },
    /// A negative `seq`.
    #[error("seq {found} is negative: the first version may have any seq from 0")]
    NegativeSeq {
        /// What was given.
        found: i64,
    },
    /// An integer column that Postgres' `integer` cannot hold, or a negative duration.
    #[error("column `{column}` must be a whole number from 0 to {MAX_INTEGER}")]
    IntegerOutOfRange {
        /// The column.
        column: &'static str,
    },
    /// A time that cannot be stored.
    #[error("column `at`: {0}")]
    Timestamp(#[from] TimestampError),
    /// A text that is no UUID.
    #[error("column `{column}`: `{found}` is not a uuid")]
    Uuid {
        /// The column.
        column: &'static str,
        /// The text, cut after 60 characters.
        found: String,
    },
    /// A hash, key or signature that is not lower-case hex of the right length.
    #[error("column `{column}` {source}")]
    Hex {
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        source: HexError,
    },
    /// A canonical form this crate does not know.
    #[error("canonical form v{found} is not supported: this library reads v1, upgrade it")]
    Version {
        /// The version.
        found: String,
    },
    /// A row with only part of a seal.
    #[error("column `{missing}` is missing: curr_hash, signature and public_key come together or not at all")]
    IncompleteSeal {
        /// The first absent column.
        missing: &'static str,
    },
    /// An unsigned line that names its predecessor's hash; the sealer finds it.
    #[error("an unsigned span has no prev_hash: the predecessor is found when it is sealed")]
    UnsignedWithPredecessor,
    /// A first version cannot have a predecessor when its seq is 0.
    #[error("seq 0 cannot have a prev_hash: it is the first version")]
    PredecessorOfZero,
    /// A number beyond ±(2^53 − 1), or not finite.
    #[error("column `{column}` holds a number beyond ±9007199254740991 or not finite: use a string")]
    Number {
        /// The column.
        column: &'static str,
    },
    /// U+0000 in a text or key.
    #[error("column `{column}` holds the character U+0000")]
    Nul {
        /// The column.
        column: &'static str,
    },
    /// JSON nested too deeply.
    #[error("column `{column}` is nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// The column.
        column: &'static str,
    },
    /// More arrays and objects than the columns of a span may have together.
    #[error("its columns have {containers} arrays and objects, the limit is {}: store large content elsewhere and its hash here", MAX_CONTAINERS - ROW)]
    TooMany {
        /// How many.
        containers: usize,
    },
    /// Over the size limit.
    #[error("span of {bytes} bytes is over the limit of {max}: store large content elsewhere and its hash here")]
    TooLarge {
        /// The size, or for a line the part that was read.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Brings a span built in code to the form in which it can be hashed: whole doubles become integers, JSON `null` in a column
/// becomes absent. Values that no rule allows are left for [`check`] to name.
pub(crate) fn normalise(span: &mut Span) {
    for column in [&mut span.input, &mut span.output, &mut span.error, &mut span.content, &mut span.metadata] {
        match column {
            Some(Value::Null) => *column = None,
            Some(value) => normalise_numbers(value, 1),
            None => {}
        }
    }
}

fn normalise_numbers(value: &mut Value, depth: usize) {
    match value {
        Value::Number(number) if !number.is_i64() => {
            if let Some(normal) = json::normal_number(number) {
                *number = normal;
            }
        }
        // `check` refuses what is deeper, and recursion must end before the stack does.
        Value::Array(items) if depth <= MAX_DEPTH => items.iter_mut().for_each(|v| normalise_numbers(v, depth + 1)),
        Value::Object(map) if depth <= MAX_DEPTH => map.values_mut().for_each(|v| normalise_numbers(v, depth + 1)),
        _ => {}
    }
}

/// Holds a span to every rule except its size, which is known once it is serialised.
///
/// # Errors
/// The first rule that is broken.
pub(crate) fn check(span: &Span) -> Result<(), InvalidSpan> {
    if span.id.is_nil() {
        return Err(InvalidSpan::Missing { column: "id" });
    }
    for (column, value) in [("entity_type", &span.entity_type), ("tenant_id", &span.tenant_id), ("owner_id", &span.owner_id)] {
        required(column, value)?;
        name(column, value)?;
    }
    for (column, value) in [("who", &span.who), ("this", &span.this)] {
        required(column, value)?;
        text(column, value)?;
    }
    for (column, value) in [("status", &span.status), ("trace_id", &span.trace_id)] {
        value.as_deref().map_or(Ok(()), |v| name(column, v))?;
    }
    let texts = [
        ("did", &span.did),
        ("name", &span.name),
        ("description", &span.description),
        ("code", &span.code),
        ("language", &span.language),
        ("runtime", &span.runtime),
    ];
    for (column, value) in texts {
        value.as_deref().map_or(Ok(()), |v| text(column, v))?;
    }
    let values = [
        ("input", &span.input),
        ("output", &span.output),
        ("error", &span.error),
        ("content", &span.content),
        ("metadata", &span.metadata),
    ];
    for (column, value) in &values {
        let column = *column;
        if value.as_ref().is_some_and(Value::is_null) {
            return Err(InvalidSpan::Type { column, expected: "absent, or another json value than null" });
        }
        // The column's value stands inside the payload's object, which is level 1.
        value.as_ref().map_or(Ok(()), |v| json_value(column, v, 1))?;
    }
    // Not before: counting recurs as deep as they are nested.
    let containers = values.iter().filter_map(|(_, value)| value.as_ref()).map(json::containers).sum();
    if containers > MAX_CONTAINERS - ROW {
        return Err(InvalidSpan::TooMany { containers });
    }
    if span.seq > MAX_INTEGER {
        return Err(InvalidSpan::IntegerOutOfRange { column: "seq" });
    }
    if span.duration_ms.is_some_and(|d| d > MAX_INTEGER) {
        return Err(InvalidSpan::IntegerOutOfRange { column: "duration_ms" });
    }
    if span.seq == 0 && span.prev_hash.is_some() {
        return Err(InvalidSpan::PredecessorOfZero);
    }
    Ok(())
}

fn required(column: &'static str, value: &str) -> Result<(), InvalidSpan> {
    if value.is_empty() { Err(InvalidSpan::Missing { column }) } else { Ok(()) }
}

fn text(column: &'static str, value: &str) -> Result<(), InvalidSpan> {
    if value.contains('\0') { Err(InvalidSpan::Nul { column }) } else { Ok(()) }
}

fn name(column: &'static str, value: &str) -> Result<(), InvalidSpan> {
    text(column, value)?;
    if value.len() > MAX_NAME_BYTES {
        return Err(InvalidSpan::NameTooLong { column });
    }
    if value.chars().any(char::is_control) {
        return Err(InvalidSpan::ControlCharacter { column });
    }
    Ok(())
}

fn json_value(column: &'static str, value: &Value, depth: usize) -> Result<(), InvalidSpan> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(value) => text(column, value),
        Value::Number(number) => match json::normal_number(number) {
            // A whole double would be stored as a double by one backend and as an integer by another.
            Some(normal) if normal.is_i64() == number.is_i64() => Ok(()),
            _ => Err(InvalidSpan::Number { column }),
        },
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => Err(InvalidSpan::TooDeep { column }),
        Value::Array(items) => items.iter().try_for_each(|v| json_value(column, v, depth + 1)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            text(column, key)?;
            json_value(column, value, depth + 1)
        }),
    }
}

//! The input rules: what a span may contain. Each rule has its own error.
//!
//! A text is checked while it is read ([`crate::value::json`], [`crate::parse_line`]). A draft that is built in code is checked
//! when it is sealed. A row is checked again when it is verified.

use serde_json::Value;
use thiserror::Error;

use crate::span::Span;
use crate::value::hex::HexError;
use crate::value::json::{self, JsonError, MAX_CONTAINERS, MAX_DEPTH};
use crate::value::timestamp::TimestampError;

/// The largest `seq` and `duration_ms`: the largest `integer` of PostgreSQL.
pub const MAX_INTEGER: u32 = i32::MAX as u32;

/// The part of [`MAX_CONTAINERS`] that is kept for the row itself. Its columns may use the rest.
const ROW: usize = 8;

/// The longest tenant, owner, type, status or trace id, in bytes. They are index keys in every backend.
pub const MAX_NAME_BYTES: usize = 256;

/// Limits that a host may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// The largest canonical payload of one span, in bytes. The default is 1 MiB.
    pub max_span_bytes: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_span_bytes: 1 << 20 }
    }
}

impl Rules {
    /// The longest line that is read as one span, in bytes: four times the payload, because escapes and white space make a line
    /// longer.
    #[must_use]
    pub fn max_line_bytes(&self) -> usize {
        self.max_span_bytes.saturating_mul(4)
    }
}

/// Why a text, a draft or a row is not a valid span. A retry with the same content fails again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidSpan {
    /// The text breaks a rule of [`crate::value::json`].
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The text is JSON, but not an object.
    #[error("a span is a json object, but this is {found}")]
    NotAnObject {
        /// The JSON type that was found, such as `an array`.
        found: &'static str,
    },
    /// A member is not a column, so no seal would cover it.
    #[error("unknown column `{column}`: put it under metadata")]
    UnknownColumn {
        /// The name of the member.
        column: String,
    },
    /// A required column is absent or empty.
    #[error("column `{column}` is missing: it is required and must not be empty")]
    Missing {
        /// The name of the column.
        column: &'static str,
    },
    /// A column holds a value of another JSON type.
    #[error("column `{column}` must be {expected}")]
    Type {
        /// The name of the column.
        column: &'static str,
        /// What the column must hold, such as `a string`.
        expected: &'static str,
    },
    /// An identifier is longer than [`MAX_NAME_BYTES`].
    #[error("column `{column}` is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong {
        /// The name of the column.
        column: &'static str,
    },
    /// An identifier contains a control character.
    #[error("column `{column}` holds a control character")]
    ControlCharacter {
        /// The name of the column.
        column: &'static str,
    },
    /// The text is not a valid visibility.
    #[error("visibility `{found}` is unknown: use private, tenant or public")]
    Visibility {
        /// The text that was given.
        found: String,
    },
    /// The `seq` is negative.
    #[error("seq {found} is negative: the first version may have any seq from 0")]
    NegativeSeq {
        /// The number that was given.
        found: i64,
    },
    /// An integer column is above [`MAX_INTEGER`], negative or not a whole number.
    #[error("column `{column}` must be a whole number from 0 to {MAX_INTEGER}")]
    IntegerOutOfRange {
        /// The name of the column.
        column: &'static str,
    },
    /// The time cannot be stored.
    #[error("column `at`: {0}")]
    Timestamp(#[from] TimestampError),
    /// A text is not a UUID.
    #[error("column `{column}`: `{found}` is not a uuid")]
    Uuid {
        /// The name of the column.
        column: &'static str,
        /// The text, cut after 60 characters.
        found: String,
    },
    /// A hash, key or signature is not lower-case hex of the right length.
    #[error("column `{column}` {source}")]
    Hex {
        /// The name of the column.
        column: &'static str,
        /// What is wrong with the text.
        source: HexError,
    },
    /// The row uses a version of the canonical form that this crate does not know.
    #[error("canonical form v{found} is not supported: this library reads v1, upgrade it")]
    Version {
        /// The value of `v` in the row, cut after 40 characters.
        found: String,
    },
    /// The row has only a part of a seal.
    #[error("column `{missing}` is missing: curr_hash, signature and public_key come together or not at all")]
    IncompleteSeal {
        /// The first column of the seal that is absent.
        missing: &'static str,
    },
    /// An unsigned line has a `prev_hash`. The predecessor is found when the line is sealed.
    #[error("an unsigned span has no prev_hash: leave it out, the predecessor is found when the span is sealed")]
    UnsignedWithPredecessor,
    /// The row has `seq` 0 and a `prev_hash`, but version 0 has no predecessor.
    #[error("seq 0 cannot have a prev_hash: it is the first version")]
    PredecessorOfZero,
    /// A number is beyond ±(2^53 − 1), or is not finite.
    #[error("column `{column}` holds a number that is beyond ±9007199254740991 or not finite: use a string")]
    Number {
        /// The name of the column.
        column: &'static str,
    },
    /// A text or a key contains U+0000.
    #[error("column `{column}` holds the character U+0000")]
    Nul {
        /// The name of the column.
        column: &'static str,
    },
    /// JSON is nested deeper than [`MAX_DEPTH`].
    #[error("column `{column}` is nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// The name of the column.
        column: &'static str,
    },
    /// The columns of the span have too many arrays and objects together.
    #[error("the columns have {containers} arrays and objects, the limit is {}: store large content elsewhere and its hash here", MAX_CONTAINERS - ROW)]
    TooMany {
        /// The number of arrays and objects in all columns, without empty ones.
        containers: usize,
    },
    /// The span or the line is larger than the size limit.
    #[error("span of {bytes} bytes is over the limit of {max}: store large content elsewhere and its hash here")]
    TooLarge {
        /// The size in bytes. For a line, it may be only the part that was read.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// Brings a span that was built in code into the form that is hashed: whole doubles become integers, and JSON `null` in a
/// column becomes absent. Values that break a rule are left as they are, so that [`check`] can report them.
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
        // `check` refuses values that are nested deeper. The recursion must end before the stack overflows.
        Value::Array(items) if depth <= MAX_DEPTH => items.iter_mut().for_each(|v| normalise_numbers(v, depth + 1)),
        Value::Object(map) if depth <= MAX_DEPTH => map.values_mut().for_each(|v| normalise_numbers(v, depth + 1)),
        _ => {}
    }
}

/// Checks a span against every rule except the size, which is known only when it is serialised.
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
            return Err(InvalidSpan::Type { column, expected: "absent, or a json value other than null" });
        }
        // The value of the column is inside the payload's object, which is level 1.
        value.as_ref().map_or(Ok(()), |v| json_value(column, v, 1))?;
    }
    // This must come after the check of the depth: counting recurses as deep as the values are nested.
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

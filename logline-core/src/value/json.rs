//! A strict JSON reader for text that will be signed.
//!
//! Two parties that read the same text must get the same value. This reader therefore refuses everything that other JSON
//! readers treat differently: duplicate keys, numbers beyond ±(2^53 − 1), lone surrogates, U+0000 and deep nesting. It checks
//! the raw bytes. The rules are in `docs/canonical-form.md`. Numbers are normalised: a whole number becomes an integer, so
//! `1.0` and `1e0` both become `1`.

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// The largest magnitude that a number may have: 2^53 − 1. All JSON readers agree on integers up to it.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The deepest nesting of arrays and objects that is read. The outermost level is 1.
pub const MAX_DEPTH: usize = 64;

/// The most arrays and objects in one text, without empty ones. In memory, each takes up to a hundred times the bytes of its
/// text.
pub const MAX_CONTAINERS: usize = 32_768;

/// Why a text is not acceptable JSON, and the position of the fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} at byte {offset}")]
#[non_exhaustive]
pub struct JsonError {
    /// The rule that the text breaks.
    pub kind: JsonErrorKind,
    /// The position of the fault: a byte offset into the text, counted from 0.
    pub offset: usize,
}

/// The rules that a text can break.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The text is not JSON.
    #[error("malformed json: expected {expected}")]
    Syntax {
        /// What should be at this position.
        expected: &'static str,
    },
    /// The text is not UTF-8.
    #[error("malformed utf-8")]
    Utf8,
    /// An object has the same key twice. JSON readers disagree on which value to use.
    #[error("duplicate key `{key}`: an object may have each key only once")]
    DuplicateKey {
        /// The repeated key, without escapes.
        key: String,
    },
    /// A number beyond ±(2^53 − 1).
    #[error("number `{number}` is beyond ±9007199254740991: send it as a string")]
    NumberOutOfRange {
        /// The number as written, cut after 40 characters.
        number: String,
    },
    /// `NaN`, `Infinity` or `-Infinity`.
    #[error("number is not finite: json has no nan or infinity")]
    NonFiniteNumber,
    /// The character U+0000, which PostgreSQL cannot store.
    #[error("character U+0000 in a string: remove it or encode the bytes as base64")]
    NulCharacter,
    /// Half of a surrogate pair, which has no UTF-8 form.
    #[error("lone surrogate in a string: `\\ud800`-`\\udfff` must come in pairs")]
    LoneSurrogate,
    /// Arrays and objects are nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// There are more arrays and objects than [`MAX_CONTAINERS`].
    #[error("more than {MAX_CONTAINERS} arrays and objects: send less at once, or send parts of it as strings")]
    TooMany,
}

/// Reads one JSON text and checks it against the input rules.
///
/// # Errors
/// [`JsonError`] with the byte offset of the first fault. A retry with the same text fails again.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(e) => return Err(JsonError { kind: JsonErrorKind::Utf8, offset: e.valid_up_to() }),
    };
    let mut reader = Reader { text, at: 0, containers: 0 };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.syntax("nothing after the value"));
    }
    Ok(value)
}

/// A number in the form in which spans store it: whole doubles become integers. `None` if the input rules refuse it.
pub(crate) fn normal_number(number: &Number) -> Option<Number> {
    if let Some(n) = number.as_i64() {
        return (n.unsigned_abs() <= MAX_NUMBER).then(|| Number::from(n));
    }
    let float = number.as_f64()?;
    let max = MAX_NUMBER as f64;
    if !float.is_finite() || float.abs() > max {
        return None;
    }
    if float.fract() == 0.0 {
        // Exact: a whole double within ±(2^53 − 1) is an i64.
        return Some(Number::from(float as i64));
    }
    Number::from_f64(float)
}

/// Counts the arrays and objects in a value, without empty ones. The limit for one text is [`MAX_CONTAINERS`].
#[must_use]
pub fn containers(value: &Value) -> usize {
    match value {
        Value::Array(items) if !items.is_empty() => 1 + items.iter().map(containers).sum::<usize>(),
        Value::Object(members) if !members.is_empty() => 1 + members.values().map(containers).sum::<usize>(),
        _ => 0,
    }
}

/// The members of an object that may have those which are `known`, and no others. `what` names the object in the error.
///
/// # Errors
/// What is wrong, and which members there are.
pub fn members<'v>(value: Option<&'v Value>, what: &str, known: &[&str]) -> Result<&'v Map<String, Value>, String> {
    let names = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let members = value.and_then(Value::as_object).ok_or_else(|| format!("{what} must be an object with {}", names()))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{what} has no member `{}`: it has {}", name.escape_debug(), names())),
        None => Ok(members),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Arrays and objects with members that were read so far.
    containers: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError { kind, offset: self.at }
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        self.error(JsonErrorKind::Syntax { expected })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn count(&mut self) -> Result<(), JsonError> {
        self.containers += 1;
        if self.containers > MAX_CONTAINERS { Err(self.error(JsonErrorKind::TooMany)) } else { Ok(()) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') if self.word("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.word("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.word("null") => Ok(Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'N') if self.word("NaN") => Err(self.error(JsonErrorKind::NonFiniteNumber)),
            Some(b'I') if self.word("Infinity") => Err(self.error(JsonErrorKind::NonFiniteNumber)),
            _ => Err(self.syntax("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        let mut map = Map::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(map));
        }
        self.count()?;
        loop {
            self.skip_space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a key in double quotes"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.syntax("`:` after the key"));
            }
            self.skip_space();
            match map.entry(key) {
                Entry::Occupied(entry) => {
                    let key = entry.key().clone();
                    return Err(JsonError { kind: JsonErrorKind::DuplicateKey { key }, offset: key_at });
                }
                Entry::Vacant(entry) => {
                    entry.insert(self.value(depth)?);
                }
            }
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(map));
            }
            if !self.take(b',') {
                return Err(self.syntax("`,` or `}`"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        self.count()?;
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.syntax("`,` or `]`"));
            }
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len());
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(0) => return Err(self.error(JsonErrorKind::NulCharacter)),
                Some(_) => return Err(self.syntax("control characters in a string to be escaped")),
                None => return Err(self.syntax("`\"` at the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let byte = self.peek();
        self.at += 1;
        let character = match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let lone = JsonError { kind: JsonErrorKind::LoneSurrogate, offset: start };
                let code = match self.hex4()? {
                    0 => return Err(JsonError { kind: JsonErrorKind::NulCharacter, offset: start }),
                    high @ 0xd800..=0xdbff => {
                        if !self.word("\\u") {
                            return Err(lone);
                        }
                        match self.hex4()? {
                            low @ 0xdc00..=0xdfff => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00),
                            _ => return Err(lone),
                        }
                    }
                    code => code,
                };
                return char::from_u32(code).ok_or(lone);
            }
            _ => {
                self.at = start;
                return Err(self.syntax("one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u"));
            }
        };
        Ok(character)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|d| u32::from_str_radix(d, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => Err(self.syntax("four hex digits after `\\u`")),
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        let negative = self.take(b'-');
        if negative && self.word("Infinity") {
            self.at = start;
            return Err(self.error(JsonErrorKind::NonFiniteNumber));
        }
        if self.take(b'0') {
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.syntax("a number without leading zeros"));
            }
        } else if self.digits() == 0 {
            return Err(self.syntax("a digit"));
        }
        if self.take(b'.') && self.digits() == 0 {
            return Err(self.syntax("a digit after `.`"));
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            if self.digits() == 0 {
                return Err(self.syntax("a digit in the exponent"));
            }
        }
        let token = self.text.get(start..self.at).unwrap_or_default();
        // Most numbers are short integers. An integer of up to 15 characters is always within the limits.
        if let Some(number) = Some(token).filter(|token| token.len() <= 15).and_then(|token| token.parse::<i64>().ok()) {
            return Ok(Value::Number(Number::from(number)));
        }
        let out_of_range =
            || JsonError { kind: JsonErrorKind::NumberOutOfRange { number: token.chars().take(40).collect() }, offset: start };
        if exceeds_max(token) {
            return Err(out_of_range());
        }
        // Rust's own parser always rounds correctly. That of serde_json does so only with some of its features.
        let float: f64 = token.parse().map_err(|_| out_of_range())?;
        let number = if float.fract() == 0.0 { Some(Number::from(float as i64)) } else { Number::from_f64(float) };
        number.map(Value::Number).ok_or_else(out_of_range)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }
}

/// Whether the decimal number `token` is beyond ±(2^53 − 1). It compares the digits, so that rounding cannot hide an excess.
fn exceeds_max(token: &str) -> bool {
    let token = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match token.find(['e', 'E']) {
        Some(at) => {
            let digits = token.get(at + 1..).unwrap_or_default();
            let huge = if digits.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
            (token.get(..at).unwrap_or_default(), digits.parse().unwrap_or(huge).clamp(i64::MIN / 2, i64::MAX / 2))
        }
        None => (token, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = whole.bytes().chain(fraction.bytes()).skip_while(|d| *d == b'0').peekable();
    if digits.peek().is_none() {
        return false;
    }
    let leading_zeros = whole.bytes().chain(fraction.bytes()).take_while(|d| *d == b'0').count();
    // The value is 0.d1d2d3… × 10^magnitude with d1 ≠ 0. All lengths are far below i64's range.
    let magnitude = exponent + whole.len() as i64 - leading_zeros as i64;
    const MAX_DIGITS: &[u8; 16] = b"9007199254740991";
    if magnitude != 16 {
        return magnitude > 16;
    }
    for max in MAX_DIGITS {
        let digit = digits.next().unwrap_or(b'0');
        if digit != *max {
            return digit > *max;
        }
    }
    digits.any(|d| d != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> JsonErrorKind {
        parse(text.as_bytes()).expect_err(text).kind
    }

    #[test]
    fn numbers_beyond_the_safe_range_are_refused_in_any_notation() {
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "9007199254740991.4",
            "9.0071992547409911e15",
            "1e300",
            "1E999999999999999999999",
            "0.00009007199254740992e20",
        ] {
            match kind(text) {
                JsonErrorKind::NumberOutOfRange { .. } => {}
                other => panic!("{text}: {other:?}"),
            }
        }
        for (text, value) in [
            ("9007199254740991", 9007199254740991_i64),
            ("9.007199254740991e15", 9007199254740991),
            ("1.0", 1),
            ("-0", 0),
            ("-0.0", 0),
            ("0e99999999999999999999", 0),
            ("90071992547409910e-1", 9007199254740991),
            ("1e-0", 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Value::from(value)), "{text}");
        }
        assert_eq!(parse(b"1e-400"), Ok(Value::from(0)));
        assert_eq!(parse(b"0.1"), Ok(Value::from(0.1)));
    }
}

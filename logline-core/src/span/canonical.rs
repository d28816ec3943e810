//! Canonical form v1: the bytes that are hashed (`docs/canonical-form.md`).
//!
//! It is a JSON object with `"v":1` and every non-null column except `curr_hash` and `signature`, serialised by RFC 8785 (JCS):
//! no white space, keys in order of their UTF-16 code units, numbers as ECMAScript prints them. This crate has its own writer
//! because every append, read and audit uses it. A property test compares it with a published JCS crate.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::span::rules::{InvalidSpan, Rules};
use crate::span::{CANONICAL_VERSION, DIGEST_KEY, Seal, Span};
use crate::value::hex::{self, Hash, PublicKey};
use crate::value::timestamp::Timestamp;

/// The canonical payload of `span` as sealed by `public_key`. The BLAKE3-256 hash of these bytes is the row's `curr_hash`.
#[must_use]
pub fn payload(span: &Span, public_key: &PublicKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(1536);
    Fields { out: &mut out, first: true }.span(span, Signer::Key(public_key));
    out
}

/// The payload, if it is within the size limit of `rules`.
pub(crate) fn payload_within(span: &Span, key: &PublicKey, rules: &Rules) -> Result<Vec<u8>, InvalidSpan> {
    let payload = payload(span, key);
    if payload.len() > rules.max_span_bytes {
        return Err(InvalidSpan::TooLarge { bytes: payload.len(), max: rules.max_span_bytes });
    }
    Ok(payload)
}

/// One whole row as a line of an export: the payload's columns plus `curr_hash` and `signature`, in canonical order.
pub(crate) fn row(span: &Span, seal: &Seal) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    Fields { out: &mut out, first: true }.span(span, Signer::Seal(seal));
    out
}

/// The hash that two hosts must agree on if they write the same derived id. It covers the draft without `at`, `duration_ms`,
/// `prev_hash` and signer, and without the digest itself.
pub(crate) fn draft_digest(span: &Span) -> Hash {
    let mut span = span.clone();
    span.at = Timestamp::EPOCH;
    span.duration_ms = None;
    span.prev_hash = None;
    if let Some(Value::Object(metadata)) = &mut span.metadata {
        metadata.remove(DIGEST_KEY);
        if metadata.is_empty() {
            span.metadata = None;
        }
    }
    let mut out = Vec::with_capacity(1536);
    Fields { out: &mut out, first: true }.span(&span, Signer::None);
    Hash::of(&out)
}

/// Serialises any JSON value by RFC 8785.
///
/// It writes every number that a `Value` can hold. Integers beyond 2^53 are printed as the double to which they round, as
/// ECMAScript does. (Spans never hold such numbers.) A number that is not finite is possible only with the feature
/// `arbitrary_precision` of serde_json. It is written as `null`, but a span that holds one cannot be sealed.
#[must_use]
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_value(value, &mut out);
    out
}

/// Appends the bytes of [`to_vec`] to `out`.
pub fn write_to(value: &Value, out: &mut Vec<u8>) {
    write_value(value, out);
}

/// Like [`to_vec`], but returns text.
#[must_use]
pub fn to_string(value: &Value) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_default()
}

enum Signer<'a> {
    None,
    Key(&'a PublicKey),
    Seal(&'a Seal),
}

/// Writes the members of one object. The caller passes the keys in canonical order.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Fields<'_> {
    fn span(mut self, span: &Span, signer: Signer<'_>) {
        let (public_key, seal) = match signer {
            Signer::None => (None, None),
            Signer::Key(key) => (Some(key), None),
            Signer::Seal(seal) => (Some(&seal.public_key), Some(seal)),
        };
        // INVARIANT: the names are in ascending order. All are ASCII, so bytes and UTF-16 units give the same order.
        self.key("at");
        self.out.push(b'"');
        span.at.write_to(self.out);
        self.out.push(b'"');
        self.optional_text("code", span.code.as_deref());
        self.optional_json("content", span.content.as_ref());
        self.optional_hex("curr_hash", seal.map(|s| s.curr_hash.as_bytes().as_slice()));
        self.optional_text("description", span.description.as_deref());
        self.optional_text("did", span.did.as_deref());
        self.optional_number("duration_ms", span.duration_ms);
        self.text("entity_type", &span.entity_type);
        self.optional_json("error", span.error.as_ref());
        self.uuid("id", span.id);
        self.optional_json("input", span.input.as_ref());
        self.key("is_deleted");
        self.out.extend_from_slice(if span.is_deleted { b"true" } else { b"false" });
        self.optional_text("language", span.language.as_deref());
        self.optional_json("metadata", span.metadata.as_ref());
        self.optional_text("name", span.name.as_deref());
        self.optional_json("output", span.output.as_ref());
        self.text("owner_id", &span.owner_id);
        if let Some(parent) = span.parent_id {
            self.uuid("parent_id", parent);
        }
        self.optional_hex("prev_hash", span.prev_hash.as_ref().map(|h| h.as_bytes().as_slice()));
        self.optional_hex("public_key", public_key.map(|k| k.as_bytes().as_slice()));
        if !span.related_to.is_empty() {
            self.key("related_to");
            let mut separator = b'[';
            for id in &span.related_to {
                self.out.push(separator);
                write_uuid(*id, self.out);
                separator = b',';
            }
            self.out.push(b']');
        }
        self.optional_text("runtime", span.runtime.as_deref());
        self.optional_number("seq", Some(span.seq));
        self.optional_hex("signature", seal.map(|s| s.signature.as_bytes().as_slice()));
        self.optional_text("status", span.status.as_deref());
        self.text("tenant_id", &span.tenant_id);
        self.text("this", &span.this);
        self.optional_text("trace_id", span.trace_id.as_deref());
        self.optional_number("v", Some(CANONICAL_VERSION));
        self.text("visibility", span.visibility.as_str());
        self.text("who", &span.who);
        self.out.push(b'}');
    }

    fn key(&mut self, name: &str) {
        self.out.extend_from_slice(if self.first { b"{\"" } else { b",\"" });
        self.first = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        write_string(value, self.out);
    }

    fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn optional_json(&mut self, name: &str, value: Option<&Value>) {
        if let Some(value) = value.filter(|v| !v.is_null()) {
            self.key(name);
            write_value(value, self.out);
        }
    }

    fn optional_number(&mut self, name: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.key(name);
            write_integer(value.into(), self.out);
        }
    }

    fn optional_hex(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.key(name);
            self.out.push(b'"');
            hex::push(value, self.out);
            self.out.push(b'"');
        }
    }

    fn uuid(&mut self, name: &str, value: Uuid) {
        self.key(name);
        write_uuid(value, self.out);
    }
}

fn write_uuid(id: Uuid, out: &mut Vec<u8>) {
    let mut text = Uuid::encode_buffer();
    out.push(b'"');
    out.extend_from_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
    out.push(b'"');
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => write_object(map, out),
    }
}

fn write_object(map: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut member = |index: usize, key: &str, value: &Value| {
        out.push(if index == 0 { b'{' } else { b',' });
        write_string(key, out);
        out.push(b':');
        write_value(value, out);
    };
    if in_utf16_order(map) {
        for (index, (key, value)) in map.iter().enumerate() {
            member(index, key, value);
        }
    } else {
        let mut members: Vec<_> = map.iter().collect();
        members.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        for (index, (key, value)) in members.into_iter().enumerate() {
            member(index, key, value);
        }
    }
    out.extend_from_slice(if map.is_empty() { b"{}" } else { b"}" });
}

/// Whether the order of the map is already the canonical order, as it nearly always is. The default map of serde_json is sorted
/// by bytes, which differs from UTF-16 order only beyond U+FFFF. With `preserve_order` the map keeps the order of insertion.
fn in_utf16_order(map: &Map<String, Value>) -> bool {
    let mut keys = map.keys();
    let Some(mut previous) = keys.next() else { return true };
    // If all bytes are below 0xEE, all characters are at most U+D7FF, and bytes give the same order as UTF-16 units.
    let plain = |key: &str| key.bytes().all(|b| b < 0xee);
    let mut previous_plain = plain(previous);
    for key in keys {
        let key_plain = plain(key);
        let ascending =
            if previous_plain && key_plain { previous < key } else { previous.encode_utf16().lt(key.encode_utf16()) };
        if !ascending {
            return false;
        }
        (previous, previous_plain) = (key, key_plain);
    }
    true
}

fn write_number(number: &serde_json::Number, out: &mut Vec<u8>) {
    const EXACT: u64 = 1 << 53;
    match number.as_i64() {
        Some(n) if n.unsigned_abs() <= EXACT => write_integer(n, out),
        _ => match number.as_f64().filter(|f| f.is_finite()) {
            Some(float) => out.extend_from_slice(ryu_js::Buffer::new().format_finite(float).as_bytes()),
            None => out.extend_from_slice(b"null"),
        },
    }
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    // The last digit is computed first, so the buffer is filled from its end. An i64 needs at most 19 digits.
    let mut digits = [0; 19];
    let mut rest = value.unsigned_abs();
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                out.extend_from_slice(b"\\u00");
                hex::push(&[*control], out);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

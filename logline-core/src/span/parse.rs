//! Reads spans from raw JSON, signed or not, and checks the input rules.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::span::draft::Draft;
use crate::span::rules::{self, InvalidSpan, MAX_INTEGER, Rules};
use crate::span::{CANONICAL_VERSION, Seal, SignedSpan, Span, Visibility};
use crate::value::hex::{Hash, HexError, PublicKey, Signature};
use crate::value::ids;
use crate::value::json;
use crate::value::timestamp::Timestamp;

/// One span read from a text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ParsedSpan {
    /// The row has a seal, which is not verified yet.
    Signed(Box<SignedSpan>),
    /// The row has no seal. Tenant, owner, id and time may still be missing.
    Unsigned(Box<Draft>),
}

/// Reads one span from `line`, the text of one JSON object.
///
/// A signed row must be complete, and its ids must be UUIDs. In an unsigned row, ids that are not UUIDs are mapped by
/// [`ids::from_text`], in every column and in the id members of manifests and prompts.
///
/// # Errors
/// The first input rule that the text breaks.
pub fn parse_line(line: &[u8], rules: &Rules) -> Result<ParsedSpan, InvalidSpan> {
    parse_imported(line, Unknown::Refuse, rules)
}

/// What to do with a member that is not a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refuse,
    /// Move it below `metadata.imported`. It is refused in a signed row, whose seal does not cover it.
    Keep,
}

/// As [`parse_line`], for an import.
pub(crate) fn parse_imported(line: &[u8], unknown: Unknown, rules: &Rules) -> Result<ParsedSpan, InvalidSpan> {
    let mut columns = Columns::read(line, rules)?;
    match columns.seal()? {
        Some(seal) => {
            let prev_hash = columns.hex("prev_hash")?;
            let mut span = columns.span(IdText::Uuid)?;
            span.prev_hash = prev_hash;
            if !columns.has_time {
                return Err(InvalidSpan::Missing { column: "at" });
            }
            rules::check(&span)?;
            crate::span::canonical::payload_within(&span, &seal.public_key, rules)?;
            Ok(ParsedSpan::Signed(Box::new(SignedSpan { span, seal })))
        }
        None => {
            if columns.hex::<Hash>("prev_hash")?.is_some() {
                return Err(InvalidSpan::UnsignedWithPredecessor);
            }
            columns.keep(unknown).unsigned().map(|draft| ParsedSpan::Unsigned(Box::new(draft)))
        }
    }
}

/// Reads one span from `line` and ignores its seal and its `prev_hash`, even if they are invalid. A reseal starts here.
///
/// # Errors
/// The first input rule that the text breaks.
pub fn parse_unsealed(line: &[u8], rules: &Rules) -> Result<Draft, InvalidSpan> {
    unsealed(line, Unknown::Refuse, rules)
}

/// As [`parse_unsealed`], for an import.
pub(crate) fn unsealed(line: &[u8], unknown: Unknown, rules: &Rules) -> Result<Draft, InvalidSpan> {
    let mut columns = Columns::read(line, rules)?.keep(unknown);
    for column in ["curr_hash", "signature", "public_key", "prev_hash"] {
        columns.map.remove(column);
    }
    columns.unsigned()
}

/// Reads a draft from a JSON object that is not a whole row, such as one that a guest or a policy emits.
///
/// # Errors
/// The first input rule that the object breaks. It must not have a seal or a `prev_hash`.
pub fn parse_draft(value: Value) -> Result<Draft, InvalidSpan> {
    let mut columns = Columns::of(value)?;
    if columns.seal()?.is_some() {
        return Err(InvalidSpan::UnknownColumn { column: "signature".to_owned() });
    }
    columns.unsigned()
}

#[derive(Clone, Copy, PartialEq)]
enum IdText {
    Uuid,
    Any,
}

/// The members of one object. They are taken out one by one. A member that is left over is not a column.
struct Columns {
    map: Map<String, Value>,
    has_time: bool,
    unknown: Unknown,
}

impl Columns {
    fn read(line: &[u8], rules: &Rules) -> Result<Self, InvalidSpan> {
        if line.len() > rules.max_line_bytes() {
            return Err(InvalidSpan::TooLarge { bytes: line.len(), max: rules.max_line_bytes() });
        }
        Self::of(json::parse(line)?)
    }

    fn of(value: Value) -> Result<Self, InvalidSpan> {
        let found = match value {
            Value::Object(map) => return Ok(Self { map, has_time: false, unknown: Unknown::Refuse }),
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
        };
        Err(InvalidSpan::NotAnObject { found })
    }

    fn keep(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self
    }

    fn unsigned(mut self) -> Result<Draft, InvalidSpan> {
        let mut span = self.span(IdText::Any)?;
        map_metadata_ids(&mut span);
        Ok(if self.has_time { Draft::from_columns(span) } else { Draft::without_time(span) })
    }

    fn seal(&mut self) -> Result<Option<Seal>, InvalidSpan> {
        let curr_hash = self.hex("curr_hash")?;
        let signature: Option<Signature> = self.hex("signature")?;
        let public_key: Option<PublicKey> = self.hex("public_key")?;
        match (curr_hash, signature, public_key) {
            (Some(curr_hash), Some(signature), Some(public_key)) => Ok(Some(Seal { curr_hash, signature, public_key })),
            (None, None, None) => Ok(None),
            (None, ..) => Err(InvalidSpan::IncompleteSeal { missing: "curr_hash" }),
            (_, None, _) => Err(InvalidSpan::IncompleteSeal { missing: "signature" }),
            (.., None) => Err(InvalidSpan::IncompleteSeal { missing: "public_key" }),
        }
    }

    /// Reads every column except `prev_hash` and the seal. A required text that is absent becomes empty, an absent id nil.
    fn span(&mut self, ids: IdText) -> Result<Span, InvalidSpan> {
        self.version()?;
        let at = self.text("at")?.map(|text| text.parse::<Timestamp>()).transpose()?;
        self.has_time = at.is_some();
        let mut span = Span {
            id: self.uuid("id", ids)?.unwrap_or_default(),
            seq: self.seq()?,
            entity_type: self.text("entity_type")?.unwrap_or_default(),
            who: self.text("who")?.unwrap_or_default(),
            did: self.text("did")?,
            this: self.text("this")?.unwrap_or_default(),
            at: at.unwrap_or(Timestamp::EPOCH),
            parent_id: self.uuid("parent_id", ids)?,
            related_to: self.uuids("related_to", ids)?,
            owner_id: self.text("owner_id")?.unwrap_or_default(),
            tenant_id: self.text("tenant_id")?.unwrap_or_default(),
            visibility: match self.text("visibility")? {
                Some(text) => text.parse().map_err(|()| InvalidSpan::Visibility { found: text })?,
                None => Visibility::Private,
            },
            status: self.text("status")?,
            is_deleted: match self.take("is_deleted") {
                None => false,
                Some(Value::Bool(flag)) => flag,
                Some(_) => return Err(InvalidSpan::Type { column: "is_deleted", expected: "true or false" }),
            },
            name: self.text("name")?,
            description: self.text("description")?,
            code: self.text("code")?,
            language: self.text("language")?,
            runtime: self.text("runtime")?,
            input: self.take("input"),
            output: self.take("output"),
            error: self.take("error"),
            content: self.take("content"),
            duration_ms: self.integer("duration_ms")?,
            trace_id: self.text("trace_id")?,
            prev_hash: None,
            metadata: self.take("metadata"),
        };
        for (column, value) in std::mem::take(&mut self.map).into_iter().filter(|(_, value)| !value.is_null()) {
            let kept = match self.unknown {
                Unknown::Refuse => None,
                Unknown::Keep => imported(&mut span.metadata).filter(|imported| !imported.contains_key(&column)),
            };
            let Some(kept) = kept else { return Err(InvalidSpan::UnknownColumn { column }) };
            kept.insert(column, value);
        }
        Ok(span)
    }

    fn take(&mut self, column: &str) -> Option<Value> {
        self.map.remove(column).filter(|value| !value.is_null())
    }

    fn text(&mut self, column: &'static str) -> Result<Option<String>, InvalidSpan> {
        match self.take(column) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(InvalidSpan::Type { column, expected: "a string" }),
        }
    }

    fn hex<T: std::str::FromStr<Err = HexError>>(&mut self, column: &'static str) -> Result<Option<T>, InvalidSpan> {
        let text = self.text(column)?;
        text.map(|t| t.parse()).transpose().map_err(|source| InvalidSpan::Hex { column, source })
    }

    fn uuid(&mut self, column: &'static str, ids: IdText) -> Result<Option<Uuid>, InvalidSpan> {
        self.text(column)?.map(|text| read_id(column, &text, ids)).transpose()
    }

    fn uuids(&mut self, column: &'static str, ids: IdText) -> Result<Vec<Uuid>, InvalidSpan> {
        let wrong = InvalidSpan::Type { column, expected: "an array of uuids" };
        match self.take(column) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => read_id(column, &text, ids),
                    _ => Err(wrong.clone()),
                })
                .collect(),
            Some(_) => Err(wrong),
        }
    }

    fn version(&mut self) -> Result<(), InvalidSpan> {
        match self.take("v") {
            None => Ok(()),
            Some(v) if v.as_u64() == Some(CANONICAL_VERSION.into()) => Ok(()),
            Some(v) => Err(InvalidSpan::Version { found: v.to_string().chars().take(40).collect() }),
        }
    }

    fn seq(&mut self) -> Result<u32, InvalidSpan> {
        if let Some(found) = self.map.get("seq").and_then(Value::as_i64).filter(|n| *n < 0) {
            return Err(InvalidSpan::NegativeSeq { found });
        }
        self.integer("seq").map(Option::unwrap_or_default)
    }

    fn integer(&mut self, column: &'static str) -> Result<Option<u32>, InvalidSpan> {
        let Some(value) = self.take(column) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_INTEGER);
        number.map(Some).ok_or(InvalidSpan::IntegerOutOfRange { column })
    }
}

/// The object `metadata.imported`, which is made if it is not there. `None` if something else has its place.
fn imported(metadata: &mut Option<Value>) -> Option<&mut Map<String, Value>> {
    if !metadata.as_ref().is_some_and(Value::is_object) {
        let original = metadata.take().map(|other| ("original".to_owned(), other));
        *metadata = Some(Value::Object(original.into_iter().collect()));
    }
    metadata.as_mut()?.as_object_mut()?.entry("imported").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn read_id(column: &'static str, text: &str, ids: IdText) -> Result<Uuid, InvalidSpan> {
    match Uuid::try_parse(text) {
        // A signed row has its ids in the hyphenated form. Another form would be a second spelling of the same id.
        Ok(id) if text.len() == 36 => Ok(id),
        _ if ids == IdText::Any && !text.is_empty() => Ok(ids::from_text(text)),
        _ => Err(InvalidSpan::Uuid { column, found: text.chars().take(60).collect() }),
    }
}

/// Maps the ids that manifests (`kernels`, `allowed_boot_ids`) and prompt variants (`block_ids`) keep in their metadata.
fn map_metadata_ids(span: &mut Span) {
    let Some(Value::Object(metadata)) = &mut span.metadata else { return };
    let lists: &[&str] = match span.entity_type.as_str() {
        "manifest" => &["kernels", "allowed_boot_ids"],
        "prompt_variant" | "prompt_build" | "prompt_block" => &["block_ids"],
        _ => return,
    };
    for name in lists {
        let ids: Vec<&mut Value> = match metadata.get_mut(*name) {
            Some(Value::Array(items)) => items.iter_mut().collect(),
            Some(Value::Object(members)) => members.values_mut().collect(),
            _ => continue,
        };
        for id in ids {
            if let Value::String(text) = id {
                *text = ids::from_text(text).to_string();
            }
        }
    }
}

//! Converts spans to rows and back.

use std::fmt::Display;
use std::str::FromStr;

use logline_core::ledger::{DamagedRow, LedgerError, Order, Position, Row, weight};
use logline_core::{Hash, Seal, SignedSpan, Span, canonical, json};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Row as SqlRow, ToSql};
use serde_json::Value;
use uuid::Uuid;

use crate::error::from_sqlite;

/// Every column except `pos`, in the order in which rows are written and read.
pub(crate) const COLUMNS: &str = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, \
     visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, \
     trace_id, prev_hash, curr_hash, signature, public_key, metadata";

/// The texts of the columns that are not stored as the span has them. The caller's thread makes them, so that the writer's
/// thread only writes. One buffer holds them all.
#[derive(Debug)]
pub(crate) struct EncodedRow {
    text: Vec<u8>,
    /// Where each derived column ends in `text`.
    ends: [usize; DERIVED],
    /// One bit for each derived column that is not null.
    present: u16,
}

/// The number of derived columns. The constants below are their indexes, in the order of the buffer.
const DERIVED: usize = 13;
const ID: usize = 0;
const AT: usize = 1;
const PARENT: usize = 2;
const RELATED: usize = 3;
const INPUT: usize = 4;
const OUTPUT: usize = 5;
const ERROR: usize = 6;
const CONTENT: usize = 7;
const PREV_HASH: usize = 8;
const CURR_HASH: usize = 9;
const SIGNATURE: usize = 10;
const PUBLIC_KEY: usize = 11;
const METADATA: usize = 12;

impl EncodedRow {
    pub(crate) fn new(row: &SignedSpan) -> Self {
        let SignedSpan { span, seal } = row;
        let mut encoded = Self { text: Vec::with_capacity(1024), ends: [0; DERIVED], present: 0 };
        encoded.put(ID, Some(span.id), write_uuid);
        encoded.put(AT, Some(span.at), |at, out| at.write_to(out));
        encoded.put(PARENT, span.parent_id, write_uuid);
        encoded.put(RELATED, Some(&span.related_to).filter(|ids| !ids.is_empty()), |ids, out| {
            let mut separator = b'[';
            for id in ids {
                out.extend_from_slice(&[separator, b'"']);
                write_uuid(*id, out);
                out.push(b'"');
                separator = b',';
            }
            out.push(b']');
        });
        encoded.put(INPUT, span.input.as_ref(), canonical::write_to);
        encoded.put(OUTPUT, span.output.as_ref(), canonical::write_to);
        encoded.put(ERROR, span.error.as_ref(), canonical::write_to);
        encoded.put(CONTENT, span.content.as_ref(), canonical::write_to);
        encoded.put(PREV_HASH, span.prev_hash, |hash, out| hash.write_to(out));
        encoded.put(CURR_HASH, Some(seal.curr_hash), |hash, out| hash.write_to(out));
        encoded.put(SIGNATURE, Some(seal.signature), |signature, out| signature.write_to(out));
        encoded.put(PUBLIC_KEY, Some(seal.public_key), |key, out| key.write_to(out));
        encoded.put(METADATA, span.metadata.as_ref(), canonical::write_to);
        encoded
    }

    fn put<T>(&mut self, column: usize, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        if let Some(value) = value {
            write(value, &mut self.text);
            self.present |= 1 << column;
        }
        if let Some(end) = self.ends.get_mut(column) {
            *end = self.text.len();
        }
    }

    /// The column as SQLite binds it; null if the span has no value.
    fn get(&self, column: usize) -> Text<'_> {
        if self.present & (1 << column) == 0 {
            return Text(None);
        }
        let start = column.checked_sub(1).and_then(|previous| self.ends.get(previous)).copied().unwrap_or(0);
        Text(self.ends.get(column).and_then(|end| self.text.get(start..*end)))
    }

    /// The canonical text of the id.
    pub(crate) fn id(&self) -> Text<'_> {
        self.get(ID)
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn bytes(&self, span: &Span) -> usize {
        self.text.len() + span.code.as_ref().map_or(0, String::len) + span.description.as_ref().map_or(0, String::len) + 512
    }

    /// Inserts the row of `span`. `self` must be the encoding of `span`.
    pub(crate) fn insert(&self, span: &Span, statement: &mut CachedStatement<'_>) -> Result<(), LedgerError> {
        match self.bind(span, statement).and_then(|()| statement.raw_execute()).map_err(from_sqlite)? {
            1 => Ok(()),
            // A trigger that is not ours can discard a row without an error.
            _ => Err(LedgerError::Corrupt {
                reason: "an insert stored nothing: the file has triggers that are not this library's".to_owned(),
                source: None,
            }),
        }
    }

    /// Binds every column in the order of [`COLUMNS`].
    fn bind(&self, span: &Span, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        let mut index = 0;
        let mut bind = |value: &dyn ToSql| {
            index += 1;
            statement.raw_bind_parameter(index, value)
        };
        bind(&self.get(ID))?;
        bind(&span.seq)?;
        bind(&span.entity_type)?;
        bind(&span.who)?;
        bind(&span.did)?;
        bind(&span.this)?;
        bind(&self.get(AT))?;
        bind(&self.get(PARENT))?;
        bind(&self.get(RELATED))?;
        bind(&span.owner_id)?;
        bind(&span.tenant_id)?;
        bind(&span.visibility.as_str())?;
        bind(&span.status)?;
        bind(&span.is_deleted)?;
        bind(&span.name)?;
        bind(&span.description)?;
        bind(&span.code)?;
        bind(&span.language)?;
        bind(&span.runtime)?;
        bind(&self.get(INPUT))?;
        bind(&self.get(OUTPUT))?;
        bind(&self.get(ERROR))?;
        bind(&self.get(CONTENT))?;
        bind(&span.duration_ms)?;
        bind(&span.trace_id)?;
        bind(&self.get(PREV_HASH))?;
        bind(&self.get(CURR_HASH))?;
        bind(&self.get(SIGNATURE))?;
        bind(&self.get(PUBLIC_KEY))?;
        bind(&self.get(METADATA))
    }
}

/// UTF-8 text from an [`EncodedRow`], or null.
pub(crate) struct Text<'a>(Option<&'a [u8]>);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0.map_or(ValueRef::Null, ValueRef::Text)))
    }
}

fn write_uuid(id: Uuid, out: &mut Vec<u8>) {
    out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
}

/// The [`weight`] of a row's columns, before any is decoded.
pub(crate) fn weight_of(row: &SqlRow<'_>) -> usize {
    let columns = 0..row.as_ref().column_count();
    columns.filter_map(|index| row.get_ref(index).ok()?.as_bytes().ok().map(weight)).sum()
}

/// Reads a row of `pos` and [`COLUMNS`]. Also returns about how many bytes it takes in memory.
pub(crate) fn decode(row: &SqlRow<'_>, order: Order) -> Result<(Row, usize), LedgerError> {
    let number: i64 = row.get(0).map_err(from_sqlite)?;
    let key = |index: usize| match row.get_ref(index) {
        Ok(value) => match value {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Integer(n) => n.to_string(),
            other => format!("{:?}", other.data_type()),
        },
        Err(e) => e.to_string(),
    };
    let position = match order {
        // If a key is not text, no cursor can name the row's position.
        Order::Chain if [1, 11].iter().any(|index| row.get_ref(*index).is_ok_and(|v| v.as_str().is_err())) => {
            return Err(LedgerError::Damaged {
                row: format!("at pos {number}"),
                reason: "tenant_id or id is not utf-8".to_owned(),
            });
        }
        Order::Chain => Position::Chain { tenant_id: key(11), id: key(1), seq: row.get(2).map_err(from_sqlite)?, number },
        _ => Position::Append(number),
    };
    let mut columns = Columns { row, index: 0, bytes: 0 };
    let span = columns.span().map_err(|reason| DamagedRow { tenant_id: key(11), id: key(1), seq: key(2), reason });
    let bytes = columns.bytes;
    Ok((Row { cursor: position.to_cursor(), span }, bytes))
}

fn canonical_text(text: &str) -> Option<Uuid> {
    text.parse::<Uuid>().ok().filter(|id| id.to_string() == text)
}

/// Takes the columns of a row one after another. An error names the damaged column.
struct Columns<'a, 'r> {
    row: &'a SqlRow<'r>,
    index: usize,
    bytes: usize,
}

impl Columns<'_, '_> {
    fn span(&mut self) -> Result<SignedSpan, String> {
        let id = self.parsed("id")?;
        let seq = self.integer("seq")?.ok_or("seq is null")?;
        let entity_type = self.required("entity_type")?;
        let who = self.required("who")?;
        let did = self.text("did")?;
        let this = self.required("this")?;
        let at = self.parsed("at")?;
        let parent_id = self.optional("parent_id")?;
        let related_to = match self.json("related_to")? {
            None => Vec::new(),
            Some(Value::Array(ids)) => ids
                .iter()
                .map(|id| id.as_str().and_then(canonical_text).ok_or("related_to has an item that is not a canonical uuid"))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("related_to is not an array".to_owned()),
        };
        let span = Span {
            id,
            seq,
            entity_type,
            who,
            did,
            this,
            at,
            parent_id,
            related_to,
            owner_id: self.required("owner_id")?,
            tenant_id: self.required("tenant_id")?,
            visibility: self.required("visibility")?.parse().map_err(|()| "visibility is unknown")?,
            status: self.text("status")?,
            is_deleted: match self.integer("is_deleted")? {
                Some(0) => false,
                Some(1) => true,
                _ => return Err("is_deleted is neither 0 nor 1".to_owned()),
            },
            name: self.text("name")?,
            description: self.text("description")?,
            code: self.text("code")?,
            language: self.text("language")?,
            runtime: self.text("runtime")?,
            input: self.json("input")?,
            output: self.json("output")?,
            error: self.json("error")?,
            content: self.json("content")?,
            duration_ms: self.integer("duration_ms")?,
            trace_id: self.text("trace_id")?,
            prev_hash: self.optional("prev_hash")?,
            metadata: None,
        };
        let seal = Seal {
            curr_hash: self.parsed::<Hash>("curr_hash")?,
            signature: self.parsed("signature")?,
            public_key: self.parsed("public_key")?,
        };
        let metadata = self.json("metadata")?;
        Ok(SignedSpan { span: Span { metadata, ..span }, seal })
    }

    fn text(&mut self, column: &str) -> Result<Option<String>, String> {
        self.index += 1;
        let text: Option<String> = self.row.get(self.index).map_err(|e| format!("{column}: {e}"))?;
        self.bytes += text.as_ref().map_or(8, String::len);
        Ok(text)
    }

    fn required(&mut self, column: &str) -> Result<String, String> {
        self.text(column)?.ok_or_else(|| format!("{column} is null"))
    }

    fn integer(&mut self, column: &str) -> Result<Option<u32>, String> {
        self.index += 1;
        self.row.get(self.index).map_err(|e| format!("{column}: {e}"))
    }

    /// A column whose value has one canonical spelling. Queries compare texts, so another spelling of the same value would hide
    /// the row although its hash is valid.
    fn optional<T>(&mut self, column: &str) -> Result<Option<T>, String>
    where
        T: FromStr<Err: Display> + Display,
    {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let value: T = text.parse().map_err(|e| format!("{column}: {e}"))?;
        if value.to_string() == text {
            Ok(Some(value))
        } else {
            Err(format!("{column}: `{text}` is not the canonical spelling"))
        }
    }

    fn parsed<T>(&mut self, column: &str) -> Result<T, String>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.optional(column)?.ok_or_else(|| format!("{column} is null"))
    }

    fn json(&mut self, column: &str) -> Result<Option<Value>, String> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        self.bytes += weight(text.as_bytes()) - text.len();
        json::parse(text.as_bytes()).map(Some).map_err(|e| format!("{column}: {e}"))
    }
}

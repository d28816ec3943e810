//! Spans to rows and back.

use std::fmt::Display;
use std::str::FromStr;

use logline_core::ledger::{DamagedRow, LedgerError, Order, Position, Row};
use logline_core::{Hash, Seal, SignedSpan, Span, canonical, json};
use rusqlite::types::Value as SqlValue;
use rusqlite::{CachedStatement, Row as SqlRow};
use serde_json::Value;
use uuid::Uuid;

use crate::error::from_sqlite;

/// Every column but `pos`, in the order in which rows are written and read.
pub(crate) const COLUMNS: &str = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, \
     visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, \
     trace_id, prev_hash, curr_hash, signature, public_key, metadata";

/// A row as SQLite binds it, made on the caller's thread so that the writer's does nothing but write.
#[derive(Debug)]
pub(crate) struct EncodedRow {
    columns: [SqlValue; 30],
    pub(crate) bytes: usize,
}

impl EncodedRow {
    pub(crate) fn new(row: &SignedSpan) -> Self {
        let SignedSpan { span, seal } = row;
        let json = |value: &Option<Value>| value.as_ref().map_or(SqlValue::Null, |v| SqlValue::Text(canonical::to_string(v)));
        let text = |value: &Option<String>| value.clone().map_or(SqlValue::Null, SqlValue::Text);
        let uuid = |id: Uuid| SqlValue::Text(id.hyphenated().to_string());
        let related = if span.related_to.is_empty() {
            SqlValue::Null
        } else {
            let ids: Vec<_> = span.related_to.iter().map(|id| format!("\"{id}\"")).collect();
            SqlValue::Text(format!("[{}]", ids.join(",")))
        };
        let columns = [
            uuid(span.id),
            SqlValue::Integer(span.seq.into()),
            SqlValue::Text(span.entity_type.clone()),
            SqlValue::Text(span.who.clone()),
            text(&span.did),
            SqlValue::Text(span.this.clone()),
            SqlValue::Text(span.at.to_string()),
            span.parent_id.map_or(SqlValue::Null, uuid),
            related,
            SqlValue::Text(span.owner_id.clone()),
            SqlValue::Text(span.tenant_id.clone()),
            SqlValue::Text(span.visibility.as_str().to_owned()),
            text(&span.status),
            SqlValue::Integer(span.is_deleted.into()),
            text(&span.name),
            text(&span.description),
            text(&span.code),
            text(&span.language),
            text(&span.runtime),
            json(&span.input),
            json(&span.output),
            json(&span.error),
            json(&span.content),
            span.duration_ms.map_or(SqlValue::Null, |ms| SqlValue::Integer(ms.into())),
            text(&span.trace_id),
            span.prev_hash.map_or(SqlValue::Null, |h| SqlValue::Text(h.to_string())),
            SqlValue::Text(seal.curr_hash.to_string()),
            SqlValue::Text(seal.signature.to_string()),
            SqlValue::Text(seal.public_key.to_string()),
            json(&span.metadata),
        ];
        let bytes = columns.iter().map(|c| if let SqlValue::Text(text) = c { text.len() } else { 8 }).sum();
        Self { columns, bytes }
    }

    pub(crate) fn insert(&self, statement: &mut CachedStatement<'_>) -> Result<(), LedgerError> {
        match statement.execute(rusqlite::params_from_iter(&self.columns)).map_err(from_sqlite)? {
            1 => Ok(()),
            // A trigger that is not ours can swallow a row without an error.
            _ => Err(LedgerError::Corrupt {
                reason: "an insert stored nothing: the file has triggers that are not this library's".to_owned(),
                source: None,
            }),
        }
    }
}

/// Reads a row of `pos` and [`COLUMNS`].
pub(crate) fn decode(row: &SqlRow<'_>, order: Order) -> Result<(Row, usize), LedgerError> {
    let number: i64 = row.get(0).map_err(from_sqlite)?;
    let key = |index: usize| match row.get_ref(index) {
        Ok(value) => match value {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Integer(n) => n.to_string(),
            other => format!("{:?}", other.data_type()),
        },
        Err(e) => e.to_string(),
    };
    let position = match order {
        // A key that is no text has no place in the order that a cursor could name.
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

/// Takes the columns of a row one after the other; the error says which is damaged.
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
                .map(|id| id.as_str().and_then(canonical_text).ok_or("related_to holds something else than canonical uuids"))
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

    /// A column whose value has one spelling. Queries compare texts, so another spelling of the same value would hide a row
    /// whose hash still holds.
    fn optional<T>(&mut self, column: &str) -> Result<Option<T>, String>
    where
        T: FromStr<Err: Display> + Display,
    {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let value: T = text.parse().map_err(|e| format!("{column}: {e}"))?;
        if value.to_string() == text {
            Ok(Some(value))
        } else {
            Err(format!("{column}: `{text}` is not its canonical spelling"))
        }
    }

    fn parsed<T>(&mut self, column: &str) -> Result<T, String>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.optional(column)?.ok_or_else(|| format!("{column} is null"))
    }

    fn json(&mut self, column: &str) -> Result<Option<Value>, String> {
        let parse = |text: String| json::parse(text.as_bytes()).map_err(|e| format!("{column}: {e}"));
        self.text(column)?.map(parse).transpose()
    }
}

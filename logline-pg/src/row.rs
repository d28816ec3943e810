//! Converts spans to columns and back.

use std::fmt::Display;
use std::str::FromStr;

use logline_core::ledger::{DamagedRow, LedgerError, weight};
use logline_core::{Seal, SignedSpan, Span, Timestamp, VerifiedSpan, canonical, json};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};
use uuid::Uuid;

use crate::error::from_sqlx;
use crate::types::{Json, Micros};

/// Every column of a span, in the order in which rows are read.
pub(crate) const COLUMNS: &str = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, \
     visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, \
     trace_id, prev_hash, curr_hash, signature, public_key, metadata";

/// A span with the encoded values of its columns. The caller's task makes it, so that the writer's task only writes.
#[derive(Debug)]
pub(crate) struct EncodedRow {
    pub(crate) span: VerifiedSpan,
    prev_hash: Option<String>,
    curr_hash: String,
    signature: String,
    public_key: String,
    related_to: Option<String>,
    json: [Option<Vec<u8>>; 5],
}

impl EncodedRow {
    pub(crate) fn new(span: VerifiedSpan) -> Self {
        let json = [&span.input, &span.output, &span.error, &span.content, &span.metadata];
        let json = json.map(|value| value.as_ref().map(canonical::to_vec));
        let related: Vec<_> = span.related_to.iter().map(ToString::to_string).collect();
        Self {
            prev_hash: span.prev_hash.map(|hash| hash.to_string()),
            curr_hash: span.seal.curr_hash.to_string(),
            signature: span.seal.signature.to_string(),
            public_key: span.seal.public_key.to_string(),
            related_to: (!related.is_empty()).then(|| format!("{{{}}}", related.join(","))),
            json,
            span,
        }
    }

    /// About how many bytes it takes in memory and on the wire.
    pub(crate) fn bytes(&self) -> usize {
        let json: usize = self.json.iter().flatten().map(Vec::len).sum();
        let span = &self.span;
        let names = [&span.entity_type, &span.who, &span.this, &span.owner_id, &span.tenant_id];
        let texts = [
            &span.did,
            &span.status,
            &span.name,
            &span.description,
            &span.code,
            &span.language,
            &span.runtime,
            &span.trace_id,
            &self.related_to,
        ];
        let texts = names.into_iter().chain(texts.into_iter().flatten()).map(String::len);
        json + texts.sum::<usize>() + 512
    }

    fn json(&self, column: usize) -> Option<Json<&[u8]>> {
        self.json.get(column).and_then(Option::as_deref).map(Json)
    }
}

/// Binds the columns of `rows` as arrays, in the order of the parameters of `ledger.append`.
pub(crate) fn bind<'q>(query: Query<'q, Postgres, PgArguments>, rows: &[&'q EncodedRow]) -> Query<'q, Postgres, PgArguments> {
    macro_rules! column {
        (|$row:ident| $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    // The input rules limit these values to 2^31 - 1.
    let integer = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    query
        .bind(column!(|r| r.span.id))
        .bind(column!(|r| integer(r.span.seq)))
        .bind(column!(|r| r.span.entity_type.as_str()))
        .bind(column!(|r| r.span.who.as_str()))
        .bind(column!(|r| r.span.did.as_deref()))
        .bind(column!(|r| r.span.this.as_str()))
        .bind(column!(|r| Micros::from(r.span.at)))
        .bind(column!(|r| r.span.parent_id))
        .bind(column!(|r| r.related_to.as_deref()))
        .bind(column!(|r| r.span.owner_id.as_str()))
        .bind(column!(|r| r.span.tenant_id.as_str()))
        .bind(column!(|r| r.span.visibility.as_str()))
        .bind(column!(|r| r.span.status.as_deref()))
        .bind(column!(|r| r.span.is_deleted))
        .bind(column!(|r| r.span.name.as_deref()))
        .bind(column!(|r| r.span.description.as_deref()))
        .bind(column!(|r| r.span.code.as_deref()))
        .bind(column!(|r| r.span.language.as_deref()))
        .bind(column!(|r| r.span.runtime.as_deref()))
        .bind(column!(|r| r.json(0)))
        .bind(column!(|r| r.json(1)))
        .bind(column!(|r| r.json(2)))
        .bind(column!(|r| r.json(3)))
        .bind(column!(|r| r.span.duration_ms.map(integer)))
        .bind(column!(|r| r.span.trace_id.as_deref()))
        .bind(column!(|r| r.prev_hash.as_deref()))
        .bind(column!(|r| r.curr_hash.as_str()))
        .bind(column!(|r| r.signature.as_str()))
        .bind(column!(|r| r.public_key.as_str()))
        .bind(column!(|r| r.json(4)))
}

/// The key columns of a row as stored. They can always be decoded, but their values may be wrong.
pub(crate) struct RowKey {
    pub(crate) tenant_id: String,
    pub(crate) id: Uuid,
    pub(crate) seq: i32,
}

/// The [`weight`] of a row as it arrived, before any column is decoded.
pub(crate) fn weight_of(row: &PgRow) -> usize {
    (0..row.len()).filter_map(|index| row.try_get_raw(index).ok()?.as_bytes().ok().map(weight)).sum()
}

/// Reads the columns of a row; the first of [`COLUMNS`] is at index `first`. Also returns about how many bytes the row takes in
/// memory.
pub(crate) fn decode(row: &PgRow, first: usize) -> Result<(RowKey, Result<SignedSpan, DamagedRow>, usize), LedgerError> {
    let key = RowKey {
        id: row.try_get(first).map_err(from_sqlx)?,
        seq: row.try_get(first + 1).map_err(from_sqlx)?,
        tenant_id: row.try_get(first + 10).map_err(from_sqlx)?,
    };
    let mut columns = Columns { row, next: first, bytes: 0 };
    let span = columns.span().map_err(|reason| DamagedRow {
        tenant_id: key.tenant_id.clone(),
        id: key.id.to_string(),
        seq: key.seq.to_string(),
        reason,
    });
    let bytes = columns.bytes;
    Ok((key, span, bytes))
}

/// Takes the columns of a row one after another. An error names the damaged column.
struct Columns<'r> {
    row: &'r PgRow,
    next: usize,
    bytes: usize,
}

impl<'r> Columns<'r> {
    fn take<T>(&mut self, column: &str) -> Result<T, String>
    where
        T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let index = self.next;
        self.next += 1;
        self.bytes += 8;
        self.row.try_get(index).map_err(|e| format!("{column}: {e}"))
    }

    fn text(&mut self, column: &str) -> Result<Option<String>, String> {
        let text: Option<String> = self.take(column)?;
        self.bytes += text.as_ref().map_or(0, String::len);
        Ok(text)
    }

    fn required(&mut self, column: &str) -> Result<String, String> {
        self.text(column)?.ok_or_else(|| format!("{column} is null"))
    }

    fn integer(&mut self, column: &str) -> Result<Option<u32>, String> {
        let value: Option<i32> = self.take(column)?;
        value.map(|n| u32::try_from(n).map_err(|_| format!("{column} is negative"))).transpose()
    }

    fn json(&mut self, column: &str) -> Result<Option<Value>, String> {
        let Some(Json(text)) = self.take::<Option<Json<&[u8]>>>(column)? else { return Ok(None) };
        self.bytes += weight(text);
        json::parse(text).map(Some).map_err(|e| format!("{column}: {e}"))
    }

    /// A value that has one canonical spelling. Another spelling would be a change that no hash shows, so it is an error.
    fn parsed<T>(&mut self, column: &str) -> Result<Option<T>, String>
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

    fn span(&mut self) -> Result<SignedSpan, String> {
        let missing = |column: &str| format!("{column} is null");
        let mut span = Span {
            id: self.take("id")?,
            seq: self.integer("seq")?.ok_or_else(|| missing("seq"))?,
            entity_type: self.required("entity_type")?,
            who: self.required("who")?,
            did: self.text("did")?,
            this: self.required("this")?,
            at: Timestamp::from_unix_micros(self.take::<Micros>("at")?.0).map_err(|e| format!("at: {e}"))?,
            parent_id: self.take("parent_id")?,
            related_to: self.take::<Option<Vec<Uuid>>>("related_to")?.unwrap_or_default(),
            owner_id: self.required("owner_id")?,
            tenant_id: self.required("tenant_id")?,
            visibility: self.required("visibility")?.parse().map_err(|()| "visibility is unknown")?,
            status: self.text("status")?,
            is_deleted: self.take("is_deleted")?,
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
            prev_hash: self.parsed("prev_hash")?,
            metadata: None,
        };
        let seal = Seal {
            curr_hash: self.parsed("curr_hash")?.ok_or_else(|| missing("curr_hash"))?,
            signature: self.parsed("signature")?.ok_or_else(|| missing("signature"))?,
            public_key: self.parsed("public_key")?.ok_or_else(|| missing("public_key"))?,
        };
        span.metadata = self.json("metadata")?;
        Ok(SignedSpan { span, seal })
    }
}

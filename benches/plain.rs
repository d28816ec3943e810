//! The plain side of the comparison. It inserts the same rows into a table with the same columns and indexes, without row-level
//! security, triggers and signing.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    reason = "a bench that fails may panic"
)]

use logline_core::{SignedSpan, canonical};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgPool, Postgres};

/// SQL that creates the table `plain.registry` from the ledger's table: the same columns and indexes, without triggers and
/// row-level security.
pub const DDL: &str = "CREATE SCHEMA plain;
    CREATE TABLE plain.registry (LIKE ledger.universal_registry INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING INDEXES)";

const COLUMNS: &str = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, \
    status, is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, \
    prev_hash, curr_hash, signature, public_key, metadata";

/// A span with those columns as text that are bound as text. JSON columns are canonical JSON.
pub struct Plain {
    span: SignedSpan,
    at: String,
    related: String,
    json: [Option<String>; 5],
    seal: [String; 3],
}

impl Plain {
    /// Makes the texts of a span.
    #[must_use]
    pub fn new(span: SignedSpan) -> Self {
        let related: Vec<_> = span.related_to.iter().map(ToString::to_string).collect();
        let json = [&span.input, &span.output, &span.error, &span.content, &span.metadata];
        Self {
            at: span.at.to_string(),
            related: format!("{{{}}}", related.join(",")),
            json: json.map(|value| value.as_ref().map(canonical::to_string)),
            seal: [span.seal.curr_hash.to_string(), span.seal.signature.to_string(), span.seal.public_key.to_string()],
            span,
        }
    }
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Binds the 30 columns. With `value` it binds one row, with `column` an array of each column of many rows.
macro_rules! bind_columns {
    ($query:expr, |$row:ident| $each:ident) => {
        $query
            .bind($each!(|$row| $row.span.id))
            .bind($each!(|$row| $row.span.seq as i32))
            .bind($each!(|$row| $row.span.entity_type.as_str()))
            .bind($each!(|$row| $row.span.who.as_str()))
            .bind($each!(|$row| $row.span.did.as_deref()))
            .bind($each!(|$row| $row.span.this.as_str()))
            .bind($each!(|$row| $row.at.as_str()))
            .bind($each!(|$row| $row.span.parent_id))
            .bind($each!(|$row| $row.related.as_str()))
            .bind($each!(|$row| $row.span.owner_id.as_str()))
            .bind($each!(|$row| $row.span.tenant_id.as_str()))
            .bind($each!(|$row| $row.span.visibility.as_str()))
            .bind($each!(|$row| $row.span.status.as_deref()))
            .bind($each!(|$row| $row.span.is_deleted))
            .bind($each!(|$row| $row.span.name.as_deref()))
            .bind($each!(|$row| $row.span.description.as_deref()))
            .bind($each!(|$row| $row.span.code.as_deref()))
            .bind($each!(|$row| $row.span.language.as_deref()))
            .bind($each!(|$row| $row.span.runtime.as_deref()))
            .bind($each!(|$row| $row.json[0].as_deref()))
            .bind($each!(|$row| $row.json[1].as_deref()))
            .bind($each!(|$row| $row.json[2].as_deref()))
            .bind($each!(|$row| $row.json[3].as_deref()))
            .bind($each!(|$row| $row.span.duration_ms.map(|n| n as i32)))
            .bind($each!(|$row| $row.span.trace_id.as_deref()))
            .bind($each!(|$row| None::<&str>.filter(|_| $row.span.seq > 0)))
            .bind($each!(|$row| $row.seal[0].as_str()))
            .bind($each!(|$row| $row.seal[1].as_str()))
            .bind($each!(|$row| $row.seal[2].as_str()))
            .bind($each!(|$row| $row.json[4].as_deref()))
    };
}

/// Number and SQL type of the parameters that are bound as text and cast by the server.
const CASTS: [(usize, &str); 7] =
    [(7, "timestamptz"), (9, "uuid[]"), (20, "json"), (21, "json"), (22, "json"), (23, "json"), (30, "json")];

fn cast(number: usize) -> &'static str {
    CASTS.iter().find(|(n, _)| *n == number).map_or("", |(_, name)| name)
}

/// The statement that inserts one row with 30 parameters.
#[must_use]
pub fn single_sql() -> String {
    let marks: Vec<_> =
        (1..=30).map(|n| if cast(n).is_empty() { format!("${n}") } else { format!("${n}::text::{}", cast(n)) }).collect();
    format!("INSERT INTO plain.registry ({COLUMNS}) VALUES ({})", marks.join(", "))
}

/// The statement that inserts many rows. Each of its 30 parameters is an array with one column of all rows.
#[must_use]
pub fn batch_sql() -> String {
    let names: Vec<_> = (1..=30).map(|n| format!("c{n}")).collect();
    let values: Vec<_> =
        (1..=30).map(|n| if cast(n).is_empty() { format!("c{n}") } else { format!("c{n}::{}", cast(n)) }).collect();
    let marks: Vec<_> = (1..=30).map(|n| format!("${n}")).collect();
    format!(
        "INSERT INTO plain.registry ({COLUMNS}) SELECT {} FROM unnest({}) AS u({})",
        values.join(", "),
        marks.join(", "),
        names.join(", ")
    )
}

/// Inserts one row. `sql` is the text of [`single_sql`].
pub async fn insert_one(pool: &PgPool, sql: &str, row: &Plain) {
    macro_rules! value {
        (|$r:ident| $value:expr) => {{
            let $r = row;
            $value
        }};
    }
    let query: Statement<'_> = sqlx::query(AssertSqlSafe(sql.to_owned()));
    bind_columns!(query, |row| value).execute(pool).await.unwrap();
}

/// Inserts many rows in one statement. `sql` is the text of [`batch_sql`].
pub async fn insert_batch(pool: &PgPool, sql: &str, rows: &[Plain]) {
    macro_rules! column {
        (|$r:ident| $value:expr) => {
            rows.iter().map(|$r| $value).collect::<Vec<_>>()
        };
    }
    let query: Statement<'_> = sqlx::query(AssertSqlSafe(sql.to_owned()));
    bind_columns!(query, |row| column).execute(pool).await.unwrap();
}

//! The index of public memories: FTS5 for their words, and vectors that are compared one by one. It follows from the rows, and changes in
//! the transaction that adds a row.
//!
//! FTS5 only finds which entries of a place have a word. Its own ranking would count the words of the whole file: the texts of one
//! tenant would move the results of another, and a search would take longer the more others have stored.
//!
//! The rows of one place lie side by side: the upper half of a row's number is that of its place. FTS5 keeps the rows of a word in the
//! order of their numbers, and reads those of one place alone.

use std::collections::HashMap;

use logline_core::ledger::LedgerError;
use logline_core::ledger::search::{
    Hit, MAX_PENDING, MAX_SCANNED_VECTORS, Match, Pending, Place, SearchEntry, SearchQuery, SearchScope, Searched, Vector,
    VectorModel, best, words,
};
use logline_core::{Hash, SignedSpan};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use uuid::Uuid;

use crate::error::from_sqlite;

/// An entry has a row for each place where it is found: by its visibility, and by its session. `place` is the number of that place. With
/// `secure-delete` FTS5 takes removed words out of its pages at once; otherwise they would stay until its next merge.
pub(crate) const DDL: &str = "
CREATE TABLE memory_places (
  number INTEGER PRIMARY KEY,
  place TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE memories (
  doc INTEGER PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  owner_id TEXT NOT NULL,
  curr_hash TEXT NOT NULL,
  place INTEGER NOT NULL,
  kind TEXT NOT NULL,
  tags TEXT NOT NULL,
  ttl_at INTEGER,
  length INTEGER NOT NULL,
  text TEXT NOT NULL,
  UNIQUE (tenant_id, id, place)
) STRICT;
CREATE INDEX memories_place ON memories (place, doc);
CREATE VIRTUAL TABLE memory_text USING fts5(text, content='memories', content_rowid='doc',
  tokenize='porter unicode61 remove_diacritics 2');
INSERT INTO memory_text (memory_text, rank) VALUES ('secure-delete', 1);
CREATE TABLE memory_vectors (
  doc INTEGER NOT NULL,
  model TEXT NOT NULL,
  version TEXT NOT NULL,
  dimensions INTEGER NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (doc, model, version, dimensions)
) STRICT;
";

/// The rows of a place have these numbers: its own in the upper half, and theirs in the lower.
fn rows_of(place: i64) -> (i64, i64) {
    (place << 32, (place << 32) | 0xffff_ffff)
}

/// Updates the index for a new row.
pub(crate) fn update(connection: &Connection, span: &SignedSpan) -> Result<(), LedgerError> {
    if !SearchEntry::concerns(span) {
        return Ok(());
    }
    remove(connection, &span.tenant_id, span.id)?;
    match SearchEntry::of(span) {
        Some(entry) => insert(connection, &entry),
        None => Ok(()),
    }
}

fn run(connection: &Connection, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, LedgerError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(from_sqlite)
}

fn remove(connection: &Connection, tenant: &str, id: Uuid) -> Result<(), LedgerError> {
    let sql = "SELECT doc, place, text FROM memories WHERE tenant_id = ?1 AND id = ?2";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?));
    let found = select.query_map(params![tenant, id.to_string()], read).map_err(from_sqlite)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(from_sqlite)?;
    for (doc, place, text) in found {
        // FTS5 keeps no texts of its own: it must be told what it had indexed.
        run(connection, "INSERT INTO memory_text (memory_text, rowid, text) VALUES ('delete', ?1, ?2)", &[&doc, &text])?;
        run(connection, "DELETE FROM memory_vectors WHERE doc = ?1", &[&doc])?;
        run(connection, "DELETE FROM memories WHERE doc = ?1", &[&doc])?;
        // Sessions come and go. A place without entries needs no number.
        let sql = "DELETE FROM memory_places WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM memories WHERE place = ?1)";
        run(connection, sql, &[&place])?;
    }
    Ok(())
}

fn insert(connection: &Connection, entry: &SearchEntry) -> Result<(), LedgerError> {
    let length = entry.text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).count();
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let (id, hash) = (entry.id.to_string(), entry.curr_hash.to_string());
    let tags = serde_json::Value::from(entry.tags.clone()).to_string();
    let ttl_at = entry.ttl_at.map(|end| end.unix_micros());
    for place in entry.place().into_iter().chain(entry.session_place()) {
        let place = number(connection, &place)?;
        let (first, last) = rows_of(place);
        let sql = "INSERT INTO memories (doc, tenant_id, id, seq, owner_id, curr_hash, place, kind, tags, ttl_at, length, text)
            SELECT coalesce(max(doc) + 1, ?1), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
            FROM memories WHERE doc BETWEEN ?1 AND ?2";
        let values: [&dyn rusqlite::ToSql; 13] = [
            &first,
            &last,
            &entry.tenant_id,
            &id,
            &entry.seq,
            &entry.owner_id,
            &hash,
            &place,
            &entry.kind,
            &tags,
            &ttl_at,
            &length,
            &entry.text,
        ];
        run(connection, sql, &values)?;
        let doc = connection.last_insert_rowid();
        run(connection, "INSERT INTO memory_text (rowid, text) VALUES (?1, ?2)", &[&doc, &entry.text])?;
    }
    Ok(())
}

/// The number of a place. It gets one if it has none.
fn number(connection: &Connection, place: &Place) -> Result<i64, LedgerError> {
    if let Some(number) = known_number(connection, place)? {
        return Ok(number);
    }
    run(connection, "INSERT INTO memory_places (place) VALUES (?1)", &[&place.as_str()])?;
    Ok(connection.last_insert_rowid())
}

fn known_number(connection: &Connection, place: &Place) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT number FROM memory_places WHERE place = ?1";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    select.query_row([place.as_str()], |row| row.get(0)).optional().map_err(from_sqlite)
}

/// Removes every entry. The caller makes them again from the rows.
pub(crate) fn clear(connection: &Connection) -> Result<(), LedgerError> {
    // With `delete-all` FTS5 frees its pages at once, and SQLite overwrites them.
    let sql = "INSERT INTO memory_text (memory_text) VALUES ('delete-all');
        DELETE FROM memory_vectors; DELETE FROM memories; DELETE FROM memory_places";
    connection.execute_batch(sql).map_err(from_sqlite)
}

/// The conditions of a search beside the place, on the table `memories` as `m`, and their values.
struct Conditions {
    sql: String,
    values: Vec<SqlValue>,
}

impl Conditions {
    fn new(searched: &Searched, query: &SearchQuery) -> Self {
        let mut conditions = Self { sql: String::new(), values: Vec::new() };
        // The place says this already. A hash alone should not stand between tenants.
        if query.scope != SearchScope::Public {
            conditions.and("m.tenant_id = ?", searched.tenant.clone());
        }
        if !searched.owner.is_empty() {
            conditions.and("m.owner_id = ?", searched.owner.clone());
        }
        conditions.and("(m.ttl_at IS NULL OR m.ttl_at > ?)", query.now.unix_micros());
        let list = |texts: Vec<&str>| serde_json::Value::from(texts).to_string();
        if !query.kinds.is_empty() {
            let kinds = list(query.kinds.iter().map(String::as_str).collect());
            conditions.and("m.kind IN (SELECT value FROM json_each(?))", kinds);
        }
        if !query.tags.is_empty() {
            let tags = list(query.tags.iter().map(String::as_str).collect());
            let sql = "NOT EXISTS (SELECT 1 FROM json_each(?) w WHERE w.value NOT IN (SELECT value FROM json_each(m.tags)))";
            conditions.and(sql, tags);
        }
        if query.scope == SearchScope::Public
            && let Some(names) = query.tenants.names()
        {
            conditions.and("m.tenant_id IN (SELECT value FROM json_each(?))", list(names));
        }
        conditions
    }

    fn and(&mut self, sql: &str, value: impl Into<SqlValue>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.push(value.into());
    }
}

pub(crate) fn by_text(connection: &Connection, searched: &Searched, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError> {
    let wanted = words(&query.text);
    if wanted.is_empty() || query.most() == 0 {
        return Ok(Vec::new());
    }
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    let Some(place) = known_number(&snapshot, &searched.place)? else { return Ok(Vec::new()) };
    let (first, last) = rows_of(place);
    let mut docs: HashMap<i64, Vec<(usize, usize)>> = HashMap::new();
    {
        let sql = "SELECT rowid FROM memory_text WHERE memory_text MATCH ?1 AND rowid BETWEEN ?2 AND ?3";
        let mut select = snapshot.prepare_cached(sql).map_err(from_sqlite)?;
        for (number, word) in wanted.iter().enumerate() {
            // A word is letters and digits only, so a quoted word is one token or some in a row, and never an operator.
            let mut rows = select.query(params![format!("\"{word}\""), first, last]).map_err(from_sqlite)?;
            while let Some(row) = rows.next().map_err(from_sqlite)? {
                docs.entry(row.get(0).map_err(from_sqlite)?).or_default().push((number, 1));
            }
        }
    }
    let conditions = Conditions::new(searched, query);
    let sql = format!("SELECT m.length, m.id FROM memories m WHERE m.doc = ?{}", conditions.sql);
    let mut select = snapshot.prepare_cached(&sql).map_err(from_sqlite)?;
    let mut matches: Vec<Match<(Uuid, i64)>> = Vec::with_capacity(docs.len());
    for (doc, words) in docs {
        let values = std::iter::once(SqlValue::from(doc)).chain(conditions.values.iter().cloned());
        let mut rows = select.query(params_from_iter(values)).map_err(from_sqlite)?;
        if let Some(row) = rows.next().map_err(from_sqlite)? {
            let length: i64 = row.get(0).map_err(from_sqlite)?;
            matches.push(Match { key: (uuid(row, 1)?, doc), length: usize::try_from(length).unwrap_or_default(), words });
        }
    }
    let mut count = snapshot.prepare_cached("SELECT count(*) FROM memories WHERE place = ?1").map_err(from_sqlite)?;
    let entries: i64 = count.query_row([place], |row| row.get(0)).map_err(from_sqlite)?;
    let found = best(matches, usize::try_from(entries).unwrap_or_default(), wanted.len(), query.most());
    hits(&snapshot, found)
}

pub(crate) fn by_vector(
    connection: &Connection,
    searched: &Searched,
    query: &SearchQuery,
    vector: &Vector,
) -> Result<Vec<Hit>, LedgerError> {
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    let Some(place) = known_number(&snapshot, &searched.place)? else { return Ok(Vec::new()) };
    let conditions = Conditions::new(searched, query);
    let sql = format!(
        "SELECT m.doc, m.id, v.value FROM memories m CROSS JOIN memory_vectors v
         ON v.doc = m.doc AND v.model = ? AND v.version = ? AND v.dimensions = ?
         WHERE m.doc BETWEEN ? AND ?{} ORDER BY m.doc DESC LIMIT {MAX_SCANNED_VECTORS}",
        conditions.sql
    );
    let mut select = snapshot.prepare_cached(&sql).map_err(from_sqlite)?;
    let model = vector.model();
    let model = [
        SqlValue::from(model.name().to_owned()),
        SqlValue::from(model.version().to_owned()),
        SqlValue::from(dimensions(model)),
    ];
    let (first, last) = rows_of(place);
    let rows_here = [SqlValue::from(first), SqlValue::from(last)];
    let mut rows =
        select.query(params_from_iter(model.into_iter().chain(rows_here).chain(conditions.values))).map_err(from_sqlite)?;
    let mut found: Vec<((Uuid, i64), f64)> = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let value = row.get_ref(2).and_then(|value| value.as_blob().map_err(Into::into)).map_err(from_sqlite)?;
        if let Some(cosine) = vector.cosine(value) {
            found.push(((uuid(row, 1)?, row.get(0).map_err(from_sqlite)?), cosine));
        }
    }
    found.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| right.0.cmp(&left.0)));
    found.truncate(query.most());
    hits(&snapshot, found)
}

/// Reads the entries that were found.
fn hits(connection: &Connection, found: Vec<((Uuid, i64), f64)>) -> Result<Vec<Hit>, LedgerError> {
    let sql = "SELECT tenant_id, seq, curr_hash FROM memories WHERE doc = ?1";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let hits = found.into_iter().map(|((id, doc), score)| {
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?));
        let (tenant_id, seq, hash) = select.query_row([doc], read).map_err(from_sqlite)?;
        let curr_hash = parse_hash(&tenant_id, id, &hash)?;
        Ok(Hit { tenant_id, id, seq, curr_hash, score })
    });
    hits.collect()
}

fn parse_hash(tenant: &str, id: Uuid, hash: &str) -> Result<Hash, LedgerError> {
    hash.parse().map_err(|e| LedgerError::Corrupt {
        reason: format!("the index of memories has no valid hash for {tenant}/{id}: {e}; run `logline rebuild`"),
        source: None,
    })
}

fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, LedgerError> {
    let text = row.get_ref(column).and_then(|value| value.as_str().map_err(Into::into)).map_err(from_sqlite)?;
    text.parse().map_err(|e| LedgerError::Corrupt {
        reason: format!("the index of memories has an invalid id: {e}; run `logline rebuild`"),
        source: None,
    })
}

fn dimensions(model: &VectorModel) -> i64 {
    i64::try_from(model.dimensions()).unwrap_or(i64::MAX)
}

pub(crate) fn put(connection: &Connection, tenant: &str, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError> {
    // One statement: the entry cannot change between the look and the write.
    let sql = "INSERT OR REPLACE INTO memory_vectors (doc, model, version, dimensions, value)
        SELECT doc, ?1, ?2, ?3, ?4 FROM memories WHERE tenant_id = ?5 AND id = ?6 AND seq = ?7";
    let mut insert = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let model = vector.model();
    let row = params![model.name(), model.version(), dimensions(model), vector.to_bytes(), tenant, id.to_string(), seq];
    insert.execute(row).map(|rows| rows > 0).map_err(from_sqlite)
}

pub(crate) fn pending(
    connection: &Connection,
    tenant: &str,
    model: &VectorModel,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Pending>, LedgerError> {
    let sql = "SELECT DISTINCT id, seq, curr_hash FROM memories m WHERE tenant_id = ?1 AND id > ?2
        AND NOT EXISTS (SELECT 1 FROM memory_vectors v
            WHERE v.doc = m.doc AND v.model = ?3 AND v.version = ?4 AND v.dimensions = ?5)
        ORDER BY id LIMIT ?6";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let limit = i64::try_from(limit.min(MAX_PENDING)).unwrap_or(i64::MAX);
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let values = params![tenant, after, model.name(), model.version(), dimensions(model), limit];
    let mut rows = select.query(values).map_err(from_sqlite)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let id = uuid(row, 0)?;
        let hash: String = row.get(2).map_err(from_sqlite)?;
        found.push(Pending { id, seq: row.get(1).map_err(from_sqlite)?, curr_hash: parse_hash(tenant, id, &hash)? });
    }
    Ok(found)
}

/// Makes FTS5 read its index anew, by a search that finds nothing.
pub(crate) fn refresh(connection: &Connection) -> Result<(), LedgerError> {
    let sql = "SELECT count(*) FROM memory_text WHERE memory_text MATCH '\"nowhere\"' AND rowid = 0";
    connection.query_row(sql, [], |_| Ok(())).map_err(from_sqlite)
}

/// What differs between the index and the rows: entries whose memory has another last version.
pub(crate) fn stray(connection: &Connection) -> Result<i64, LedgerError> {
    let sql = "SELECT count(*) FROM memories m WHERE NOT EXISTS (
            SELECT 1 FROM universal_registry r WHERE r.tenant_id = m.tenant_id AND r.id = m.id AND r.seq = m.seq
            AND r.curr_hash = m.curr_hash AND r.owner_id = m.owner_id)
        OR EXISTS (SELECT 1 FROM universal_registry r WHERE r.tenant_id = m.tenant_id AND r.id = m.id AND r.seq > m.seq)";
    connection.query_row(sql, [], |row| row.get(0)).map_err(from_sqlite)
}

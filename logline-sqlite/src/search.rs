//! The index of public memories: FTS5 for their words, and vectors that are compared one by one. It follows from the rows, and changes in
//! the transaction that adds a row.
//!
//! FTS5 only finds which entries of a place have a word. Its own ranking would count the words of the whole file: the texts of one
//! tenant would move the results of another, and a search would take longer the more others have stored.

use std::collections::HashMap;

use logline_core::ledger::LedgerError;
use logline_core::ledger::search::{
    Hit, MAX_PENDING, MAX_SCANNED_VECTORS, Match, Pending, SearchEntry, SearchQuery, SearchScope, Searched, Vector,
    VectorModel, best, words,
};
use logline_core::{Hash, SignedSpan};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use uuid::Uuid;

use crate::error::from_sqlite;

/// `places` is what FTS5 indexes of `place` and `session_place`. With `secure-delete` FTS5 takes removed words out of its pages at once;
/// otherwise they would stay until its next merge.
pub(crate) const DDL: &str = "
CREATE TABLE memories (
  doc INTEGER PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  owner_id TEXT NOT NULL,
  curr_hash TEXT NOT NULL,
  place TEXT,
  session_place TEXT,
  kind TEXT NOT NULL,
  tags TEXT NOT NULL,
  ttl_at INTEGER,
  length INTEGER NOT NULL,
  places TEXT NOT NULL,
  text TEXT NOT NULL,
  UNIQUE (tenant_id, id)
) STRICT;
CREATE INDEX memories_place ON memories (place, doc) WHERE place IS NOT NULL;
CREATE INDEX memories_session ON memories (session_place, doc) WHERE session_place IS NOT NULL;
CREATE VIRTUAL TABLE memory_text USING fts5(places, text, content='memories', content_rowid='doc',
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

fn remove(connection: &Connection, tenant: &str, id: Uuid) -> Result<(), LedgerError> {
    let sql = "SELECT doc, places, text FROM memories WHERE tenant_id = ?1 AND id = ?2";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    let found = select.query_row(params![tenant, id.to_string()], read).optional().map_err(from_sqlite)?;
    let Some((doc, places, text)) = found else { return Ok(()) };
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(from_sqlite)
    };
    // FTS5 keeps no texts of its own: it must be told what it had indexed.
    run("INSERT INTO memory_text (memory_text, rowid, places, text) VALUES ('delete', ?1, ?2, ?3)", &[&doc, &places, &text])?;
    run("DELETE FROM memory_vectors WHERE doc = ?1", &[&doc])?;
    run("DELETE FROM memories WHERE doc = ?1", &[&doc])
}

fn insert(connection: &Connection, entry: &SearchEntry) -> Result<(), LedgerError> {
    let sql = "INSERT INTO memories
        (tenant_id, id, seq, owner_id, curr_hash, place, session_place, kind, tags, ttl_at, length, places, text)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let mut insert = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let (place, session) = (entry.place(), entry.session_place());
    let (place, session) = (place.as_ref().map(|place| place.as_str()), session.as_ref().map(|place| place.as_str()));
    let places = place.into_iter().chain(session).collect::<Vec<_>>().join(" ");
    let length = entry.text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).count();
    let row = params![
        entry.tenant_id,
        entry.id.to_string(),
        entry.seq,
        entry.owner_id,
        entry.curr_hash.to_string(),
        place,
        session,
        entry.kind,
        serde_json::Value::from(entry.tags.clone()).to_string(),
        entry.ttl_at.map(|end| end.unix_micros()),
        i64::try_from(length).unwrap_or(i64::MAX),
        places,
        entry.text,
    ];
    insert.execute(row).map_err(from_sqlite)?;
    let sql = "INSERT INTO memory_text (rowid, places, text) VALUES (?1, ?2, ?3)";
    let mut index = connection.prepare_cached(sql).map_err(from_sqlite)?;
    index.execute(params![connection.last_insert_rowid(), places, entry.text]).map(drop).map_err(from_sqlite)
}

/// Removes every entry. The caller makes them again from the rows.
pub(crate) fn clear(connection: &Connection) -> Result<(), LedgerError> {
    // With `delete-all` FTS5 frees its pages at once, and SQLite overwrites them.
    let sql = "INSERT INTO memory_text (memory_text) VALUES ('delete-all'); DELETE FROM memory_vectors; DELETE FROM memories";
    connection.execute_batch(sql).map_err(from_sqlite)
}

/// The conditions of a search, on the table `memories` as `m`, and their values: the place first.
struct Conditions {
    place_column: &'static str,
    sql: String,
    values: Vec<SqlValue>,
}

impl Conditions {
    fn new(searched: &Searched, query: &SearchQuery) -> Self {
        let place_column = if matches!(query.scope, SearchScope::Session { .. }) { "session_place" } else { "place" };
        let mut conditions = Self { place_column, sql: String::new(), values: Vec::new() };
        conditions.and(&format!("m.{place_column} = ?"), searched.place.as_str().to_owned());
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
    let conditions = Conditions::new(searched, query);
    // CROSS JOIN: SQLite keeps the order, so FTS5 is asked first.
    let sql = format!(
        "SELECT m.doc, m.length, m.id FROM memory_text CROSS JOIN memories m ON m.doc = memory_text.rowid
         WHERE memory_text MATCH ?{}",
        conditions.sql
    );
    let mut select = snapshot.prepare_cached(&sql).map_err(from_sqlite)?;
    let mut matches: HashMap<i64, Match<(Uuid, i64)>> = HashMap::new();
    for (number, word) in wanted.iter().enumerate() {
        // A word is letters and digits only, so a quoted word is one token or some in a row, and never an operator.
        let expression = format!("places : \"{}\" AND text : \"{word}\"", searched.place.as_str());
        let values = std::iter::once(SqlValue::from(expression)).chain(conditions.values.iter().cloned());
        let mut rows = select.query(params_from_iter(values)).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let doc: i64 = row.get(0).map_err(from_sqlite)?;
            if let Some(found) = matches.get_mut(&doc) {
                found.words.push((number, 1));
                continue;
            }
            let length: i64 = row.get(1).map_err(from_sqlite)?;
            let key = (uuid(row, 2)?, doc);
            let length = usize::try_from(length).unwrap_or_default();
            matches.insert(doc, Match { key, length, words: vec![(number, 1)] });
        }
    }
    let sql = format!("SELECT count(*) FROM memories WHERE {} = ?1", conditions.place_column);
    let mut count = snapshot.prepare_cached(&sql).map_err(from_sqlite)?;
    let entries: i64 = count.query_row([searched.place.as_str()], |row| row.get(0)).map_err(from_sqlite)?;
    let entries = usize::try_from(entries).unwrap_or_default();
    let found = best(matches.into_values().collect(), entries, wanted.len(), query.most());
    hits(&snapshot, found)
}

pub(crate) fn by_vector(
    connection: &Connection,
    searched: &Searched,
    query: &SearchQuery,
    vector: &Vector,
) -> Result<Vec<Hit>, LedgerError> {
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    let conditions = Conditions::new(searched, query);
    let sql = format!(
        "SELECT m.doc, m.id, v.value FROM memories m CROSS JOIN memory_vectors v
         ON v.doc = m.doc AND v.model = ? AND v.version = ? AND v.dimensions = ?
         WHERE 1{} ORDER BY m.doc DESC LIMIT {MAX_SCANNED_VECTORS}",
        conditions.sql
    );
    let mut select = snapshot.prepare_cached(&sql).map_err(from_sqlite)?;
    let model = vector.model();
    let model = [
        SqlValue::from(model.name().to_owned()),
        SqlValue::from(model.version().to_owned()),
        SqlValue::from(dimensions(model)),
    ];
    let mut rows = select.query(params_from_iter(model.into_iter().chain(conditions.values))).map_err(from_sqlite)?;
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
    let sql = "SELECT id, seq, curr_hash FROM memories m WHERE tenant_id = ?1 AND id > ?2
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
    let sql = "SELECT count(*) FROM memory_text WHERE memory_text MATCH 'places : \"nowhere\"'";
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

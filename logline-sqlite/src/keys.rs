//! The store of wrapped keys, in a file of its own beside the ledger: a ledger keeps everything, and this file can forget.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use logline_core::contract::{
    Epoch, Forgetting, Kept, KeyStore, MAX_KEY_PAGE, MAX_RECORDS, MAX_WRAPS, RecordKey, SubjectKey, check_wrapped,
};
use logline_core::ledger::LedgerError;
use logline_core::{Clock as _, SystemClock, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use crate::error::from_sqlite;
use crate::readers::Readers;

/// The `application_id` of a file of keys: `LOGK` in ASCII.
const APPLICATION_ID: i64 = 0x4c4f_474b;

/// The schema version that this library writes.
const VERSION: i64 = 2;

/// How long a call waits for other connections to the same file.
const BUSY: Duration = Duration::from_secs(5);

const DDL: &str = "
CREATE TABLE epochs (
  tenant TEXT NOT NULL,
  number INTEGER NOT NULL,
  wraps INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE subject_keys (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  subject TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  wrapped BLOB NOT NULL,
  added INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, id),
  UNIQUE (tenant, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_keys_by_epoch ON subject_keys (tenant, epoch, id);
CREATE TABLE record_keys (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  subject_key TEXT NOT NULL,
  span TEXT NOT NULL,
  wrapped BLOB NOT NULL,
  tag BLOB,
  note BLOB,
  added_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_keys_by_subject ON record_keys (tenant, subject_key, id);
CREATE INDEX record_keys_by_age ON record_keys (tenant, added_at, id);
CREATE INDEX record_keys_by_tag ON record_keys (tenant, subject_key, tag, id) WHERE tag IS NOT NULL;
CREATE TABLE receipts (tenant TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant, id)) STRICT, WITHOUT ROWID;
";

/// Wrapped keys of memories in one SQLite file. Clones are handles of the same file.
///
/// Deleted rows are overwritten (`secure_delete`), and the write-ahead log is emptied before [`KeyStore::forget`] returns. What a file
/// system or a disk keeps of overwritten blocks ends with the epoch of the tenant's key.
#[derive(Clone)]
pub struct SqliteKeys {
    thread: Arc<Readers>,
    path: PathBuf,
}

impl SqliteKeys {
    /// Opens the keys in this file. Creates the file, readable by this user alone, if it does not exist.
    ///
    /// # Errors
    /// [`LedgerError::NotALedger`] if the file is something else, or its folder does not exist; [`LedgerError::SchemaVersion`];
    /// [`LedgerError::Unavailable`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let path = path.as_ref().to_owned();
        private(&path)?;
        let connection = Connection::open(&path).map_err(from_sqlite)?;
        prepare(&connection, &path)?;
        Ok(Self { thread: Arc::new(Readers::start(vec![connection])?), path })
    }

    /// The file of keys that belongs to a ledger file: `NAME.keys.db`.
    #[must_use]
    pub fn beside(ledger: impl AsRef<Path>) -> PathBuf {
        let mut name = ledger.as_ref().as_os_str().to_owned();
        name.push(".keys.db");
        name.into()
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction, which is stored if it returns `Ok`.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.thread.read(move |connection| within(connection, work)).await
    }
}

/// Makes the file, or checks that nobody else may read it.
fn private(path: &Path) -> Result<(), LedgerError> {
    let refused = |reason: String| LedgerError::NotALedger { reason: format!("{}: {reason}", path.display()) };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|e| refused(format!("the file of keys cannot be opened: {e}")))?;
    #[cfg(unix)]
    {
        let found = file.metadata().map_err(|e| refused(e.to_string()))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(refused(format!("others may read the keys (mode {mode:o}): run chmod 600 on the file")));
        }
    }
    drop(file);
    Ok(())
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    connection.busy_timeout(BUSY).map_err(from_sqlite)?;
    connection.pragma_update(None, "secure_delete", "on").map_err(from_sqlite)?;
    within(connection, |transaction| {
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(from_sqlite)?;
        if tables == 0 {
            transaction.execute_batch(DDL).map_err(from_sqlite)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(from_sqlite)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(from_sqlite)?;
        }
        let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(from_sqlite);
        if pragma("application_id")? != APPLICATION_ID {
            let reason = format!("{} is a SQLite file, but not one of keys", path.display());
            return Err(LedgerError::NotALedger { reason });
        }
        match pragma("user_version")? {
            VERSION => Ok(()),
            found => Err(LedgerError::SchemaVersion {
                found,
                supported: VERSION,
                advice: "upgrade this library, or open it with the version that made it",
            }),
        }
    })?;
    crate::schema::write_ahead(connection, BUSY).map_err(from_sqlite)?;
    connection.pragma_update(None, "synchronous", "full").map_err(from_sqlite)
}

/// Empties the write-ahead log, which has the deleted rows as they were, or fails: the caller then tries again.
///
/// SQLite waits for readers and writers by itself, but not for a connection that empties the log at the same moment.
fn empty_the_log(connection: &Connection) -> Result<(), LedgerError> {
    let end = Instant::now() + BUSY;
    loop {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(from_sqlite)?;
        if busy == 0 {
            return Ok(());
        }
        if Instant::now() >= end {
            let reason = "the keys are deleted, but another process holds the log that still has them".to_owned();
            return Err(LedgerError::Unavailable { reason, source: None });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn within<T>(connection: &Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    let transaction = Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate).map_err(from_sqlite)?;
    let result = work(&transaction)?;
    transaction.commit().map_err(from_sqlite)?;
    Ok(result)
}

fn refused(reason: impl Into<String>) -> LedgerError {
    LedgerError::Refused { reason: reason.into() }
}

fn number(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| refused("the number of an epoch is out of range"))
}

fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
}

fn id(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    let text: String = row.get(index)?;
    text.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e)))
}

/// The clock of this store is that of the machine.
fn now() -> Timestamp {
    SystemClock.now()
}

fn newest(transaction: &Transaction<'_>, tenant: &str) -> Result<Option<(i64, i64)>, LedgerError> {
    let found: (Option<i64>, Option<i64>) = transaction
        .query_row("SELECT min(number), max(number) FROM epochs WHERE tenant = ?1", [tenant], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(from_sqlite)?;
    Ok(found.0.zip(found.1))
}

/// Counts a wrap under an epoch. False if it is not the newest.
fn count_wrap(transaction: &Transaction<'_>, tenant: &str, epoch: u64) -> Result<bool, LedgerError> {
    let epoch = number(epoch)?;
    if newest(transaction, tenant)?.is_none_or(|(_, newest)| newest != epoch) {
        return Ok(false);
    }
    let wraps: i64 = transaction
        .query_row(
            "UPDATE epochs SET wraps = wraps + 1 WHERE tenant = ?1 AND number = ?2 RETURNING wraps",
            params![tenant, epoch],
            |row| row.get(0),
        )
        .map_err(from_sqlite)?;
    if u64::try_from(wraps).unwrap_or(u64::MAX) > MAX_WRAPS {
        return Err(refused("the epoch's key has wrapped as many keys as it may: begin a new epoch"));
    }
    Ok(true)
}

const SUBJECT: &str = "id, subject, epoch, wrapped, added";

fn subject(row: &Row<'_>) -> rusqlite::Result<SubjectKey> {
    Ok(SubjectKey {
        id: id(row, 0)?,
        subject: row.get(1)?,
        epoch: unsigned(row, 2)?,
        wrapped: row.get(3)?,
        added: unsigned(row, 4)?,
    })
}

const RECORD: &str = "id, subject_key, span, wrapped, tag, note, added_at";

fn record(row: &Row<'_>) -> rusqlite::Result<RecordKey> {
    Ok(RecordKey {
        id: id(row, 0)?,
        subject_key: id(row, 1)?,
        span: id(row, 2)?,
        wrapped: row.get(3)?,
        tag: row.get(4)?,
        note: row.get(5)?,
        added_at: Timestamp::from_unix_micros(row.get(6)?).unwrap_or(Timestamp::EPOCH),
    })
}

fn insert_subject(transaction: &Transaction<'_>, tenant: &str, key: &SubjectKey) -> Result<(), LedgerError> {
    check_wrapped(&key.wrapped)?;
    let sql = "INSERT INTO subject_keys (tenant, id, subject, epoch, wrapped) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![tenant, key.id.to_string(), key.subject, number(key.epoch)?, key.wrapped];
    transaction.execute(sql, row).map(drop).map_err(from_sqlite)
}

/// Inserts a record, counted. False if its subject's key is gone.
fn insert_record(transaction: &Transaction<'_>, tenant: &str, key: &RecordKey) -> Result<bool, LedgerError> {
    key.check()?;
    let counted = "UPDATE subject_keys SET added = added + 1 WHERE tenant = ?1 AND id = ?2 RETURNING added";
    let mut counted = transaction.prepare_cached(counted).map_err(from_sqlite)?;
    let added: Option<i64> =
        counted.query_row(params![tenant, key.subject_key.to_string()], |row| row.get(0)).optional().map_err(from_sqlite)?;
    let Some(added) = added else { return Ok(false) };
    if u64::try_from(added).unwrap_or(u64::MAX) > MAX_WRAPS {
        return Err(refused("the subject's key has wrapped as many keys as it may: forget something, which replaces it"));
    }
    let sql = "INSERT INTO record_keys (tenant, id, subject_key, span, wrapped, tag, note, added_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let mut insert = transaction.prepare_cached(sql).map_err(from_sqlite)?;
    let row = params![
        tenant,
        key.id.to_string(),
        key.subject_key.to_string(),
        key.span.to_string(),
        key.wrapped,
        key.tag.as_ref().map(<[u8; 32]>::as_slice),
        key.note,
        now().unix_micros()
    ];
    insert.execute(row).map_err(from_sqlite)?;
    Ok(true)
}

fn has_room(transaction: &Transaction<'_>, tenant: &str, subject_key: Uuid) -> Result<bool, LedgerError> {
    let sql = "SELECT count(*) FROM record_keys WHERE tenant = ?1 AND subject_key = ?2";
    let rows: i64 =
        transaction.query_row(sql, params![tenant, subject_key.to_string()], |row| row.get(0)).map_err(from_sqlite)?;
    Ok(usize::try_from(rows).unwrap_or(usize::MAX) < MAX_RECORDS)
}

fn destroy(transaction: &Transaction<'_>, tenant: &str, forgetting: &Forgetting) -> Result<Kept, LedgerError> {
    let subject_key = forgetting.subject_key.to_string();
    let found: Option<(i64, String)> = transaction
        .query_row("SELECT added, subject FROM subject_keys WHERE tenant = ?1 AND id = ?2", [tenant, &subject_key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(from_sqlite)?;
    let Some((added, owner)) = found else { return Ok(Kept::Stale) };
    if u64::try_from(added).unwrap_or(0) != forgetting.added {
        return Ok(Kept::Stale);
    }
    for sql in [
        "DELETE FROM record_keys WHERE tenant = ?1 AND subject_key = ?2",
        "DELETE FROM subject_keys WHERE tenant = ?1 AND id = ?2",
    ] {
        transaction.execute(sql, [tenant, &subject_key]).map_err(from_sqlite)?;
    }
    let Some(replacement) = &forgetting.replacement else { return Ok(Kept::Stored) };
    if replacement.key.subject != owner || replacement.records.len() > MAX_RECORDS {
        return Err(refused("what replaces a subject's key is of another subject, or has too many records"));
    }
    if !count_wrap(transaction, tenant, replacement.key.epoch)? {
        return Ok(Kept::Stale);
    }
    insert_subject(transaction, tenant, &replacement.key)?;
    for record in &replacement.records {
        if record.subject_key != replacement.key.id || !insert_record(transaction, tenant, record)? {
            return Err(refused("a record that stays is not wrapped under the key that replaces the old one"));
        }
    }
    Ok(Kept::Stored)
}

#[async_trait]
impl KeyStore for SqliteKeys {
    async fn epoch(&self, tenant: &str) -> Result<Option<Epoch>, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let found = newest(transaction, &tenant)?;
            Ok(found.map(|(oldest, newest)| Epoch::new(u64::try_from(oldest).unwrap_or(0), u64::try_from(newest).unwrap_or(0))))
        })
        .await
    }

    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<Kept, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let newest = newest(transaction, &tenant)?.map_or(0, |(_, newest)| newest);
            let next = newest.checked_add(1).ok_or_else(|| refused("the number of an epoch is out of range"))?;
            if number(epoch)? != next {
                return Ok(Kept::Stale);
            }
            let sql = "INSERT INTO epochs (tenant, number) VALUES (?1, ?2)";
            transaction.execute(sql, params![tenant, next]).map_err(from_sqlite)?;
            Ok(Kept::Stored)
        })
        .await
    }

    async fn drop_epoch(&self, tenant: &str, epoch: u64) -> Result<Kept, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let epoch = number(epoch)?;
            let is_oldest = newest(transaction, &tenant)?.is_some_and(|(oldest, newest)| oldest == epoch && newest != epoch);
            let sql = "SELECT count(*) FROM subject_keys WHERE tenant = ?1 AND epoch = ?2";
            let wrapped: i64 = transaction.query_row(sql, params![tenant, epoch], |row| row.get(0)).map_err(from_sqlite)?;
            if !is_oldest || wrapped > 0 {
                return Ok(Kept::Stale);
            }
            let sql = "DELETE FROM epochs WHERE tenant = ?1 AND number = ?2";
            transaction.execute(sql, params![tenant, epoch]).map_err(from_sqlite)?;
            Ok(Kept::Stored)
        })
        .await
    }

    async fn subject_key(&self, tenant: &str, owner: &str) -> Result<Option<SubjectKey>, LedgerError> {
        let (tenant, owner) = (tenant.to_owned(), owner.to_owned());
        self.with(move |transaction| {
            let sql = format!("SELECT {SUBJECT} FROM subject_keys WHERE tenant = ?1 AND subject = ?2");
            transaction.query_row(&sql, [&tenant, &owner], subject).optional().map_err(from_sqlite)
        })
        .await
    }

    async fn subject_keys(&self, tenant: &str, epoch: u64, limit: usize) -> Result<Vec<SubjectKey>, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let sql = format!("SELECT {SUBJECT} FROM subject_keys WHERE tenant = ?1 AND epoch = ?2 ORDER BY id LIMIT ?3");
            let limit = i64::try_from(limit.min(MAX_KEY_PAGE)).unwrap_or(i64::MAX);
            let mut statement = transaction.prepare(&sql).map_err(from_sqlite)?;
            let rows = statement.query_map(params![tenant, number(epoch)?, limit], subject).map_err(from_sqlite)?;
            rows.collect::<Result<_, _>>().map_err(from_sqlite)
        })
        .await
    }

    async fn add_subject_key(&self, tenant: &str, key: &SubjectKey) -> Result<Kept, LedgerError> {
        let (tenant, key) = (tenant.to_owned(), key.clone());
        self.with(move |transaction| {
            let sql = "SELECT count(*) FROM subject_keys WHERE tenant = ?1 AND (subject = ?2 OR id = ?3)";
            let there: i64 = transaction
                .query_row(sql, params![tenant, key.subject, key.id.to_string()], |row| row.get(0))
                .map_err(from_sqlite)?;
            if there > 0 || !count_wrap(transaction, &tenant, key.epoch)? {
                return Ok(Kept::Stale);
            }
            insert_subject(transaction, &tenant, &key)?;
            Ok(Kept::Stored)
        })
        .await
    }

    async fn rewrap_subject_key(&self, tenant: &str, from: u64, key: &SubjectKey) -> Result<Kept, LedgerError> {
        let (tenant, key) = (tenant.to_owned(), key.clone());
        self.with(move |transaction| {
            check_wrapped(&key.wrapped)?;
            if !count_wrap(transaction, &tenant, key.epoch)? {
                return Ok(Kept::Stale);
            }
            let sql = "UPDATE subject_keys SET epoch = ?1, wrapped = ?2 WHERE tenant = ?3 AND id = ?4 AND epoch = ?5";
            let row = params![number(key.epoch)?, key.wrapped, tenant, key.id.to_string(), number(from)?];
            let changed = transaction.execute(sql, row).map_err(from_sqlite)?;
            Ok(if changed == 1 { Kept::Stored } else { Kept::Stale })
        })
        .await
    }

    async fn add_record_key(&self, tenant: &str, key: &RecordKey) -> Result<Kept, LedgerError> {
        let (tenant, key) = (tenant.to_owned(), key.clone());
        self.with(move |transaction| {
            if !has_room(transaction, &tenant, key.subject_key)? {
                return Err(refused(format!("the subject has {MAX_RECORDS} records, as many as it may: forget some")));
            }
            Ok(if insert_record(transaction, &tenant, &key)? { Kept::Stored } else { Kept::Stale })
        })
        .await
    }

    async fn record_keys(&self, tenant: &str, ids: &[Uuid]) -> Result<Vec<RecordKey>, LedgerError> {
        if ids.len() > MAX_KEY_PAGE {
            return Err(refused(format!("{} keys are asked for at once: at most {MAX_KEY_PAGE} are allowed", ids.len())));
        }
        let (tenant, ids): (_, BTreeSet<_>) = (tenant.to_owned(), ids.iter().copied().collect());
        self.with(move |transaction| {
            let sql = format!("SELECT {RECORD} FROM record_keys WHERE tenant = ?1 AND id = ?2");
            let mut statement = transaction.prepare_cached(&sql).map_err(from_sqlite)?;
            let mut found = Vec::new();
            for id in ids {
                found.extend(statement.query_row([&tenant, &id.to_string()], record).optional().map_err(from_sqlite)?);
            }
            Ok(found)
        })
        .await
    }

    async fn tagged(&self, tenant: &str, subject_key: Uuid, tag: &[u8; 32]) -> Result<Option<RecordKey>, LedgerError> {
        let (tenant, tag) = (tenant.to_owned(), *tag);
        self.with(move |transaction| {
            let sql = format!(
                "SELECT {RECORD} FROM record_keys WHERE tenant = ?1 AND subject_key = ?2 AND tag = ?3 ORDER BY id LIMIT 1"
            );
            let row = params![tenant, subject_key.to_string(), tag.as_slice()];
            transaction.query_row(&sql, row, record).optional().map_err(from_sqlite)
        })
        .await
    }

    async fn records(
        &self,
        tenant: &str,
        subject_key: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let sql = format!(
                "SELECT {RECORD} FROM record_keys WHERE tenant = ?1 AND subject_key = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
            );
            let limit = i64::try_from(limit.min(MAX_KEY_PAGE)).unwrap_or(i64::MAX);
            let after = after.map(|id| id.to_string()).unwrap_or_default();
            let mut statement = transaction.prepare_cached(&sql).map_err(from_sqlite)?;
            let rows =
                statement.query_map(params![tenant, subject_key.to_string(), after, limit], record).map_err(from_sqlite)?;
            rows.collect::<Result<_, _>>().map_err(from_sqlite)
        })
        .await
    }

    async fn aged_records(
        &self,
        tenant: &str,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError> {
        let tenant = tenant.to_owned();
        self.with(move |transaction| {
            let sql = format!(
                "SELECT {RECORD} FROM record_keys WHERE tenant = ?1 AND added_at < ?2 AND (added_at, id) > (?3, ?4)
                 ORDER BY added_at, id LIMIT ?5"
            );
            let limit = i64::try_from(limit.min(MAX_KEY_PAGE)).unwrap_or(i64::MAX);
            let (at, id) = after.map_or((i64::MIN, String::new()), |(at, id)| (at.unix_micros(), id.to_string()));
            let mut statement = transaction.prepare_cached(&sql).map_err(from_sqlite)?;
            let rows = statement.query_map(params![tenant, before.unix_micros(), at, id, limit], record);
            rows.and_then(Iterator::collect).map_err(from_sqlite)
        })
        .await
    }

    async fn drop_records(&self, tenant: &str, ids: &[Uuid], before: Timestamp) -> Result<usize, LedgerError> {
        let (tenant, ids) = (tenant.to_owned(), ids.to_vec());
        self.with(move |transaction| {
            let sql = "DELETE FROM record_keys WHERE tenant = ?1 AND id = ?2 AND added_at < ?3";
            let mut statement = transaction.prepare_cached(sql).map_err(from_sqlite)?;
            let mut dropped = 0;
            for id in ids {
                dropped += statement.execute(params![tenant, id.to_string(), before.unix_micros()]).map_err(from_sqlite)?;
            }
            Ok(dropped)
        })
        .await
    }

    async fn now(&self, _: &str) -> Result<Timestamp, LedgerError> {
        Ok(now())
    }

    async fn forget(&self, tenant: &str, receipt: Uuid, forgetting: &[Forgetting]) -> Result<Kept, LedgerError> {
        let (tenant, forgetting) = (tenant.to_owned(), forgetting.to_vec());
        self.thread
            .read(move |connection| {
                let transaction = Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate);
                let transaction = transaction.map_err(from_sqlite)?;
                for one in &forgetting {
                    if destroy(&transaction, &tenant, one)? == Kept::Stale {
                        // Dropping the transaction undoes what came before.
                        return Ok(Kept::Stale);
                    }
                }
                let sql = "INSERT INTO receipts (tenant, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
                transaction.execute(sql, params![tenant, receipt.to_string()]).map_err(from_sqlite)?;
                transaction.commit().map_err(from_sqlite)?;
                empty_the_log(connection)?;
                Ok(Kept::Stored)
            })
            .await
    }

    async fn not_forgotten(&self, tenant: &str, receipts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        let (tenant, receipts) = (tenant.to_owned(), receipts.to_vec());
        self.with(move |transaction| {
            let sql = "SELECT count(*) FROM receipts WHERE tenant = ?1 AND id = ?2";
            let mut statement = transaction.prepare_cached(sql).map_err(from_sqlite)?;
            let mut missing = Vec::new();
            for id in receipts {
                let found: i64 = statement.query_row([&tenant, &id.to_string()], |row| row.get(0)).map_err(from_sqlite)?;
                if found == 0 {
                    missing.push(id);
                }
            }
            Ok(missing)
        })
        .await
    }
}

//! The schema of the file, and how connections to it are opened.
//!
//! Columns have the names of a span's fields, so any SQLite tool can read a ledger. JSON columns hold canonical JSON as text,
//! `related_to` holds a JSON array, and `at` holds the canonical text.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logline_core::ledger::LedgerError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::from_sqlite;
use crate::options::{SqliteOptions, Synchronous};
use crate::{search, work};

/// The schema version that this library writes, stored in `user_version`.
pub(crate) const VERSION: i64 = 3;

/// The `application_id` of a ledger file: `LOGL` in ASCII.
const APPLICATION_ID: i64 = 0x4c4f_474c;

/// Everything that is in the schema.
pub(crate) const ALL: [&str; 3] = [DDL, work::DDL, search::DDL];

const DDL: &str = "
CREATE TABLE universal_registry (
  pos INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL CHECK (seq >= 0),
  entity_type TEXT NOT NULL,
  who TEXT NOT NULL,
  did TEXT,
  this TEXT NOT NULL,
  at TEXT NOT NULL,
  parent_id TEXT,
  related_to TEXT,
  owner_id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  visibility TEXT NOT NULL CHECK (visibility IN ('private', 'tenant', 'public')),
  status TEXT,
  is_deleted INTEGER NOT NULL,
  name TEXT,
  description TEXT,
  code TEXT,
  language TEXT,
  runtime TEXT,
  input TEXT,
  output TEXT,
  error TEXT,
  content TEXT,
  duration_ms INTEGER,
  trace_id TEXT,
  prev_hash TEXT,
  curr_hash TEXT NOT NULL,
  signature TEXT NOT NULL,
  public_key TEXT NOT NULL,
  metadata TEXT,
  UNIQUE (tenant_id, id, seq)
) STRICT;
CREATE INDEX ur_by_tenant ON universal_registry (tenant_id, pos);
CREATE INDEX ur_by_type ON universal_registry (tenant_id, entity_type, pos);
CREATE INDEX ur_by_parent ON universal_registry (tenant_id, parent_id, pos) WHERE parent_id IS NOT NULL;
CREATE INDEX ur_by_trace ON universal_registry (tenant_id, trace_id, pos) WHERE trace_id IS NOT NULL;
-- The rows that another tenant may read, so that a scan of them does not look at the others.
CREATE INDEX ur_public ON universal_registry (tenant_id, pos) WHERE visibility = 'public';
-- The memories of one user, and those that others may read: a host reads them to search in them.
CREATE INDEX ur_memories ON universal_registry (tenant_id, owner_id, pos) WHERE entity_type = 'memory';
CREATE INDEX ur_shared ON universal_registry (tenant_id, pos) WHERE entity_type = 'memory' AND visibility <> 'private';
CREATE TRIGGER ur_no_update BEFORE UPDATE ON universal_registry
BEGIN SELECT RAISE(ABORT, 'append-only: append the next version instead of an update'); END;
CREATE TRIGGER ur_no_delete BEFORE DELETE ON universal_registry
BEGIN SELECT RAISE(ABORT, 'append-only: append a version with is_deleted instead of a delete'); END;
";

/// Opens the writing connection. Creates the schema in an empty file.
pub(crate) fn open_writer(options: &SqliteOptions) -> Result<Connection, LedgerError> {
    writer(options).map_err(|error| named(error, options))
}

/// Adds the path to an error about a file that is not a ledger.
fn named(error: LedgerError, options: &SqliteOptions) -> LedgerError {
    match error {
        LedgerError::NotALedger { reason } if !reason.contains(&options.path.display().to_string()) => {
            LedgerError::NotALedger { reason: format!("{}: {reason}", options.path.display()) }
        }
        error => error,
    }
}

fn writer(options: &SqliteOptions) -> Result<Connection, LedgerError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if options.create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = open(options, flags)?;
    if connection.is_readonly("main").map_err(from_sqlite)? {
        return Err(LedgerError::ReadOnly {
            reason: format!("{} cannot be written: check its permissions, or open it read-only", options.path.display()),
        });
    }
    create(&mut connection, options)?;
    // The journal mode is stored in the file. The settings below belong to the connection.
    write_ahead(&connection, options.busy_timeout).map_err(from_sqlite)?;
    let synchronous = match options.synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(from_sqlite)?;
    // What is removed from the index of memories is overwritten. The pragma returns the setting that now applies.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(())).map_err(from_sqlite)?;
    if let Some(max_bytes) = options.max_bytes {
        let page_size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(from_sqlite)?;
        let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / page_size.max(1);
        // The pragma returns the limit that now applies.
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(from_sqlite)?;
    }
    Ok(connection)
}

/// Switches the file to the write-ahead log, if it is not. SQLite does not wait for other connections here, whatever the busy timeout
/// is, so several processes that open a new file at once would fail.
pub(crate) fn write_ahead(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) && began.elapsed() < patience =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            switched => return switched,
        }
    }
}

/// Opens a read-only connection.
pub(crate) fn open_reader(options: &SqliteOptions) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let checked = |connection: Connection| check_version(&connection, options).map(|()| connection);
    let opened = match open(options, flags).and_then(checked) {
        // SQLite cannot make the files beside it.
        Err(LedgerError::Unavailable { .. } | LedgerError::ReadOnly { .. }) if is_on_read_only_disk(&options.path) => {
            open_unchanging(options, flags).and_then(checked)
        }
        opened => opened,
    };
    opened.map_err(|error| named(error, options))
}

/// Opens a file that nobody can change, without the files that SQLite makes beside one in which others write.
fn open_unchanging(options: &SqliteOptions, flags: OpenFlags) -> Result<Connection, LedgerError> {
    let log = beside(&options.path, "-wal");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(LedgerError::ReadOnly {
            reason: format!(
                "{} is on a disk that cannot be written, and its write-ahead log {} has rows that are not in it: copy both to another disk",
                options.path.display(),
                log.display()
            ),
        });
    }
    let path = std::path::absolute(&options.path).unwrap_or_else(|_| options.path.clone());
    let encoded: String = path.to_string_lossy().bytes().map(encoded).collect();
    let uri = format!("file://{encoded}?immutable=1");
    connect(options, Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// A byte of a path as it stands in a URI.
fn encoded(byte: u8) -> String {
    match byte {
        b'/' | b'.' | b'_' | b'-' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

/// The file with this ending beside another.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn open(options: &SqliteOptions, flags: OpenFlags) -> Result<Connection, LedgerError> {
    connect(options, &options.path, flags)
}

fn connect(options: &SqliteOptions, name: &Path, flags: OpenFlags) -> Result<Connection, LedgerError> {
    let path = &options.path;
    let connection = Connection::open_with_flags(name, flags).map_err(|error| match error.sqlite_error_code() {
        // A retry does not help if the path is wrong.
        Some(rusqlite::ErrorCode::CannotOpen) if path.is_dir() => {
            LedgerError::NotALedger { reason: format!("{} is a folder", path.display()) }
        }
        Some(rusqlite::ErrorCode::CannotOpen) if is_without_folder(path) => {
            LedgerError::NotALedger { reason: format!("{}: the folder of the file does not exist", path.display()) }
        }
        Some(rusqlite::ErrorCode::CannotOpen) if !flags.contains(OpenFlags::SQLITE_OPEN_CREATE) && !path.exists() => {
            LedgerError::NotALedger {
                reason: format!("{}: there is no such file; `logline init` makes a ledger", path.display()),
            }
        }
        Some(rusqlite::ErrorCode::CannotOpen) if is_forbidden(path) => LedgerError::ReadOnly {
            reason: format!("{}: this user may not open the file, or make one in its folder", path.display()),
        },
        Some(rusqlite::ErrorCode::CannotOpen) if is_on_read_only_disk(path) => LedgerError::ReadOnly {
            reason: format!("{} is on a disk that cannot be written: name a file on another", path.display()),
        },
        Some(rusqlite::ErrorCode::CannotOpen) => LedgerError::Unavailable {
            reason: format!("cannot open {}: {error}", path.display()),
            source: Some(Box::new(error)),
        },
        _ => from_sqlite(error),
    })?;
    connection.busy_timeout(options.busy_timeout).map_err(from_sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whether the folder of the file is on a file system that is mounted for reading only. The file itself is not opened: when a process closes
/// a file, it loses its locks on it, and SQLite in another process would take this one for gone.
fn is_on_read_only_disk(path: &Path) -> bool {
    let probe = beside(path, &format!(".{}.probe", std::process::id()));
    match std::fs::File::create_new(&probe) {
        Ok(_) => {
            // A probe that cannot be removed is empty, and in nobody's way.
            let _ = std::fs::remove_file(&probe);
            false
        }
        Err(error) => error.kind() == std::io::ErrorKind::ReadOnlyFilesystem,
    }
}

/// Whether this user may not read the file, or not make one in its folder. The file is not opened, as above.
fn is_forbidden(path: &Path) -> bool {
    if path.exists() {
        return is_denied(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(folder).is_ok_and(|folder| folder.permissions().readonly()) || is_denied(path)
}

#[cfg(unix)]
fn is_denied(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK) == Err(rustix::io::Errno::ACCESS)
}

#[cfg(not(unix))]
fn is_denied(_: &Path) -> bool {
    false
}

fn is_without_folder(path: &Path) -> bool {
    path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.exists())
}

fn create(connection: &mut Connection, options: &SqliteOptions) -> Result<(), LedgerError> {
    // Two processes may create the same file. The one that gets the lock second finds the schema.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(from_sqlite)?;
    if tables == 0 {
        for ddl in ALL {
            transaction.execute_batch(ddl).map_err(from_sqlite)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(from_sqlite)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(from_sqlite)?;
        return transaction.commit().map_err(from_sqlite);
    }
    drop(transaction);
    check_version(connection, options)
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, LedgerError> {
    connection.pragma_query_value(None, name, |row| row.get(0)).map_err(from_sqlite)
}

fn check_version(connection: &Connection, options: &SqliteOptions) -> Result<(), LedgerError> {
    if pragma(connection, "application_id")? != APPLICATION_ID {
        return Err(LedgerError::NotALedger {
            reason: format!("{} is a SQLite file, but not a LogLine ledger", options.path.display()),
        });
    }
    match pragma(connection, "user_version")? {
        VERSION => Ok(()),
        found => Err(LedgerError::SchemaVersion {
            found,
            supported: VERSION,
            advice: "upgrade this library, or open it with the version that made it",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_can_change_is_read_without_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("a b%41?c#d.ledger"));
        drop(open_writer(&options).unwrap());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = open_unchanging(&options, flags).unwrap();
        check_version(&connection, &options).unwrap();
        let rows: i64 = connection.query_row("SELECT count(*) FROM universal_registry", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, std::fs::read_dir(folder.path()).unwrap().count()), (0, 1));
        // Rows that are in the log alone must not be left out without a word.
        std::fs::write(beside(&options.path, "-wal"), b"rows").unwrap();
        let error = open_unchanging(&options, flags).unwrap_err();
        assert!(matches!(&error, LedgerError::ReadOnly { reason } if reason.contains("copy both")), "{error}");
    }
}

//! Files that cannot be used, and stores that fail: each its own error, nothing half-written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerError, LedgerExt as _, Query, Retry, WatchFrom};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_sqlite::{SqliteLedger, SqliteOptions, Synchronous};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn note(size: usize) -> VerifiedSpan {
    let draft = Draft::new("note").tenant("acme").owner("alice").who("w").this("t").code("x".repeat(size));
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[7; 32])).unwrap()
}

fn open_error(path: &Path) -> LedgerError {
    SqliteLedger::open(path).err().expect("it must not open")
}

async fn rows(ledger: &SqliteLedger) -> usize {
    ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap().len()
}

/// A backup is put back, or a script moves the file, while a host has it open: SQLite would go on writing into the file that is gone.
#[test]
fn a_file_that_was_replaced_while_it_is_open_acknowledges_nothing() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (path, backup) = (folder.path().join("ledger"), folder.path().join("backup"));
        let ledger = SqliteLedger::open(&path).unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        ledger.copy_to(&backup).await.unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        fs::rename(&backup, &path).unwrap();
        for _ in 0..2 {
            let error = ledger.append_one(&Scope::Operator, note(1)).await.unwrap_err();
            assert!(matches!(error, LedgerError::Moved { .. }) && error.retry() == Retry::No, "{error}");
        }
        let read = ledger.scan(&Scope::Operator, &Query::timeline(), None).await;
        assert!(matches!(read, Err(LedgerError::Moved { .. })));
        drop(ledger);
        for ending in ["ledger-wal", "ledger-shm"] {
            let _ = fs::remove_file(folder.path().join(ending));
        }
        let again = SqliteLedger::open(&path).unwrap();
        assert_eq!(rows(&again).await, 1);
        fs::remove_file(&path).unwrap();
        assert!(matches!(again.append_one(&Scope::Operator, note(1)).await, Err(LedgerError::Moved { .. })));
    });
}

/// Whoever copies the file of a service that has stopped has all rows.
#[test]
fn a_ledger_that_was_closed_is_one_file() {
    use futures_util::StreamExt as _;
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("ledger")).unwrap();
        let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        watch.next().await.unwrap().unwrap();
        drop((watch, ledger));
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["ledger"]);
    });
}

/// A reader that was at row 2 of the file reads from a copy with one row. The next row would get the number 2, and be skipped.
#[test]
fn a_cursor_from_before_an_older_copy_was_put_back_is_refused() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("ledger")).unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        ledger.copy_to(folder.path().join("backup")).await.unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        let page = ledger.scan(&Scope::Operator, &Query::timeline(), None).await.unwrap();
        let last = page.rows.last().unwrap().cursor.clone();
        let read = async |ledger: &SqliteLedger| ledger.scan(&Scope::Operator, &Query::timeline(), Some(&last)).await;
        assert_eq!(read(&ledger).await.unwrap().rows.len(), 0);
        let copy = SqliteLedger::open(folder.path().join("backup")).unwrap();
        assert!(matches!(read(&copy).await, Err(LedgerError::InvalidCursor { .. })));
        let tenant = Scope::user("acme", "alice");
        assert!(matches!(copy.scan(&tenant, &Query::timeline(), Some(&last)).await, Err(LedgerError::InvalidCursor { .. })));
        let watched = copy.watch(&Scope::Operator, WatchFrom::After(last)).await;
        assert!(matches!(watched.err(), Some(LedgerError::InvalidCursor { .. })));
    });
}

const VISITS: &str = "LOGLINE_TEST_VISITS";

/// Another process that reads the file takes itself for the last one if this process has lost its locks, and removes the write-ahead log.
#[test]
fn another_process_that_closes_the_file_leaves_this_one_its_log() {
    if let Some(path) = std::env::var_os(VISITS) {
        let visitor = rusqlite::Connection::open(path).unwrap();
        let rows: i64 = visitor.query_row("SELECT count(*) FROM universal_registry", [], |row| row.get(0)).unwrap();
        assert!(rows > 0);
        return;
    }
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = SqliteLedger::open(&path).unwrap();
        for count in 1..=2 {
            ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
            let mut visit = std::process::Command::new(std::env::current_exe().unwrap());
            visit.args(["--exact", "another_process_that_closes_the_file_leaves_this_one_its_log"]).env(VISITS, &path);
            assert!(visit.output().unwrap().status.success());
            assert!(folder.path().join("ledger-wal").exists(), "visit {count}");
            assert_eq!(rows(&ledger).await, count);
        }
    });
}

#[test]
fn an_unknown_schema_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    drop(SqliteLedger::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, LedgerError::SchemaVersion { found: 99, supported: 3, .. }));
    assert!(error.to_string().contains("upgrade this library"), "{error}");
    let read_only = SqliteLedger::open_with(SqliteOptions::new(&path).read_only()).err().unwrap();
    assert!(matches!(read_only, LedgerError::SchemaVersion { .. }));
}

#[test]
fn another_applications_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = fs::read(&path).unwrap();
    let error = open_error(&path);
    assert!(error.to_string().contains("not a LogLine ledger"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    fs::write(&path, "this is no database, and long enough to have a header of one hundred bytes. ".repeat(20)).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, LedgerError::NotALedger { .. }), "{error:?}");
    assert!(error.to_string().contains("text: file is not a database"), "{error}");
}

#[test]
fn a_page_overwritten_in_the_middle_is_corrupt_not_empty() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = SqliteLedger::open(&path).unwrap();
        ledger.append(&Scope::Operator, (0..200).map(|_| note(500)).collect(), &AppendOptions::default()).await.unwrap();
        drop(ledger);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[4096..middle].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        let failed = match SqliteLedger::open(&path) {
            Err(error) => error,
            Ok(ledger) => ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap_err(),
        };
        assert!(matches!(failed, LedgerError::Corrupt { .. }), "{failed:?}");
        assert_eq!(failed.retry(), Retry::No);
    });
}

#[test]
fn a_missing_file_is_not_created_when_it_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    for options in [SqliteOptions::new(&path).must_exist(), SqliteOptions::new(&path).read_only()] {
        let error = SqliteLedger::open_with(options).err().unwrap();
        assert!(matches!(error, LedgerError::NotALedger { .. }) && error.retry() == Retry::No, "{error:?}");
        assert!(error.to_string().contains("no such file"), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn a_read_only_ledger_reads_and_refuses_to_write() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let writer = SqliteLedger::open(&path).unwrap();
        writer.append_one(&Scope::Operator, note(1)).await.unwrap();
        let reader = SqliteLedger::open_with(SqliteOptions::new(&path).read_only()).unwrap();
        assert_eq!(rows(&reader).await, 1);
        let error = reader.append_one(&Scope::Operator, note(1)).await.unwrap_err();
        assert!(matches!(error, LedgerError::ReadOnly { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::No);
    });
}

/// Opens the ledger named by the environment and prints what becomes of it.
#[test]
#[ignore = "started by the test below as a process without privileges"]
fn open_named() {
    if let Ok(path) = std::env::var("LOGLINE_OPEN") {
        println!("opened: {:?}", SqliteLedger::open(path).err());
    }
}

#[cfg(unix)]
#[test]
fn a_file_without_write_permission_is_read_only() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    drop(SqliteLedger::open(&path).unwrap());
    // Permission bits mean nothing to root, so the opener is a copy of this program that anybody may run, run by nobody.
    let opener = folder.path().join("opener");
    fs::copy(std::env::current_exe().unwrap(), &opener).unwrap();
    for (path, mode) in [(folder.path(), 0o755), (opener.as_path(), 0o755), (path.as_path(), 0o444)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = std::process::Command::new(&opener);
    command.args(["--ignored", "--exact", "open_named", "--nocapture"]).env("LOGLINE_OPEN", &path).current_dir("/");
    if fs::metadata(&path).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("opened: Some(ReadOnly"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_ledger_stores_nothing_of_the_batch_and_goes_on_after_that() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = SqliteLedger::open_with(SqliteOptions::new(&path).max_bytes(512 << 10)).unwrap();
        ledger.append_one(&Scope::Operator, note(1000)).await.unwrap();
        let batch = (0..100).map(|_| note(10_000)).collect();
        let error = ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap_err();
        assert!(matches!(error, LedgerError::Full { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(rows(&ledger).await, 1);
        ledger.append_one(&Scope::Operator, note(1000)).await.unwrap();
        assert_eq!(rows(&ledger).await, 2);
        drop(ledger);
        let larger = SqliteLedger::open(&path).unwrap();
        larger.append(&Scope::Operator, (0..100).map(|_| note(10_000)).collect(), &AppendOptions::default()).await.unwrap();
        assert_eq!(rows(&larger).await, 102);
    });
}

#[test]
fn members_of_a_group_that_fails_as_a_whole_are_tried_one_by_one() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("ledger")).max_bytes(512 << 10);
        let ledger = SqliteLedger::open_with(options).unwrap();
        // Submitted together: the large ones do not fit, the small ones do.
        let scope = Scope::Operator;
        let appends = (0..40).map(|n| ledger.append_one(&scope, note(if n % 4 == 0 { 900_000 } else { 100 })));
        let results = futures_util::future::join_all(appends).await;
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), n % 4 != 0, "append {n}: {result:?}");
        }
        assert_eq!(rows(&ledger).await, 30);
    });
}

#[test]
fn another_process_that_holds_the_lock_is_waited_for_then_reported() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let options = SqliteOptions::new(&path).busy_timeout(Duration::from_millis(50));
        let ledger = SqliteLedger::open_with(options).unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = ledger.append_one(&Scope::Operator, note(1)).await.unwrap_err();
        assert!(matches!(error, LedgerError::Unavailable { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(rows(&ledger).await, 0, "readers do not wait for a writer");
        other.execute_batch("ROLLBACK").unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
    });
}

#[test]
fn the_file_refuses_update_and_delete_by_any_tool() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = SqliteLedger::open(&path).unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        let sql = rusqlite::Connection::open(&path).unwrap();
        for statement in ["UPDATE universal_registry SET who = 'x'", "DELETE FROM universal_registry"] {
            let error = sql.execute(statement, []).unwrap_err().to_string();
            assert!(error.contains("append-only"), "{error}");
        }
    });
}

#[test]
fn two_handles_on_one_file_see_each_others_rows_and_race_fairly() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (a, b) = (SqliteLedger::open(&path).unwrap(), SqliteLedger::open(&path).unwrap());
        let first = note(1);
        a.append_one(&Scope::Operator, first.clone()).await.unwrap();
        let rival = |name: &str| {
            let draft = Draft::next_version(&first).name(name).stamp(&SystemClock, &SystemIds);
            draft.seal_local(&KeyPair::from_seed(&[7; 32])).unwrap()
        };
        let scope = Scope::Operator;
        let (ra, rb) = (rival("a"), rival("b"));
        let (won_a, won_b) = futures_util::future::join(a.append_one(&scope, ra), b.append_one(&scope, rb)).await;
        assert!(won_a.is_ok() != won_b.is_ok(), "{won_a:?} {won_b:?}");
        assert_eq!(rows(&a).await, rows(&b).await);
    });
}

#[test]
fn a_watch_sees_what_another_process_appends() {
    use futures_util::StreamExt as _;
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        // Two handles share nothing but the file, like two processes.
        let (watcher, writer) = (SqliteLedger::open(&path).unwrap(), SqliteLedger::open(&path).unwrap());
        let mut watch = watcher.watch(&Scope::Operator, WatchFrom::Now).await.unwrap();
        let span = note(1);
        let (seen, _) = futures_util::future::join(watch.next(), writer.append_one(&Scope::Operator, span.clone())).await;
        assert_eq!(seen.unwrap().unwrap().span, span.into_signed());
    });
}

#[test]
fn durability_is_full_by_default_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let full = SqliteLedger::open(folder.path().join("a")).unwrap();
    assert!(full.capability().durability.contains("synchronous=FULL"));
    let options = SqliteOptions::new(folder.path().join("b")).synchronous(Synchronous::Normal);
    assert!(SqliteLedger::open_with(options).unwrap().capability().durability.contains("maybe not of the machine"));
}

#[test]
fn a_copy_is_a_ledger_of_its_own() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("ledger")).unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        let copy = folder.path().join("copy");
        ledger.copy_to(&copy).await.unwrap();
        ledger.append_one(&Scope::Operator, note(1)).await.unwrap();
        assert_eq!(rows(&SqliteLedger::open(&copy).unwrap()).await, 1);
        assert!(ledger.copy_to(&copy).await.is_err(), "nothing is overwritten");
    });
}

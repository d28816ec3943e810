//! The SQLite ledger passes the suite, on a file of its own per trial.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;

use logline_core::conformance::keeping::{self, Wrapping};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use tempfile::TempDir;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

async fn open() -> (TempDir, SqliteLedger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("trial.ledger")).unwrap();
    (folder, ledger)
}

logline_core::conformance_suite!(open, block_on);
logline_core::work_queue_suite!(open, block_on);
logline_core::search_suite!(open, block_on);
logline_core::vector_suite!(open, block_on);

async fn keys() -> (TempDir, SqliteKeys) {
    let folder = tempfile::tempdir().unwrap();
    let keys = SqliteKeys::open(folder.path().join("trial.keys.db")).unwrap();
    (folder, keys)
}

logline_core::key_store_suite!(keys, block_on);

#[test]
fn a_key_wraps_no_more_than_it_may() {
    block_on(async {
        let (folder, store) = keys().await;
        let set = async |wrapping: Wrapping, wraps: u64| {
            let sql = match wrapping {
                Wrapping::Epoch => "UPDATE epochs SET wraps = ?1",
                _ => "UPDATE subject_keys SET added = ?1",
            };
            let file = rusqlite::Connection::open(folder.path().join("trial.keys.db")).unwrap();
            file.execute(sql, [i64::try_from(wraps).unwrap()]).unwrap();
        };
        keeping::a_key_wraps_no_more_than_it_may(&store, set).await;
    });
}

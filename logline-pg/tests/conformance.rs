//! The PostgreSQL ledger passes the suite through its real roles, in a database of its own per trial.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use logline_core::conformance::keeping::{self, Wrapping};
use server::{block_on, ledger, superuser};

logline_core::conformance_suite!(ledger, block_on);
logline_core::work_queue_suite!(ledger, block_on);
logline_core::search_suite!(ledger, block_on);
logline_core::key_store_suite!(ledger, block_on);

#[test]
fn a_key_wraps_no_more_than_it_may() {
    block_on(async {
        let (database, store) = ledger().await;
        let set = async |wrapping: Wrapping, wraps: u64| {
            let sql = match wrapping {
                Wrapping::Epoch => format!("UPDATE memory.epochs SET wraps = {wraps}"),
                _ => format!("UPDATE memory.subject_keys SET added = {wraps}"),
            };
            superuser(&database, &sql).await;
        };
        keeping::a_key_wraps_no_more_than_it_may(&store, set).await;
    });
}

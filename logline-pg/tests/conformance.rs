//! The PostgreSQL ledger passes the suite through its real roles, in a database of its own per trial.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use server::{block_on, ledger};

logline_core::conformance_suite!(ledger, block_on);
logline_core::work_queue_suite!(ledger, block_on);
logline_core::search_suite!(ledger, block_on);
logline_core::key_store_suite!(ledger, block_on);

//! The suite through a pooler that lends two server connections, one transaction at a time, to whoever asks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use std::sync::OnceLock;

use logline_pg::{PgLedger, PgOptions};
use logline_pg_testing::Pooler;
use server::{block_on, database, server};

async fn pooled() -> (String, PgLedger) {
    static POOLER: OnceLock<Pooler> = OnceLock::new();
    let database = database().await;
    let pooler = POOLER.get_or_init(|| server().pooler().unwrap_or_else(|e| panic!("{e}")));
    let options = PgOptions::new(&pooler.url("host", &database)).unwrap().through_pooler();
    (database, PgLedger::connect(options).await.unwrap())
}

logline_core::conformance_suite!(pooled, block_on);
logline_core::work_queue_suite!(pooled, block_on);

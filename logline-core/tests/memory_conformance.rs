//! The in-memory ledger passes the suite concrete, boxed in an `Arc`, and as a trait object.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

mod concrete {
    use logline_core::MemoryLedger;

    async fn open() -> ((), MemoryLedger) {
        ((), MemoryLedger::new())
    }

    logline_core::conformance_suite!(open, super::block_on);
    logline_core::work_queue_suite!(open, super::block_on);
    logline_core::search_suite!(open, super::block_on);
    logline_core::vector_suite!(open, super::block_on);
}

mod shared_trait_object {
    use std::sync::Arc;

    use logline_core::MemoryLedger;
    use logline_core::ledger::Ledger;

    async fn open() -> ((), Arc<dyn Ledger>) {
        ((), Arc::new(MemoryLedger::new()))
    }

    logline_core::conformance_suite!(open, super::block_on);
}

mod shared_queue {
    use std::sync::Arc;

    use logline_core::MemoryLedger;
    use logline_core::ledger::WorkQueue;

    async fn open() -> ((), Arc<dyn WorkQueue>) {
        ((), Arc::new(MemoryLedger::new()))
    }

    logline_core::work_queue_suite!(open, super::block_on);
}

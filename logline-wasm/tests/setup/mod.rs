//! A host without a ledger, and functions for it.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

mod text;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::Timestamp;
use logline_core::contract::{HostCalls, Job, Report, Sandbox as _};
use logline_core::trust::Limits;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub(crate) use text::{answer, ask, echo, module};

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A host that answers at once, but for queries: those wait until they are let go, unless there is a reply to them.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    pub(crate) asked: Arc<Notify>,
    pub(crate) go: Arc<Notify>,
    pub(crate) queries: Arc<AtomicU32>,
    pub(crate) reply: Option<Value>,
}

#[async_trait]
impl HostCalls for Desk {
    fn log(&mut self, _: Value) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        Ok(vec![7; bytes])
    }

    async fn query(&mut self, _: Value) -> Result<Value, Failure> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        if let Some(reply) = &self.reply {
            return Ok(reply.clone());
        }
        self.asked.notify_one();
        self.go.notified().await;
        Ok(json!({"spans": [], "cursor": null}))
    }

    fn emit(&mut self, _: Value) -> Result<Value, Failure> {
        Ok(json!({"id": "00000000-0000-7000-8000-000000000000"}))
    }
}

/// Runs `code` for a tenant, with the default limits as `change` makes them.
pub(crate) async fn run_with(
    sandbox: &WasmSandbox,
    tenant: &str,
    code: &str,
    desk: &mut Desk,
    change: impl FnOnce(&mut Limits),
) -> Report {
    let mut limits = Limits::default();
    change(&mut limits);
    sandbox.run(Job::new(tenant, code, &json!({"n": 1}), &limits), desk).await
}

pub(crate) async fn run(sandbox: &WasmSandbox, code: &str) -> Report {
    run_with(sandbox, "acme", code, &mut Desk::default(), |_| {}).await
}

/// The code of a failure.
pub(crate) fn code(report: &Report) -> &str {
    &report.result.as_ref().expect_err("it must fail").code
}

/// A function that spins for ever.
pub(crate) fn spin() -> String {
    module("", "(loop $again (br $again)) (i64.const 0)")
}

//! A host over an in-memory ledger with one tenant, and functions in WebAssembly text.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use logline_core::ledger::{Ledger as _, LedgerExt as _, WatchFrom};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Limits;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Execution, Host, HostBuilder, KernelSet, KeyPair, MemoryLedger, PublicKey, SYSTEM_TENANT, Scope, SignError,
    Signature, SignedSpan, Signer, SystemClock, SystemIds, VerifiedSpan, Visibility, ids,
};
use logline_kernels::{Loops, Run as _};
use logline_wasm::WasmSandbox;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

#[path = "../../../logline-wasm/tests/setup/text.rs"]
mod text;

pub(crate) mod quorum;

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use text::{answer, ask, echo, module};

pub(crate) const TENANT: &str = "acme";
pub(crate) const USER: &str = "alice";

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub(crate) fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub(crate) const ROOT: u8 = 1;
pub(crate) const SYSTEM_PUBLISHER: u8 = 2;
pub(crate) const PUBLISHER: u8 = 3;
pub(crate) const HOST: u8 = 4;
pub(crate) const STRANGER: u8 = 66;

pub(crate) fn trust() -> TrustRoot {
    TrustRoot::new([key(ROOT).public_key()], 1)
}

pub(crate) fn manifest() -> Manifest {
    Manifest::first(RootSet::new([key(ROOT).public_key()], 1))
        .allow("run_code", ids::RUN_CODE)
        .grant(key(SYSTEM_PUBLISHER).public_key(), Role::Publisher, [SYSTEM_TENANT])
        .grant(key(PUBLISHER).public_key(), Role::Publisher, [TENANT])
        .grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"])
}

/// A ledger with this manifest and the kernels installed.
pub(crate) async fn ledger(manifest: &Manifest) -> MemoryLedger {
    ledger_with(manifest, &logline_kernels::all()).await
}

/// A ledger with this manifest and these behaviours installed.
pub(crate) async fn ledger_with(manifest: &Manifest, set: &KernelSet) -> MemoryLedger {
    let ledger = MemoryLedger::new();
    trust().publish(&ledger, manifest, &key(ROOT), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, set, &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
    ledger
}

pub(crate) async fn host_of(ledger: &MemoryLedger) -> Host {
    host_as(ledger, HOST).await
}

/// A host with the key of this number.
pub(crate) async fn host_as(ledger: &MemoryLedger, n: u8) -> Host {
    host_that(ledger, n, logline_kernels::all()).await
}

/// A host with the key of this number and these behaviours.
pub(crate) async fn host_that(ledger: &MemoryLedger, n: u8, set: KernelSet) -> Host {
    builder(ledger, n, set).build().await.unwrap()
}

fn builder(ledger: &MemoryLedger, n: u8, set: KernelSet) -> HostBuilder {
    Host::builder().ledger(ledger.clone()).trust(trust()).key(key(n)).install(set).sandbox(WasmSandbox::new().unwrap())
}

/// A host that publishes what no sandbox would run, as the tool of a hostile publisher does.
async fn unchecked(ledger: &MemoryLedger) -> Host {
    builder(ledger, HOST, logline_kernels::all()).publish_unchecked().build().await.unwrap()
}

/// Runs loops until `until` is done.
pub(crate) async fn run_until(host: &Host, loops: impl Into<Loops> + Send, until: impl Future<Output = ()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async move {
        until.await;
        drop(stop);
    };
    let run = host.run(loops, async move { drop(stopped.await) });
    futures_util::future::join(run, until).await.0.unwrap();
}

/// Waits until `count` rows are such.
pub(crate) async fn until(ledger: &MemoryLedger, count: usize, is_such: impl Fn(&SignedSpan) -> bool) {
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.unwrap();
    let wait = async {
        let mut found = 0;
        while found < count {
            found += usize::from(is_such(&watch.next().await.unwrap().unwrap().span));
        }
    };
    if tokio::time::timeout(Duration::from_secs(120), wait).await.is_err() {
        let violations = spans(ledger, "policy_violation").await;
        let violations: Vec<_> = violations.iter().map(|span| (&span.this, &span.error)).collect();
        panic!("what is waited for does not come; violations: {violations:?}");
    }
}

pub(crate) async fn host() -> (MemoryLedger, Host) {
    let ledger = ledger(&manifest()).await;
    let host = unchecked(&ledger).await;
    (ledger, host)
}

/// A host whose limits are as `change` makes them.
pub(crate) async fn host_with(change: impl FnOnce(&mut Limits)) -> (MemoryLedger, Host) {
    let mut manifest = manifest();
    change(&mut manifest.limits);
    let ledger = ledger(&manifest).await;
    let host = unchecked(&ledger).await;
    (ledger, host)
}

pub(crate) fn function(code: &str) -> Draft {
    Draft::new("function")
        .tenant(TENANT)
        .owner("risk-team")
        .who("publisher")
        .this("function.trial")
        .visibility(Visibility::Tenant)
        .runtime("wasm@1")
        .code(code)
}

pub(crate) async fn publish(host: &Host, code: &str) -> Uuid {
    host.publish(function(code), &key(PUBLISHER)).await.unwrap().id
}

pub(crate) async fn execute(host: &Host, function: Uuid, input: Value) -> Execution {
    host.execute(Request::new(TENANT, USER, function, input)).await.unwrap()
}

/// Publishes `code`, runs it once on `input`.
pub(crate) async fn run(host: &Host, code: &str, input: Value) -> Execution {
    let function = publish(host, code).await;
    execute(host, function, input).await
}

/// Writes a row behind the host's checks, as whoever can write to the store could.
pub(crate) async fn smuggle(ledger: &MemoryLedger, draft: Draft, signer: u8) -> VerifiedSpan {
    let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
    ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
    span
}

pub(crate) async fn spans(ledger: &MemoryLedger, entity_type: &str) -> Vec<logline_core::SignedSpan> {
    let query = logline_core::ledger::Query::timeline().entity_type(entity_type);
    assert!(ledger.capability().max_page > 0);
    ledger.collect(&Scope::Operator, &query, usize::MAX).await.unwrap()
}

/// Why it failed: code and message, the same in the result, the execution and the closed request.
pub(crate) fn failure(execution: &Execution) -> (&str, &str) {
    let failure = execution.result.as_ref().expect_err("it must fail");
    assert_eq!(execution.span.status.as_deref(), Some("error"), "the execution is recorded as an error");
    assert_eq!(execution.request.status.as_deref(), Some("error"), "and closes the request");
    assert_eq!(execution.span.error.as_ref().unwrap()["code"], failure.code.as_str());
    (&failure.code, &failure.message)
}

/// What it returned.
pub(crate) fn output(execution: &Execution) -> &Value {
    execution.result.as_ref().unwrap_or_else(|e| panic!("{e}"))
}

/// Signs until it has signed so often; then its host is dead.
pub(crate) struct Mortal {
    pub(crate) key: KeyPair,
    pub(crate) left: AtomicUsize,
    pub(crate) died: Arc<Notify>,
}

#[async_trait]
impl Signer for Mortal {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        self.key.sign(message).await
    }

    fn local(&self) -> Option<&KeyPair> {
        None
    }
}

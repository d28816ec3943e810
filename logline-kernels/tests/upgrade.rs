//! A rolling upgrade: hosts with an older and with a newer version of a kernel on one ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{Context, Effects, Kernel, KernelError, RequestKind, Sandbox};
use logline_core::ledger::LedgerExt as _;
use logline_core::request::Request;
use logline_core::{Draft, Host, KernelSet, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, VerifiedSpan, ids};
use logline_kernels::{Run as _, RunCode, Worker, WorkerOptions};
use serde_json::json;
use setup::{HOST, SYSTEM_PUBLISHER, TENANT, USER, block_on, echo, key, publish, smuggle, spans, until};
use uuid::Uuid;

const NEWER_HOST: u8 = 41;

/// `run_code`, version 3: it does what version 2 does.
#[derive(Debug, Default)]
struct Newer(RunCode);

#[async_trait]
impl Kernel for Newer {
    fn id(&self) -> Uuid {
        self.0.id()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version() + 1
    }

    fn requests(&self) -> &'static [RequestKind] {
        self.0.requests()
    }

    fn lacks(&self, function: Option<&SignedSpan>, sandboxes: &[Arc<dyn Sandbox>]) -> Option<String> {
        self.0.lacks(function, sandboxes)
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        self.0.run(request, context).await
    }
}

fn worker() -> Worker {
    Worker::new(WorkerOptions::default().poll(Duration::from_millis(5)))
}

/// The key of the host that carried the request out.
async fn carried_out(ledger: &MemoryLedger, host: &Host, function: Uuid) -> String {
    let request = host.submit(Request::new(TENANT, USER, function, json!({}))).await.unwrap();
    until(ledger, 1, |row| row.id == request.id && row.status.as_deref() == Some("complete")).await;
    let executions = spans(ledger, "execution").await;
    let execution = executions.iter().find(|execution| execution.id == ids::execution(TENANT, request.id, 1)).unwrap();
    execution.seal.public_key.to_string()
}

#[test]
fn an_older_host_leaves_requests_to_newer_ones_and_goes_on() {
    block_on(async {
        let manifest = setup::manifest().allow("request_worker", ids::REQUEST_WORKER).grant(
            key(NEWER_HOST).public_key(),
            logline_core::roles::Role::Runtime,
            [SYSTEM_TENANT, "*"],
        );
        let ledger = setup::ledger_with(&manifest, &logline_kernels::all()).await;
        let older = setup::host_as(&ledger, HOST).await;
        let function = publish(&older, &echo()).await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = older.run(worker(), async move { drop(stopped.await) });
        let upgrade = async {
            assert_eq!(carried_out(&ledger, &older, function).await, key(HOST).public_key().to_string());
            let kernel = ledger.get_system(ids::RUN_CODE).await;
            let newer = smuggle(&ledger, Draft::next_version(&kernel).code("run_code@3"), SYSTEM_PUBLISHER).await;
            let host = setup::host_that(&ledger, NEWER_HOST, KernelSet::new().kernel(Newer::default()).service(worker())).await;
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let during = async {
                for _ in 0..3 {
                    assert_eq!(carried_out(&ledger, &host, function).await, key(NEWER_HOST).public_key().to_string());
                }
                // The upgrade is taken back: the older host goes on without a restart.
                smuggle(&ledger, Draft::next_version(&newer).code("run_code@2"), SYSTEM_PUBLISHER).await;
                drop(end);
            };
            let (ran, ()) = futures_util::future::join(host.run(worker(), async move { drop(ended.await) }), during).await;
            ran.unwrap();
            assert_eq!(carried_out(&ledger, &older, function).await, key(HOST).public_key().to_string());
            drop(stop);
        };
        let (ran, ()) = futures_util::future::join(running, upgrade).await;
        ran.expect("an older host must not end when a newer kernel is installed");
    });
}

trait System {
    async fn get_system(&self, id: Uuid) -> VerifiedSpan;
}

impl System for MemoryLedger {
    async fn get_system(&self, id: Uuid) -> VerifiedSpan {
        let span = self.find(&Scope::runtime(SYSTEM_TENANT), SYSTEM_TENANT, id).await.unwrap().unwrap();
        span.verify(&mut logline_core::Verifier::new()).unwrap()
    }
}

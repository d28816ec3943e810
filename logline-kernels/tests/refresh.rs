//! Reading the manifest again: by several callers at once, and for the sake of rows that a stranger has written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::work::Rebuilt;
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, LedgerExt as _, Page,
    Parking, Poll, Polled, Query, Signal, Tenants, Touched, Waiting, Watch, WatchFrom, Work, WorkQueue,
};
use logline_core::request::{NotRunnable, Request};
use logline_core::{Host, HostError, ManualClock, MemoryLedger, Scope, SignedSpan, SystemClock, Timestamp, VerifiedSpan, ids};
use serde_json::json;
use setup::{HOST, ROOT, STRANGER, TENANT, USER, block_on, echo, key, manifest, trust};
use tokio::sync::Notify;
use uuid::Uuid;

/// Counts how often delegations are read, which each refresh does once, and can make one reader wait.
struct Watched {
    ledger: MemoryLedger,
    reads: AtomicUsize,
    holds_next: AtomicBool,
    is_held: Notify,
    go_on: Notify,
}

#[derive(Clone)]
struct Gated(Arc<Watched>);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for Gated {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        self.0.ledger.append(scope, batch, options).await
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        self.0.ledger.get(scope, tenant, id).await
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        self.0.ledger.history(scope, tenant, id, seq, limit).await
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        if query.entity_type.as_deref() == Some("delegation") {
            self.0.reads.fetch_add(1, Ordering::SeqCst);
            if self.0.holds_next.swap(false, Ordering::SeqCst) {
                self.0.is_held.notify_one();
                self.0.go_on.notified().await;
            }
        }
        self.0.ledger.scan(scope, query, cursor).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.0.ledger.watch(scope, from).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.0.ledger.inspect().await
    }

    fn capability(&self) -> Capability {
        self.0.ledger.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for Gated {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        self.0.ledger.now().await
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        self.0.ledger.claimable(poll).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        self.0.ledger.take(poll).await
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        self.0.ledger.park(parkings).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        self.0.ledger.waiting(tenant, id).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        self.0.ledger.open_requests(tenants, after, limit).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        self.0.ledger.is_due(work).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.0.ledger.arrivals().await
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        self.0.ledger.active(kind, tenants, after, limit).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        self.0.ledger.refuse_active(kind, refused).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        self.0.ledger.offer_active(kind, tenants).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        self.0.ledger.touched(after).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        self.0.ledger.heartbeat(held, lease).await
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        self.0.ledger.used(tenant, key).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        self.0.ledger.rebuild().await
    }
}

async fn site() -> (Gated, Arc<ManualClock>, Host) {
    let ledger = setup::ledger(&manifest()).await;
    let (is_held, go_on) = (Notify::new(), Notify::new());
    let gated =
        Gated(Arc::new(Watched { ledger, reads: AtomicUsize::new(0), holds_next: AtomicBool::new(false), is_held, go_on }));
    let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
    let host = Host::builder().ledger(gated.clone()).trust(trust()).key(key(HOST)).clock(clock.clone());
    let host = host.install(logline_kernels::all()).sandbox(logline_wasm::WasmSandbox::new().unwrap()).build().await.unwrap();
    (gated, clock, host)
}

#[test]
fn a_refresh_that_read_an_older_manifest_is_no_rollback() {
    block_on(async {
        let (gated, _, host) = site().await;
        // The first reader has read version 1, and waits before it puts it in force.
        gated.0.holds_next.store(true, Ordering::SeqCst);
        let slow = host.clone();
        let slow = tokio::spawn(async move { slow.refresh().await });
        gated.0.is_held.notified().await;
        let mut second = manifest();
        second.version = 2;
        trust().publish(&gated.0.ledger, &second, &key(ROOT), &SystemClock).await.unwrap();
        let quick = host.clone();
        let quick = tokio::spawn(async move { quick.refresh().await });
        // The second reader gets as far as it can.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gated.0.go_on.notify_one();
        slow.await.unwrap().unwrap();
        quick.await.unwrap().unwrap();
        assert_eq!(host.trusted().manifest.version, 2);
    });
}

#[test]
fn callers_that_ask_at_once_share_a_refresh() {
    block_on(async {
        let (gated, _, host) = site().await;
        gated.0.holds_next.store(true, Ordering::SeqCst);
        let before = gated.0.reads.load(Ordering::SeqCst);
        let first = host.clone();
        let first = tokio::spawn(async move { first.refresh().await });
        gated.0.is_held.notified().await;
        let others: Vec<_> =
            (0..50).map(|_| host.clone()).map(|host| tokio::spawn(async move { host.refresh().await })).collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gated.0.go_on.notify_one();
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(gated.0.reads.load(Ordering::SeqCst) - before, 2, "one under way, and one that began after all had asked");
    });
}

#[test]
fn a_stranger_cannot_make_a_host_read_the_manifest_more_than_once_a_second() {
    block_on(async {
        let (gated, clock, host) = site().await;
        let function = host.publish(setup::function(&echo()), &key(setup::PUBLISHER)).await.unwrap().id;
        let mut ids = Vec::new();
        for n in 0..50 {
            let draft = Request::new(TENANT, USER, function, json!(n)).into_draft(ids::derive("stranger", &[&n.to_string()]));
            ids.push(setup::smuggle(&gated.0.ledger, draft, STRANGER).await.id);
        }
        let before = gated.0.reads.load(Ordering::SeqCst);
        let mut left = 0;
        for id in &ids {
            match host.run_request(TENANT, *id).await.unwrap_err() {
                HostError::NotRunnable(NotRunnable::UnknownSigner { .. }) => left += 1,
                HostError::NotAuthorised(_) => {}
                other => panic!("{other}"),
            }
        }
        assert_eq!((gated.0.reads.load(Ordering::SeqCst) - before, left), (1, 49));
        let last = *ids.last().unwrap();
        let status = async || {
            let span = gated.0.ledger.find(&Scope::runtime(TENANT), TENANT, last).await.unwrap().unwrap();
            span.span.status.unwrap()
        };
        assert_eq!(status().await, "scheduled", "it is left until the host has read the manifest again");
        clock.advance(Duration::from_secs(1));
        assert!(matches!(host.run_request(TENANT, last).await.unwrap_err(), HostError::NotAuthorised(_)));
        assert_eq!(status().await, "error");
    });
}

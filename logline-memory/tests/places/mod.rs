//! A host that stops at a chosen place: before or after any of its calls of the ledger, of the tenant's keys and of their store. There it
//! dies, as a machine that loses power, or it waits while another host does something.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{
    DataKey, Destruction, Epoch, Forgetting, Kept, KeyError, KeyProvider, KeyStore, RecordKey, SubjectKey,
};
use logline_core::ledger::work::Rebuilt;
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, Page, Parking, Poll, Polled,
    Query, Signal, Tenants, Touched, Waiting, Watch, WatchFrom, Work, WorkQueue,
};
use logline_core::{Scope, SignedSpan, Timestamp, VerifiedSpan};
use tokio::sync::Notify;
use uuid::Uuid;

/// The calls of a host, counted. Each has two places: 2n before it, 2n + 1 after it.
#[derive(Default)]
pub struct Places {
    calls: AtomicUsize,
    stop_at: AtomicUsize,
    reached: Notify,
    go_on: Notify,
}

impl Places {
    /// Places of which none stops.
    pub fn new() -> Arc<Self> {
        let places = Self::default();
        places.stop_at.store(usize::MAX, Ordering::SeqCst);
        Arc::new(places)
    }

    /// Counts from now on, and stops at this place.
    pub fn stop_at(&self, place: usize) {
        self.calls.store(0, Ordering::SeqCst);
        self.stop_at.store(place, Ordering::SeqCst);
    }

    /// This part of the host.
    pub fn of<T>(self: &Arc<Self>, inner: T) -> At<T> {
        At { inner, places: Arc::clone(self) }
    }

    /// Is true if the host died at the place, and false if it was done before.
    pub async fn dies(&self, doing: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = doing => false,
            () = self.reached.notified() => true,
        }
    }

    /// At the place the host waits until `other` is done. `None` for `other` if the host was done before.
    pub async fn meanwhile<A, B>(&self, doing: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, Option<B>) {
        tokio::pin!(doing);
        tokio::select! {
            done = &mut doing => return (done, None),
            () = self.reached.notified() => {}
        }
        let other = other.await;
        self.go_on.notify_one();
        (doing.await, Some(other))
    }

    async fn pass(&self, place: usize) {
        if self.stop_at.load(Ordering::SeqCst) == place {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
    }
}

/// A part of a host that may stop.
#[derive(Clone)]
pub struct At<T> {
    inner: T,
    places: Arc<Places>,
}

impl<T> At<T> {
    async fn at<R>(&self, call: impl Future<Output = R>) -> R {
        let number = self.places.calls.fetch_add(1, Ordering::SeqCst);
        self.places.pass(2 * number).await;
        let result = call.await;
        self.places.pass(2 * number + 1).await;
        result
    }
}

#[async_trait]
impl<K: KeyProvider> KeyProvider for At<K> {
    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<(), KeyError> {
        self.at(self.inner.open_epoch(tenant, epoch)).await
    }
    async fn wrap(&self, tenant: &str, epoch: u64, context: &str, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        self.at(self.inner.wrap(tenant, epoch, context, key)).await
    }
    async fn unwrap(&self, tenant: &str, epoch: u64, context: &str, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        self.at(self.inner.unwrap(tenant, epoch, context, wrapped)).await
    }
    async fn destroy_epoch(&self, tenant: &str, epoch: u64) -> Result<Destruction, KeyError> {
        self.at(self.inner.destroy_epoch(tenant, epoch)).await
    }
}

#[async_trait]
impl<S: KeyStore> KeyStore for At<S> {
    async fn epoch(&self, tenant: &str) -> Result<Option<Epoch>, LedgerError> {
        self.at(self.inner.epoch(tenant)).await
    }
    async fn open_epoch(&self, tenant: &str, number: u64) -> Result<Kept, LedgerError> {
        self.at(self.inner.open_epoch(tenant, number)).await
    }
    async fn drop_epoch(&self, tenant: &str, number: u64) -> Result<Kept, LedgerError> {
        self.at(self.inner.drop_epoch(tenant, number)).await
    }
    async fn subject_key(&self, tenant: &str, subject: &str) -> Result<Option<SubjectKey>, LedgerError> {
        self.at(self.inner.subject_key(tenant, subject)).await
    }
    async fn subject_keys(&self, tenant: &str, epoch: u64, limit: usize) -> Result<Vec<SubjectKey>, LedgerError> {
        self.at(self.inner.subject_keys(tenant, epoch, limit)).await
    }
    async fn add_subject_key(&self, tenant: &str, key: &SubjectKey) -> Result<Kept, LedgerError> {
        self.at(self.inner.add_subject_key(tenant, key)).await
    }
    async fn rewrap_subject_key(&self, tenant: &str, from: u64, key: &SubjectKey) -> Result<Kept, LedgerError> {
        self.at(self.inner.rewrap_subject_key(tenant, from, key)).await
    }
    async fn add_record_key(&self, tenant: &str, key: &RecordKey) -> Result<Kept, LedgerError> {
        self.at(self.inner.add_record_key(tenant, key)).await
    }
    async fn record_keys(&self, tenant: &str, ids: &[Uuid]) -> Result<Vec<RecordKey>, LedgerError> {
        self.at(self.inner.record_keys(tenant, ids)).await
    }
    async fn tagged(&self, tenant: &str, subject_key: Uuid, tag: &[u8; 32]) -> Result<Option<RecordKey>, LedgerError> {
        self.at(self.inner.tagged(tenant, subject_key, tag)).await
    }
    async fn records(
        &self,
        tenant: &str,
        subject_key: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError> {
        self.at(self.inner.records(tenant, subject_key, after, limit)).await
    }
    async fn aged_records(
        &self,
        tenant: &str,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<RecordKey>, LedgerError> {
        self.at(self.inner.aged_records(tenant, before, after, limit)).await
    }
    async fn drop_records(&self, tenant: &str, ids: &[Uuid], before: Timestamp) -> Result<usize, LedgerError> {
        self.at(self.inner.drop_records(tenant, ids, before)).await
    }
    async fn now(&self, tenant: &str) -> Result<Timestamp, LedgerError> {
        self.at(self.inner.now(tenant)).await
    }
    async fn forget(&self, tenant: &str, receipt: Uuid, forgetting: &[Forgetting]) -> Result<Kept, LedgerError> {
        self.at(self.inner.forget(tenant, receipt, forgetting)).await
    }
    async fn not_forgotten(&self, tenant: &str, receipts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        self.at(self.inner.not_forgotten(tenant, receipts)).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: Ledger> Ledger for At<L> {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        self.at(self.inner.append(scope, batch, options)).await
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        self.at(self.inner.get(scope, tenant, id)).await
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        self.at(self.inner.history(scope, tenant, id, seq, limit)).await
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.at(self.inner.scan(scope, query, cursor)).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.at(self.inner.watch(scope, from)).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.at(self.inner.inspect()).await
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: WorkQueue> WorkQueue for At<L> {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        self.at(self.inner.now()).await
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        self.at(self.inner.claimable(poll)).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        self.at(self.inner.take(poll)).await
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        self.at(self.inner.park(parkings)).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        self.at(self.inner.waiting(tenant, id)).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        self.at(self.inner.open_requests(tenants, after, limit)).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        self.at(self.inner.is_due(work)).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.at(self.inner.arrivals()).await
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        self.at(self.inner.active(kind, tenants, after, limit)).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        self.at(self.inner.refuse_active(kind, refused)).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        self.at(self.inner.offer_active(kind, tenants)).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        self.at(self.inner.touched(after)).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        self.at(self.inner.heartbeat(held, lease)).await
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        self.at(self.inner.used(tenant, key)).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        self.at(self.inner.rebuild()).await
    }
}

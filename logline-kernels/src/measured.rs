//! A ledger and a sandbox that measure what passes through them, and show it in traces. `docs/metrics.md` lists metrics and spans.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use logline_core::contract::{HostCalls, Job, Report, Sandbox};
use logline_core::ledger::work::{Parking, Poll, Polled, Rebuilt, Tenants, Touched, Waiting, Work};
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, Page, Query, Signal, Watch,
    WatchFrom, WorkQueue,
};
use logline_core::trust::Limits;
use logline_core::{Failure, Scope, SignedSpan, Timestamp, VerifiedSpan};
use tracing::{Instrument as _, Span, field};
use uuid::Uuid;

/// Measures the calls of a ledger.
///
/// ```
/// use logline_core::MemoryLedger;
/// use logline_kernels::Measured;
///
/// let ledger = Measured::new(MemoryLedger::new());
/// ```
#[derive(Debug, Clone)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// Measures `inner`.
    pub fn new(inner: T) -> Self {
        Self(inner)
    }
}

/// Records how long a call took, and whether it failed.
fn note<T>(operation: &'static str, began: Instant, outcome: &Result<T, LedgerError>) {
    metrics::histogram!("logline_ledger_seconds", "operation" => operation).record(began.elapsed().as_secs_f64());
    // A verdict about a span is the caller's affair, and so is what is not there.
    if let Err(error) = outcome
        && !error.is_verdict()
        && !error.is_not_found()
    {
        metrics::counter!("logline_ledger_errors_total", "operation" => operation).increment(1);
    }
}

/// The span of a call, named by the conventions for databases. `spans` is how many are appended.
fn call(operation: &'static str, spans: Option<usize>) -> Span {
    tracing::debug_span!("ledger", "otel.name" = operation, "otel.kind" = "client", "db.operation.name" = operation, spans)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: Ledger> Ledger for Measured<L> {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        let (began, spans) = (Instant::now(), batch.len());
        let outcome = self.0.append(scope, batch, options).instrument(call("append", Some(spans))).await;
        note("append", began, &outcome);
        if outcome.is_ok() {
            #[allow(clippy::cast_precision_loss, reason = "a batch has a few thousand spans")]
            metrics::histogram!("logline_append_spans").record(spans as f64);
        }
        outcome
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        let began = Instant::now();
        let outcome = self.0.get(scope, tenant, id).instrument(call("get", None)).await;
        note("get", began, &outcome);
        outcome
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        let began = Instant::now();
        let outcome = self.0.history(scope, tenant, id, from_seq, limit).instrument(call("history", None)).await;
        note("history", began, &outcome);
        outcome
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        let began = Instant::now();
        let outcome = self.0.scan(scope, query, cursor).instrument(call("scan", None)).await;
        note("scan", began, &outcome);
        outcome
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.0.watch(scope, from).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.0.inspect().await
    }

    fn capability(&self) -> Capability {
        self.0.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Q: WorkQueue> WorkQueue for Measured<Q> {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        self.0.now().await
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        self.0.claimable(poll).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        let began = Instant::now();
        let outcome = self.0.take(poll).await;
        note("take", began, &outcome);
        outcome
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        self.0.park(parkings).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        self.0.waiting(tenant, id).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        self.0.open_requests(tenants, after, limit).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        self.0.is_due(work).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.0.arrivals().await
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        self.0.active(kind, tenants, after, limit).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        self.0.refuse_active(kind, refused).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        self.0.offer_active(kind, tenants).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        self.0.touched(after).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        let began = Instant::now();
        let outcome = self.0.heartbeat(held, lease).await;
        note("heartbeat", began, &outcome);
        outcome
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        self.0.used(tenant, key).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        self.0.rebuild().await
    }
}

#[async_trait]
impl<S: Sandbox> Sandbox for Measured<S> {
    fn runtime(&self) -> &'static str {
        self.0.runtime()
    }

    fn lacks(&self) -> Option<String> {
        self.0.lacks()
    }

    async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        let began = Instant::now();
        let outcome = self.0.check(tenant, code, limits).await;
        metrics::histogram!("logline_compile_seconds").record(began.elapsed().as_secs_f64());
        outcome
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        let began = Instant::now();
        let span = tracing::debug_span!("sandbox", runtime = self.0.runtime(), fuel = field::Empty, outcome = field::Empty);
        let report = self.0.run(job, host).instrument(span.clone()).await;
        let outcome = if report.result.is_ok() { "ok" } else { "error" };
        span.record("fuel", report.receipt.fuel_used).record("outcome", outcome);
        metrics::histogram!("logline_sandbox_seconds", "outcome" => outcome).record(began.elapsed().as_secs_f64());
        metrics::counter!("logline_sandbox_fuel_total").increment(report.receipt.fuel_used);
        report
    }
}

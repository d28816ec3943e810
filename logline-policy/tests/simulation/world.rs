//! What a simulated fleet lives in: chance, time, a ledger that fails, and a sandbox that does as it is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{HostCalls, Job, Report, RunReceipt, Sandbox};
use logline_core::ledger::work::Rebuilt;
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, Page, Parking, Poll, Polled,
    Query, Signal, Tenants, Touched, Waiting, Watch, WatchFrom, Work, WorkQueue,
};
use logline_core::{Clock, Failure, Hash, MemoryLedger, Scope, SignedSpan, Timestamp, VerifiedSpan};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// SplitMix64.
pub struct Chance(pub AtomicU64);

impl Chance {
    pub fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Virtual time, so many minutes off.
pub struct Virtual {
    pub start: Instant,
    pub minutes: i64,
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let noon: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let passed = Instant::now() - self.start;
        Timestamp::from_unix_micros(noon.saturating_add(passed).unix_micros() + self.minutes * 60_000_000).unwrap()
    }
}

/// What all hosts share.
pub struct World {
    pub ledger: MemoryLedger,
    pub chance: Chance,
    pub start: Instant,
    /// Faults have ended.
    pub is_calm: AtomicBool,
    /// The ledger answers nobody until then.
    pub away_until: Mutex<Instant>,
    pub crashes: AtomicU64,
    pub failures: AtomicU64,
}

/// A process's connection to the ledger. When the process has died it never answers again, whatever still waits for it.
pub struct Connection {
    pub world: Arc<World>,
    pub is_dead: AtomicBool,
    pub died: Notify,
}

impl Connection {
    pub async fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.world.crashes.fetch_add(1, Ordering::Relaxed);
        self.died.notify_one();
        std::future::pending().await
    }

    /// A moment in which anything may happen.
    pub async fn moment(&self) -> Result<(), LedgerError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let chance = &self.world.chance;
        if self.world.is_calm.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(());
        }
        let millis = if chance.once_in(20) { chance.below(3000) } else { chance.below(20) };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if self.is_dead.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if chance.once_in(60) {
            self.die().await;
        }
        let is_away = Instant::now() < *self.world.away_until.lock().unwrap();
        if is_away || chance.once_in(25) {
            self.world.failures.fetch_add(1, Ordering::Relaxed);
            return Err(LedgerError::Unavailable { reason: "the simulation says so".to_owned(), source: None });
        }
        Ok(())
    }

    /// Does it between two such moments: it may be done and nobody know.
    pub async fn call<T>(&self, does: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        self.moment().await?;
        let done = does.await;
        self.moment().await?;
        done
    }
}

#[derive(Clone)]
pub struct Faulty(pub Arc<Connection>);

impl Faulty {
    pub fn ledger(&self) -> &MemoryLedger {
        &self.0.world.ledger
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for Faulty {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        self.0.call(self.ledger().append(scope, batch, options)).await
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        self.0.call(self.ledger().get(scope, tenant, id)).await
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        self.0.call(self.ledger().history(scope, tenant, id, from_seq, limit)).await
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.0.call(self.ledger().scan(scope, query, cursor)).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.0.call(self.ledger().watch(scope, from)).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.ledger().inspect().await
    }

    fn capability(&self) -> Capability {
        self.ledger().capability()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for Faulty {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        self.0.call(self.ledger().now()).await
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        self.0.call(self.ledger().claimable(poll)).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        self.0.call(self.ledger().take(poll)).await
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        self.0.call(self.ledger().park(parkings)).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        self.0.call(self.ledger().waiting(tenant, id)).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        self.0.call(self.ledger().open_requests(tenants, after, limit)).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        self.0.call(self.ledger().is_due(work)).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.0.call(self.ledger().arrivals()).await
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        self.0.call(self.ledger().active(kind, tenants, after, limit)).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        self.0.call(self.ledger().refuse_active(kind, refused)).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        self.0.call(self.ledger().offer_active(kind, tenants)).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        self.0.call(self.ledger().touched(after)).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        self.0.call(self.ledger().heartbeat(held, lease)).await
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        self.0.call(self.ledger().used(tenant, key)).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        self.0.call(self.ledger().rebuild()).await
    }
}

/// Runs what the input says, in virtual time.
pub struct Play;

#[async_trait]
impl Sandbox for Play {
    fn runtime(&self) -> &'static str {
        "play@1"
    }

    async fn run(&self, job: Job<'_>, _: &mut dyn HostCalls) -> Report {
        let input = &job.call["input"];
        tokio::time::sleep(Duration::from_millis(input["ms"].as_u64().unwrap_or(0))).await;
        let result = match input["fails"].as_str() {
            Some(code) => Err(Failure::new(code, "as it was told")),
            None => Ok(input["n"].clone()),
        };
        let receipt = RunReceipt::new(Hash::of(job.code.as_bytes()), self.runtime(), "play", Hash::of(b"play"), job.limits);
        Report { result, receipt }
    }
}

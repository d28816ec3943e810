//! A whole fleet in one thread of virtual time: hosts that crash at any call of the ledger, a ledger that is slow, fails before or after
//! it did what it was asked, and is away for ten seconds; clocks that are minutes apart. What happens follows from a seed alone.
//!
//! `LOGLINE_SIMULATION_SEED=7 cargo test -p logline-policy --test simulation` repeats one seed, `LOGLINE_SIMULATION_SEEDS=10000` runs so
//! many (`cargo xtask simulate`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests may, and this one says how to repeat it"
)]

#[path = "../../logline-kernels/tests/setup/mod.rs"]
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{HostCalls, Job, Report, RunReceipt, Sandbox};
use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::work::Rebuilt;
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, LedgerExt as _, Page,
    Parking, Poll, Polled, Query, Signal, Tenants, Touched, Waiting, Watch, WatchFrom, Work, WorkQueue,
};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{
    Clock, Draft, EXECUTIONS_QUOTA, Failure, Hash, Host, KernelSet, MemoryLedger, SYSTEM_TENANT, Scope, SeededIds, SignedSpan,
    Signer as _, Timestamp, VerifiedSpan, ids,
};
use logline_kernels::{Loops, Run as _, Scheduler, Worker, WorkerOptions};
use logline_policy::{AgentOptions, PolicyAgent};
use serde_json::{Value, json};
use setup::{PUBLISHER, key};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// Attempts that a tenant may make in a day.
const PER_DAY: u64 = 60;

/// How long faults go on.
const STORM: Duration = Duration::from_secs(60);

/// SplitMix64.
struct Chance(AtomicU64);

impl Chance {
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Virtual time, so many minutes off.
struct Virtual {
    start: Instant,
    minutes: i64,
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let noon: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let passed = Instant::now() - self.start;
        Timestamp::from_unix_micros(noon.saturating_add(passed).unix_micros() + self.minutes * 60_000_000).unwrap()
    }
}

/// What all hosts share.
struct World {
    ledger: MemoryLedger,
    chance: Chance,
    start: Instant,
    /// Faults have ended.
    is_calm: AtomicBool,
    /// The ledger answers nobody until then.
    away_until: Mutex<Instant>,
    crashes: AtomicU64,
    failures: AtomicU64,
}

/// A process's connection to the ledger. When the process has died it never answers again, whatever still waits for it.
struct Connection {
    world: Arc<World>,
    is_dead: AtomicBool,
    died: Notify,
}

impl Connection {
    async fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.world.crashes.fetch_add(1, Ordering::Relaxed);
        self.died.notify_one();
        std::future::pending().await
    }

    /// A moment in which anything may happen.
    async fn moment(&self) -> Result<(), LedgerError> {
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
    async fn call<T>(&self, does: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        self.moment().await?;
        let done = does.await;
        self.moment().await?;
        done
    }
}

#[derive(Clone)]
struct Faulty(Arc<Connection>);

impl Faulty {
    fn ledger(&self) -> &MemoryLedger {
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
struct Play;

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

fn host_key(n: usize) -> u8 {
    40 + u8::try_from(n).unwrap()
}

fn manifest(hosts: usize) -> Manifest {
    let mut manifest = (0..=hosts)
        .fold(setup::manifest(), |manifest, n| {
            manifest.grant(key(host_key(n)).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"])
        })
        .allow("request_worker", ids::REQUEST_WORKER)
        .allow("observer_bot", ids::OBSERVER)
        .allow("policy_agent", ids::POLICY_AGENT)
        .grant(key(PUBLISHER).public_key(), Role::Publisher, ["globex", "initech"]);
    manifest.throttle.per_tenant_daily_exec_limit = Some(PER_DAY);
    manifest
}

fn behaviours() -> KernelSet {
    logline_kernels::all().and(logline_policy::all())
}

async fn host<L: WorkQueue>(
    world: &World,
    ledger: L,
    n: usize,
    seed: u64,
    minutes: i64,
) -> Result<Host, logline_core::HostError> {
    Host::builder()
        .ledger(ledger)
        .trust(setup::trust())
        .key(key(host_key(n)))
        .install(behaviours())
        .sandbox(Play)
        .clock(Virtual { start: world.start, minutes })
        .ids(SeededIds::new(seed))
        .build()
        .await
}

/// A process that is started again whenever it dies.
async fn supervise(world: Arc<World>, n: usize, policies: bool) {
    loop {
        let connection =
            Arc::new(Connection { world: Arc::clone(&world), is_dead: AtomicBool::new(false), died: Notify::new() });
        let (seed, minutes) = (world.chance.next(), i64::try_from(world.chance.below(11)).unwrap() - 5);
        let life = async {
            // It may not get as far as running.
            let host = host(&world, Faulty(Arc::clone(&connection)), n, seed, minutes).await?;
            let options =
                WorkerOptions::default().concurrency(4).lease(Duration::from_secs(6)).poll(Duration::from_millis(500));
            let loops = Loops::none().with(Worker::new(options)).with(Scheduler::default());
            let loops = if policies { loops.with(PolicyAgent::new(AgentOptions::default().page(5))) } else { loops };
            host.run(loops, std::future::pending()).await
        };
        tokio::select! {
            biased;
            () = connection.died.notified() => {}
            // A host that gives up because it could not begin.
            _ = life => connection.is_dead.store(true, Ordering::Relaxed),
        }
        tokio::time::sleep(Duration::from_millis(world.chance.below(3000))).await;
    }
}

fn function(tenant: &str) -> Uuid {
    ids::derive("function", &[tenant, "play"])
}

async fn simulate(seed: u64, policies: bool) -> Result<Counted, String> {
    let start = Instant::now();
    let clock = Arc::new(Virtual { start, minutes: 0 });
    let world = Arc::new(World {
        ledger: MemoryLedger::with_clock(clock),
        chance: Chance(AtomicU64::new(seed)),
        start,
        is_calm: AtomicBool::new(false),
        away_until: Mutex::new(start),
        crashes: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let (chance, ledger) = (&world.chance, &world.ledger);
    let hosts = 2 + usize::try_from(chance.below(3)).unwrap();
    setup::trust().publish(ledger, &manifest(hosts), &key(setup::ROOT), &Virtual { start, minutes: 0 }).await.unwrap();
    logline_kernels::install(ledger, &behaviours(), &key(setup::SYSTEM_PUBLISHER), &Virtual { start, minutes: 0 })
        .await
        .unwrap();
    // Somebody whose connection is good.
    let steady = host(&world, ledger.clone(), hosts, seed, 0).await.unwrap();
    for tenant in TENANTS {
        let draft = setup::function("play").id(function(tenant)).tenant(tenant).runtime("play@1");
        steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    }
    let schedule = json!({"schedule": {"every_ms": 10_000, "catch_up": "all", "input": {"n": 0}}});
    let draft = setup::function("play").tenant("globex").runtime("play@1").status("scheduled").metadata(schedule);
    let scheduled = steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    if policies {
        let then = json!([
            {"emit": {"entity_type": "reply", "content": "${span.content}"}},
            {"key": "all", "count": {"this": "notes", "value": "${span.content}"}},
        ]);
        let draft = Draft::new("policy")
            .tenant("acme")
            .owner("compliance")
            .who("publisher")
            .this("policy.notes")
            .status("active")
            .language("cel")
            .content(json!({"on": ["note"], "when": "true", "then": then}));
        steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    }
    let mut notes = 0;
    let fleet: Vec<_> = (0..hosts).map(|n| tokio::spawn(supervise(Arc::clone(&world), n, policies))).collect();
    let mut submitted: BTreeMap<Uuid, u64> = BTreeMap::new();
    while start.elapsed() < STORM {
        tokio::time::sleep(Duration::from_millis(chance.below(4000))).await;
        if chance.once_in(12) {
            *world.away_until.lock().unwrap() = Instant::now() + Duration::from_secs(10);
        }
        for _ in 0..if policies { chance.below(8) } else { 0 } {
            let note = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note").content(json!(notes));
            steady.record("acme", vec![note], &AppendOptions::default()).await.unwrap();
            notes += 1;
        }
        for _ in 0..chance.below(4) {
            let n = submitted.len() as u64;
            let tenant = TENANTS[usize::try_from(chance.below(3)).unwrap()];
            let fails = [None, None, None, None, Some("trap"), Some("guest:no")][usize::try_from(chance.below(6)).unwrap()];
            let input =
                json!({"n": n, "ms": if chance.once_in(8) { chance.below(20_000) } else { chance.below(300) }, "fails": fails});
            let mut request =
                Request::new(tenant, "alice", function(tenant), input).priority(u8::try_from(chance.below(10)).unwrap());
            if chance.once_in(2) {
                request = request.max_attempts(1 + u32::try_from(chance.below(4)).unwrap()).backoff(Duration::from_millis(500));
            }
            let now = ledger.now().await.unwrap();
            if chance.once_in(5) {
                request = request.due_at(now.saturating_add(Duration::from_millis(chance.below(15_000))));
            }
            if chance.once_in(10) {
                request = request.deadline(now.saturating_add(Duration::from_millis(chance.below(10_000))));
            }
            submitted.insert(steady.submit(request).await.unwrap().id, n);
        }
        if chance.once_in(10)
            && let Some((id, _)) = submitted.iter().nth(usize::try_from(chance.below(submitted.len().max(1) as u64)).unwrap())
        {
            for tenant in TENANTS {
                // It may be another tenant's, have ended, or change under way.
                let _ = steady.cancel(tenant, *id, "operator").await;
            }
        }
    }
    world.is_calm.store(true, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(300);
    while Instant::now() < until && (ledger.size_of_open().await > 0 || replies(ledger).await.len() < notes) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stopped = ledger.now().await.unwrap();
    fleet.iter().for_each(tokio::task::JoinHandle::abort);
    for task in fleet {
        let _ = task.await;
    }
    check_policies(ledger, notes).await?;
    let mut counted = check(ledger, &submitted, &scheduled, stopped).await?;
    (counted.crashes, counted.failures) = (world.crashes.load(Ordering::Relaxed), world.failures.load(Ordering::Relaxed));
    Ok(counted)
}

/// What policies wrote about notes: the numbers of the notes.
async fn replies(ledger: &MemoryLedger) -> Vec<u64> {
    let query = Query::timeline().entity_type("reply");
    let replies = ledger.collect(&Scope::Operator, &query, usize::MAX).await.unwrap();
    replies.iter().map(|reply| reply.content.as_ref().unwrap().as_u64().unwrap()).collect()
}

/// Every note has one reply, and is counted once.
async fn check_policies(ledger: &MemoryLedger, notes: usize) -> Result<(), String> {
    let mut replies = replies(ledger).await;
    replies.sort_unstable();
    let notes = notes as u64;
    if replies != (0..notes).collect::<Vec<_>>() {
        return Err(format!("{notes} notes, and replies to {replies:?}"));
    }
    let metrics = ledger.collect(&Scope::Operator, &Query::new().entity_type("metric"), usize::MAX).await.unwrap();
    let last = metrics.iter().find(|metric| metric.this == "notes").and_then(|metric| metric.output.clone());
    let expected = (notes > 0).then(|| json!({"count": notes, "sum": (0..notes).sum::<u64>()}));
    if last != expected {
        return Err(format!("counted {last:?}, not {expected:?}"));
    }
    Ok(())
}

/// Requests of now that somebody has to do something about.
#[async_trait]
trait OpenWork {
    async fn size_of_open(&self) -> usize;
}

#[async_trait]
impl OpenWork for MemoryLedger {
    async fn size_of_open(&self) -> usize {
        let query = Query::new().entity_type("request");
        let requests = self.collect(&Scope::Operator, &query, usize::MAX).await.unwrap();
        requests.iter().filter(|request| is_open(request)).count()
    }
}

/// What waits for tomorrow's quota waits rightly.
fn is_open(request: &SignedSpan) -> bool {
    let waits = request.error.as_ref().is_some_and(|error| error["code"] == "quota_exceeded");
    matches!(request.status.as_deref(), Some("scheduled" | "running")) && !waits
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counted {
    requests: usize,
    attempts: usize,
    lost: usize,
    slots: usize,
    crashes: u64,
    failures: u64,
    hash: [u8; 32],
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.lost += other.lost;
        self.slots += other.slots;
        self.crashes += other.crashes;
        self.failures += other.failures;
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, attempts, lost, slots, crashes, failures, .. } = self;
        write!(
            f,
            "{requests} requests ({slots} of schedules), {attempts} attempts, {lost} of them lost, {crashes} crashes of hosts, \
             {failures} failures of the ledger"
        )
    }
}

/// What must hold whatever happened.
async fn check(
    ledger: &MemoryLedger,
    submitted: &BTreeMap<Uuid, u64>,
    scheduled: &VerifiedSpan,
    stopped: Timestamp,
) -> Result<Counted, String> {
    let rows = ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap();
    let mut hasher = blake3::Hasher::new();
    for row in &rows {
        hasher.update(&row.seal.curr_hash.0);
    }
    let mut requests: BTreeMap<(String, Uuid), Vec<&SignedSpan>> = BTreeMap::new();
    let mut executions: BTreeMap<(Uuid, u64), Vec<&SignedSpan>> = BTreeMap::new();
    let mut charged: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in &rows {
        match row.entity_type.as_str() {
            "request" => {
                requests.entry((row.tenant_id.clone(), row.id)).or_default().push(row);
                if row.prev_hash.is_some() && row.status.as_deref() == Some("running") {
                    let day = row.meta("quota").and_then(|quota| quota["day"].as_str()).ok_or("a claim without quota")?;
                    *charged.entry((row.tenant_id.clone(), day.to_owned())).or_default() += 1;
                }
            }
            "execution" => {
                let attempt = row.meta("attempt").and_then(Value::as_u64).ok_or("an execution without attempt")?;
                executions.entry((row.related_to[0], attempt)).or_default().push(row);
            }
            _ => {}
        }
    }
    let mut counted = Counted { requests: requests.len(), hash: *hasher.finalize().as_bytes(), ..Counted::default() };
    for ((tenant, id), versions) in &requests {
        let last = versions[versions.len() - 1];
        let say = |what: &str| Err(format!("request {id} of {tenant} {what}; its versions: {:?}", shown(versions)));
        if is_open(last) {
            return say("never ended");
        }
        let attempts: Vec<u64> = versions
            .iter()
            .filter(|version| version.status.as_deref() == Some("running"))
            .map(|version| version.meta("attempt").and_then(Value::as_u64).unwrap_or(0))
            .collect();
        if attempts != (1..=attempts.len() as u64).collect::<Vec<_>>() {
            return say("has attempts that do not count from 1");
        }
        counted.attempts += attempts.len();
        let mut completed = 0;
        for attempt in attempts {
            let recorded = executions.remove(&(*id, attempt)).unwrap_or_default();
            let [execution] = recorded.as_slice() else {
                return say(&format!("has {} executions of attempt {attempt}", recorded.len()));
            };
            completed += usize::from(execution.status.as_deref() == Some("complete"));
            counted.lost += usize::from(execution.error.as_ref().is_some_and(|error| error["code"] == "lost"));
            if execution.status.as_deref() == Some("complete") {
                let wanted = submitted.get(id).map_or(0, |n| *n);
                if execution.output != Some(json!(wanted)) || last.meta("execution") != Some(&json!(execution.id.to_string())) {
                    return say("was completed with somebody else's outcome");
                }
            }
        }
        if completed != usize::from(last.status.as_deref() == Some("complete")) {
            return say(&format!("has {completed} completed attempts"));
        }
    }
    if let Some((attempt, _)) = executions.first_key_value() {
        return Err(format!("an execution of an attempt that never began: {attempt:?}"));
    }
    if let Some((of, used)) = charged.iter().find(|(_, used)| **used > PER_DAY) {
        return Err(format!("{of:?} used {used} of {PER_DAY}"));
    }
    for tenant in TENANTS {
        let used = ledger.used(tenant, EXECUTIONS_QUOTA).await.unwrap();
        let claims = charged.iter().filter(|((of, _), _)| of == tenant).map(|(_, used)| used).sum::<u64>();
        if used != claims {
            return Err(format!("{tenant}: the counter says {used}, the claims {claims}"));
        }
    }
    if let Some(missing) = submitted.keys().find(|id| !requests.keys().any(|(_, of)| of == *id)) {
        return Err(format!("request {missing} is gone"));
    }
    let slots: Vec<Timestamp> =
        requests.values().filter_map(|versions| versions[0].meta("slot")?.as_str()?.parse().ok()).collect();
    counted.slots = slots.len();
    let first = scheduled.at.unix_micros() / 10_000_000 * 10_000_000 + 10_000_000;
    let expected: BTreeSet<i64> = (first..=stopped.unix_micros() - 5_000_000).step_by(10_000_000).collect();
    let found: BTreeSet<i64> = slots.iter().map(|slot| slot.unix_micros()).collect();
    let is_denied = charged.get(&("globex".to_owned(), "2026-05-01".to_owned())).is_some_and(|used| *used >= PER_DAY);
    if found.len() != slots.len() || (!is_denied && !expected.is_subset(&found)) {
        return Err(format!("{} requests for {} slots, of {} expected", slots.len(), found.len(), expected.len()));
    }
    let open = ledger.claimable(&Poll::new(100)).await.unwrap();
    ledger.rebuild().await.unwrap();
    if ledger.claimable(&Poll::new(100)).await.unwrap() != open {
        return Err("the queue differs from the rows".to_owned());
    }
    let trusted = setup::trust().resolve(ledger).await.unwrap();
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let mut problems = Vec::new();
    fsck(ledger, audit, &mut |event| problems.extend(matches!(event, Event::Problem(_)).then_some(event))).await.unwrap();
    if !problems.is_empty() {
        return Err(format!("fsck: {problems:?}"));
    }
    Ok(counted)
}

fn shown(versions: &[&SignedSpan]) -> Vec<String> {
    versions.iter().map(|v| format!("{} {:?} {:?} {:?}", v.seq, v.status, v.meta("attempt"), v.error)).collect()
}

fn run(seed: u64, policies: bool) -> Result<Counted, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, policies))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs the seeds that were asked for, on two threads; what they did in all.
fn run_all(test: &str, usual: u64, policies: bool) -> (usize, Counted) {
    let seeds: Vec<u64> = match from_env("LOGLINE_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("LOGLINE_SIMULATION_SEEDS").unwrap_or(usual)).collect(),
    };
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Counted::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    match run(*seed, policies) {
                        Ok(counted) => total.lock().unwrap().add(counted),
                        Err(error) => failed.lock().unwrap().push((*seed, error)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (seed, error) in &failed {
        eprintln!(
            "seed {seed}: {error}\n  repeat it: LOGLINE_SIMULATION_SEED={seed} cargo test -p logline-policy --test simulation {test}"
        );
    }
    assert!(failed.is_empty(), "{} of {} seeds failed", failed.len(), seeds.len());
    let total = total.into_inner().unwrap();
    println!("{} seeds: {total}", seeds.len());
    (seeds.len(), total)
}

#[test]
fn whatever_happens_to_a_fleet_every_attempt_is_recorded_once() {
    let (seeds, total) = run_all("whatever_happens", 60, false);
    // A simulation in which nothing goes wrong proves nothing.
    assert!(seeds < 10 || (total.lost > 0 && total.crashes > 0 && total.failures > 0), "{total}");
}

#[test]
fn whatever_happens_to_agents_every_effect_happens_once() {
    let (seeds, total) = run_all("agents", 30, true);
    assert!(seeds < 10 || (total.crashes > 0 && total.failures > 0), "{total}");
}

#[test]
fn a_seed_repeats_itself_to_the_last_hash() {
    // (Without policies: their evaluation takes a thread of its own, which no seed schedules.)
    assert_eq!(run(3, false).unwrap(), run(3, false).unwrap());
}

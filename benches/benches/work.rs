//! Requests from the queue to their recorded, signed outcome. The function is WebAssembly and returns its input; every row is
//! signed and chained.
//!
//! `cargo bench -p logline-benches --bench work [-- REQUESTS ROUNDS [drain|latency|idle|growth]]`
//!
//! - `drain`: requests per second if all requests are stored before the workers start. The same run inserts the same rows
//!   (three for each request) in batches of 100 into a plain table, without signing, chaining, policies, queue and sandbox, and runs
//!   graphile-worker (`peers/graphile`, with Node.js and npm) before each of ours.
//! - `latency`: 100 requests a second, from before `submit` to the commit of the outcome, by the server's own commit times.
//! - `idle`: transactions per second that ten idle workers cause.
//! - `growth`: requests per second with few and with many finished requests in the ledger.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a bench that fails may panic, and it prints"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use logline_benches::plain::{self, Plain, batch_sql, insert_batch};
use logline_core::ledger::{LedgerExt as _, Query, WorkQueue};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility, ids};
use logline_kernels::{Run as _, Worker};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::sync::Notify;
use uuid::Uuid;

const TENANTS: usize = 8;

const FUNCTION: &str = r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "alloc") (param $len i32) (result i32)
    (global.set $next (i32.add (global.get $next) (local.get $len)))
    (i32.sub (global.get $next) (local.get $len)))
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))"#;

/// Counts ended attempts by the worker's metric, without reading the ledger.
#[derive(Default)]
struct Ended {
    count: AtomicU64,
    goal: AtomicU64,
    reached: Notify,
}

impl CounterFn for Ended {
    fn increment(&self, value: u64) {
        if self.count.fetch_add(value, Ordering::Relaxed) + value >= self.goal.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    fn absolute(&self, _: u64) {}
}

struct Only(Arc<Ended>);

impl Recorder for Only {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "logline_attempts_total" { Counter::from_arc(Arc::clone(&self.0)) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Ended {
    async fn wait_for(&self, more: u64, started: impl FnOnce()) {
        self.goal.store(self.count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        started();
        while self.count.load(Ordering::Relaxed) < self.goal.load(Ordering::Relaxed) {
            self.reached.notified().await;
        }
    }
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn tenant(n: usize) -> String {
    format!("tenant_{}", n % TENANTS)
}

fn function(tenant: &str) -> Uuid {
    ids::derive("function", &[tenant, "echo"])
}

/// Publishes the manifest, installs the kernels, and publishes one function for each tenant.
async fn prepare(ledger: Arc<dyn WorkQueue>) {
    let mut manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow("run_code", ids::RUN_CODE)
        .allow("request_worker", ids::REQUEST_WORKER)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT, "*"]);
    for host in 10..30 {
        manifest = manifest.grant(key(host).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
    }
    TrustRoot::new([key(1).public_key()], 1).publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &logline_kernels::all(), &key(2), &SystemClock).await.unwrap();
    let host = host(ledger, 0).await;
    for n in 0..TENANTS {
        let draft = Draft::new("function")
            .id(function(&tenant(n)))
            .tenant(tenant(n))
            .owner("developers")
            .who("publisher")
            .this("function.echo")
            .visibility(Visibility::Tenant)
            .runtime(logline_wasm::RUNTIME)
            .code(FUNCTION);
        host.publish(draft, &key(2)).await.unwrap();
    }
}

async fn host(ledger: Arc<dyn WorkQueue>, n: u8) -> Host {
    Host::builder()
        .ledger(ledger)
        .trust(TrustRoot::new([key(1).public_key()], 1))
        .key(key(10 + n))
        .install(logline_kernels::all())
        .sandbox(WasmSandbox::new().unwrap())
        .build()
        .await
        .unwrap()
}

fn request(n: usize) -> Request {
    let tenant = tenant(n);
    let function = function(&tenant);
    Request::new(tenant, format!("user_{}", n % 32), function, json!({"order": n, "amount_minor": 1130}))
}

async fn submit(host: &Host, count: usize) {
    for first in 0..TENANTS {
        let of_tenant: Vec<_> = (first..count).step_by(TENANTS).map(request).collect();
        for batch in of_tenant.chunks(500) {
            host.submit_all(batch.to_vec()).await.unwrap();
        }
    }
}

/// Workers. Each has a ledger handle of its own, as separate processes would have.
struct Fleet {
    stop: tokio::sync::watch::Sender<()>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Fleet {
    fn start(hosts: Vec<Host>) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(());
        let tasks = hosts
            .into_iter()
            .map(|host| {
                let mut stopped = stopped.clone();
                tokio::spawn(async move {
                    host.run(Worker::default(), async move { drop(stopped.changed().await) }).await.unwrap();
                })
            })
            .collect();
        Self { stop, tasks }
    }

    async fn stop(self) {
        drop(self.stop);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// The backend that a fleet works on.
enum Site {
    Postgres(PrivateServer),
    Sqlite(tempfile::TempDir),
}

impl Site {
    async fn postgres() -> Self {
        let settings = vec!["track_commit_timestamp = on".to_owned()];
        let server = PrivateServer::start(&ServerOptions { durable: true, settings, ..Default::default() }).unwrap();
        migrate(&PgOptions::new(&server.url("postgres", "postgres")).unwrap()).await.unwrap();
        let site = Self::Postgres(server);
        site.superuser().await.execute(plain::DDL).await.unwrap();
        prepare(site.ledger().await).await;
        site
    }

    async fn sqlite() -> Self {
        let site = Self::Sqlite(tempfile::tempdir().unwrap());
        prepare(site.ledger().await).await;
        site
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url("postgres", "postgres"),
            Self::Sqlite(_) => unreachable!(),
        }
    }

    async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    async fn ledger(&self) -> Arc<dyn WorkQueue> {
        match self {
            Self::Postgres(_) => Arc::new(PgLedger::connect(PgOptions::new(&self.url()).unwrap()).await.unwrap()),
            Self::Sqlite(folder) => Arc::new(SqliteLedger::open(folder.path().join("ledger.db")).unwrap()),
        }
    }

    async fn hosts(&self, workers: usize) -> Vec<Host> {
        let mut hosts = Vec::new();
        for n in 0..workers {
            hosts.push(host(self.ledger().await, u8::try_from(n).unwrap()).await);
        }
        hosts
    }

    /// Submits all requests, then starts the workers. Returns requests per second from their start to the last outcome.
    async fn drain(&self, ended: &Ended, workers: usize, requests: usize) -> f64 {
        submit(&self.hosts(1).await[0], requests).await;
        let hosts = self.hosts(workers).await;
        let (mut fleet, mut started) = (None, Instant::now());
        let start = || {
            started = Instant::now();
            fleet = Some(Fleet::start(hosts));
        };
        ended.wait_for(requests as u64, start).await;
        let seconds = started.elapsed().as_secs_f64();
        fleet.unwrap().stop().await;
        requests as f64 / seconds
    }

    /// Requests per second if the same rows are inserted into the plain table.
    async fn floor(&self, requests: usize) -> f64 {
        let pool = PgPoolOptions::new().max_connections(1).connect(&self.url()).await.unwrap();
        let ledger = self.ledger().await;
        let mut rows = Vec::new();
        for entity_type in ["request", "execution"] {
            let query = Query::timeline().entity_type(entity_type);
            rows.extend(ledger.collect(&Scope::Operator, &query, requests * 3).await.unwrap());
        }
        rows.retain(|row| row.entity_type == "execution" || row.prev_hash.is_some());
        // Each row gets a new id, so that rounds do not collide.
        for row in &mut rows {
            row.span.id = ids::derive("floor", &[&row.id.to_string(), &row.seq.to_string(), &format!("{:?}", Instant::now())]);
        }
        rows.truncate(requests * 3);
        let (count, sql) = (rows.len() as f64, batch_sql());
        let started = Instant::now();
        for batch in rows.chunks(100) {
            let batch: Vec<_> = batch.iter().cloned().map(Plain::new).collect();
            insert_batch(&pool, &sql, &batch).await;
        }
        count / 3.0 / started.elapsed().as_secs_f64()
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What graphile-worker does on a server of its own, with its default settings: it neither signs nor sandboxes anything.
struct Graphile {
    per_second: f64,
    p50: f64,
    p95: f64,
}

impl Graphile {
    /// `None` if Node.js is not installed.
    fn measure(jobs: usize) -> Option<Self> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/graphile");
        let run = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).current_dir(folder).output();
        run("node", &["--version"]).ok().filter(|version| version.status.success())?;
        if !std::path::Path::new(folder).join("node_modules").exists() {
            let installed = run("npm", &["ci", "--no-audit", "--no-fund"]).unwrap();
            assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
        }
        let server = PrivateServer::start(&ServerOptions { durable: true, ..Default::default() }).unwrap();
        let done = run("node", &["drain.mjs", &server.url("postgres", "postgres"), &jobs.to_string()]).unwrap();
        assert!(done.status.success(), "graphile-worker: {}", String::from_utf8_lossy(&done.stderr));
        let measured: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let number = |name: &str| measured[name].as_f64().unwrap();
        Some(Self { per_second: number("perSecond"), p50: number("p50"), p95: number("p95") })
    }
}

/// In each round graphile-worker and LogLine take turns.
async fn drains(ended: &Ended, requests: usize, rounds: usize) {
    const WORKERS: [usize; 3] = [1, 2, 4];
    let mut peer = Vec::new();
    let (mut postgres, mut floors, mut sqlite) =
        ([const { Vec::new() }; 3], [const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for _ in 0..rounds {
        for (n, workers) in WORKERS.into_iter().enumerate() {
            peer.extend(Graphile::measure(requests));
            let site = Site::postgres().await;
            postgres[n].push(site.drain(ended, workers, requests).await);
            floors[n].push(site.floor(requests).await);
            sqlite[n].push(Site::sqlite().await.drain(ended, workers, requests).await);
        }
    }
    let of_peer = |of: fn(&Graphile) -> f64| peer.iter().map(of).collect::<Vec<_>>();
    let rate = if peer.is_empty() { f64::NAN } else { median(&mut of_peer(|peer| peer.per_second)) };
    println!("| | workers | requests/s | the same rows plainly, requests/s | ratio to plain | ratio to graphile |");
    println!("|---|---|---|---|---|---|");
    println!("| graphile-worker | 8 | {rate:.0} | | | |");
    for (n, workers) in WORKERS.into_iter().enumerate() {
        let (ours, floor) = (median(&mut postgres[n]), median(&mut floors[n]));
        println!("| PostgreSQL | {workers} | {ours:.0} | {floor:.0} | {:.2} | {:.2} |", ours / floor, ours / rate);
    }
    for (n, workers) in WORKERS.into_iter().enumerate() {
        let ours = median(&mut sqlite[n]);
        println!("| SQLite | {workers} | {ours:.0} | | | {:.2} |", ours / rate);
    }
    if !peer.is_empty() {
        let (p50, p95) = (median(&mut of_peer(|peer| peer.p50)), median(&mut of_peer(|peer| peer.p95)));
        println!("\ngraphile-worker at 100 jobs/s, until the row is deleted: p50 {p50:.1} ms, p95 {p95:.1} ms");
    }
}

/// Latency at 100 requests a second.
async fn latency(requests: usize) {
    let site = Site::postgres().await;
    let fleet = Fleet::start(site.hosts(1).await);
    let submitter = host(site.ledger().await, 5).await;
    // The first requests compile the function and make the database's plans.
    for n in 0..50 {
        submitter.submit(request(n)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut submitted = Vec::new();
    for n in 0..requests {
        tick.tick().await;
        let submitter = submitter.clone();
        submitted.push(tokio::spawn(async move { submitter.submit(request(n)).await.unwrap().id }));
    }
    let mut measured = Vec::new();
    for id in submitted {
        measured.push(id.await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    fleet.stop().await;
    let sql = "SELECT extract(epoch FROM pg_xact_commit_timestamp(c.xid::text::xid) - r.at)::float8 * 1000
        FROM ledger.universal_registry r JOIN ledger.universal_registry c USING (tenant_id, id)
        WHERE r.id = ANY($1) AND r.seq = 0 AND c.status = 'complete'";
    let rows = sqlx::query(sql).bind(&measured).fetch_all(&mut site.superuser().await).await.unwrap();
    let mut millis: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    millis.sort_by(f64::total_cmp);
    assert_eq!(millis.len(), requests, "every request has an outcome");
    let at = |share: f64| millis[((millis.len() - 1) as f64 * share) as usize];
    println!("\n100 requests/s, 1 worker: p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.95), at(0.99));
}

/// Transactions that ten workers without any work cause.
async fn idle() {
    let site = Site::postgres().await;
    let fleet = Fleet::start(site.hosts(10).await);
    let mut superuser = site.superuser().await;
    let sql = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = current_database()";
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before: f64 = sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap();
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after: f64 = sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap();
    let per_second = (after - before - 1.0) / started.elapsed().as_secs_f64();
    println!("\n10 idle workers: {per_second:.1} transactions/s");
    fleet.stop().await;
}

/// Drains with few and with many finished requests in the ledger.
async fn growth(ended: &Ended, requests: usize) {
    println!("\n| finished before | requests/s |\n|---|---|");
    let site = Site::postgres().await;
    let mut finished = 0;
    for goal in [10_000, 100_000, 1_000_000] {
        // For this measurement finished requests need not have run, so their rows are inserted directly.
        let mut superuser = site.superuser().await;
        let sql = "INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility, status, is_deleted,
              curr_hash, signature, public_key, metadata)
            SELECT gen_random_uuid(), 0, 'request', 'user', 'function.run', now(), 'user', 'tenant_' || n % 8, 'private', 'complete', false,
              encode(sha256(n::text::bytea), 'hex'), repeat('0', 128), repeat('0', 64), jsonb_build_object('attempt', 1, 'filler', repeat('x', 600))
            FROM generate_series($1::bigint + 1, $2::bigint) n";
        superuser.execute("SET session_replication_role = replica").await.unwrap();
        sqlx::query(sql).bind(finished as i64).bind(goal as i64).execute(&mut superuser).await.unwrap();
        finished = goal;
        superuser.execute("VACUUM ANALYZE").await.unwrap();
        superuser.execute("CHECKPOINT").await.unwrap();
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(site.drain(ended, 1, requests).await);
        }
        println!("| {goal} | {:.0} |", median(&mut rates));
    }
}

const PARTS: [&str; 4] = ["drain", "latency", "idle", "growth"];

#[tokio::main]
async fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let (requests, rounds) = (numbers.first().copied().unwrap_or(10_000), numbers.get(1).copied().unwrap_or(3));
    let ended = Arc::new(Ended::default());
    metrics::set_global_recorder(Only(Arc::clone(&ended))).unwrap();
    let wanted =
        |name: &str| !PARTS.iter().any(|part| words.iter().any(|word| word == part)) || words.iter().any(|word| word == name);
    if wanted("drain") {
        drains(&ended, requests, rounds).await;
    }
    if wanted("latency") {
        latency(2000).await;
    }
    if wanted("idle") {
        idle().await;
    }
    if wanted("growth") {
        growth(&ended, 2000).await;
    }
}

//! How calls of a PostgreSQL ledger slow down when the ledger grows. The same calls alternate between a small and a large
//! database of one server, each after a vacuum and a checkpoint. The result is the ratio of their medians.
//!
//! `cargo bench -p logline-benches --bench growth [-- SMALL LARGE SAMPLES]`. The sizes are numbers of spans.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench that fails may panic, and it prints"
)]

use std::time::{Duration, Instant};

use logline_benches::{draft, key};
use logline_core::ledger::{
    AppendOptions, Cursor, Ledger as _, LedgerExt as _, Limit, Order, Poll, Query, Work, WorkQueue as _,
};
use logline_core::request::Charges;
use logline_core::{Draft, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

const TENANTS: usize = 8;
const SHARED_BUFFERS: &str = "shared_buffers = '512MB'";
const BATCH: usize = 1000;
/// Requests in a batch, each with three versions. The other spans of the batch are notes.
const REQUESTS: usize = 33;

fn tenant(n: usize) -> String {
    format!("tenant_{}", n % TENANTS)
}

fn note(n: usize) -> VerifiedSpan {
    let mut draft = draft(n as u64);
    let columns = draft.columns_mut();
    columns.tenant_id = tenant(n / BATCH);
    columns.owner_id = format!("user_{}", n % 32);
    columns.entity_type = "note".to_owned();
    draft.seal_local(&key()).unwrap()
}

fn request(tenant: &str) -> VerifiedSpan {
    let draft =
        Draft::new("request").tenant(tenant).owner("user_1").who("user:user_1").this("function.run").status("scheduled");
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key()).unwrap()
}

fn next(span: &VerifiedSpan, status: &str) -> Draft {
    Draft::next_version(span).status(status)
}

fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key()).unwrap()
}

/// A batch of notes and of requests that have ended.
fn batch(n: usize) -> Vec<VerifiedSpan> {
    let mut spans: Vec<_> = (0..BATCH - 3 * REQUESTS).map(|i| note(n * BATCH + i)).collect();
    for _ in 0..REQUESTS {
        let scheduled = request(&tenant(n));
        let running = seal(next(&scheduled, "running").meta("lease_ms", 60_000));
        let complete = seal(next(&running, "complete"));
        spans.extend([scheduled, running, complete]);
    }
    spans
}

struct Grown {
    ledger: PgLedger,
    size: usize,
    /// Tenant and id of one span of each batch.
    sample: Vec<(String, Uuid)>,
    /// Positions inside a tenant's rows, with many notes after each.
    cursors: Vec<(String, Cursor)>,
}

impl Grown {
    async fn new(server: &PrivateServer, name: &str, size: usize) -> Self {
        let mut admin = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let url = server.url("postgres", name);
        migrate(&PgOptions::new(&url).unwrap()).await.unwrap();
        let ledger = PgLedger::connect(PgOptions::new(&url).unwrap().max_connections(3).writers(1)).await.unwrap();
        let (mut sample, mut cursors) = (Vec::new(), Vec::new());
        let batches = size.div_ceil(BATCH);
        let started = Instant::now();
        // Another thread seals the next batches while the server inserts.
        let (made, mut ready) = tokio::sync::mpsc::channel(4);
        std::thread::spawn(move || (0..batches).all(|n| made.blocking_send(batch(n)).is_ok()));
        let mut n = 0;
        while let Some(spans) = ready.recv().await {
            sample.push((spans[0].tenant_id.clone(), spans[0].id));
            let scope = Scope::runtime(tenant(n));
            ledger.append(&scope, spans, &AppendOptions::default()).await.unwrap();
            if n % (batches / 10).max(1) == 0 {
                let newest = Query::timeline().tenant(tenant(n)).order(Order::Newest).limit(BATCH / 2);
                let page = ledger.scan(&Scope::Operator, &newest, None).await.unwrap();
                // The position of a row is the same in both directions.
                cursors.push((tenant(n), page.rows.last().unwrap().cursor.clone()));
            }
            n += 1;
        }
        eprintln!("{size} spans in {:.0} s", started.elapsed().as_secs_f64());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection.execute("VACUUM ANALYZE").await.unwrap();
        connection.execute("CHECKPOINT").await.unwrap();
        Self { ledger, size, sample, cursors }
    }

    /// One round of a call. Returns the time of each of `samples` calls.
    async fn round(&self, call: Call, samples: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(samples);
        let day = self.ledger.now().await.unwrap().day();
        // Everything that does not belong to the call is made before the clock starts.
        let spans: Vec<_> = match call {
            Call::Claim => {
                let requests: Vec<_> = (0..samples).map(|_| request("tenant_1")).collect();
                let scope = Scope::runtime("tenant_1");
                self.ledger.append(&scope, requests.clone(), &AppendOptions::default()).await.unwrap();
                let charges = Charges::new(day, ["runs"]).to_value();
                requests
                    .iter()
                    .map(|r| seal(next(r, "running").meta("lease_ms", 60_000).meta("quota", charges.clone())))
                    .collect()
            }
            Call::Append => (0..samples).map(|_| note(1 + BATCH)).collect(),
            _ => Vec::new(),
        };
        let limit = Limit { tenant: "tenant_1".to_owned(), key: "runs".to_owned(), per_day: u64::MAX };
        let limited = AppendOptions::default().limits(vec![limit]);
        let mut spans = spans.into_iter();
        let mut claimed = Vec::new();
        for n in 0..samples {
            // Consecutive calls use different parts of the ledger.
            let at = n.wrapping_mul(7919);
            let (tenant, id) = &self.sample[at % self.sample.len()];
            let runtime = Scope::runtime(tenant.as_str());
            let notes = Query::timeline().entity_type("note").limit(50);
            let (paged, cursor) = &self.cursors[at % self.cursors.len()];
            let span = spans.next();
            claimed.extend(span.clone().filter(|_| call == Call::Claim));
            let started = Instant::now();
            match call {
                Call::Get => drop(self.ledger.get(&runtime, tenant, *id).await.unwrap()),
                Call::Page => {
                    let page = self.ledger.scan(&Scope::runtime(paged.as_str()), &notes, Some(cursor)).await.unwrap();
                    assert_eq!(page.rows.len(), 50);
                }
                Call::Newest => drop(self.ledger.scan(&runtime, &notes.order(Order::Newest), None).await.unwrap()),
                Call::Claimable => {
                    drop::<Vec<Work>>(self.ledger.claimable(&Poll::new(10).after(String::from(tenant))).await.unwrap())
                }
                Call::Used => drop(self.ledger.used(tenant, "runs").await.unwrap()),
                Call::Claim => {
                    self.ledger.append(&Scope::runtime("tenant_1"), vec![span.unwrap()], &limited).await.unwrap();
                }
                Call::Append => {
                    let span = span.unwrap();
                    self.ledger.append_one(&Scope::runtime(span.tenant_id.as_str()), span).await.unwrap();
                }
            }
            times.push(started.elapsed());
        }
        // Complete every claimed request, so that the number of open requests is the same in every round.
        let done: Vec<_> = claimed.iter().map(|span| seal(next(span, "complete"))).collect();
        self.ledger.append(&Scope::runtime("tenant_1"), done, &AppendOptions::default()).await.unwrap();
        times
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Page,
    Newest,
    Claimable,
    Used,
    Claim,
    Append,
}

const CALLS: [(Call, &str); 7] = [
    (Call::Get, "`get`"),
    (Call::Page, "page of 50 from a cursor"),
    (Call::Newest, "newest page of 50"),
    (Call::Claimable, "`claimable(10)`, 100 requests open"),
    (Call::Used, "`used`"),
    (Call::Claim, "claim under a limit"),
    (Call::Append, "append of one"),
];

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |n: usize, default| numbers.get(n).copied().unwrap_or(default);
    let (small, large, samples) = (number(0, 10_000), number(1, 1_000_000), number(2, 200));
    let settings = vec![SHARED_BUFFERS.to_owned(), "max_wal_size = '8GB'".to_owned()];
    let options = ServerOptions { durable: true, settings, ..Default::default() };
    let server = PrivateServer::start(&options).unwrap();
    let small = Grown::new(&server, "small", small).await;
    let large = Grown::new(&server, "large", large).await;
    for grown in [&small, &large] {
        for tenant in 0..TENANTS {
            let open: Vec<_> = (0..13).map(|_| request(&format!("tenant_{tenant}"))).collect();
            let scope = Scope::runtime(format!("tenant_{tenant}"));
            grown.ledger.append(&scope, open, &AppendOptions::default()).await.unwrap();
        }
    }
    println!("{SHARED_BUFFERS}, {samples} calls in each of 5 rounds\n");
    println!("| call | {} spans, µs | {} spans, µs | ratio |\n|---|---|---|---|", small.size, large.size);
    for (call, name) in CALLS {
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for round in 0..6 {
            let times = [small.round(call, samples).await, large.round(call, samples).await];
            // The first round warms both up.
            if round > 0 {
                let [small, large] = times;
                few.extend(small);
                many.extend(large);
            }
        }
        let (few, many) = (median(few), median(many));
        println!("| {name} | {few:.0} | {many:.0} | {:.2} |", many / few);
    }
}

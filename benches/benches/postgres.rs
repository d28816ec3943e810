//! Appends on PostgreSQL, compared with plain sqlx inserts into a table with the same columns and indexes, without row-level
//! security, triggers and signing. Both sides alternate within one run. The result is the ratio of their medians.
//!
//! `cargo bench -p logline-benches --bench postgres [-- SECONDS ROUNDS [batches|singles|watch]]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench that fails may panic, and it prints")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use logline_benches::plain::{self, Plain, batch_sql, insert_batch, insert_one, single_sql};
use logline_benches::{draft, key};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, WatchFrom};
use logline_core::{Scope, VerifiedSpan};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

/// A span of one of 32 owners in 8 tenants.
fn span(caller: usize, n: u64) -> VerifiedSpan {
    let mut draft = draft(n);
    draft.columns_mut().tenant_id = format!("tenant_{}", caller % 8);
    draft.columns_mut().owner_id = format!("user_{}", caller % 32);
    // A type that users may write.
    draft.columns_mut().entity_type = "note".to_owned();
    draft.seal_local(&key()).unwrap()
}

fn scope(span: &VerifiedSpan) -> Scope {
    Scope::user(span.tenant_id.as_str(), span.owner_id.as_str())
}

/// Rows per second of `callers` that each repeat `work` for at most `seconds` or `spans` rows. All spans are sealed before the
/// clock starts, so signing is not counted.
async fn rate<F, Fut>(callers: usize, seconds: f64, spans: usize, work: F) -> f64
where
    F: Fn(VerifiedSpan) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (work, stop, done) = (Arc::new(work), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let prepared: Vec<Vec<_>> = (0..callers).map(|c| (0..spans).map(|n| span(c, n as u64)).collect()).collect();
    let started = Instant::now();
    let tasks: Vec<_> = prepared
        .into_iter()
        .map(|spans| {
            let (work, stop, done) = (Arc::clone(&work), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                for span in spans {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    work(span).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    tokio::pin!(all);
    tokio::select! {
        () = &mut all => {}
        () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {
            stop.store(true, Ordering::Relaxed);
            all.await;
        }
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

struct Bench {
    url: String,
    seconds: f64,
    rounds: usize,
}

impl Bench {
    async fn ledger(&self, connections: u32, writers: usize) -> PgLedger {
        let options = PgOptions::new(&self.url).unwrap().max_connections(connections).writers(writers);
        PgLedger::connect(options).await.unwrap()
    }

    async fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new().max_connections(connections).test_before_acquire(false).connect(&self.url).await.unwrap()
    }

    fn report(&self, what: &str, plain: Vec<f64>, ours: Vec<f64>) {
        let (plain, ours) = (median(plain), median(ours));
        println!("| {what} | {plain:.0} | {ours:.0} | {:.2} |", ours / plain);
    }

    async fn batches(&self, size: usize) {
        let (ledger, pool, sql) = (self.ledger(2, 1).await, self.pool(1).await, batch_sql());
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for round in 0..self.rounds as u64 {
            let count = ((self.seconds * 12_000.0) as usize / size).max(3);
            let make = |c: usize| (0..size).map(|n| span(1, round * 1_000_000 + (c * size + n) as u64)).collect::<Vec<_>>();
            let batches: Vec<_> = (0..count).map(make).collect();
            let rows = (count * size) as f64;
            let started = Instant::now();
            for batch in batches.iter().cloned() {
                // Both sides make the texts of their columns while the clock runs.
                let batch: Vec<_> = batch.into_iter().map(|span| Plain::new(span.into_signed())).collect();
                insert_batch(&pool, &sql, &batch).await;
            }
            plain.push(rows / started.elapsed().as_secs_f64());
            let started = Instant::now();
            for batch in batches {
                let scope = scope(batch.first().unwrap());
                ledger.append(&scope, batch, &AppendOptions::default()).await.unwrap();
            }
            ours.push(rows / started.elapsed().as_secs_f64());
        }
        self.report(&format!("batches of {size}, one caller, beside `unnest` in one statement"), plain, ours);
    }

    async fn singles(&self, callers: usize, plain_connections: u32, our_connections: u32, writers: usize) {
        let ledger = self.ledger(our_connections, writers).await;
        let (pool, sql) = (self.pool(plain_connections).await, Arc::new(single_sql()));
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        let spans = (self.seconds * 30_000.0) as usize / callers;
        for _ in 0..self.rounds {
            let (pool, sql) = (pool.clone(), Arc::clone(&sql));
            let work = move |span: VerifiedSpan| {
                let (pool, sql) = (pool.clone(), Arc::clone(&sql));
                async move { insert_one(&pool, &sql, &Plain::new(span.into_signed())).await }
            };
            plain.push(rate(callers, self.seconds, spans, work).await);
            let ledger = ledger.clone();
            let work = move |span: VerifiedSpan| {
                let ledger = ledger.clone();
                async move {
                    ledger.append_one(&scope(&span), span).await.unwrap();
                }
            };
            ours.push(rate(callers, self.seconds, spans, work).await);
        }
        let what = format!(
            "{callers} callers, single appends, {our_connections} connections, beside autocommit over {plain_connections}"
        );
        self.report(&what, plain, ours);
    }

    /// The same load without and with a watch of one tenant.
    async fn watched(&self, callers: usize) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let spans = (self.seconds * 30_000.0) as usize / callers;
        for _ in 0..self.rounds {
            for watched in [false, true] {
                let (ledger, reader) = (self.ledger(4, 2).await, self.ledger(4, 1).await);
                let watcher = if watched {
                    let mut watch = reader.watch(&Scope::runtime("tenant_1"), WatchFrom::Now).await.unwrap();
                    Some(tokio::spawn(async move { while watch.next().await.is_some() {} }))
                } else {
                    None
                };
                let work = move |span: VerifiedSpan| {
                    let ledger = ledger.clone();
                    async move {
                        ledger.append_one(&scope(&span), span).await.unwrap();
                    }
                };
                let rate = rate(callers, self.seconds, spans, work).await;
                if let Some(watcher) = watcher {
                    watcher.abort();
                    with.push(rate);
                } else {
                    without.push(rate);
                }
            }
        }
        self.report(&format!("{callers} callers, a watch of one tenant of eight, beside no watch"), without, with);
    }
}

const PARTS: [&str; 3] = ["batches", "singles", "watch"];

#[tokio::main]
async fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let numbers: Vec<f64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let seconds = numbers.first().copied().unwrap_or(3.0);
    let rounds = numbers.get(1).map_or(5, |rounds| *rounds as usize);
    let server = PrivateServer::start(&ServerOptions { durable: true, ..Default::default() }).unwrap();
    let url = server.url("postgres", "postgres");
    migrate(&PgOptions::new(&url).unwrap()).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(plain::DDL).await.unwrap();
    let bench = Bench { url, seconds, rounds };
    println!("| what | plain, rows/s | ours, rows/s | ratio |\n|---|---|---|---|");
    let wanted =
        |name: &str| !PARTS.iter().any(|part| words.iter().any(|word| word == part)) || words.iter().any(|word| word == name);
    if wanted("batches") {
        bench.batches(100).await;
        bench.batches(1000).await;
    }
    if wanted("singles") {
        bench.singles(32, 32, 2, 1).await;
        bench.singles(1000, 16, 16, 2).await;
    }
    if wanted("watch") {
        bench.watched(64).await;
    }
}

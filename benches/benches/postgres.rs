//! Appends on PostgreSQL beside plain sqlx inserts into a table with the same columns and indexes, without row-level security,
//! triggers and signing. Ours and plain alternate within one run; what counts are the ratios of the medians.
//!
//! `cargo bench -p logline-benches --bench postgres [-- SECONDS ROUNDS [batches|singles|watch]]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench that fails may panic, and it prints")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use logline_benches::{draft, key};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, WatchFrom};
use logline_core::{Scope, VerifiedSpan, canonical};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::postgres::{PgArguments, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres};

const COLUMNS: &str = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, \
    status, is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, \
    prev_hash, curr_hash, signature, public_key, metadata";

/// A span's columns as any program would make them, JSON as text.
struct Plain {
    span: VerifiedSpan,
    at: String,
    related: String,
    json: [Option<String>; 5],
    seal: [String; 3],
}

impl Plain {
    fn new(span: VerifiedSpan) -> Self {
        let related: Vec<_> = span.related_to.iter().map(ToString::to_string).collect();
        let json = [&span.input, &span.output, &span.error, &span.content, &span.metadata];
        Self {
            at: span.at.to_string(),
            related: format!("{{{}}}", related.join(",")),
            json: json.map(|value| value.as_ref().map(canonical::to_string)),
            seal: [span.seal.curr_hash.to_string(), span.seal.signature.to_string(), span.seal.public_key.to_string()],
            span,
        }
    }
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Binds one row, or a column of rows.
macro_rules! bind_columns {
    ($query:expr, |$row:ident| $each:ident) => {
        $query
            .bind($each!(|$row| $row.span.id))
            .bind($each!(|$row| $row.span.seq as i32))
            .bind($each!(|$row| $row.span.entity_type.as_str()))
            .bind($each!(|$row| $row.span.who.as_str()))
            .bind($each!(|$row| $row.span.did.as_deref()))
            .bind($each!(|$row| $row.span.this.as_str()))
            .bind($each!(|$row| $row.at.as_str()))
            .bind($each!(|$row| $row.span.parent_id))
            .bind($each!(|$row| $row.related.as_str()))
            .bind($each!(|$row| $row.span.owner_id.as_str()))
            .bind($each!(|$row| $row.span.tenant_id.as_str()))
            .bind($each!(|$row| $row.span.visibility.as_str()))
            .bind($each!(|$row| $row.span.status.as_deref()))
            .bind($each!(|$row| $row.span.is_deleted))
            .bind($each!(|$row| $row.span.name.as_deref()))
            .bind($each!(|$row| $row.span.description.as_deref()))
            .bind($each!(|$row| $row.span.code.as_deref()))
            .bind($each!(|$row| $row.span.language.as_deref()))
            .bind($each!(|$row| $row.span.runtime.as_deref()))
            .bind($each!(|$row| $row.json[0].as_deref()))
            .bind($each!(|$row| $row.json[1].as_deref()))
            .bind($each!(|$row| $row.json[2].as_deref()))
            .bind($each!(|$row| $row.json[3].as_deref()))
            .bind($each!(|$row| $row.span.duration_ms.map(|n| n as i32)))
            .bind($each!(|$row| $row.span.trace_id.as_deref()))
            .bind($each!(|$row| None::<&str>.filter(|_| $row.span.seq > 0)))
            .bind($each!(|$row| $row.seal[0].as_str()))
            .bind($each!(|$row| $row.seal[1].as_str()))
            .bind($each!(|$row| $row.seal[2].as_str()))
            .bind($each!(|$row| $row.json[4].as_deref()))
    };
}

/// How the texts among the parameters are read.
const CASTS: [(usize, &str); 7] =
    [(7, "timestamptz"), (9, "uuid[]"), (20, "jsonb"), (21, "jsonb"), (22, "jsonb"), (23, "jsonb"), (30, "jsonb")];

fn cast(number: usize) -> &'static str {
    CASTS.iter().find(|(n, _)| *n == number).map_or("", |(_, name)| name)
}

fn single_sql() -> String {
    let marks: Vec<_> =
        (1..=30).map(|n| if cast(n).is_empty() { format!("${n}") } else { format!("${n}::text::{}", cast(n)) }).collect();
    format!("INSERT INTO plain.registry ({COLUMNS}) VALUES ({})", marks.join(", "))
}

fn batch_sql() -> String {
    let names: Vec<_> = (1..=30).map(|n| format!("c{n}")).collect();
    let values: Vec<_> =
        (1..=30).map(|n| if cast(n).is_empty() { format!("c{n}") } else { format!("c{n}::{}", cast(n)) }).collect();
    let marks: Vec<_> = (1..=30).map(|n| format!("${n}")).collect();
    format!(
        "INSERT INTO plain.registry ({COLUMNS}) SELECT {} FROM unnest({}) AS u({})",
        values.join(", "),
        marks.join(", "),
        names.join(", ")
    )
}

async fn insert_one(pool: &PgPool, sql: &str, row: &Plain) {
    macro_rules! value {
        (|$r:ident| $value:expr) => {{
            let $r = row;
            $value
        }};
    }
    let query: Statement<'_> = sqlx::query(AssertSqlSafe(sql.to_owned()));
    bind_columns!(query, |row| value).execute(pool).await.unwrap();
}

async fn insert_batch(pool: &PgPool, sql: &str, rows: &[Plain]) {
    macro_rules! column {
        (|$r:ident| $value:expr) => {
            rows.iter().map(|$r| $value).collect::<Vec<_>>()
        };
    }
    let query: Statement<'_> = sqlx::query(AssertSqlSafe(sql.to_owned()));
    bind_columns!(query, |row| column).execute(pool).await.unwrap();
}

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

/// Rows a second of `callers` that each do `work` again and again. Spans are sealed beforehand: signing is on neither side.
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
                // Making the texts is part of the work on both sides.
                let batch: Vec<_> = batch.into_iter().map(Plain::new).collect();
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
            let work = move |span| {
                let (pool, sql) = (pool.clone(), Arc::clone(&sql));
                async move { insert_one(&pool, &sql, &Plain::new(span)).await }
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

    /// The same load without and with a watch that reads every row.
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
    let plain = "CREATE SCHEMA plain;
        CREATE TABLE plain.registry (LIKE ledger.universal_registry INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING INDEXES)";
    connection.execute(plain).await.unwrap();
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

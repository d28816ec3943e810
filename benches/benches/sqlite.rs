//! Appends, scans and audits on SQLite, compared with raw inserts into the same table with the same indexes and triggers.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logline_benches::{draft, fill, key, sealed};
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Query};
use logline_core::{Scope, VerifiedSpan, canonical};
use logline_sqlite::SqliteLedger;
use rusqlite::types::Value as Sql;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The columns of a row as any program would bind them.
fn raw_row(span: &VerifiedSpan) -> Vec<Sql> {
    let text = |text: Option<&str>| text.map_or(Sql::Null, |t| Sql::Text(t.to_owned()));
    let json = |value: Option<&serde_json::Value>| value.map_or(Sql::Null, |v| Sql::Text(canonical::to_string(v)));
    let related: Vec<_> = span.related_to.iter().map(ToString::to_string).collect();
    vec![
        Sql::Text(span.id.to_string()),
        Sql::Integer(span.seq.into()),
        Sql::Text(span.entity_type.clone()),
        Sql::Text(span.who.clone()),
        text(span.did.as_deref()),
        Sql::Text(span.this.clone()),
        Sql::Text(span.at.to_string()),
        text(span.parent_id.map(|id| id.to_string()).as_deref()),
        Sql::Text(serde_json::to_string(&related).unwrap()),
        Sql::Text(span.owner_id.clone()),
        Sql::Text(span.tenant_id.clone()),
        Sql::Text(span.visibility.to_string()),
        text(span.status.as_deref()),
        Sql::Integer(0),
        text(span.name.as_deref()),
        text(span.description.as_deref()),
        text(span.code.as_deref()),
        text(span.language.as_deref()),
        text(span.runtime.as_deref()),
        json(span.input.as_ref()),
        json(span.output.as_ref()),
        json(span.error.as_ref()),
        json(span.content.as_ref()),
        span.duration_ms.map_or(Sql::Null, |ms| Sql::Integer(ms.into())),
        text(span.trace_id.as_deref()),
        Sql::Null,
        Sql::Text(span.seal.curr_hash.to_string()),
        Sql::Text(span.seal.signature.to_string()),
        Sql::Text(span.seal.public_key.to_string()),
        json(span.metadata.as_ref()),
    ]
}

const INSERT: &str =
    "INSERT INTO universal_registry (id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id,
    tenant_id, visibility, status, is_deleted, name, description, code, language, runtime, input, output, error, content,
    duration_ms, trace_id, prev_hash, curr_hash, signature, public_key, metadata)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

struct Raw {
    connection: rusqlite::Connection,
    _folder: TempDir,
}

impl Raw {
    /// Makes a file with the ledger's schema and opens it without the ledger.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        drop(SqliteLedger::open(&path).unwrap());
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.pragma_update(None, "synchronous", "full").unwrap();
        Self { connection, _folder: folder }
    }

    fn insert(&mut self, rows: &[Vec<Sql>]) {
        let transaction = self.connection.transaction().unwrap();
        {
            let mut statement = transaction.prepare_cached(INSERT).unwrap();
            for row in rows {
                statement.execute(rusqlite::params_from_iter(row)).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

fn open() -> (TempDir, SqliteLedger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("ledger")).unwrap();
    (folder, ledger)
}

/// Compares batches. Signing is not counted on either side: the batches are sealed before the clock starts.
fn append(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for batch in [1_u64, 100, 1000] {
        let mut group = c.benchmark_group(format!("append/{batch}"));
        group.throughput(Throughput::Elements(batch)).sample_size(20);
        let mut raw = Raw::new();
        group.bench_function("floor: raw inserts of ready texts", |b| {
            b.iter_custom(|iterations| {
                let rows: Vec<_> =
                    (0..iterations).map(|_| sealed(batch).unwrap().iter().map(raw_row).collect::<Vec<_>>()).collect();
                let start = Instant::now();
                rows.iter().for_each(|rows| raw.insert(rows));
                start.elapsed()
            });
        });
        let mut raw = Raw::new();
        group.bench_function("floor: raw inserts of the same spans, texts included", |b| {
            b.iter_custom(|iterations| {
                let batches: Vec<_> = (0..iterations).map(|_| sealed(batch).unwrap()).collect();
                let start = Instant::now();
                for batch in batches {
                    let rows: Vec<_> = batch.iter().map(raw_row).collect();
                    raw.insert(&rows);
                }
                start.elapsed()
            });
        });
        let (_folder, ledger) = open();
        group.bench_function("ours: append", |b| {
            b.iter_custom(|iterations| {
                let batches: Vec<_> = (0..iterations).map(|_| sealed(batch).unwrap()).collect();
                runtime.block_on(async {
                    let start = Instant::now();
                    for batch in batches {
                        ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
                    }
                    start.elapsed()
                })
            });
        });
        group.finish();
    }
}

/// Sealing and appending by many callers, each of which waits for its own receipt.
fn concurrent(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("signed appends");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for callers in [1_u64, 8, 32, 128] {
        group.throughput(Throughput::Elements(callers));
        group.bench_function(BenchmarkId::new("callers", callers), |b| {
            let (_folder, ledger) = open();
            b.iter_custom(|iterations| {
                runtime.block_on(async {
                    let start = Instant::now();
                    let tasks = (0..callers).map(|caller| {
                        let ledger = ledger.clone();
                        tokio::spawn(async move {
                            let key = key();
                            for n in 0..iterations {
                                let span = draft(caller * iterations + n).seal_local(&key).unwrap();
                                ledger.append_one(&Scope::Operator, span).await.unwrap();
                            }
                        })
                    });
                    join_all(tasks).await;
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    const ROWS: u64 = 10_000;
    let runtime = Runtime::new().unwrap();
    let (_folder, ledger) = open();
    runtime.block_on(fill(&ledger, ROWS)).unwrap();
    let mut group = c.benchmark_group("read");
    group.sample_size(10);
    group.throughput(Throughput::Elements(50));
    group.bench_function("scan a page of 50 rows, newest first", |b| {
        let query = Query::new().tenant("tenant_01").order(logline_core::ledger::Order::Newest).limit(50);
        b.iter(|| runtime.block_on(ledger.scan(&Scope::user("tenant_01", "user_01"), &query, None)).unwrap());
    });
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("scan 10,000 rows", |b| {
        b.iter(|| runtime.block_on(ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX)).unwrap());
    });
    group.bench_function("fsck 10,000 rows", |b| {
        b.iter(|| runtime.block_on(fsck(&ledger, Audit::default(), &mut |_| {})).unwrap());
    });
    group.finish();
}

/// Waits for all tasks.
async fn join_all(tasks: impl Iterator<Item = tokio::task::JoinHandle<()>>) {
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.unwrap();
    }
}

criterion_group!(benches, append, concurrent, read);
criterion_main!(benches);

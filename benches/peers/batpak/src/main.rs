//! Durable, signed appends per second: LogLine on SQLite compared with batpak 0.10 with durable receipts.
//!
//! `cargo run --release` in this folder. Both sides get the same content (about 1.2 KB), sign every append with Ed25519, and
//! count an append when its caller knows that it is on the disk: LogLine by `synchronous=FULL`, batpak by a receipt gated on
//! the durable watermark. LogLine additionally checks the version chain and maintains five indexes. batpak keeps its own log.
//! Runs alternate, so that a slow minute of the machine affects both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batpak::id::{EntityIdType as _, IdempotencyKey};
use batpak::prelude::*;
use batpak::store::{DurabilityGate, SigningKey, WatermarkKind};
use logline_core::ledger::LedgerExt as _;
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_sqlite::SqliteLedger;
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const SECONDS: f64 = 3.0;
const KIND: EventKind = EventKind::custom(0xF, 1);

fn input(n: u64) -> Value {
    json!({"order": n, "lines": [{"sku": "A-1", "qty": 2, "price": 1299}, {"sku": "B-7", "qty": 1, "price": 450}], "currency": "EUR"})
}

fn draft(n: u64) -> Draft {
    Draft::new("execution")
        .who("edge:stage0")
        .did("executed")
        .this("function.invoice")
        .owner("user_01")
        .tenant("tenant_01")
        .status("complete")
        .name("invoice.total")
        .input(input(n))
        .output(json!({"total": 3048, "tax": 579.12, "currency": "EUR", "ok": true}))
        .metadata(json!({"worker": "w-3", "attempt": 1}))
        .duration_ms(3)
        .trace("4bf92f3577b34da6a3ce929d0e0e4736")
        .description("x".repeat(420))
        .stamp(&SystemClock, &SystemIds)
}

/// Appends per second by `callers` tasks, each of which waits for its own receipt.
fn logline(callers: u64) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = SqliteLedger::open(folder.path().join("ledger")).expect("a ledger");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let ledger = ledger.clone();
            runtime.spawn(async move {
                let key = KeyPair::from_seed(&[7; 32]);
                let mut appended = 0;
                while start.elapsed().as_secs_f64() < SECONDS {
                    let span = draft(caller << 32 | appended).seal_local(&key).expect("a span");
                    ledger.append_one(&Scope::Operator, span).await.expect("an append");
                    appended += 1;
                }
                appended
            })
        })
        .collect();
    let appended: u64 = runtime.block_on(async {
        let mut sum = 0;
        for task in tasks {
            sum += task.await.expect("a task");
        }
        sum
    });
    appended as f64 / start.elapsed().as_secs_f64()
}

/// The same with batpak: one thread for each caller, and a group commit of 64 if there are several callers.
fn peer(callers: u64) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let config = StoreConfig::new(folder.path())
        .with_signing_key(SigningKey::from_bytes([7; 32]))
        .with_sync_every_n_events(1)
        .with_group_commit_max_batch(if callers == 1 { 1 } else { 64 })
        .with_batch_max_size(256)
        .with_batch_max_bytes(16 << 20);
    let store = Arc::new(Store::open(config).expect("a store"));
    let start = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let coordinate = Coordinate::new(format!("entity:{caller}"), "scope:bench").expect("a coordinate");
                // The same columns that LogLine stores.
                let payload: Value = serde_json::to_value(columns(caller)).expect("a payload");
                let mut appended = 0_u64;
                while start.elapsed().as_secs_f64() < SECONDS {
                    let mut options = AppendOptions::default();
                    if callers > 1 {
                        options = options.with_idempotency(IdempotencyKey::now_v7());
                    }
                    let options = options.with_gate(DurabilityGate::new(WatermarkKind::Durable, Duration::from_secs(10)));
                    let receipt = store.append_with_options(&coordinate, KIND, &payload, options).expect("an append");
                    assert!(receipt.signature.is_some(), "every receipt is signed");
                    appended += 1;
                }
                appended
            })
        })
        .collect();
    let appended: u64 = threads.into_iter().map(|t| t.join().expect("a thread")).sum();
    let rate = appended as f64 / start.elapsed().as_secs_f64();
    if let Some(store) = Arc::into_inner(store) {
        let _ = store.close();
    }
    rate
}

fn columns(caller: u64) -> Value {
    let span = draft(caller).seal_local(&KeyPair::from_seed(&[7; 32])).expect("a span");
    serde_json::from_slice(&span.to_line()).expect("a line")
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    println!("| callers | LogLine, appends/s | batpak 0.10, appends/s | ratio |\n|---|---|---|---|");
    for callers in [1, 8, 32] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(logline(callers));
            theirs.push(peer(callers));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("| {callers} | {ours:.0} | {theirs:.0} | {:.1} |", ours / theirs);
    }
}

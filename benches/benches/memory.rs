//! What encryption costs memories.
//!
//! `cargo bench -p logline-benches --bench memory [-- MEMORIES ROUNDS OTHERS]`: an envelope of 1 KiB beside bare AES-256-GCM; an upsert with
//! and without encryption, in alternation; the first search over MEMORIES (10,000) encrypted memories of one user, and the following ones;
//! the same first search of a new process after others of the tenant have kept OTHERS (100,000) memories, which it must not read.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that fails may panic, and prints to its user"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use logline_core::contract::DataKey;
use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds};
use logline_memory::envelope::{self, Place};
use logline_memory::{Kind, LocalKeys, Memories, Memory, MemoryKernel, Mode, Sensitivity, Vault, Wanted};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::json;
use uuid::Uuid;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The time of one call, measured over many.
fn each(calls: u32, mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..calls {
        call();
    }
    began.elapsed() / calls
}

fn envelopes(rounds: usize) {
    let text = vec![7_u8; 1024];
    let place = Place { tenant: "acme", subject: "u-1", span: Uuid::from_u128(7), field: "content" };
    let key = DataKey::new([5; 32]);
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.reveal()).unwrap());
    let (mut ours, mut theirs, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(each(5000, || {
            let mut nonce = [0; 12];
            getrandom::fill(&mut nonce).unwrap();
            let mut body = text.clone();
            let nonce = Nonce::assume_unique_for_key(nonce);
            bare.seal_in_place_append_tag(nonce, Aad::from(b"acme"), &mut body).unwrap();
            black_box(body);
        }));
        ours.push(each(5000, || {
            black_box(envelope::seal(&key, Uuid::from_u128(1), &place, &text).unwrap());
        }));
        let sealed = envelope::seal(&key, Uuid::from_u128(1), &place, &text).unwrap();
        opened.push(each(5000, || {
            black_box(envelope::open(&key, &place, &sealed).unwrap());
        }));
    }
    let (ours, theirs, opened) = (median(ours), median(theirs), median(opened));
    println!("1 KiB: AES-256-GCM {theirs:?}, envelope sealed {ours:?}, opened {opened:?}");
    println!("envelope / bare: {:.2}", ours.as_secs_f64() / theirs.as_secs_f64());
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn kernel(folder: &std::path::Path, ledger: &SqliteLedger) -> MemoryKernel {
    let store = SqliteKeys::open(SqliteKeys::beside(folder.join("bench.ledger"))).unwrap();
    MemoryKernel::new(Vault::new(LocalKeys::open(folder.join("keys")).unwrap(), store)).search_in(ledger.clone())
}

/// A host that has nothing in its memory yet.
async fn host(ledger: &SqliteLedger, trust: &TrustRoot, kernel: &MemoryKernel) -> Host {
    let set = logline_kernels::all().and(kernel.all());
    Host::builder().ledger(ledger.clone()).trust(trust.clone()).key(key(3)).install(set).build().await.unwrap()
}

async fn site(folder: &std::path::Path) -> (SqliteLedger, TrustRoot, MemoryKernel) {
    let ledger = SqliteLedger::open(folder.join("bench.ledger")).unwrap();
    let kernel = kernel(folder, &ledger);
    let set = logline_kernels::all().and(kernel.all());
    let trust = TrustRoot::new([key(1).public_key()], 1);
    let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow_all(&set)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT])
        .grant(key(3).public_key(), Role::Runtime, [SYSTEM_TENANT, "acme"]);
    trust.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &set, &key(2), &SystemClock).await.unwrap();
    (ledger, trust, kernel)
}

/// Memories of other users of the tenant.
async fn others(ledger: &SqliteLedger, count: usize) {
    let runtime = key(3);
    let numbers: Vec<_> = (0..count).collect();
    for some in numbers.chunks(1000) {
        let spans = some.iter().map(|n| {
            let draft = Draft::new("memory").tenant("acme").owner(format!("other-{}", n % 997)).who("kernel:memory");
            let draft = draft.this("memory.fact").status("active").content(json!({"redacted": true}));
            draft
                .meta("layer", "temporary")
                .meta("sensitivity", "pii")
                .stamp(&SystemClock, &SystemIds)
                .seal_local(&runtime)
                .unwrap()
        });
        ledger.append(&Scope::runtime("acme"), spans.collect(), &AppendOptions::default()).await.unwrap();
    }
}

/// A sentence that no other number gives.
fn text(number: usize) -> String {
    const NOUNS: [&str; 8] = ["garden", "river", "market", "window", "teacher", "bicycle", "harbour", "winter"];
    format!(
        "the {} near the {} was seen by witness {number} in year {}",
        NOUNS[number % 8],
        NOUNS[(number / 8) % 8],
        1900 + number % 120
    )
}

async fn memories(count: usize, rounds: usize, of_others: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, trust, kept_by) = site(folder.path()).await;
    let serving = host(&ledger, &trust, &kept_by).await;
    let alice = Memories::new(&serving, kept_by.vault(), "acme", "u-1", Mode::On);
    alice.grant(None).await.unwrap();
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (sensitivity, times) in [(Sensitivity::Public, &mut plain), (Sensitivity::Pii, &mut sealed)] {
            for n in 0..20 {
                let memory = Memory::new(Kind::Fact, text(round * 20 + n)).sensitivity(sensitivity);
                let began = Instant::now();
                alice.remember(&memory).await.unwrap();
                times.push(began.elapsed());
            }
        }
    }
    let (plain, sealed) = (median(plain), median(sealed));
    println!("upsert: in the clear {plain:?}, encrypted {sealed:?}, ratio {:.2}", sealed.as_secs_f64() / plain.as_secs_f64());

    let bob = Memories::new(&serving, kept_by.vault(), "acme", "u-2", Mode::On);
    bob.grant(None).await.unwrap();
    let numbers: Vec<_> = (0..count).collect();
    for some in numbers.chunks(16) {
        let kept = some.iter().map(|n| {
            let memory = Memory::new(Kind::Fact, text(*n));
            let bob = bob.clone();
            async move { bob.remember(&memory).await.unwrap() }
        });
        futures_util::future::join_all(kept).await;
    }
    let search = async |query: String| {
        let began = Instant::now();
        let answer = bob.search(&query, &Wanted::most(10)).await.unwrap();
        assert!(!answer.hits.is_empty());
        began.elapsed()
    };
    let first = search("bicycle harbour".to_owned()).await;
    let mut warm = Vec::new();
    for round in 0..rounds.max(10) {
        warm.push(search(format!("witness {} window", round * 37 % count)).await);
    }
    println!("search over {count} encrypted memories: first {first:?}, then {:?} (median)", median(warm));
    let mut firsts = Vec::new();
    for count in [0, of_others] {
        others(&ledger, count).await;
        let fresh = kernel(folder.path(), &ledger);
        let serving = host(&ledger, &trust, &fresh).await;
        let began = Instant::now();
        let bob = Memories::new(&serving, fresh.vault(), "acme", "u-2", Mode::On);
        assert!(!bob.search("bicycle harbour", &Wanted::most(10)).await.unwrap().hits.is_empty());
        firsts.push(began.elapsed());
    }
    let ratio = firsts[1].as_secs_f64() / firsts[0].as_secs_f64();
    println!(
        "first search of a new process: {:?}, and {:?} beside {of_others} memories of others: {ratio:.2}",
        firsts[0], firsts[1]
    );
}

fn main() {
    // `cargo test --benches` and criterion's flags are not for this one.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (count, rounds) = (numbers.first().copied().unwrap_or(10_000), numbers.get(1).copied().unwrap_or(11));
    let of_others = numbers.get(2).copied().unwrap_or(100_000);
    envelopes(rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(memories(count, rounds, of_others));
}

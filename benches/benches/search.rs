//! Searches for memories: in a place of fixed size while the store grows around it, and in this process.
//!
//! `cargo bench -p logline-benches --bench search [-- PLACE GROWN ROUNDS]`: a place of PLACE memories (10,000), in a store of as many
//! and in one of GROWN (100,000).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that fails may panic, and prints to its user"
)]

#[path = "../../logline-memory/tests/corpus/mod.rs"]
mod corpus;

use std::time::{Duration, Instant};

use corpus::{Chance, generate};
use logline_core::ledger::AppendOptions;
use logline_core::ledger::search::{Search, SearchQuery, SearchScope, Vector, VectorModel};
use logline_core::{Draft, KeyPair, Scope, Visibility};
use logline_memory::index::{Index, IndexLimits};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use serde_json::json;
use uuid::Uuid;

const DIMENSIONS: usize = 384;

fn id(n: usize) -> Uuid {
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n as u128)
}

/// Stores memories of other tenants, and of the one whose place is searched, in batches.
async fn fill<S: Search>(ledger: &S, texts: &[String], tenant: impl Fn(usize) -> String, numbers: std::ops::Range<usize>) {
    let key = KeyPair::from_seed(&[5; 32]);
    let all: Vec<usize> = numbers.collect();
    for batch in all.chunks(1000) {
        let spans = batch.iter().map(|n| {
            let draft = Draft::new("memory").id(id(*n)).tenant(tenant(*n)).owner("alice").who("runtime").this("memory.fact");
            let draft = draft.at(corpus::ask::now()).visibility(Visibility::Tenant).status("active");
            let draft =
                draft.content(json!({"text": texts[n % texts.len()]})).meta("layer", "shared").meta("sensitivity", "public");
            draft.seal_local(&key).unwrap()
        });
        ledger.append(&Scope::Operator, spans.collect(), &AppendOptions::default()).await.unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn searches<S: Search>(ledger: &S, questions: &[String], rounds: usize) -> Duration {
    let scope = Scope::user("acme", "alice");
    let mut times = Vec::new();
    for text in questions.iter().cycle().take(rounds) {
        let query = SearchQuery::new(SearchScope::Tenant, text.clone(), corpus::ask::now(), 10);
        let started = Instant::now();
        ledger.search_text(&scope, &query).await.unwrap();
        times.push(started.elapsed());
    }
    median(times)
}

/// Compares a store that has the place alone with one in which others have stored between its memories, as they do in life.
async fn growth<S: Search>(
    name: &str,
    (alone, among): (&S, &S),
    (texts, questions): (&[String], &[String]),
    (place, grown): (usize, usize),
    rounds: usize,
) {
    fill(alone, texts, |_| "acme".to_owned(), 0..place).await;
    let every = grown / place;
    fill(among, texts, |n| if n % every == 0 { "acme".to_owned() } else { format!("tenant-{}", n % 97) }, 0..grown).await;
    // In turns: what else the machine does concerns both.
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        small.push(searches(alone, questions, rounds / 5).await);
        large.push(searches(among, questions, rounds / 5).await);
    }
    let (small, large) = (median(small), median(large));
    let ratio = large.as_secs_f64() / small.as_secs_f64();
    println!("{name}: {small:.2?} in a store of {place}, {large:.2?} in one of {grown}: {ratio:.2} (aim: at most 2)");
}

fn vector(chance: &mut Chance, model: &VectorModel) -> Vector {
    Vector::new(model, (0..DIMENSIONS).map(|_| chance.below(2001) as f32 / 1000.0 - 1.0).collect()).unwrap()
}

async fn vectors<S: Search>(ledger: &S, place: usize, rounds: usize) {
    let (mut chance, model) = (Chance::new(3), VectorModel::new("bench", "1", DIMENSIONS).unwrap());
    for n in 0..place {
        assert!(ledger.put_vector(&Scope::runtime("acme"), id(n), 0, &vector(&mut chance, &model)).await.unwrap());
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        let near = vector(&mut chance, &model);
        let query = SearchQuery::new(SearchScope::Tenant, "", corpus::ask::now(), 10);
        let started = Instant::now();
        assert_eq!(ledger.search_vector(&Scope::user("acme", "alice"), &query, &near).await.unwrap().len(), 10);
        times.push(started.elapsed());
    }
    println!("SQLite, vectors compared one by one: {:.2?} for {place} of {DIMENSIONS} dimensions", median(times));
}

fn in_process(texts: &[String], questions: &[String], place: usize, rounds: usize) {
    let started = Instant::now();
    let mut index = Index::new(IndexLimits { entries: place, bytes: 1 << 30 }).unwrap();
    for n in 0..place {
        index.add(id(n), &texts[n % texts.len()]).unwrap();
    }
    index.search(&questions[0], 10, |_| true);
    let first = started.elapsed();
    let mut times = Vec::new();
    for text in questions.iter().cycle().take(rounds) {
        let started = Instant::now();
        index.search(text, 10, |_| true);
        times.push(started.elapsed());
    }
    let warm = median(times);
    println!(
        "in this process, {place} memories ({} KiB): first search {first:.2?} with indexing, warm {warm:.2?}",
        index.bytes() >> 10
    );
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let place = numbers.first().copied().unwrap_or(10_000);
    let grown = numbers.get(1).copied().unwrap_or(100_000);
    let rounds = numbers.get(2).copied().unwrap_or(200);
    let corpus = generate(1);
    let texts: Vec<String> = corpus.memories.iter().map(|memory| memory.text.clone()).collect();
    let questions: Vec<String> = corpus.questions.iter().map(|question| question.text.clone()).collect();
    in_process(&texts, &questions, place, rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let alone = SqliteLedger::open(folder.path().join("alone.ledger")).unwrap();
        let among = SqliteLedger::open(folder.path().join("among.ledger")).unwrap();
        growth("SQLite, text", (&alone, &among), (&texts, &questions), (place, grown), rounds).await;
        vectors(&alone, place.min(10_000), rounds.min(50)).await;
        let server = PrivateServer::start(&ServerOptions::default()).unwrap();
        let mut ledgers = Vec::new();
        for database in ["postgres", "template1"] {
            let options = PgOptions::new(&server.url("postgres", database)).unwrap();
            migrate(&options).await.unwrap();
            ledgers.push(PgLedger::connect(options).await.unwrap());
        }
        growth("PostgreSQL, text", (&ledgers[0], &ledgers[1]), (&texts, &questions), (place, grown), rounds).await;
    });
}

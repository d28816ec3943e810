//! What is removed from the index of memories is gone from the file, not only from answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::path::Path;

use logline_core::ledger::search::{Search, SearchQuery, SearchScope, Vector, VectorModel};
use logline_core::ledger::{AppendOptions, Ledger, WorkQueue};
use logline_core::{Draft, KeyPair, Scope, Timestamp, VerifiedSpan, Visibility};
use logline_sqlite::SqliteLedger;
use serde_json::json;
use uuid::Uuid;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn at() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn memory(n: u128, text: &str) -> VerifiedSpan {
    let draft =
        Draft::new("memory").id(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)).tenant("acme").owner("alice");
    let draft = draft.who("runtime").this("memory.fact").at(at()).visibility(Visibility::Tenant).status("active");
    let draft = draft.content(json!({"text": text})).meta("sensitivity", "public").meta("layer", "permanent");
    draft.seal_local(&KeyPair::from_seed(&[4; 32])).unwrap()
}

fn forgotten(span: &VerifiedSpan) -> VerifiedSpan {
    let draft = Draft::next_version(span).at(at()).status("forgotten").content(json!({"redacted": true}));
    draft.seal_local(&KeyPair::from_seed(&[4; 32])).unwrap()
}

/// How often `bytes` stand in the files of the ledger.
fn times(path: &Path, bytes: &[u8]) -> usize {
    let mut count = 0;
    for suffix in ["", "-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let content = std::fs::read(name).unwrap_or_default();
        count += content.windows(bytes.len()).filter(|window| *window == bytes).count();
    }
    count
}

/// The stem of this word is not a part of it, so that it stands in the index of words alone: the ledger itself keeps the texts of public
/// memories for good. FTS5 leaves out the letters that a word shares with the one before it.
const WORD: &str = "zqxkvhappy";
const STEM: &[u8] = b"kvhappi";

/// Values whose bytes occur nowhere else, and their bytes in the file.
fn vector(n: f32) -> (Vector, Vec<u8>) {
    let model = VectorModel::new("trial", "1", 64).unwrap();
    let values = (0..64).map(|i| ((i * i) as f32 + n).sin()).collect();
    let vector = Vector::new(&model, values).unwrap();
    let bytes = vector.to_bytes();
    (vector, bytes)
}

#[test]
fn no_bytes_of_a_forgotten_memory_stay_in_the_index() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memories.ledger");
        let ledger = SqliteLedger::open(&path).unwrap();
        let runtime = Scope::runtime("acme");
        // Enough others around it that pages are split and merged.
        let others: Vec<_> =
            (100..1100).map(|n| memory(n, &format!("word{n} and zq{n} among others, some happy, some not"))).collect();
        let secret = memory(1, &format!("the {WORD} fact"));
        ledger.append(&runtime, others[..500].to_vec(), &AppendOptions::default()).await.unwrap();
        ledger.append(&runtime, vec![secret.clone()], &AppendOptions::default()).await.unwrap();
        ledger.append(&runtime, others[500..].to_vec(), &AppendOptions::default()).await.unwrap();
        let (value, bytes) = vector(0.5);
        assert!(ledger.put_vector(&runtime, secret.id, secret.seq, &value).await.unwrap());
        for (n, other) in (1_u16..).zip(&others[..50]) {
            assert!(ledger.put_vector(&runtime, other.id, other.seq, &vector(f32::from(n)).0).await.unwrap());
        }
        assert!(ledger.checkpoint().await.unwrap());
        let query = SearchQuery::new(SearchScope::Tenant, WORD, at(), 10);
        assert_eq!(ledger.search_text(&runtime, &query).await.unwrap().len(), 1);
        assert!(times(&path, STEM) > 0, "the index has the stem");
        assert_eq!(times(&path, WORD.as_bytes()), 2, "the ledger and the index have the word");
        assert!(times(&path, &bytes[..32]) > 0, "the index has the vector");

        ledger.append(&runtime, vec![forgotten(&secret)], &AppendOptions::default()).await.unwrap();
        assert!(ledger.checkpoint().await.unwrap());
        assert!(ledger.search_text(&runtime, &query).await.unwrap().is_empty());
        assert_eq!(times(&path, STEM), 0, "the stem");
        assert_eq!(times(&path, WORD.as_bytes()), 1, "the ledger's own row alone");
        for part in bytes.chunks(16) {
            assert_eq!(times(&path, part), 0, "a part of the vector");
        }
        let problems = ledger.inspect().await.unwrap().problems;
        assert!(problems.is_empty(), "{problems:?}");
        // Nor does a copy, or a rebuild, bring it back.
        let copy = folder.path().join("copy.ledger");
        ledger.copy_to(&copy).await.unwrap();
        assert_eq!(times(&copy, STEM) + times(&copy, &bytes[..32]), 0);
        assert_eq!(ledger.rebuild().await.unwrap().memories, 1000);
        assert!(ledger.checkpoint().await.unwrap());
        assert_eq!(times(&path, STEM), 0);
        assert!(ledger.search_text(&runtime, &query).await.unwrap().is_empty());
    });
}

/// Whoever can write the file can change the index. An inspection finds entries that no last version has.
#[test]
fn an_entry_that_no_memory_has_is_found_by_an_inspection() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memories.ledger");
        let ledger = SqliteLedger::open(&path).unwrap();
        let runtime = Scope::runtime("acme");
        let first = memory(1, "the first");
        ledger.append(&runtime, vec![first.clone()], &AppendOptions::default()).await.unwrap();
        assert!(ledger.inspect().await.unwrap().problems.is_empty());
        let tamper = rusqlite::Connection::open(&path).unwrap();
        tamper.execute("UPDATE memories SET owner_id = 'mallory'", []).unwrap();
        let problems = ledger.inspect().await.unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains("rebuild")), "{problems:?}");
        ledger.rebuild().await.unwrap();
        assert!(ledger.inspect().await.unwrap().problems.is_empty());
    });
}

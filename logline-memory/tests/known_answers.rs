//! Ten thousand memories with known answers: what is found, by scope, and what never is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod corpus;

use std::collections::{BTreeSet, HashMap};

use corpus::{SIZE, State, ask, generate};
use logline_core::Scope;
use logline_core::ledger::search::{Search as _, SearchQuery, SearchScope};
use logline_memory::index::{Index, IndexLimits};
use logline_sqlite::SqliteLedger;
use uuid::Uuid;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn the_corpus_has_what_makes_it_hard() {
    let corpus = generate(1);
    assert_eq!(corpus.memories.len(), SIZE);
    let of = |state: State| corpus.memories.iter().filter(|memory| memory.state == state).count();
    assert!(of(State::Superseded) > 500 && of(State::Forgotten) > 200 && of(State::Expired) > 200);
    assert!(corpus.questions.len() > 500);
    assert_eq!(generate(1).memories[77].text, corpus.memories[77].text);
    assert_ne!(generate(2).memories[77].text, corpus.memories[77].text);
}

/// The answers are found, in every scope; nothing superseded, forgotten, expired or of somebody else ever is (`measure` asserts it).
#[test]
fn known_answers_are_found_and_nothing_else_that_must_not_be() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("memories.ledger")).unwrap();
        let corpus = generate(1);
        let private = ask::store(&ledger, &corpus).await;
        let recalls = ask::measure(&ledger, &private, &corpus).await;
        assert_eq!(recalls.keys().copied().collect::<BTreeSet<_>>(), ["private", "public", "session", "tenant"].into());
        for (scope, recall) in recalls {
            assert!(recall.questions > 30, "{scope}");
            // A third of the questions have no word of the answer but the name, and others have as many words in common with them.
            assert!(recall.share(recall.at_5) > 0.70, "{scope}: {recall:?}");
            assert!(recall.share(recall.at_10) > 0.78, "{scope}: {recall:?}");
            assert!(recall.reciprocal / recall.questions as f64 > 0.48, "{scope}: {recall:?}");
        }
    });
}

/// The index of the process and FTS5 find the same: the same memories among the first ten, nearly always in the same order. They differ
/// in one number only: the index counts how often a memory has a word.
#[test]
fn the_index_of_the_process_finds_what_fts5_finds() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("memories.ledger")).unwrap();
        let mut corpus = generate(3);
        for memory in &mut corpus.memories {
            (memory.is_public, memory.tenant, memory.state) = (true, "acme", State::Live);
            memory.tier = logline_memory::rank::Tier::Tenant;
            memory.session = None;
        }
        ask::store(&ledger, &corpus).await;
        let mut index = Index::new(IndexLimits::default()).unwrap();
        for memory in &corpus.memories {
            index.add(memory.id, &memory.text).unwrap();
        }
        let texts: HashMap<Uuid, &str> = corpus.memories.iter().map(|memory| (memory.id, memory.text.as_str())).collect();
        let (mut shared, mut all, mut same_first) = (0, 0, 0);
        let questions: Vec<_> = corpus.questions.iter().take(200).collect();
        for question in &questions {
            let query = SearchQuery::new(SearchScope::Tenant, question.text.clone(), ask::now(), 10);
            let theirs = ledger.search_text(&Scope::user("acme", "user_00"), &query).await.unwrap();
            let theirs: Vec<_> = theirs.into_iter().map(|hit| hit.id).collect();
            let ours: Vec<_> = index.search(&question.text, 10, |_| true).into_iter().map(|(id, _)| id).collect();
            shared += ours.iter().filter(|id| theirs.contains(id)).count();
            all += theirs.len();
            same_first += usize::from(ours.first().map(|id| texts[id]) == theirs.first().map(|id| texts[id]));
        }
        assert!(shared as f64 / all as f64 > 0.95, "{shared} of {all}");
        assert!(same_first as f64 / questions.len() as f64 > 0.95, "{same_first} of {}", questions.len());
    });
}

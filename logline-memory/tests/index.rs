//! The index in this process: what it finds, what it forgets, and that it finds what FTS5 finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::{BTreeSet, HashMap};

use logline_memory::index::{Index, IndexFull, IndexLimits};
use proptest::prelude::*;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn index() -> Index {
    Index::new(IndexLimits::default()).unwrap()
}

fn found(index: &Index, query: &str) -> Vec<u128> {
    index.search(query, 10, |_| true).into_iter().map(|(id, _)| id.as_u128()).collect()
}

#[test]
fn a_memory_is_found_by_any_form_of_its_words() {
    let mut index = index();
    index.add(id(1), "She was walking to the stations").unwrap();
    index.add(id(2), "An unrelated sentence").unwrap();
    for query in ["walked", "WALKS", "the station?", "\"walk\" AND NOT station", "nothing but walking"] {
        assert_eq!(found(&index, query), [1], "{query}");
    }
    assert!(found(&index, "").is_empty());
    assert!(found(&index, "?!").is_empty());
}

#[test]
fn a_forgotten_memory_is_not_found_and_frees_its_room() {
    let mut index = index();
    index.add(id(1), "the safe is behind the picture").unwrap();
    let alone = index.bytes();
    index.add(id(2), "the picture was painted by Ann").unwrap();
    assert_eq!(index.forget(&[id(2), id(3)]), 1);
    assert_eq!(found(&index, "picture"), [1]);
    assert!(found(&index, "painted").is_empty());
    assert_eq!((index.len(), index.bytes()), (1, alone));
    assert!(!index.remove(id(2)));
    index.add(id(1), "the safe was sold").unwrap();
    assert!(found(&index, "picture").is_empty(), "an older text");
    assert_eq!(found(&index, "sold"), [1]);
    index.forget(&[id(1)]);
    assert!(index.is_empty() && index.bytes() == 0 && found(&index, "safe").is_empty());
}

#[test]
fn a_full_index_refuses_and_keeps_no_older_version() {
    let mut index = Index::new(IndexLimits { entries: 2, bytes: 1 << 20 }).unwrap();
    index.add(id(1), "one").unwrap();
    index.add(id(2), "two").unwrap();
    assert!(matches!(index.add(id(3), "three"), Err(IndexFull { entries: 2, .. })));
    index.add(id(2), "two again").unwrap();
    let mut small = Index::new(IndexLimits { entries: 10, bytes: 1000 }).unwrap();
    small.add(id(1), "a short text").unwrap();
    let long: String = (0..200).map(|n| format!("word{n} ")).collect();
    assert!(small.add(id(1), &long).is_err());
    assert!(small.is_empty(), "the older version is gone as well");
}

#[test]
fn what_a_search_may_not_see_moves_neither_order_nor_scores() {
    let mut index = index();
    index.add(id(1), "apples and pears").unwrap();
    index.add(id(2), "apples and plums").unwrap();
    let mine = |id: Uuid| id.as_u128() < 10;
    let before = index.search("pears plums apples", 10, mine);
    for n in 10..60 {
        index.add(id(n), "pears pears pears").unwrap();
    }
    assert_eq!(index.search("pears plums apples", 10, mine), before);
    assert_eq!(before.len(), 2);
}

#[test]
fn debug_tells_nothing_of_a_text() {
    let mut index = index();
    index.add(id(1), "xylophone").unwrap();
    assert!(!format!("{index:?}").contains("xylophone"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is added, changed and removed, an index finds what one finds that was made from what is left.
    #[test]
    fn an_index_is_what_its_memories_make_it(acts in proptest::collection::vec((0_u128..8, proptest::option::of("[a-d]{1,2}( [a-d]{1,2}){0,5}")), 0..40)) {
        let mut index = index();
        let mut left: HashMap<u128, String> = HashMap::new();
        for (n, text) in acts {
            match text {
                Some(text) => {
                    index.add(id(n), &text).unwrap();
                    left.insert(n, text);
                }
                None => prop_assert_eq!(index.remove(id(n)), left.remove(&n).is_some()),
            }
        }
        let mut fresh = Index::new(IndexLimits::default()).unwrap();
        for (n, text) in &left {
            fresh.add(id(*n), text).unwrap();
        }
        for query in ["a", "b c", "a b c d aa bb", "dd"] {
            prop_assert_eq!(index.search(query, 10, |_| true), fresh.search(query, 10, |_| true));
        }
        prop_assert_eq!(index.bytes(), fresh.bytes());
    }

    /// No text makes it panic, and each word that is left of a text finds it.
    #[test]
    fn any_text_is_indexed(text in any::<String>()) {
        let mut index = index();
        index.add(id(1), &text).unwrap();
        for word in logline_core::ledger::search::words(&text) {
            prop_assert_eq!(found(&index, &word), [1]);
        }
    }
}

/// A text of words is stemmed as FTS5's tokenizer `porter` stems it. `fts5vocab` lists what FTS5 made of them.
#[test]
fn stems_are_those_of_fts5() {
    let endings = [
        "", "s", "es", "ies", "sses", "ss", "ed", "eed", "ing", "y", "ly", "ational", "tional", "enci", "anci", "izer", "logi",
        "bli", "alli", "entli", "eli", "ousli", "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness", "aliti",
        "iviti", "biliti", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al", "ance", "ence", "er", "ic", "able",
        "ible", "ant", "ement", "ment", "ent", "sion", "tion", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize", "e",
        "ll", "lling", "tting", "zzed", "ating", "bling", "izing",
    ];
    let beginnings = [
        "", "a", "t", "tr", "y", "sy", "be", "cr", "ho", "hop", "fil", "fall", "hiss", "fizz", "plast", "mot", "conflat",
        "troubl", "siz", "agre", "relat", "condit", "val", "digit", "radic", "differ", "vie", "analog", "vietnam", "predic",
        "oper", "feud", "decis", "hope", "call", "form", "sens", "trip", "electr", "reviv", "infer", "gyroscop", "adjust",
        "defens", "irrit", "replac", "depend", "adopt", "homolog", "commun", "activ", "angular", "effect", "bowdler", "prob",
        "rat", "ceas", "control", "roll", "yes", "day", "boy", "gray",
    ];
    let words: BTreeSet<String> = beginnings
        .iter()
        .flat_map(|first| endings.iter().map(move |last| format!("{first}{last}")))
        .filter(|w| !w.is_empty())
        .collect();
    let sqlite = rusqlite::Connection::open_in_memory().unwrap();
    sqlite
        .execute_batch(
            "CREATE VIRTUAL TABLE t USING fts5(word, tokenize='porter unicode61 remove_diacritics 2');
             CREATE VIRTUAL TABLE v USING fts5vocab(t, instance);",
        )
        .unwrap();
    for (row, word) in (1_i64..).zip(&words) {
        sqlite.execute("INSERT INTO t (rowid, word) VALUES (?1, ?2)", rusqlite::params![row, word]).unwrap();
    }
    let mut select = sqlite.prepare("SELECT term FROM v ORDER BY doc").unwrap();
    let theirs: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(theirs.len(), words.len());
    // Two words have one stem for us exactly if they have one for FTS5.
    let mut index = Index::new(IndexLimits { entries: 10_000, bytes: 64 << 20 }).unwrap();
    for (n, word) in (1..).zip(&words) {
        index.add(id(n), word).unwrap();
    }
    let mut with_stem: HashMap<&str, BTreeSet<u128>> = HashMap::new();
    for (n, stem) in (1..).zip(&theirs) {
        with_stem.entry(stem).or_default().insert(n);
    }
    let mut differ = Vec::new();
    for ((n, word), stem) in (1_u128..).zip(&words).zip(&theirs) {
        let ours: BTreeSet<_> = index.search(word, 10_000, |_| true).into_iter().map(|(id, _)| id.as_u128()).collect();
        assert!(ours.contains(&n), "{word}");
        if ours != with_stem[stem.as_str()] {
            differ.push(format!("{word} ({stem})"));
        }
    }
    assert!(differ.is_empty(), "{} of {}: {differ:?}", differ.len(), words.len());
}

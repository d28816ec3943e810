//! Searches: what is found, in which order, by whom, and what a search leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../site/mod.rs"]
mod site;
mod vectors;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use logline_core::Visibility;
use logline_memory::{Kind, Layer, Memories, Memory, MemoryError, Mode, Sensitivity, Wanted, What};

use site::{Site, TENANT, block_on, contains, fact};

async fn found(memories: &Memories<'_>, query: &str) -> Vec<String> {
    let answer = memories.search(query, &Wanted::default()).await.unwrap();
    answer.hits.into_iter().map(|hit| hit.memory.body.text).collect()
}

fn shared(text: &str) -> Memory {
    fact(text).layer(Layer::Shared).visibility(Visibility::Tenant)
}

#[test]
fn scopes_come_in_their_strict_order_whatever_matches_best() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await.session("s1");
        let public = fact("tea tea tea for everybody").layer(Layer::Shared).sensitivity(Sensitivity::Public);
        alice.remember(&public.visibility(Visibility::Public)).await.unwrap();
        alice.remember(&shared("tea for the office, tea")).await.unwrap();
        alice.remember(&fact("likes tea at home, at four, with milk and no sugar")).await.unwrap();
        alice.remember(&fact("asked about tea in this session, among many other things").layer(Layer::Session)).await.unwrap();
        let answer = alice.search("tea", &Wanted::default()).await.unwrap();
        let scopes: Vec<_> = answer.hits.iter().map(|hit| hit.scope.as_str()).collect();
        assert_eq!(scopes, ["session", "private", "tenant", "public"]);
        assert!(answer.hits.iter().all(|hit| hit.score > 0.0 && !hit.preview.is_empty()));
        // Bob finds what is shared, and Carol of another tenant what is public.
        let bob = site.memories("bob", Mode::On).session("s1");
        bob.grant(None).await.unwrap();
        assert_eq!(found(&bob, "tea").await, ["tea for the office, tea", "tea tea tea for everybody"]);
        let carol = site.of("globex", "alice", Mode::On).session("s1");
        carol.grant(None).await.unwrap();
        assert_eq!(found(&carol, "tea").await, ["tea tea tea for everybody"]);
    });
}

#[test]
fn the_mode_session_only_finds_nothing_of_other_sessions() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await.session("s1");
        alice.remember(&fact("tea in general")).await.unwrap();
        alice.remember(&fact("tea in the first session").layer(Layer::Session)).await.unwrap();
        let first = site.memories("alice", Mode::SessionOnly).session("s1");
        assert_eq!(found(&first, "tea").await, ["tea in the first session"]);
        let second = site.memories("alice", Mode::SessionOnly).session("s2");
        assert_eq!(found(&second, "tea").await, Vec::<String>::new());
        assert!(matches!(
            site.memories("alice", Mode::Off).search("tea", &Wanted::default()).await,
            Err(MemoryError::NoConsent { .. })
        ));
    });
}

#[test]
fn superseded_expired_and_forgotten_memories_are_not_found() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        for sensitivity in [Sensitivity::Pii, Sensitivity::Public] {
            let of = |text: &str| fact(text).sensitivity(sensitivity);
            alice.remember(&of("lives in Porto").key("city")).await.unwrap();
            alice.remember(&of("lives in Lisbon").key("city")).await.unwrap();
            assert_eq!(found(&alice, "lives in Porto or Lisbon").await, ["lives in Lisbon"], "{sensitivity}");
            let goes = alice.remember(&of("lives with a parrot")).await.unwrap();
            let end = site.soon().await;
            alice.remember(&of("lives in a hotel").ttl_at(end)).await.unwrap();
            while site.now().await < end {
                tokio::task::yield_now().await;
            }
            assert_eq!(found(&alice, "parrot").await, ["lives with a parrot"]);
            alice.forget(&What::One(goes.id)).await.unwrap();
            assert_eq!(found(&alice, "lives").await, ["lives in Lisbon"], "{sensitivity}");
            alice.forget(&What::Subject).await.unwrap();
            assert_eq!(found(&alice, "lives").await, Vec::<String>::new());
        }
    });
}

#[test]
fn operators_quotes_and_noise_in_a_query_are_words_or_nothing() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("the code is 4711")).await.unwrap();
        alice.remember(&fact("the public code is 4712").sensitivity(Sensitivity::Public)).await.unwrap();
        for query in
            ["\"code", "code*", "NEAR(code, 4711)", "code OR (", "text:code", "' ; DROP TABLE memory --", "\0code", "code^2"]
        {
            let hits = found(&alice, query).await;
            assert_eq!(hits.len() == 2, query.contains("code"), "{query:?}: {hits:?}");
        }
        for query in ["", "   ", "\0", "\"\"", "***", &"x".repeat(100_000)] {
            assert_eq!(found(&alice, query).await, Vec::<String>::new());
        }
    });
}

#[test]
fn an_answer_keeps_its_budget_and_says_why_the_others_are_out() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        for n in 0..6 {
            alice.remember(&Memory::new(Kind::Note, format!("tea note number {n}"))).await.unwrap();
        }
        alice.remember(&fact("Tea note number 0.")).await.unwrap();
        alice.remember(&fact("tea fact").tag("drink")).await.unwrap();
        let mut wanted = Wanted::most(3);
        let answer = alice.search("tea", &wanted).await.unwrap();
        assert_eq!(answer.hits.len(), 3);
        let result = site.last(answer.result).await;
        let candidates = result.meta("candidates").unwrap().as_array().unwrap().clone();
        assert_eq!(candidates.len(), 8);
        let outs: Vec<_> = candidates.iter().filter_map(|candidate| candidate["out"].as_str()).collect();
        assert!(outs.contains(&"limit") && outs.len() == 5, "{outs:?}");
        assert!(result.meta("consent").is_some());
        wanted.limit = 10;
        wanted.tokens = 20;
        assert_eq!(alice.search("tea", &wanted).await.unwrap().hits.len(), 2);
        wanted.tokens = 2000;
        wanted.tags.insert("drink".to_owned());
        assert_eq!(alice.search("tea", &wanted).await.unwrap().hits.len(), 1);
        wanted.tags.clear();
        wanted.kinds.insert(Kind::Note);
        assert_eq!(alice.search("tea", &wanted).await.unwrap().hits.len(), 6);
    });
}

#[test]
fn neither_query_nor_text_of_a_search_stands_anywhere() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("allergic to penicillin")).await.unwrap();
        let answer = alice.search("penicillin or amoxicillin", &Wanted::default()).await.unwrap();
        assert_eq!(answer.hits.len(), 1);
        let bytes = site.bytes();
        for hidden in ["penicillin", "amoxicillin", "allergic", "amoxicil", "penicil"] {
            assert!(!contains(&bytes, hidden), "`{hidden}` is on the disk");
        }
    });
}

/// What begins after the receipt never returns the memory, on this host and on another one that has it in its index.
#[test]
fn a_search_that_begins_after_a_receipt_never_finds_what_was_forgotten() {
    block_on(async {
        let site = Arc::new(Site::new().await);
        site.alice().await;
        let kernel = logline_memory::MemoryKernel::new(site::vault(site.folder.path())).search_in(site.ledger.clone());
        let other = Arc::new((site::host(&site.ledger, &site.trust, &kernel).await, kernel));
        let alice = site.memories("alice", Mode::On);
        for round in 0..5 {
            let kept = alice.remember(&fact(&format!("secret number {round}"))).await.unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let searches = (0..4).map(|n| {
                let (site, other, done) = (Arc::clone(&site), Arc::clone(&other), Arc::clone(&done));
                tokio::spawn(async move {
                    let (host, vault) =
                        if n % 2 == 0 { (&site.host, site.kernel.vault()) } else { (&other.0, other.1.vault()) };
                    let alice = Memories::new(host, vault, TENANT, "alice", Mode::On);
                    loop {
                        let began_after = done.load(Ordering::SeqCst);
                        let hits = alice.search("secret", &Wanted::default()).await;
                        let found = match hits {
                            Ok(answer) => answer.hits.iter().any(|hit| hit.memory.id == kept.id),
                            // The key of the query was replaced meanwhile.
                            Err(MemoryError::Failed(failure)) if failure.code == "erased" => false,
                            Err(error) => panic!("{error:?}"),
                        };
                        assert!(!(began_after && found), "a search found what was forgotten before it began");
                        if began_after {
                            return;
                        }
                    }
                })
            });
            let searches: Vec<_> = searches.collect();
            alice.forget(&What::One(kept.id)).await.unwrap();
            done.store(true, Ordering::SeqCst);
            for search in searches {
                search.await.unwrap();
            }
        }
    });
}

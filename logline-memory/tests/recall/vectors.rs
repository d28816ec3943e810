//! Searches with an embedder: what it finds beside words, which texts it is given, and what happens while it fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::provider::{ErrorKind, ProviderError, Purpose};
use logline_core::ledger::search::{Search as _, Vector, VectorModel};
use logline_core::{Draft, Scope, Visibility};
use logline_memory::embed::{BreakerOptions, EmbedError, Embedder};
use logline_memory::{Kind, Layer, Memory, Mode, Sensitivity, Wanted, What};
use serde_json::json;

use crate::site::{Site, TENANT, block_on, fact};

/// Knows three meanings, whatever the words, and nothing else.
struct Meanings {
    model: VectorModel,
    is_local: bool,
    is_down: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
}

const MEANINGS: [&[&str]; 3] = [&["automobile", "car", "vehicle"], &["physician", "doctor"], &["tea", "infusion"]];

#[async_trait]
impl Embedder for Meanings {
    fn model(&self) -> &VectorModel {
        &self.model
    }

    fn is_local(&self) -> bool {
        self.is_local
    }

    async fn embed(&self, texts: &[String], _: Purpose) -> Result<Vec<Vector>, EmbedError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ProviderError::new(ErrorKind::Unreachable, "scripted").into());
        }
        self.seen.lock().unwrap().extend(texts.iter().cloned());
        let vector = |text: &String| {
            let means = |words: &&[&str]| words.iter().any(|word| text.contains(word));
            let mut values: Vec<f32> = MEANINGS.iter().map(|words| if means(words) { 1.0 } else { 0.0 }).collect();
            values.push(0.1);
            Vector::new(&self.model, values).map_err(EmbedError::from)
        };
        texts.iter().map(vector).collect()
    }
}

struct Scripted {
    site: Site,
    is_down: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new(is_local: bool) -> Self {
        let (is_down, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let model = VectorModel::new("meanings", "1", 4).unwrap();
        let embedder = Meanings { model, is_local, is_down: Arc::clone(&is_down), seen: Arc::clone(&seen) };
        let options = BreakerOptions { failures: 1, pause: Duration::from_millis(1), ..BreakerOptions::default() };
        let site = Site::with(|kernel| kernel.embedder(embedder, options)).await;
        Self { site, is_down, seen }
    }

    fn has_seen(&self, text: &str) -> bool {
        self.seen.lock().unwrap().iter().any(|seen| seen.contains(text))
    }
}

fn public(text: &str) -> Memory {
    fact(text).layer(Layer::Shared).sensitivity(Sensitivity::Public).visibility(Visibility::Tenant)
}

async fn texts(memories: &logline_memory::Memories<'_>, query: &str) -> Vec<String> {
    let answer = memories.search(query, &Wanted::most(10)).await.unwrap();
    answer.hits.into_iter().map(|hit| hit.memory.body.text).collect()
}

#[test]
fn what_shares_no_word_with_the_query_is_found_in_every_scope_by_its_owner() {
    block_on(async {
        let scripted = Scripted::new(true).await;
        let alice = scripted.site.alice().await.session("s1");
        alice.remember(&fact("owns an old automobile")).await.unwrap();
        alice.remember(&fact("asked for a vehicle today").layer(Layer::Session)).await.unwrap();
        alice
            .remember(&fact("automobile pool of the office").layer(Layer::Shared).visibility(Visibility::Tenant))
            .await
            .unwrap();
        alice.remember(&public("every automobile here is electric")).await.unwrap();
        alice.remember(&fact("prefers tea").key("drink")).await.unwrap();
        let found = texts(&alice, "which car").await;
        assert_eq!(found[..2], ["asked for a vehicle today", "owns an old automobile"]);
        assert!(
            found.iter().any(|text| text.contains("pool")) && found.iter().any(|text| text.contains("electric")),
            "{found:?}"
        );
        let bob = scripted.site.memories("bob", Mode::On).session("s1");
        bob.grant(None).await.unwrap();
        let of_bob = texts(&bob, "which car").await;
        assert!(
            of_bob.iter().all(|text| text.contains("pool") || text.contains("electric")) && of_bob.len() == 2,
            "{of_bob:?}"
        );
        let carol = scripted.site.of("globex", "alice", Mode::On);
        carol.grant(None).await.unwrap();
        assert!(texts(&carol, "which car").await.is_empty());
        // The record says by which model.
        let record = scripted.site.rows("memory_search_result").await.pop().unwrap();
        let vectors = record.meta("vectors").unwrap();
        assert_eq!((vectors["model"].as_str(), vectors["dimensions"].as_u64()), (Some("meanings"), Some(4)));

        // What is forgotten or superseded leaves with its vector.
        let owns = alice.search("which car", &Wanted::most(10)).await.unwrap().hits[1].memory.id;
        alice.forget(&What::One(owns)).await.unwrap();
        alice.remember(&fact("prefers her doctor").key("drink")).await.unwrap();
        assert!(!texts(&alice, "which car").await.iter().any(|text| text.contains("old automobile")));
        let infusion = texts(&alice, "infusion").await;
        assert!(!infusion.contains(&"prefers tea".to_owned()), "{infusion:?}");
    });
}

#[test]
fn vectors_of_private_texts_stand_nowhere_on_the_disk() {
    block_on(async {
        let scripted = Scripted::new(true).await;
        let alice = scripted.site.alice().await;
        alice.remember(&fact("owns an old automobile")).await.unwrap();
        alice.remember(&public("the physician comes on Mondays")).await.unwrap();
        assert_eq!(texts(&alice, "car").await[0], "owns an old automobile");
        let model = VectorModel::new("meanings", "1", 4).unwrap();
        let on_the_disk = |values: Vec<f32>| {
            let (bytes, vector) = (scripted.site.bytes(), Vector::new(&model, values).unwrap().to_bytes());
            bytes.windows(vector.len()).any(|window| window == vector)
        };
        assert!(on_the_disk(vec![0.0, 1.0, 0.0, 0.1]), "that of a public text would have been found");
        assert!(!on_the_disk(vec![1.0, 0.0, 0.0, 0.1]));
    });
}

#[test]
fn an_embedder_elsewhere_is_given_public_texts_and_queries_alone() {
    block_on(async {
        let scripted = Scripted::new(false).await;
        let alice = scripted.site.alice().await;
        alice.remember(&fact("owns an old automobile")).await.unwrap();
        alice.remember(&public("every automobile here is electric")).await.unwrap();
        assert_eq!(texts(&alice, "car").await, ["every automobile here is electric"]);
        assert_eq!(texts(&alice, "old").await, ["owns an old automobile", "every automobile here is electric"]);
        assert!(scripted.has_seen("electric") && scripted.has_seen("car") && !scripted.has_seen("owns"));
        // Nobody is asked without a consent.
        alice.revoke().await.unwrap();
        assert!(alice.search("secret wish", &Wanted::most(10)).await.is_err());
        assert!(!scripted.has_seen("secret wish"));
    });
}

#[test]
fn while_the_embedder_fails_memories_are_kept_and_found_by_their_words() {
    block_on(async {
        let scripted = Scripted::new(true).await;
        let alice = scripted.site.alice().await;
        scripted.is_down.store(true, Ordering::SeqCst);
        alice.remember(&Memory::new(Kind::Note, "owns an old automobile")).await.unwrap();
        alice.remember(&public("every automobile here is electric")).await.unwrap();
        assert_eq!(texts(&alice, "automobile").await.len(), 2);
        assert!(texts(&alice, "car").await.is_empty());
        let record = scripted.site.rows("memory_search_result").await.pop().unwrap();
        let vectors = record.meta("vectors").unwrap();
        assert!(vectors["missing"].is_string() && vectors["waiting"] == 1, "{vectors}");
        assert!(!record.meta("vectors").unwrap().to_string().contains("car"));
        let model = VectorModel::new("meanings", "1", 4).unwrap();
        let pending = scripted.site.ledger.pending(&Scope::runtime(TENANT), &model, None, 10).await.unwrap();
        assert_eq!(pending.len(), 1, "it waits, where everybody can see it");
        scripted.is_down.store(false, Ordering::SeqCst);
        // The breaker lets the next call through after its pause.
        while texts(&alice, "car").await.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(scripted.site.ledger.pending(&Scope::runtime(TENANT), &model, None, 10).await.unwrap().is_empty());
    });
}

#[test]
fn what_was_shared_reaches_no_embedder_after_the_consent_is_withdrawn() {
    block_on(async {
        let scripted = Scripted::new(false).await;
        let alice = scripted.site.alice().await;
        scripted.is_down.store(true, Ordering::SeqCst);
        alice.remember(&public("every automobile here is electric")).await.unwrap();
        let bob = scripted.site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        bob.remember(&public("the physician comes on Mondays")).await.unwrap();
        alice.revoke().await.unwrap();
        // A row that only the ledger's text search believes.
        let forged = Draft::new("memory")
            .tenant(TENANT)
            .owner("bob")
            .who("host")
            .this("memory.fact")
            .status("active")
            .visibility(Visibility::Tenant);
        let forged = forged.content(json!({"text": "forged infusion"})).meta("sensitivity", "public").meta("layer", "shared");
        scripted.site.forge(forged, 66).await;
        scripted.is_down.store(false, Ordering::SeqCst);
        while !scripted.has_seen("physician") {
            drop(bob.search("doctor", &Wanted::most(10)).await.unwrap());
        }
        assert!(!scripted.has_seen("electric") && !scripted.has_seen("infusion"));
        // Given again, it covers what was kept before.
        alice.grant(None).await.unwrap();
        while !scripted.has_seen("electric") {
            drop(bob.search("doctor", &Wanted::most(10)).await.unwrap());
        }
        assert!(!scripted.has_seen("infusion"));
    });
}

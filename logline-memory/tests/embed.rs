//! Embedders: the breaker, what fails, and memories that get their vectors later.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::provider::{
    EmbedRequest, Embeddings, Endpoint, ErrorKind, ModelAnswer, ModelRequest, Provider, ProviderError, Purpose, Usage,
};
use logline_core::ledger::search::{InvalidVector, Search, SearchQuery, SearchScope, Vector, VectorModel};
use logline_core::ledger::{AppendOptions, Ledger, LedgerError};
use logline_core::{Draft, KeyPair, ManualClock, MemoryLedger, Scope, SignedSpan, Timestamp, Visibility};
use logline_memory::embed::{
    Breaker, BreakerOptions, BreakerState, EmbedError, Embedder, HashedEmbedder, Permits, ProviderEmbedder, fill_pending,
};
use uuid::Uuid;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// Says with which error a call fails, from its number and its texts.
type Fails = Box<dyn Fn(usize, &[String]) -> Option<ErrorKind> + Send + Sync>;

/// An embedder that does what the test says.
struct Scripted {
    hashed: HashedEmbedder,
    calls: AtomicUsize,
    fails: Fails,
}

impl Scripted {
    fn new(fails: impl Fn(usize, &[String]) -> Option<ErrorKind> + Send + Sync + 'static) -> Self {
        Self { hashed: HashedEmbedder::new(64).unwrap(), calls: AtomicUsize::new(0), fails: Box::new(fails) }
    }
}

#[async_trait]
impl Embedder for Scripted {
    fn model(&self) -> &VectorModel {
        self.hashed.model()
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> Result<Vec<Vector>, EmbedError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match (self.fails)(call, texts) {
            Some(ErrorKind::TimedOut) => std::future::pending().await,
            Some(kind) => Err(ProviderError::new(kind, "scripted").into()),
            None => self.hashed.embed(texts, purpose).await,
        }
    }
}

fn texts() -> Vec<String> {
    vec!["one text".to_owned(), "another".to_owned()]
}

#[test]
fn an_embedder_that_keeps_failing_is_left_alone_and_tried_again() {
    block_on(async {
        let clock = Arc::new(ManualClock::new(start()));
        let options = BreakerOptions { failures: 3, ..BreakerOptions::default() };
        let inner = Scripted::new(|call, _| (call < 4).then_some(ErrorKind::Unreachable));
        let breaker = Breaker::new(inner, options, clock.clone());
        for _ in 0..3 {
            assert_eq!(breaker.state(), BreakerState::Closed);
            assert!(matches!(breaker.embed(&texts(), Purpose::Query).await, Err(EmbedError::Provider(_))));
        }
        assert!(matches!(breaker.state(), BreakerState::Open(_)));
        assert!(matches!(breaker.embed(&texts(), Purpose::Query).await, Err(EmbedError::Open { seconds: 30, .. })));
        clock.advance(Duration::from_secs(31));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(matches!(breaker.embed(&texts(), Purpose::Query).await, Err(EmbedError::Provider(_))), "the trial fails");
        assert!(
            matches!(breaker.embed(&texts(), Purpose::Query).await, Err(EmbedError::Open { .. })),
            "one trial for each pause"
        );
        clock.advance(Duration::from_secs(31));
        assert_eq!(breaker.embed(&texts(), Purpose::Query).await.unwrap().len(), 2);
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Closed, 1));
    });
}

#[test]
fn a_request_that_is_wrong_does_not_make_the_provider_look_as_if_it_failed() {
    block_on(async {
        let options = BreakerOptions { failures: 1, ..BreakerOptions::default() };
        let inner = Scripted::new(|_, _| Some(ErrorKind::ContentFiltered));
        let breaker = Breaker::new(inner, options, Arc::new(ManualClock::new(start())));
        for _ in 0..5 {
            assert!(matches!(breaker.embed(&texts(), Purpose::Query).await, Err(EmbedError::Provider(_))));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    });
}

#[test]
fn a_call_that_hangs_ends_and_counts_as_failed() {
    block_on(async {
        let options = BreakerOptions { failures: 1, ..BreakerOptions::default() };
        let inner = Scripted::new(|_, _| Some(ErrorKind::TimedOut));
        let breaker = Breaker::new(inner, options, Arc::new(ManualClock::new(start())));
        let error = breaker.embed(&texts(), Purpose::Query).await.unwrap_err();
        assert!(matches!(&error, EmbedError::Provider(error) if error.kind == ErrorKind::TimedOut), "{error}");
        assert!(!error.to_string().contains("one text"));
        assert!(matches!(breaker.state(), BreakerState::Open(_)));
    });
}

#[test]
fn a_trial_that_its_caller_drops_lets_the_next_one_try() {
    block_on(async {
        let clock = Arc::new(ManualClock::new(start()));
        let options = BreakerOptions { failures: 1, ..BreakerOptions::default() };
        let inner = Scripted::new(|call, _| match call {
            0 => Some(ErrorKind::Unreachable),
            1 => Some(ErrorKind::TimedOut),
            _ => None,
        });
        let breaker = Breaker::new(inner, options, clock.clone());
        assert!(breaker.embed(&texts(), Purpose::Query).await.is_err());
        clock.advance(Duration::from_secs(31));
        let dropped = tokio::time::timeout(Duration::from_millis(1), breaker.embed(&texts(), Purpose::Query)).await;
        assert!(dropped.is_err());
        assert!(breaker.embed(&texts(), Purpose::Query).await.is_ok());
    });
}

#[test]
fn the_hashed_embedder_says_what_it_is() {
    block_on(async {
        let hashed = HashedEmbedder::new(128).unwrap();
        assert_eq!(hashed.model().name(), "hashed-words");
        let same =
            hashed.embed(&["the red car".to_owned(), "car, the RED".to_owned(), String::new()], Purpose::Query).await.unwrap();
        assert_eq!(same[0], same[1]);
        assert_eq!(same.len(), 3);
        assert_eq!(HashedEmbedder::new(0).err(), Some(InvalidVector::Dimensions(0)));
        assert!(!format!("{:?}", same[0]).contains("values"));
    });
}

/// A provider that answers with the vectors of the test.
struct Fixed(Vec<Vec<f32>>);

#[async_trait]
impl Provider for Fixed {
    fn adapter(&self) -> &str {
        "fixed"
    }

    async fn invoke(&self, _: &Endpoint<'_>, _: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        Err(ProviderError::new(ErrorKind::Invalid, "no model"))
    }

    async fn embed(&self, endpoint: &Endpoint<'_>, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        assert_eq!((endpoint.model, request.dimensions), ("small", Some(2)));
        Ok(Embeddings::new(self.0.clone(), Usage::default()))
    }
}

#[test]
fn a_providers_answer_is_checked_before_it_is_used() {
    block_on(async {
        let model = VectorModel::new("small", "1", 2).unwrap();
        let embed = async |vectors: Vec<Vec<f32>>| {
            let embedder = ProviderEmbedder::new(Arc::new(Fixed(vectors)), model.clone());
            embedder.embed(&texts(), Purpose::Document).await
        };
        assert_eq!(embed(vec![vec![3.0, 4.0], vec![0.0, 1.0]]).await.unwrap()[0].values(), [0.6, 0.8]);
        assert!(matches!(embed(vec![vec![1.0, 0.0]]).await, Err(EmbedError::Count { expected: 2, found: 1 })));
        let other = embed(vec![vec![1.0], vec![1.0]]).await;
        assert!(matches!(other, Err(EmbedError::Vector(InvalidVector::OtherDimensions { expected: 2, found: 1 }))));
        assert!(matches!(
            embed(vec![vec![f32::NAN, 0.0], vec![1.0, 0.0]]).await,
            Err(EmbedError::Vector(InvalidVector::NotFinite))
        ));
        let embedder = ProviderEmbedder::new(Arc::new(Fixed(Vec::new())), model.clone());
        for texts in [vec![], vec![" ".to_owned()], vec!["x".to_owned(); 97]] {
            assert!(
                matches!(embedder.embed(&texts, Purpose::Query).await, Err(EmbedError::Provider(error)) if error.kind == ErrorKind::Invalid)
            );
        }
    });
}

async fn remember(ledger: &MemoryLedger, n: u128, text: &str) {
    let draft =
        Draft::new("memory").id(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)).tenant("acme").owner("alice");
    let draft = draft.who("runtime").this("memory.fact").at(start()).status("active").visibility(Visibility::Tenant);
    let draft = draft.content(serde_json::json!({"text": text})).meta("sensitivity", "public").meta("layer", "permanent");
    let span = draft.seal_local(&KeyPair::from_seed(&[9; 32])).unwrap();
    ledger.append(&Scope::runtime("acme"), vec![span], &AppendOptions::default()).await.unwrap();
}

struct Everything;

#[async_trait]
impl Permits for Everything {
    async fn permits(&self, _: &SignedSpan) -> Result<bool, LedgerError> {
        Ok(true)
    }
}

#[test]
fn memories_wait_for_their_vectors_and_one_bad_text_does_not_hold_up_the_others() {
    block_on(async {
        let ledger = MemoryLedger::new();
        for n in 0..150 {
            remember(&ledger, n, if n == 40 { "poison" } else { "a harmless text about cats" }).await;
        }
        let down = Scripted::new(|_, _| Some(ErrorKind::Unreachable));
        assert!(fill_pending(&ledger, "acme", &down, &Everything, &mut None, 1000).await.is_err());
        let query = SearchQuery::new(SearchScope::Tenant, "poison", start(), 10);
        let alice = Scope::user("acme", "alice");
        assert_eq!(ledger.search_text(&alice, &query).await.unwrap().len(), 1, "found by text while the embedder is down");
        let picky = Scripted::new(|_, texts| texts.iter().any(|text| text == "poison").then_some(ErrorKind::ContentFiltered));
        let filled = fill_pending(&ledger, "acme", &picky, &Everything, &mut None, 1000).await.unwrap();
        assert_eq!((filled.filled, filled.refused, filled.changed), (149, 1, 0));
        let pending = ledger.pending(&Scope::runtime("acme"), picky.model(), None, 10).await.unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].id.as_u128() & 0xff, 40);
        // Wherever a call begins, it looks at each once.
        for start in [39, 40, 41] {
            let mut place = Some(Uuid::from_u128(pending[0].id.as_u128() - 40 + start));
            let again = fill_pending(&ledger, "acme", &picky, &Everything, &mut place, 1000).await.unwrap();
            assert_eq!((again.refused, place), (1, None), "{start}");
        }
        let cats = picky.embed(&["cats".to_owned()], Purpose::Query).await.unwrap();
        let mut all = query.clone();
        all.limit = 200;
        assert_eq!(ledger.search_vector(&alice, &all, &cats[0]).await.unwrap().len(), 149);
        assert_eq!(fill_pending(&ledger, "acme", &picky, &Everything, &mut None, 0).await.unwrap().filled, 0);
    });
}

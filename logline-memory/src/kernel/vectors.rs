//! Vectors in searches. Those of public texts are in the ledger; those of other texts are in this process alone, beside the index of their
//! words, and only if the embedder is in this process as well.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use logline_core::contract::Reader;
use logline_core::contract::provider::{EmbedRequest, Purpose};
use logline_core::ledger::search::{Vector, VectorModel, VectorSupport};
use logline_core::ledger::{LedgerError, Search};
use logline_core::trust::Authorities;
use logline_core::{Scope, SignedSpan, SystemClock, Timestamp, Verifier};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::MemoryKernel;
use crate::belief::accepted;
use crate::consent::is_in_force;
use crate::embed::{Breaker, BreakerOptions, EmbedError, Embedder, Filled, Permits, fill_pending};

/// How many texts one look at a user's memories embeds, so that a first search does not wait for all of them. The next one goes on.
pub(super) const PER_LOOK: usize = 256;

/// How many public memories a search gives vectors to that have none.
const PER_SEARCH: usize = 96;

/// What a host makes vectors with.
#[derive(Clone)]
pub(super) struct Embedding {
    embedder: Arc<dyn Embedder>,
    /// Whether the ledger keeps vectors, once that is known.
    is_kept: Arc<OnceCell<bool>>,
    /// Where the next look at a tenant's memories without vectors begins. Some can get none, and must not keep the others waiting.
    places: Arc<Mutex<HashMap<String, Uuid>>>,
}

impl Embedding {
    pub(super) fn new(embedder: impl Embedder + 'static, options: BreakerOptions) -> Self {
        let embedder = Arc::new(Breaker::new(embedder, options, Arc::new(SystemClock)));
        Self { embedder, is_kept: Arc::default(), places: Arc::default() }
    }

    /// The embedder for texts that must not leave this process. `None` if it sends texts elsewhere.
    pub(super) fn private(&self) -> Option<&dyn Embedder> {
        Some(self.embedder.as_ref()).filter(|embedder| embedder.is_local())
    }

    async fn is_kept_by(&self, ledger: &dyn Search) -> bool {
        let ask = || async {
            let support = ledger.vector_support().await?;
            if let VectorSupport::Missing { advice } = &support {
                tracing::warn!(advice, "this ledger keeps no vectors of public memories");
            }
            Ok::<_, LedgerError>(!matches!(support, VectorSupport::Missing { .. }))
        };
        self.is_kept.get_or_try_init(ask).await.copied().unwrap_or(false)
    }
}

/// The vector of a query, and what the record of the search says about it.
pub(super) struct Asked {
    pub(super) vector: Option<Vector>,
    /// Whether the ledger may be asked for vectors.
    pub(super) is_kept: bool,
    told: Option<Value>,
}

impl Asked {
    pub(super) fn told(&self, waiting: usize) -> Option<Value> {
        let mut told = self.told.clone()?;
        if let Some(members) = told.as_object_mut() {
            members.insert("waiting".to_owned(), waiting.into());
        }
        Some(told)
    }
}

impl MemoryKernel {
    /// Makes the vector of a query, if the host has an embedder. If that fails, the search finds by text alone, and its record says so.
    pub(super) async fn ask_for_vectors(&self, authorities: &Authorities, tenant: &str, now: Timestamp, query: &str) -> Asked {
        let none = Asked { vector: None, is_kept: false, told: None };
        let Some(embedding) = &self.embedding else { return none };
        let model = embedding.embedder.model();
        let mut told = json!({"model": model.name(), "version": model.version(), "dimensions": model.dimensions()});
        let made = embedding.embedder.embed(&[query.to_owned()], Purpose::Query).await;
        let made = made.and_then(|vectors| vectors.into_iter().next().ok_or(EmbedError::Count { expected: 1, found: 0 }));
        let mut is_kept = false;
        if made.is_ok()
            && let Some(ledger) = &self.search
        {
            is_kept = embedding.is_kept_by(ledger.as_ref()).await;
            if is_kept && let Err(error) = self.embed_pending(authorities, tenant, now, PER_SEARCH).await {
                tracing::debug!(tenant, %error, "some memories wait for their vectors");
            }
        }
        if let (Err(error), Some(members)) = (&made, told.as_object_mut()) {
            tracing::debug!(tenant, %error, "a search finds by text alone");
            metrics::counter!("logline_memory_searches_without_vectors_total").increment(1);
            members.insert("missing".to_owned(), error.to_string().into());
        }
        Asked { vector: made.ok(), is_kept, told: Some(told) }
    }

    /// Gives vectors to at most `most` public memories of a tenant that have none: those that are new, and those for which the embedder has
    /// failed. A search does so for a few; the loop `memory_keeper` for the others.
    ///
    /// The embedder sees no text that is not signed by a host of `authorities`, and none whose owner has withdrawn the consent.
    ///
    /// # Errors
    /// [`EmbedError`]. What has no vector stays pending, and is found by its words.
    pub async fn embed_pending(
        &self,
        authorities: &Authorities,
        tenant: &str,
        now: Timestamp,
        most: usize,
    ) -> Result<Filled, EmbedError> {
        let (Some(embedding), Some(ledger)) = (&self.embedding, &self.search) else { return Ok(Filled::default()) };
        if !embedding.is_kept_by(ledger.as_ref()).await {
            return Ok(Filled::default());
        }
        let places = || embedding.places.lock().unwrap_or_else(PoisonError::into_inner);
        let before = places().get(tenant).copied();
        let (mut place, consents) = (before, Consents { ledger: ledger.as_ref(), authorities, now });
        let filled = fill_pending(ledger.as_ref(), tenant, embedding.embedder.as_ref(), &consents, &mut place, most).await;
        let mut places = places();
        // Another call may have gone on in the meantime.
        if places.get(tenant).copied() == before {
            match place {
                Some(place) => drop(places.insert(tenant.to_owned(), place)),
                None => drop(places.remove(tenant)),
            }
        }
        filled
    }
}

/// Permits what a host has remembered for somebody who still agrees.
struct Consents<'a> {
    ledger: &'a dyn Search,
    authorities: &'a Authorities,
    now: Timestamp,
}

#[async_trait]
impl Permits for Consents<'_> {
    async fn permits(&self, memory: &SignedSpan) -> Result<bool, LedgerError> {
        let Some(memory) = accepted(self.authorities, &mut Verifier::new(), memory.clone()) else { return Ok(false) };
        let reader = Reader::new(self.ledger, Scope::runtime(&memory.tenant_id));
        is_in_force(&reader, self.authorities, &memory, self.now).await
    }
}

/// The vectors of the memories of a shelf: flat, bounded, and overwritten when they are dropped. A text can be guessed from its vector.
#[derive(Default)]
pub(super) struct Vectors {
    of: Option<VectorModel>,
    kept: HashMap<Uuid, Zeroizing<Vec<f32>>>,
    /// Memories that have none yet.
    waiting: BTreeSet<Uuid>,
    /// How many there may be.
    most: usize,
}

impl Vectors {
    /// Room for vectors of this many bytes.
    pub(super) fn new(embedder: &dyn Embedder, bytes: usize) -> Self {
        let most = bytes / (embedder.model().dimensions() * size_of::<f32>()).max(1);
        Self { of: Some(embedder.model().clone()), most, ..Self::default() }
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.kept.remove(&id);
        self.waiting.remove(&id);
    }

    pub(super) fn wait(&mut self, id: Uuid) {
        if self.kept.len() + self.waiting.len() < self.most {
            self.waiting.insert(id);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Memories that have waited, at most `most`.
    pub(super) fn next(&self, most: usize) -> Vec<Uuid> {
        self.waiting.iter().take(most).copied().collect()
    }

    /// Makes the vectors of texts. What the embedder cannot make now waits; what it refuses for what the text says has none.
    pub(super) async fn embed(&mut self, embedder: &dyn Embedder, texts: Vec<(Uuid, Zeroizing<String>)>) {
        let mut texts = texts.into_iter();
        loop {
            let some: Vec<_> = texts.by_ref().take(EmbedRequest::MAX_TEXTS).collect();
            if some.is_empty() {
                return;
            }
            let (ids, some): (Vec<_>, Vec<_>) = some.into_iter().map(|(id, text)| (id, text.as_str().to_owned())).unzip();
            let made = embedder.embed(&some, Purpose::Document).await;
            match made {
                Ok(vectors) if vectors.len() == ids.len() => {
                    ids.iter().zip(&vectors).for_each(|(id, vector)| self.put(*id, vector))
                }
                Err(error) if !error.is_providers() && !matches!(error, EmbedError::Open { .. }) => {
                    for (id, text) in ids.into_iter().zip(&some) {
                        match embedder.embed(std::slice::from_ref(text), Purpose::Document).await {
                            Ok(vectors) => vectors.iter().take(1).for_each(|vector| self.put(id, vector)),
                            Err(_) => self.remove(id),
                        }
                    }
                }
                _ => ids.into_iter().for_each(|id| self.wait(id)),
            }
            some.into_iter().for_each(|text| drop(Zeroizing::new(text)));
        }
    }

    fn put(&mut self, id: Uuid, vector: &Vector) {
        self.waiting.remove(&id);
        // INVARIANT: vectors of different models, versions or dimensions are never compared.
        if self.of.as_ref() == Some(vector.model()) && (self.kept.len() < self.most || self.kept.contains_key(&id)) {
            self.kept.insert(id, Zeroizing::new(vector.values().to_vec()));
        }
    }

    /// The memories with the greatest cosine that are admitted, the nearest first.
    pub(super) fn nearest(&self, query: &Vector, limit: usize, admits: impl Fn(Uuid) -> bool) -> Vec<(Uuid, f64)> {
        if self.of.as_ref() != Some(query.model()) {
            return Vec::new();
        }
        let cosine =
            |values: &[f32]| query.values().iter().zip(values).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
        let mut found: Vec<(Uuid, f64)> =
            self.kept.iter().filter(|(id, _)| admits(**id)).map(|(id, values)| (*id, cosine(values))).collect();
        found.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| right.0.cmp(&left.0)));
        found.truncate(limit);
        found
    }
}

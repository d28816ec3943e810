//! Stores a corpus, asks its questions, and counts how often the answer was found.

use std::collections::{BTreeMap, HashMap};

use logline_core::ledger::AppendOptions;
use logline_core::ledger::search::{Search, SearchQuery, SearchScope};
use logline_core::{Draft, KeyPair, Scope, Timestamp, VerifiedSpan, Visibility};
use logline_memory::index::{Index, IndexLimits};
use logline_memory::rank::{Budget, Candidate, Key, List, ListKind, Out, Tier, Verdict, rank};
use serde_json::json;
use uuid::Uuid;

use super::{Corpus, Memory, Question, State};

/// The indexes of private memories, by tenant and owner.
pub(crate) type Private = HashMap<(String, String), Index>;

/// How often the answer was among the first of its scope, and where.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Recall {
    pub(crate) questions: usize,
    pub(crate) at_1: usize,
    pub(crate) at_5: usize,
    pub(crate) at_10: usize,
    /// The sum of the reciprocals of the places.
    pub(crate) reciprocal: f64,
    /// How often it was in the answer of all scopes.
    pub(crate) answered: usize,
}

impl Recall {
    pub(crate) fn share(self, count: usize) -> f64 {
        count as f64 / self.questions.max(1) as f64
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn version(memory: &Memory, n: usize) -> Draft {
    let at = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().saturating_add(std::time::Duration::from_secs(n as u64));
    let visibility = match memory.tier {
        Tier::Tenant => Visibility::Tenant,
        Tier::Public => Visibility::Public,
        _ => Visibility::Private,
    };
    let layer = match memory.tier {
        Tier::Session => "session",
        Tier::Temporary => "temporary",
        Tier::Permanent => "permanent",
        Tier::Tenant | Tier::Public => "shared",
    };
    let draft = Draft::new("memory").id(memory.id).tenant(memory.tenant).owner(memory.owner.clone()).who("runtime");
    let draft = draft.this("memory.fact").at(at).visibility(visibility).status("active").content(json!({"text": memory.text}));
    let draft = draft.meta("layer", layer).meta("sensitivity", "public");
    match &memory.session {
        Some(session) => draft.meta("session_id", session.clone()),
        None => draft,
    }
}

/// Stores what may stand in the store in `ledger`, and indexes the rest in this process.
pub(crate) async fn store<S: Search>(ledger: &S, corpus: &Corpus) -> Private {
    let key = KeyPair::from_seed(&[5; 32]);
    let mut private = Private::new();
    let mut spans: Vec<VerifiedSpan> = Vec::new();
    for (n, memory) in corpus.memories.iter().enumerate() {
        if !memory.is_public {
            let whose = (memory.tenant.to_owned(), memory.owner.clone());
            let index = private.entry(whose).or_insert_with(|| Index::new(IndexLimits::default()).unwrap());
            index.add(memory.id, &memory.text).unwrap();
            if memory.state != State::Live {
                index.remove(memory.id);
            }
            continue;
        }
        let draft = version(memory, n);
        let draft = if memory.state == State::Expired { draft.meta("ttl_at", "2026-05-01T00:00:00Z") } else { draft };
        let first = draft.seal_local(&key).unwrap();
        let status = match memory.state {
            State::Superseded => Some("superseded"),
            State::Forgotten => Some("forgotten"),
            State::Live | State::Expired => None,
        };
        let second = status.map(|status| Draft::next_version(&first).at(first.at).status(status).seal_local(&key).unwrap());
        spans.push(first);
        spans.extend(second);
    }
    for batch in spans.chunks(1000) {
        ledger.append(&Scope::Operator, batch.to_vec(), &AppendOptions::default()).await.unwrap();
    }
    private
}

/// Asks one question: what each scope found, and the answer of all.
pub(crate) async fn ask<S: Search>(
    ledger: &S,
    private: &Private,
    known: &HashMap<Uuid, &Memory>,
    question: &Question,
) -> Asked {
    let scope = Scope::user(question.tenant, question.user.clone());
    let index = private.get(&(question.tenant.to_owned(), question.user.clone()));
    let mut asked = Asked::default();
    let mut candidates = Vec::new();
    for place in
        [SearchScope::Session { id: question.session.clone() }, SearchScope::Private, SearchScope::Tenant, SearchScope::Public]
    {
        let name = match &place {
            SearchScope::Session { .. } => "session",
            SearchScope::Private => "private",
            SearchScope::Tenant => "tenant",
            SearchScope::Public => "public",
        };
        let is_here = |memory: &Memory| match name {
            "session" => memory.session.as_ref() == Some(&question.session),
            _ => memory.tier.scope() == name,
        };
        let query = SearchQuery::new(place, question.text.clone(), now(), 20);
        let hits = ledger.search_text(&scope, &query).await.unwrap();
        let stored: Vec<_> = hits.into_iter().map(|hit| (Key::new(hit.tenant_id, hit.id), hit.score)).collect();
        let inside = match name {
            "session" | "private" => index.map_or_else(Vec::new, |index| {
                index.search(&question.text, 20, |id| known.get(&id).is_some_and(|memory| is_here(memory)))
            }),
            _ => Vec::new(),
        };
        let inside: Vec<_> = inside.into_iter().map(|(id, score)| (Key::new(question.tenant, id), score)).collect();
        for (key, _) in stored.iter().chain(&inside) {
            let memory = known[&key.id];
            candidates.push(Candidate {
                key: key.clone(),
                tier: memory.tier,
                at: now(),
                is_promoted: memory.tier == Tier::Permanent,
                text: memory.text.clone(),
                withheld: None,
            });
        }
        for hits in [stored, inside] {
            asked.lists.push(List { scope: name, kind: ListKind::Text, hits });
        }
    }
    let ranking = rank(&candidates, &asked.lists, Budget::default());
    for explained in ranking.explained {
        if !matches!(explained.verdict, Verdict::Out(Out::SameMemory | Out::Weak)) {
            asked.by_scope.entry(explained.tier.scope()).or_default().push(explained.key.id);
        }
        if let Verdict::In(_) = explained.verdict {
            asked.answer.push(explained.key.id);
        }
    }
    asked
}

#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) lists: Vec<List>,
    /// The candidates of each scope, in their order.
    pub(crate) by_scope: BTreeMap<&'static str, Vec<Uuid>>,
    pub(crate) answer: Vec<Uuid>,
}

/// Asks all questions. Panics if anything is found that must not be. Returns the recall of each scope.
pub(crate) async fn measure<S: Search>(ledger: &S, private: &Private, corpus: &Corpus) -> BTreeMap<&'static str, Recall> {
    let known: HashMap<Uuid, &Memory> = corpus.memories.iter().map(|memory| (memory.id, memory)).collect();
    let mut recalls: BTreeMap<&'static str, Recall> = BTreeMap::new();
    for question in &corpus.questions {
        let asked = ask(ledger, private, &known, question).await;
        for id in asked.by_scope.values().flatten() {
            let memory = known[id];
            assert_eq!(memory.state, State::Live, "{memory:?} was found by {question:?}");
            let is_mine = memory.tenant == question.tenant && memory.owner == question.user;
            let may_see = match memory.tier {
                Tier::Public => true,
                Tier::Tenant => memory.tenant == question.tenant,
                _ => is_mine && memory.session.as_ref().is_none_or(|session| *session == question.session),
            };
            assert!(may_see, "{memory:?} was found by {question:?}");
        }
        let answer = &corpus.memories[question.answer];
        let scope = answer.tier.scope();
        let place = asked.by_scope.get(scope).and_then(|found| found.iter().position(|id| *id == answer.id));
        let recall = recalls.entry(scope).or_default();
        recall.questions += 1;
        if let Some(place) = place {
            recall.at_1 += usize::from(place < 1);
            recall.at_5 += usize::from(place < 5);
            recall.at_10 += usize::from(place < 10);
            recall.reciprocal += 1.0 / (place as f64 + 1.0);
        }
        recall.answered += usize::from(asked.answer.contains(&answer.id));
    }
    recalls
}

//! Finds memories again: in strict order session, private, tenant, public; within each by reciprocal rank fusion.

use std::collections::BTreeSet;

use logline_core::contract::{Context, Effects};
use logline_core::ledger::Premise;
use logline_core::ledger::search::{Hit as SearchHit, SearchQuery, SearchScope};
use logline_core::request::reference;
use logline_core::{Draft, Scope, Timestamp, VerifiedSpan, ids};
use serde_json::{Value, json};

use super::shelf::{Source, Whose};
use super::vectors::{Asked, Embedding};
use super::{CONTENT, MemoryKernel, Refusal, about, believed, check_consent, input, invalid};
use crate::consent::{Asked as Consented, Cited};
use crate::envelope::Place;
use crate::form::{Body, Content, Kind, Layer, Mode, Sensitivity, Stored, Terms, envelope};
use crate::members::{MAX_NAME, Members};
use crate::rank::{Budget, Candidate, Key, List, ListKind, Out, Tier, Verdict, rank};
use crate::vault::Sealed;

/// The most memories of an answer.
pub const MAX_LIMIT: usize = 50;

/// The most characters of a preview.
pub const PREVIEW: usize = 160;

/// The member of a request in which the query would stand, as its envelope is bound to it.
pub(crate) const QUERY: &str = "input.query";

/// With which right a request searches.
pub(super) struct Permit<'r> {
    tenant: &'r str,
    owner: &'r str,
    mode: Mode,
    session: Option<&'r str>,
    cited: Cited,
}

impl<'r> Permit<'r> {
    pub(super) fn read(members: &Members<'r>, request: &'r VerifiedSpan) -> Result<Self, Refusal> {
        Ok(Self {
            tenant: &request.tenant_id,
            owner: &request.owner_id,
            mode: members.one("mode").map_err(invalid)?,
            session: members.text("session_id", MAX_NAME).map_err(invalid)?,
            cited: Cited::read(members.get("consent"), "consent").map_err(invalid)?,
        })
    }

    /// Checks that the consent which it cites is in force now.
    pub(super) async fn check(&self, context: &Context<'_>) -> Result<Premise, Refusal> {
        let asked = Consented { tenant: self.tenant, owner: self.owner, mode: self.mode, session: self.session };
        check_consent(context, &asked, &self.cited).await
    }
}

/// What is searched for.
pub(super) struct Search<'r> {
    owner: &'r str,
    mode: Mode,
    session: Option<&'r str>,
    query: &'r [u8],
    budget: Budget,
    kinds: BTreeSet<Kind>,
    tags: BTreeSet<String>,
}

/// What was found.
pub(super) struct Looked {
    pub(super) hits: Vec<Hit>,
    /// The draft that records the search.
    pub(super) record: Draft,
    tokens: usize,
    is_full: bool,
}

/// A memory that was found.
pub(super) struct Hit {
    pub(super) key: Key,
    seq: u32,
    pub(super) version: Value,
    score: Option<f64>,
    pub(super) scope: &'static str,
    layer: Layer,
    pub(super) text: String,
}

impl Hit {
    fn to_value(&self) -> Value {
        json!({
            "id": self.key.id.to_string(), "tenant": self.key.tenant, "seq": self.seq, "score": self.score, "scope": self.scope,
            "layer": self.layer.as_str(),
        })
    }
}

impl<'r> Search<'r> {
    /// Reads how much is wanted, and of which kind.
    pub(super) fn read(members: &Members<'_>, permit: &Permit<'r>, query: &'r [u8]) -> Result<Self, Refusal> {
        let number = |name: &str, most: usize| match members.get(name) {
            None => Ok(most),
            Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
                Some(value) if (1..=most).contains(&value) => Ok(value),
                _ => Err(invalid(format!("`{name}` must be a whole number from 1 to {most}"))),
            },
        };
        let words = |name: &str| -> Result<Vec<String>, Refusal> {
            let words = members.get(name).map_or(Some(&[][..]), |value| value.as_array().map(Vec::as_slice));
            let words = words.and_then(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect());
            words.ok_or_else(|| invalid(format!("`{name}` must be a list of texts")))
        };
        Ok(Self {
            owner: permit.owner,
            mode: permit.mode,
            session: permit.session,
            query,
            budget: Budget { limit: number("limit", MAX_LIMIT)?, tokens: number("tokens", 1 << 20)?, ..Budget::default() },
            kinds: words("types")?.iter().map(|kind| kind.parse()).collect::<Result<_, _>>().map_err(invalid)?,
            tags: words("tags")?.into_iter().collect(),
        })
    }
}

impl Search<'_> {
    /// With at most `limit` hits, if `unsaid`.
    pub(super) fn usually(mut self, limit: usize, unsaid: bool) -> Self {
        if unsaid {
            self.budget.limit = limit;
        }
        self
    }

    fn admits(&self, kind: Kind, tags: &BTreeSet<String>) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind)) && self.tags.is_subset(tags)
    }

    /// The scopes that the mode allows, in their order.
    fn scopes(&self) -> Vec<SearchScope> {
        let session = self.session.map(|id| SearchScope::Session { id: id.to_owned() });
        let rest = [SearchScope::Private, SearchScope::Tenant, SearchScope::Public];
        let rest = rest.into_iter().filter(|_| self.mode == Mode::On);
        session.into_iter().chain(rest).collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.query).unwrap_or_default()
    }
}

/// A memory that some search has named, and the version that it meant.
struct Named {
    scope: &'static str,
    key: Key,
    seq: u32,
    score: f64,
}

/// What the searches have named.
struct Found {
    /// Lists, each of one scope and best first.
    lists: Vec<(ListKind, Vec<Named>)>,
    /// Whether something could not be indexed.
    is_full: bool,
    /// How many memories in this process wait for a vector.
    waiting: usize,
}

/// A memory that was named, as it is now.
struct Standing {
    key: Key,
    seq: u32,
    layer: Layer,
    sensitivity: Sensitivity,
    /// A reference to the version.
    version: Value,
}

impl MemoryKernel {
    pub(super) async fn search(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let known = &["letter", "query", "mode", "session_id", "consent", "limit", "tokens", "types", "tags"];
        let members = Members::of(input(request), "the input", known).map_err(invalid)?;
        let permit = Permit::read(&members, request)?;
        // It may take long, so it comes before the consent is read.
        self.catch_up(&context.runtime, &context.trusted.authorities, &request.tenant_id).await?;
        let consent = permit.check(context).await?;
        let letter = members.id("letter").map_err(invalid)?.ok_or_else(|| invalid("`letter` is missing"))?;
        let query = envelope(members.get("query").unwrap_or(&Value::Null)).map_err(invalid)?;
        let place = Place { tenant: &request.tenant_id, subject: &request.owner_id, span: letter, field: QUERY };
        let query = self.vault.open_letter(&place, &query).await?;
        let search = Search::read(&members, &permit, &query)?;
        let found = self.look(request, context, &permit, &search).await?;
        let hits: Vec<_> = found.hits.iter().map(Hit::to_value).collect();
        let result = found.record.columns().id.to_string();
        let output = json!({"result": result, "hits": hits, "tokens": found.tokens, "truncated": found.is_full});
        // The answer is committed only if this consent is the latest at that moment.
        Ok(Effects::new(Ok(output)).emitted(vec![found.record]).relies_on([consent]))
    }

    /// Finds memories, and records why each candidate is in or out.
    pub(super) async fn look(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        permit: &Permit<'_>,
        search: &Search<'_>,
    ) -> Result<Looked, Refusal> {
        let (tenant, now) = (request.tenant_id.as_str(), context.attempt.started);
        let asked = self.ask_for_vectors(&context.trusted.authorities, tenant, now, search.text()).await;
        let Found { lists: named, is_full, waiting } = self.named(context, tenant, search, &asked, now).await?;
        let (candidates, rows) = self.candidates(context, &named, now).await?;
        let mut lists = Vec::new();
        for (kind, list) in &named {
            if let Some(first) = list.first() {
                let hits = list.iter().map(|named| (named.key.clone(), named.score)).collect();
                lists.push(List { scope: first.scope, kind: *kind, hits });
            }
        }
        self.drop_superseded(tenant, search.owner, &candidates).await;
        let ranking = rank(&candidates, &lists, search.budget);
        let told: Vec<_> = ranking.explained.iter().map(|explained| {
            let layer = rows.iter().find(|row| row.key == explained.key).map(|row| row.layer.as_str());
            let (place, reason) = match explained.verdict {
                Verdict::In(place) => (Some(place), None),
                Verdict::Out(reason) => (None, Some(reason.as_str())),
            };
            json!({
                "id": explained.key.id.to_string(), "tenant": explained.key.tenant, "scope": explained.tier.scope(), "layer": layer,
                "score": explained.score, "place": place, "out": reason,
            })
        }).collect();
        let mut hits = Vec::with_capacity(ranking.chosen.len());
        let mut previews = Vec::new();
        for candidate in ranking.chosen.iter().filter_map(|index| candidates.get(*index)) {
            let Some(Standing { key, seq, layer, sensitivity, version }) = rows.iter().find(|row| row.key == candidate.key)
            else {
                continue;
            };
            let score = ranking.explained.iter().find(|explained| explained.key == *key).map(|explained| explained.score);
            if *sensitivity == Sensitivity::Public {
                previews.push(json!({"id": key.id.to_string(), "preview": preview(&candidate.text)}));
            }
            hits.push(Hit {
                key: key.clone(),
                seq: *seq,
                version: version.clone(),
                score,
                scope: candidate.tier.scope(),
                layer: *layer,
                text: candidate.text.clone(),
            });
        }
        let id = ids::derive("memory_search_result", &[&context.attempt.execution_id.to_string()]);
        let draft = Draft::new("memory_search_result")
            .id(id)
            .did("found")
            .this("memory.search")
            .related([request.id, permit.cited.id])
            .status("complete")
            .meta("candidates", told)
            .meta("consent", permit.cited.to_value())
            .meta("previews", previews)
            .meta("truncated", is_full);
        let draft = match asked.told(waiting) {
            Some(told) => draft.meta("vectors", told),
            None => draft,
        };
        metrics::counter!("logline_memory_searches_total").increment(1);
        tracing::debug!(tenant, found = hits.len(), candidates = candidates.len(), "memories searched");
        Ok(Looked { hits, record: about(draft, request, context), tokens: ranking.tokens, is_full })
    }

    async fn named(
        &self,
        context: &Context<'_>,
        tenant: &str,
        search: &Search<'_>,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Found, Refusal> {
        let mut found = Found { lists: Vec::new(), is_full: false, waiting: 0 };
        let embedder = self.embedding.as_ref().and_then(Embedding::private);
        let (reader, authorities, vault) = (&context.runtime, &context.trusted.authorities, &self.vault);
        let source = Source { reader, authorities, vault, embedder, tenant };
        for whose in [Whose::Owner(search.owner.to_owned()), Whose::Shared] {
            if whose == Whose::Shared && search.mode != Mode::On {
                continue;
            }
            let shelf = self.shelves.of(tenant, &whose)?;
            let mut shelf = shelf.lock().await;
            shelf.update(&source, &whose).await?;
            found.is_full |= shelf.is_full;
            found.waiting += shelf.waiting();
            for scope in search.scopes() {
                let is_in = |layer: Layer, session: Option<&str>| match (&whose, &scope) {
                    (Whose::Owner(_), SearchScope::Session { id }) => layer == Layer::Session && session == Some(id),
                    (Whose::Owner(_), SearchScope::Private) => layer != Layer::Session,
                    (Whose::Shared, SearchScope::Tenant) => true,
                    _ => false,
                };
                let admits =
                    |terms: &Terms| is_in(terms.layer, terms.session.as_deref()) && search.admits(terms.kind, &terms.tags);
                let named = |(id, seq, score)| Named { scope: name(&scope), key: Key::new(tenant, id), seq, score };
                let by_words = shelf.search(search.text(), now, MAX_LIMIT, admits);
                found.lists.push((ListKind::Text, by_words.into_iter().map(named).collect()));
                if let Some(vector) = &asked.vector {
                    let nearest = shelf.nearest(vector, now, MAX_LIMIT, admits);
                    found.lists.push((ListKind::Vector, nearest.into_iter().map(named).collect()));
                }
            }
        }
        let Some(store) = &self.search else { return Ok(found) };
        for scope in search.scopes() {
            let name = name(&scope);
            let mut query = SearchQuery::new(scope, search.text(), now, MAX_LIMIT).owner(search.owner).similar();
            query.kinds = search.kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
            query.tags.clone_from(&search.tags);
            let as_named =
                |hit: SearchHit| Named { scope: name, key: Key::new(hit.tenant_id, hit.id), seq: hit.seq, score: hit.score };
            let hits = store.search_text(&Scope::runtime(tenant), &query).await?;
            found.lists.push((ListKind::Text, hits.into_iter().map(as_named).collect()));
            if let Some(vector) = asked.vector.as_ref().filter(|_| asked.is_kept) {
                let hits = store.search_vector(&Scope::runtime(tenant), &query, vector).await?;
                found.lists.push((ListKind::Vector, hits.into_iter().map(as_named).collect()));
            }
        }
        Ok(found)
    }

    /// Takes memories from the shelves that have changed without the shelves' notice, such as one that is no longer shared.
    async fn drop_superseded(&self, tenant: &str, owner: &str, candidates: &[Candidate]) {
        let is_gone = |candidate: &&Candidate| candidate.withheld == Some(Out::Superseded) && candidate.key.tenant == tenant;
        let gone: Vec<_> = candidates.iter().filter(is_gone).map(|candidate| candidate.key.id).collect();
        if !gone.is_empty() {
            self.shelves.forget(tenant, owner, &gone).await;
        }
    }

    /// Reads what was named, as it is now.
    async fn candidates(
        &self,
        context: &Context<'_>,
        named: &[(ListKind, Vec<Named>)],
        now: Timestamp,
    ) -> Result<(Vec<Candidate>, Vec<Standing>), Refusal> {
        let (mut candidates, mut rows) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for named in named.iter().flat_map(|(_, named)| named) {
            if !seen.insert((named.key.clone(), named.scope)) {
                continue;
            }
            let Some(row) = believed(context, &named.key.tenant, named.key.id).await? else { continue };
            let Ok(stored) = Stored::read(&row) else { continue };
            let (layer, sensitivity) = (stored.terms.layer, stored.terms.sensitivity);
            let tier = match named.scope {
                "session" => Tier::Session,
                "private" if layer == Layer::Permanent => Tier::Permanent,
                "private" => Tier::Temporary,
                "tenant" => Tier::Tenant,
                _ => Tier::Public,
            };
            let mut withheld = match () {
                // An index may name a later version, which does not count.
                () if row.seq > named.seq => Some(Out::Superseded),
                () if !stored.status.is_found() => Some(Out::Forgotten),
                () if stored.terms.ttl_at.is_some_and(|at| at <= now) => Some(Out::Expired),
                () => None,
            };
            let text = match stored.content {
                Content::Clear(body) => body.text,
                Content::Gone => String::new(),
                Content::Sealed(envelope) => match self.opened(&row, &envelope).await? {
                    Some(body) => body.text,
                    None => {
                        withheld = Some(Out::Forgotten);
                        String::new()
                    }
                },
            };
            rows.push(Standing { key: named.key.clone(), seq: row.seq, layer, sensitivity, version: reference(&row) });
            candidates.push(Candidate {
                key: named.key.clone(),
                tier,
                at: row.at,
                is_promoted: layer == Layer::Permanent,
                text,
                withheld,
            });
        }
        Ok((candidates, rows))
    }

    /// The text of a memory; `None` if its key is gone.
    async fn opened(&self, row: &logline_core::SignedSpan, envelope: &[u8]) -> Result<Option<Body>, Refusal> {
        let text = Sealed { span: row.id, field: CONTENT, envelope };
        match self.vault.open(&row.tenant_id, &row.owner_id, &[text]).await?.pop() {
            Some(Ok(text)) => Ok(Body::parse(&text).ok()),
            None => Ok(None),
            Some(Err(error)) if error.is_of_text() => Ok(None),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// The name of a scope in result spans.
fn name(scope: &SearchScope) -> &'static str {
    match scope {
        SearchScope::Session { .. } => Tier::Session.scope(),
        SearchScope::Private => Tier::Temporary.scope(),
        SearchScope::Tenant => Tier::Tenant.scope(),
        SearchScope::Public => Tier::Public.scope(),
    }
}

/// The beginning of a text.
pub(crate) fn preview(text: &str) -> String {
    text.chars().take(PREVIEW).collect()
}

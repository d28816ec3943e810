//! Finds memories again: in strict order session, private, tenant, public; within each by reciprocal rank fusion.

use std::collections::BTreeSet;

use logline_core::contract::{Context, Effects};
use logline_core::ledger::search::{SearchQuery, SearchScope};
use logline_core::{Draft, Scope, Timestamp, VerifiedSpan, ids};
use serde_json::{Value, json};

use super::shelf::Whose;
use super::{CONTENT, MemoryKernel, Refusal, about, believed, check_consent, input, invalid};
use crate::consent::{Asked, Cited};
use crate::envelope::Place;
use crate::form::{Body, Content, Kind, Layer, Mode, Sensitivity, Stored, envelope};
use crate::members::{MAX_NAME, Members};
use crate::rank::{Budget, Candidate, Key, List, ListKind, Out, Tier, Verdict, rank};
use crate::vault::{Sealed, Text, VaultError};

/// The most memories of an answer.
pub const MAX_LIMIT: usize = 50;

/// The most characters of a preview.
pub const PREVIEW: usize = 160;

/// The member of a request in which the query would stand, as its envelope is bound to it.
pub(crate) const QUERY: &str = "input.query";

/// What a request asks for.
struct Search<'r> {
    owner: &'r str,
    mode: Mode,
    session: Option<&'r str>,
    query: Text,
    budget: Budget,
    kinds: BTreeSet<Kind>,
    tags: BTreeSet<String>,
}

impl Search<'_> {
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
        std::str::from_utf8(&self.query).unwrap_or_default()
    }
}

/// A memory that some search has named, and the version that it meant.
struct Named {
    scope: &'static str,
    key: Key,
    seq: u32,
    score: f64,
}

/// A memory that was named, as it is now.
struct Found {
    key: Key,
    seq: u32,
    layer: Layer,
    sensitivity: Sensitivity,
}

impl MemoryKernel {
    pub(super) async fn search(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let known = &["letter", "query", "mode", "session_id", "consent", "limit", "tokens", "types", "tags"];
        let members = Members::of(input(request), "the input", known).map_err(invalid)?;
        let (tenant, owner, now) = (request.tenant_id.as_str(), request.owner_id.as_str(), context.attempt.started);
        let mode: Mode = members.one("mode").map_err(invalid)?;
        let session = members.text("session_id", MAX_NAME).map_err(invalid)?;
        let cited = Cited::read(members.get("consent"), "consent").map_err(invalid)?;
        let asked = Asked { tenant, owner, mode, session };
        check_consent(context, &asked, &cited).await?;
        self.catch_up(context, tenant).await?;
        let letter = members.id("letter").map_err(invalid)?.ok_or_else(|| invalid("`letter` is missing"))?;
        let query = envelope(members.get("query").unwrap_or(&Value::Null)).map_err(invalid)?;
        let place = Place { tenant, subject: owner, span: letter, field: QUERY };
        let query = self.vault.open_letter(&place, &query).await?;
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
        let search = Search {
            owner,
            mode,
            session,
            query,
            budget: Budget { limit: number("limit", MAX_LIMIT)?, tokens: number("tokens", 1 << 20)?, ..Budget::default() },
            kinds: words("types")?.iter().map(|kind| kind.parse()).collect::<Result<_, _>>().map_err(invalid)?,
            tags: words("tags")?.into_iter().collect(),
        };
        let (named, is_full) = self.named(context, tenant, &search, now).await?;
        let (candidates, rows) = self.candidates(context, &named, now).await?;
        let mut lists = Vec::new();
        for list in &named {
            if let Some(first) = list.first() {
                let hits = list.iter().map(|named| (named.key.clone(), named.score)).collect();
                lists.push(List { scope: first.scope, kind: ListKind::Text, hits });
            }
        }
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
            let Some(Found { key, seq, layer, sensitivity }) = rows.iter().find(|row| row.key == candidate.key) else {
                continue;
            };
            let score = ranking.explained.iter().find(|explained| explained.key == *key).map(|explained| explained.score);
            hits.push(json!({
                "id": key.id.to_string(), "tenant": key.tenant, "seq": seq, "score": score, "scope": candidate.tier.scope(),
                "layer": layer.as_str(),
            }));
            if *sensitivity == Sensitivity::Public {
                previews.push(json!({"id": key.id.to_string(), "preview": preview(&candidate.text)}));
            }
        }
        let id = ids::derive("memory_search_result", &[&context.attempt.execution_id.to_string()]);
        let found = hits.len();
        let draft = Draft::new("memory_search_result")
            .id(id)
            .did("found")
            .this("memory.search")
            .related([request.id, cited.id])
            .status("complete")
            .meta("candidates", told)
            .meta("consent", cited.to_value())
            .meta("previews", previews)
            .meta("truncated", is_full);
        // Again, as late as can be.
        check_consent(context, &asked, &cited).await?;
        metrics::counter!("logline_memory_searches_total").increment(1);
        let output = json!({"result": id.to_string(), "hits": hits, "tokens": ranking.tokens, "truncated": is_full});
        tracing::debug!(tenant, found, candidates = candidates.len(), "memories searched");
        Ok(Effects::new(Ok(output)).emitted(vec![about(draft, request, context)]))
    }

    /// The lists of the searches, each of one scope and best first. Also whether something could not be indexed.
    async fn named(
        &self,
        context: &Context<'_>,
        tenant: &str,
        search: &Search<'_>,
        now: Timestamp,
    ) -> Result<(Vec<Vec<Named>>, bool), Refusal> {
        let (mut lists, mut is_full) = (Vec::new(), false);
        for whose in [Whose::Owner(search.owner.to_owned()), Whose::Shared] {
            if whose == Whose::Shared && search.mode != Mode::On {
                continue;
            }
            let shelf = self.shelves.of(tenant, &whose)?;
            let mut shelf = shelf.lock().await;
            shelf.update(&context.runtime, &context.trusted.authorities, &self.vault, tenant, &whose).await?;
            is_full |= shelf.is_full;
            for scope in search.scopes() {
                let is_in = |layer: Layer, session: Option<&str>| match (&whose, &scope) {
                    (Whose::Owner(_), SearchScope::Session { id }) => layer == Layer::Session && session == Some(id),
                    (Whose::Owner(_), SearchScope::Private) => layer != Layer::Session,
                    (Whose::Shared, SearchScope::Tenant) => true,
                    _ => false,
                };
                let found = shelf.search(search.text(), now, MAX_LIMIT, |terms| {
                    is_in(terms.layer, terms.session.as_deref()) && search.admits(terms.kind, &terms.tags)
                });
                lists.push(
                    found
                        .into_iter()
                        .map(|(id, seq, score)| Named { scope: name(&scope), key: Key::new(tenant, id), seq, score })
                        .collect(),
                );
            }
        }
        let Some(store) = &self.search else { return Ok((lists, is_full)) };
        for scope in search.scopes() {
            let name = name(&scope);
            let mut query = SearchQuery::new(scope, search.text(), now, MAX_LIMIT).owner(search.owner);
            query.kinds = search.kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
            query.tags.clone_from(&search.tags);
            let hits = store.search_text(&Scope::runtime(tenant), &query).await?;
            lists.push(
                hits.into_iter()
                    .map(|hit| Named { scope: name, key: Key::new(hit.tenant_id, hit.id), seq: hit.seq, score: hit.score })
                    .collect(),
            );
        }
        Ok((lists, is_full))
    }

    /// Reads what was named, as it is now.
    async fn candidates(
        &self,
        context: &Context<'_>,
        named: &[Vec<Named>],
        now: Timestamp,
    ) -> Result<(Vec<Candidate>, Vec<Found>), Refusal> {
        let (mut candidates, mut rows) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for named in named.iter().flatten() {
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
                () if row.seq != named.seq => Some(Out::Superseded),
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
            rows.push(Found { key: named.key.clone(), seq: row.seq, layer, sensitivity });
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
            Some(Err(VaultError::Erased | VaultError::Envelope(_))) | None => Ok(None),
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

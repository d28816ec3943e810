//! `policy_agent`: reads new spans, asks the policies of their tenant about them, and carries out the decisions.
//!
//! Each policy has a cursor: a chain of `policy_cursor` spans that name the last span that the policy has decided about. The
//! effects and the next cursor are one batch. If several agents run, only one of them can append the next cursor, so each
//! effect happens once.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use logline_core::ledger::{
    ActiveKind, AppendOptions, Cursor, Ledger as _, LedgerExt as _, Page, Query, Versions, Work, WorkQueue as _,
};
use logline_core::{
    EXECUTIONS_QUOTA, Failure, Host, HostError, Scope, Service, ServiceReport, Shutdown, SpanKey, Timestamp, VerifiedSpan,
    Verifier, ids,
};
use logline_kernels::harness::{Backoff, active, is_general, jittered, may_pass};
use uuid::Uuid;

use crate::batch::Batch;
use crate::cursor::{CURSOR, after, cursor, cursor_id};
use crate::effects::{self, Cause, Effect, MAX_DEPTH};
use crate::policy::{Decision, Facts, Policy};
use crate::wasm::Sandboxed;
use crate::{NAME, VERSION};

/// The options of a [`PolicyAgent`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentOptions {
    /// The time between polls. Each interval is up to a quarter shorter or longer. The ledger's signal of new requests causes
    /// an earlier poll. Default 1 second.
    pub poll: Duration,
    /// The most spans in one page. Default 500.
    pub page: usize,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), page: 500 }
    }
}

impl AgentOptions {
    /// Sets the time between polls.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets the most spans in one page, at least 1.
    #[must_use]
    pub fn page(mut self, spans: usize) -> Self {
        self.page = spans.max(1);
        self
    }
}

/// What a policy agent did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AgentReport {
    /// Spans that policies were asked about. A span counts once for each policy that concerns it.
    pub spans: u64,
    /// Spans that it wrote for policies, without cursors.
    pub effects: u64,
    /// Policies that it could not run.
    pub refused: u64,
    /// Batches that were not written because another agent had already written for the same policy.
    pub conflicts: u64,
}

/// Spans that a CEL policy decides about in one blocking task.
const CHUNK: usize = 8;

/// How long one policy may take in one poll, so that the other policies do not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a policy is suspended after its decisions could not be carried out.
const SUSPENSION: Duration = Duration::from_secs(60);

/// The most effects in one batch.
const BATCH: usize = 256;

/// After this many spans a cursor is appended, even if no effect followed from them.
const UNSAVED: u64 = 1000;

/// The most policies that one poll reads for the first time.
const READ_AT_ONCE: usize = 256;

impl ServiceReport for AgentReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("spans", self.spans), ("effects", self.effects), ("refused", self.refused), ("conflicts", self.conflicts)]
    }
}

/// The loop `policy_agent`, version 1. Any number of hosts may run it, and each effect still happens once.
#[derive(Debug, Clone, Default)]
pub struct PolicyAgent {
    options: AgentOptions,
}

impl PolicyAgent {
    /// Creates an agent with these options.
    #[must_use]
    pub fn new(options: AgentOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Service for PolicyAgent {
    fn id(&self) -> Uuid {
        ids::POLICY_AGENT
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, mut shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        let options = &self.options;
        host.boot(ids::POLICY_AGENT).await?;
        let arrivals = host.ledger().arrivals().await?;
        let id = host.ids().next_id(host.ledger().now().await?);
        let mut agent = Agent { host, options, id, known: BTreeMap::new(), read: None, report: AgentReport::default() };
        let mut backoff = Backoff::default();
        loop {
            let seen = arrivals.seen();
            let (pause, wakes) = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(agent.report)),
                polled = agent.poll() => match polled {
                    Ok(has_more) => {
                        backoff = Backoff::default();
                        (if has_more { Duration::ZERO } else { jittered(host, options.poll) }, true)
                    }
                    Err(error) if may_pass(&error) => {
                        tracing::warn!(%error, "policies cannot be processed now; trying again");
                        (backoff.next(host), false)
                    }
                    Err(error) => return Err(error),
                },
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(agent.report)),
                () = arrivals.changed(seen), if wakes => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// What the agent knows of an active policy.
struct Known {
    hash: logline_core::Hash,
    /// `None` if the policy cannot be run. A violation has been recorded.
    active: Option<Active>,
}

struct Active {
    span: Arc<VerifiedSpan>,
    policy: Arc<Policy>,
    /// The last `policy_cursor` span; `None` before the first.
    saved: Option<VerifiedSpan>,
    /// Where the next page begins.
    position: Cursor,
    /// The last span that was read.
    last: Option<SpanKey>,
    /// Spans read since the last cursor.
    unsaved: u64,
    /// The UTC day that `effects` counts.
    day: NaiveDate,
    effects: u64,
    /// Whether to check that an effect does not exist before it is written. True if the policy had a cursor when it was read:
    /// the ledger may have gone back to an older one.
    is_careful: bool,
    /// The policy is suspended until then, because its decisions could not be carried out.
    suspended_until: Option<Timestamp>,
}

/// What a policy decided about one span.
enum Verdict {
    /// The policy does not concern spans of this type.
    NotConcerned,
    Decided(Decision),
    /// The policy could not decide.
    Failed(Failure),
}

impl Verdict {
    fn of(decided: Result<Decision, Failure>) -> Self {
        decided.map_or_else(Self::Failed, Self::Decided)
    }

    fn is_concerned(&self) -> bool {
        !matches!(self, Self::NotConcerned)
    }
}

/// The result of reading an active policy.
enum Activation {
    Active(Box<Active>),
    /// The policy cannot be run.
    Refused(Failure),
    /// There is a newer version, or a position in append order is not final yet. The next poll tries again.
    Later,
}

impl Active {
    fn rests(&self, now: Timestamp) -> bool {
        let is_spent = self.day == now.day() && self.effects >= self.policy.effects_per_day;
        is_spent || self.suspended_until.is_some_and(|until| now < until)
    }
}

/// A page of spans, shared by the policies of a tenant that are at the same position.
struct Read {
    spans: Arc<Vec<(VerifiedSpan, Cursor)>>,
    end: Cursor,
    has_more: bool,
    facts: Facts,
    now: Timestamp,
}

struct Agent<'a> {
    host: &'a Host,
    options: &'a AgentOptions,
    /// A new id for each run of the loop. Cursors name it.
    id: Uuid,
    known: BTreeMap<(String, Uuid), Known>,
    /// The policy that was read last. The next poll begins after it, so that each policy has its turn.
    read: Option<Work>,
    report: AgentReport,
}

impl Agent<'_> {
    /// Reads one page for every policy. Returns true if there is more to read now.
    async fn poll(&mut self) -> Result<bool, HostError> {
        let policies = active::list(self.host, ActiveKind::Policy, self.read.as_ref()).await?;
        if policies.is_empty() {
            self.known.clear();
            return Ok(false);
        }
        let now = self.host.ledger().now().await?;
        let mut has_more = self.learn(&policies, now).await?;
        // Policies of a tenant at the same position share a page. Policies that keep up are all at the same position.
        let mut groups: BTreeMap<(String, String), Vec<Uuid>> = BTreeMap::new();
        for ((tenant, id), known) in &self.known {
            if let Some(active) = known.active.as_ref().filter(|active| !active.rests(now)) {
                groups.entry((tenant.clone(), active.position.to_string())).or_default().push(*id);
            }
        }
        for ((tenant, position), policies) in groups {
            let read = self.read(&tenant, &Cursor::from_text(position), now).await?;
            has_more |= read.has_more;
            for id in policies {
                let key = (tenant.clone(), id);
                let Some(mut active) = self.known.get_mut(&key).and_then(|known| known.active.take()) else { continue };
                match self.step(&mut active, &read).await {
                    Ok(more) => has_more |= more,
                    // The next poll reads the policy again.
                    Err(error) if error.is_conflict() || error.is_keep_mismatch() => {
                        tracing::debug!(policy = %id, tenant, %error, "another agent was faster");
                        self.report.conflicts += 1;
                        self.known.remove(&key);
                        continue;
                    }
                    Err(error) if is_general(&error) => {
                        // The policy is read again, because some of the page may have been carried out.
                        self.known.remove(&key);
                        return Err(error);
                    }
                    // An error of one policy must not stop the others.
                    Err(error) => active = self.suspend(active, &read, &error).await?,
                }
                if let Some(known) = self.known.get_mut(&key) {
                    known.active = Some(active);
                }
            }
        }
        Ok(has_more)
    }

    /// Suspends a policy whose decisions cannot be carried out, and records a violation.
    async fn suspend(&mut self, active: Active, read: &Read, error: &HostError) -> Result<Active, HostError> {
        tracing::error!(policy = %active.span.id, tenant = active.span.tenant_id, %error, "a policy could not be carried out");
        let failure = Failure::new("not_carried_out", error.to_string());
        if let Some((span, _)) = read.spans.first() {
            let cause = Cause { policy: &active.span, span, depth: 0, now: read.now, put_off: 0 };
            let violation = cause.violation("error", &failure, read.now.day()).draft;
            match self.host.record(&active.span.tenant_id, vec![violation], &AppendOptions::keep()).await {
                Err(error) if is_general(&error) => return Err(error),
                // The violation exists already, or it cannot be written either.
                _ => {}
            }
        }
        Ok(Active { suspended_until: Some(read.now.saturating_add(SUSPENSION)), ..active })
    }

    /// Reads policies that are new or have a new version, and forgets those that are no longer active. Returns true if some are
    /// still to be read.
    async fn learn(&mut self, active: &[Work], now: Timestamp) -> Result<bool, HostError> {
        let keys: HashSet<(&str, Uuid)> = active.iter().map(|work| (work.tenant_id.as_str(), work.id)).collect();
        self.known.retain(|(tenant, id), _| keys.contains(&(tenant.as_str(), *id)));
        let mut read = 0;
        for work in active {
            let key = (work.tenant_id.clone(), work.id);
            if self.known.get(&key).is_some_and(|known| known.hash == work.curr_hash) {
                continue;
            }
            if read == READ_AT_ONCE {
                return Ok(true);
            }
            read += 1;
            self.read = Some(work.clone());
            let active = match self.activate(work, now).await? {
                Activation::Active(active) => Some(*active),
                Activation::Refused(failure) => {
                    tracing::warn!(policy = %work.id, tenant = work.tenant_id, %failure, "a policy cannot be run");
                    self.report.refused += 1;
                    match active::refuse(self.host, work, (NAME, ActiveKind::Policy), &failure, now).await {
                        Err(error) if is_general(&error) => return Err(error),
                        Err(error) => tracing::error!(%error, "the violation could not be recorded"),
                        Ok(()) => {}
                    }
                    None
                }
                Activation::Later => continue,
            };
            self.known.insert(key, Known { hash: work.curr_hash, active });
        }
        Ok(false)
    }

    /// Reads a policy and how far it has read.
    async fn activate(&self, work: &Work, now: Timestamp) -> Result<Activation, HostError> {
        let (ledger, tenant) = (self.host.ledger(), &work.tenant_id);
        let scope = Scope::runtime(tenant);
        let Some(span) = ledger.find(&scope, tenant, work.id).await? else { return Ok(Activation::Later) };
        if span.seal.curr_hash != work.curr_hash {
            return Ok(Activation::Later);
        }
        let key = span.key();
        let span = match span.verify(&mut Verifier::new()) {
            Ok(span) => span,
            Err(error) => return Ok(Activation::Refused(Failure::new("policy_not_verified", error.to_string()))),
        };
        if let Err(error) = self.host.trusted().authorities.check(&span) {
            return Ok(Activation::Refused(Failure::new("policy_not_authorised", error.to_string())));
        }
        let policy = match Policy::of(&span) {
            Ok(policy) => policy,
            Err(failure) => return Ok(Activation::Refused(failure)),
        };
        let saved = ledger.find(&scope, tenant, cursor_id(tenant, work.id)).await?;
        let saved = saved.and_then(|saved| saved.verify(&mut Verifier::new()).ok());
        let last = saved.as_ref().and_then(|saved| after(tenant, saved));
        let found = match &last {
            Some(last) => self.position(&scope, last).await?,
            None => None,
        };
        let is_careful = saved.is_some();
        if let (Some(last), None) = (&last, &found) {
            if !ledger.history(&scope, tenant, last.id, last.seq, 1).await?.is_empty() {
                // Its position in append order is not final yet.
                return Ok(Activation::Later);
            }
            let message = format!(
                "span {last}, the last one it read, is not in the ledger: run fsck, or publish the policy under another id"
            );
            return Ok(Activation::Refused(Failure::new("cursor_lost", message)));
        }
        let position = match found {
            Some(position) => position,
            // A policy concerns only spans that are appended after it.
            None => match self.position(&scope, &key).await? {
                Some(position) => position,
                None => return Ok(Activation::Later),
            },
        };
        let counted = saved.as_ref().and_then(|saved| saved.meta("effects"));
        let day = counted.and_then(|counted| counted.get("day")?.as_str()?.parse().ok()).unwrap_or(now.day());
        let effects = counted.and_then(|counted| counted.get("count")?.as_u64()).unwrap_or(0);
        let policy = Arc::new(policy);
        let span = Arc::new(span);
        Ok(Activation::Active(Box::new(Active {
            span,
            policy,
            saved,
            position,
            last,
            unsaved: 0,
            day,
            effects,
            is_careful,
            suspended_until: None,
        })))
    }

    /// The position of a span version in append order. `None` if it is not found, or its position is not final yet.
    async fn position(&self, scope: &Scope, key: &SpanKey) -> Result<Option<Cursor>, HostError> {
        let query = Query::new().tenant(&key.tenant_id).id(key.id).versions(Versions::All);
        let mut cursor = None;
        loop {
            let page = self.host.ledger().scan(scope, &query, cursor.as_ref()).await?;
            for row in page.rows {
                if row.span.as_ref().is_ok_and(|span| span.seq == key.seq) {
                    return Ok(Some(row.cursor));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(None);
            }
        }
    }

    async fn read(&self, tenant: &str, position: &Cursor, now: Timestamp) -> Result<Read, HostError> {
        let (ledger, scope) = (self.host.ledger(), Scope::runtime(tenant));
        let query = Query::timeline().tenant(tenant).limit(self.options.page);
        let Page { rows, next, reached, .. } = ledger.scan(&scope, &query, Some(position)).await?;
        let end = next.clone().or(reached).or_else(|| rows.last().map(|row| row.cursor.clone()));
        let spans = tokio::task::spawn_blocking(move || {
            let mut verifier = Verifier::new();
            let verified = rows.into_iter().filter_map(|row| match row.span {
                Ok(span) => match span.verify(&mut verifier) {
                    Ok(span) => Some((span, row.cursor)),
                    Err(error) => {
                        tracing::error!(%error, "a span does not verify: no policy sees it; run fsck");
                        None
                    }
                },
                Err(damaged) => {
                    tracing::error!(
                        id = damaged.id,
                        reason = damaged.reason,
                        "a row is not a span: no policy sees it; run fsck"
                    );
                    None
                }
            });
            verified.collect::<Vec<_>>()
        });
        let spans = spans.await.map_err(|_| HostError::Panicked { what: "the verification of a page" })?;
        let facts = if spans.is_empty() {
            Facts::default()
        } else {
            let limit = self.host.trusted().manifest.throttle.per_tenant_daily_exec_limit.unwrap_or(0);
            Facts::new(ledger.used(tenant, EXECUTIONS_QUOTA).await?, limit)
        };
        let end = end.unwrap_or_else(|| position.clone());
        Ok(Read { spans: Arc::new(spans), end, has_more: next.is_some(), facts, now })
    }

    /// Asks one policy about one page and carries out what it decides. Returns true if time ran out before the end of the page.
    async fn step(&mut self, active: &mut Active, read: &Read) -> Result<bool, HostError> {
        let today = read.now.day();
        if active.day < today {
            (active.day, active.effects) = (today, 0);
        }
        let began = tokio::time::Instant::now();
        let trusted = self.host.trusted();
        let policy = Arc::clone(&active.span);
        let mut batch = Batch::default();
        let size = if active.policy.is_cel() { CHUNK } else { 1 };
        for chunk in (0..read.spans.len()).step_by(size) {
            if began.elapsed() > PATIENCE {
                self.commit(active, batch, read.now).await?;
                return Ok(true);
            }
            let decisions = self.decide(active, read, chunk..(chunk + size).min(read.spans.len())).await?;
            let spans = read.spans.get(chunk..).unwrap_or_default();
            for ((span, place), decision) in spans.iter().zip(decisions) {
                let depth = effects::depth(span, &trusted.authorities);
                let cause = Cause { policy: &policy, span, depth, now: read.now, put_off: 0 };
                self.report.spans += u64::from(decision.is_concerned());
                let limit = active.policy.effects_per_day;
                if matches!(decision, Verdict::Decided(Decision::Act(_) | Decision::Later(_))) && depth < MAX_DEPTH {
                    if active.effects + batch.len() as u64 >= limit {
                        // Effects in the batch that exist already do not count. After the commit their number is known.
                        self.commit(active, std::mem::take(&mut batch), read.now).await?;
                    }
                    if active.effects >= limit {
                        let message = format!("the policy has written {limit} effects today, its limit: it goes on tomorrow");
                        batch.effects.push(cause.violation("effects", &Failure::new("effects_exceeded", message), today));
                        self.commit(active, batch, read.now).await?;
                        return Ok(false);
                    }
                }
                match decision {
                    Verdict::NotConcerned | Verdict::Decided(Decision::Pass) => {}
                    Verdict::Decided(_) if depth >= MAX_DEPTH => {
                        let message =
                            format!("span {} follows from {MAX_DEPTH} policies, the limit: no action is taken", span.key());
                        batch.effects.push(cause.violation("depth", &Failure::new("policy_loop", message), today));
                    }
                    Verdict::Decided(Decision::Later(due)) => batch.effects.push(cause.later(due)),
                    Verdict::Decided(Decision::Act(actions)) => batch.act(cause, actions, self.host, today),
                    Verdict::Failed(failure) => {
                        let what = if failure.code == "too_costly" { "cost" } else { "error" };
                        tracing::debug!(policy = %policy.id, span = %span.key(), %failure, "a policy could not decide");
                        batch.effects.push(cause.violation(what, &failure, today));
                    }
                }
                active.position = place.clone();
                // A cursor does not count as progress. Otherwise policies would write cursors about each other's cursors for
                // ever.
                if span.entity_type != CURSOR {
                    active.last = Some(span.key());
                    active.unsaved += 1;
                }
                if batch.len() >= BATCH {
                    self.commit(active, std::mem::take(&mut batch), read.now).await?;
                }
            }
        }
        if batch.len() > 0 || active.unsaved >= UNSAVED {
            self.commit(active, batch, read.now).await?;
        }
        active.position = read.end.clone();
        Ok(false)
    }

    /// Asks the policy about some spans of the page.
    async fn decide(&self, active: &Active, read: &Read, range: Range<usize>) -> Result<Vec<Verdict>, HostError> {
        let (policy, facts) = (Arc::clone(&active.policy), read.facts);
        if policy.is_cel() {
            let spans = Arc::clone(&read.spans);
            let decide = move || {
                let decide = |(span, _): &(VerifiedSpan, Cursor)| match policy.concerns(&span.entity_type) {
                    true => Verdict::of(policy.decide_cel(span, facts, span.at)),
                    false => Verdict::NotConcerned,
                };
                spans.get(range).unwrap_or_default().iter().map(decide).collect::<Vec<_>>()
            };
            // The CEL interpreter is a dependency. If it panics, only this policy is suspended.
            let decisions = tokio::task::spawn_blocking(decide).await;
            let decisions = decisions.map_err(|_| HostError::Panicked { what: "the evaluation of a policy" })?;
            let concerned = decisions.iter().filter(|verdict| verdict.is_concerned()).count() as u64;
            metrics::counter!("logline_policy_spans_total").increment(concerned);
            return Ok(decisions);
        }
        let trusted = self.host.trusted();
        let sandbox = Sandboxed { sandboxes: self.host.sandboxes(), manifest: &trusted.manifest };
        let mut decisions = Vec::with_capacity(range.len());
        for (span, _) in read.spans.get(range).unwrap_or_default() {
            if policy.concerns(&span.entity_type) {
                metrics::counter!("logline_policy_spans_total").increment(1);
                decisions.push(Verdict::of(policy.decide(span, facts, sandbox).await));
            } else {
                decisions.push(Verdict::NotConcerned);
            }
        }
        Ok(decisions)
    }

    /// Writes the effects of a policy and its next cursor as one batch.
    async fn commit(&mut self, active: &mut Active, batch: Batch, now: Timestamp) -> Result<(), HostError> {
        let Some(last) = &active.last else { return Ok(()) };
        let (ledger, tenant) = (self.host.ledger(), &active.span.tenant_id);
        let scope = Scope::runtime(tenant);
        let mut drafts = Vec::with_capacity(batch.effects.len() + batch.tallies.len() + 1);
        let mut written = HashSet::new();
        for Effect { draft, is_keyed } in batch.effects {
            let id = draft.columns().id;
            if !written.insert(id) {
                continue;
            }
            let is_there = (is_keyed || active.is_careful) && !ledger.history(&scope, tenant, id, 0, 1).await?.is_empty();
            if !is_there {
                drafts.push(draft);
            }
        }
        for counted in batch.tallies.into_values() {
            let before = ledger.find(&scope, tenant, counted.tally.id).await?;
            let before = before.and_then(|before| before.verify(&mut Verifier::new()).ok());
            let cause = Cause { policy: &active.span, span: &counted.deepest.0, depth: counted.deepest.1, now, put_off: 0 };
            drafts.push(counted.tally.draft(counted.count, counted.sum, before.as_ref(), cause));
        }
        let effects = drafts.len() as u64;
        active.effects += drafts.iter().filter(|draft| draft.columns().entity_type != "policy_violation").count() as u64;
        let cursor = cursor(&active.span, active.saved.as_ref(), last, (active.day, active.effects), now, self.id);
        drafts.push(cursor);
        let written = self.host.record(tenant, drafts, &AppendOptions::keep()).await?;
        active.saved = written.into_iter().last();
        active.unsaved = 0;
        self.report.effects += effects;
        metrics::counter!("logline_policy_effects_total").increment(effects);
        Ok(())
    }
}

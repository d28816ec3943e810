//! One active policy: what it has read, and how it decides about a page of spans.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use logline_core::ledger::{AppendOptions, Cursor, Ledger as _, LedgerExt as _};
use logline_core::{Failure, Host, HostError, Scope, SignedSpan, SpanKey, Timestamp, VerifiedSpan, Verifier};
use tokio::time::Instant;

use crate::batch::Batch;
use crate::cursor::{CURSOR, cursor};
use crate::effects::{self, Cause, Effect, MAX_DEPTH};
use crate::policy::{Decision, Facts, Policy};
use crate::site::{AgentReport, Site};
use crate::wasm::Sandboxed;

/// Spans that a CEL policy decides about in one blocking task.
const CHUNK: usize = 8;

/// How long a policy is suspended after its decisions could not be carried out.
const SUSPENSION: Duration = Duration::from_secs(60);

/// The most effects in one batch.
const BATCH: usize = 256;

/// A batch is written when its effects have this many bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// After this many spans a cursor is appended, even if no effect followed from them.
const UNSAVED: u64 = 1000;

/// A page of spans, shared by the policies of a tenant that are at the same position.
pub(super) struct Read {
    pub(super) spans: Arc<Vec<(VerifiedSpan, Cursor)>>,
    pub(super) end: Cursor,
    pub(super) has_more: bool,
    pub(super) facts: Facts,
    pub(super) now: Timestamp,
}

/// What the agent keeps of an active policy.
pub(super) struct Active {
    /// The policy's span without its long columns.
    pub(super) span: Arc<SignedSpan>,
    pub(super) policy: Arc<Policy>,
    /// The last `policy_cursor` span; `None` before the first.
    pub(super) saved: Option<VerifiedSpan>,
    /// Where the next page begins.
    pub(super) position: Cursor,
    /// The last span that was read.
    pub(super) last: Option<SpanKey>,
    /// Spans read since the last cursor.
    pub(super) unsaved: u64,
    /// The UTC day that `effects` counts.
    pub(super) day: NaiveDate,
    pub(super) effects: u64,
    /// Whether to check that an effect does not exist before it is written. True if the policy had a cursor when it was read:
    /// the ledger may have gone back to an older one.
    pub(super) is_careful: bool,
    /// The policy is suspended until then, because its decisions could not be carried out.
    pub(super) suspended_until: Option<Timestamp>,
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

/// A span without its long columns: enough to name it, and to write in its name.
pub(super) fn without_content(span: &SignedSpan) -> SignedSpan {
    let mut short = span.clone();
    let columns = &mut short.span;
    (columns.code, columns.description, columns.input, columns.output) = (None, None, None, None);
    (columns.content, columns.error, columns.metadata) = (None, None, None);
    short
}

impl Active {
    /// Whether it must wait: it has written as much as it may today, or it is suspended.
    pub(super) fn rests(&self, now: Timestamp) -> bool {
        let is_spent = self.day == now.day() && self.effects >= self.policy.effects_per_day;
        is_spent || self.suspended_until.is_some_and(|until| now < until)
    }

    /// Suspends it because its decisions cannot be carried out, and records a violation.
    pub(super) async fn suspend(&mut self, host: &Host, read: &Read, error: &HostError) -> Result<(), HostError> {
        tracing::error!(policy = %self.span.id, tenant = self.span.tenant_id, %error, "a policy could not be carried out");
        let failure = Failure::new("not_carried_out", error.to_string());
        if let Some((span, _)) = read.spans.first() {
            let cause = Cause { policy: &self.span, span, depth: 0, now: read.now, put_off: 0 };
            let violation = cause.violation("error", &failure, read.now.day()).draft;
            match host.record(&self.span.tenant_id, vec![violation], &AppendOptions::keep()).await {
                Err(error) if logline_kernels::harness::is_general(&error) => return Err(error),
                // The violation exists already, or it cannot be written either.
                _ => {}
            }
        }
        self.suspended_until = Some(read.now.saturating_add(SUSPENSION));
        Ok(())
    }

    /// Asks the policy about one page and carries out what it decides. Returns true if time ran out before the end of the page.
    pub(super) async fn step(
        &mut self,
        site: &Site,
        read: &Read,
        until: Instant,
        report: &mut AgentReport,
    ) -> Result<bool, HostError> {
        let today = read.now.day();
        if self.day < today {
            (self.day, self.effects) = (today, 0);
        }
        let trusted = site.host.trusted();
        let policy = Arc::clone(&self.span);
        let mut batch = Batch::default();
        let size = if self.policy.is_cel() { CHUNK } else { 1 };
        for chunk in (0..read.spans.len()).step_by(size) {
            if Instant::now() > until {
                self.commit(site, batch, read.now, report).await?;
                return Ok(true);
            }
            let decisions = self.decide(site, read, chunk..(chunk + size).min(read.spans.len())).await?;
            let spans = read.spans.get(chunk..).unwrap_or_default();
            for ((span, place), decision) in spans.iter().zip(decisions) {
                let depth = effects::depth(span, &trusted.authorities);
                let cause = Cause { policy: &policy, span, depth, now: read.now, put_off: 0 };
                report.spans += u64::from(decision.is_concerned());
                let limit = self.policy.effects_per_day;
                if matches!(decision, Verdict::Decided(Decision::Act(_) | Decision::Later(_))) && depth < MAX_DEPTH {
                    if self.effects + batch.len() as u64 >= limit {
                        // Effects in the batch that exist already do not count. After the commit their number is known.
                        self.commit(site, std::mem::take(&mut batch), read.now, report).await?;
                    }
                    if self.effects >= limit {
                        let message = format!("the policy has written {limit} effects today, its limit: it goes on tomorrow");
                        batch.effects.push(cause.violation("effects", &Failure::new("effects_exceeded", message), today));
                        self.commit(site, batch, read.now, report).await?;
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
                    Verdict::Decided(Decision::Act(actions)) => batch.act(cause, actions, &site.host, today),
                    Verdict::Failed(failure) => {
                        let what = if failure.code == "too_costly" { "cost" } else { "error" };
                        tracing::debug!(policy = %policy.id, span = %span.key(), %failure, "a policy could not decide");
                        batch.effects.push(cause.violation(what, &failure, today));
                    }
                }
                self.position = place.clone();
                // A cursor does not count as progress. Otherwise policies would write cursors about each other's cursors for
                // ever.
                if span.entity_type != CURSOR {
                    self.last = Some(span.key());
                    self.unsaved += 1;
                }
                if batch.len() >= BATCH || batch.bytes >= BATCH_BYTES {
                    self.commit(site, std::mem::take(&mut batch), read.now, report).await?;
                }
            }
        }
        if batch.len() > 0 || self.unsaved >= UNSAVED {
            self.commit(site, batch, read.now, report).await?;
        }
        self.position = read.end.clone();
        Ok(false)
    }

    /// Asks the policy about some spans of the page.
    async fn decide(&self, site: &Site, read: &Read, range: Range<usize>) -> Result<Vec<Verdict>, HostError> {
        let (policy, facts) = (Arc::clone(&self.policy), read.facts);
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
        let trusted = site.host.trusted();
        let sandbox = Sandboxed { sandboxes: site.host.sandboxes(), manifest: &trusted.manifest };
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
    async fn commit(&mut self, site: &Site, batch: Batch, now: Timestamp, report: &mut AgentReport) -> Result<(), HostError> {
        let Some(last) = self.last.clone() else { return Ok(()) };
        let (ledger, tenant) = (site.host.ledger(), &self.span.tenant_id);
        let scope = Scope::runtime(tenant);
        let mut drafts = Vec::with_capacity(batch.effects.len() + batch.tallies.len() + 1);
        let mut written = HashSet::new();
        for Effect { draft, is_keyed } in batch.effects {
            let id = draft.columns().id;
            if !written.insert(id) {
                continue;
            }
            let is_there = (is_keyed || self.is_careful) && !ledger.history(&scope, tenant, id, 0, 1).await?.is_empty();
            if !is_there {
                drafts.push(draft);
            }
        }
        for counted in batch.tallies.into_values() {
            let before = ledger.find(&scope, tenant, counted.tally.id).await?;
            let before = before.and_then(|before| before.verify(&mut Verifier::new()).ok());
            let cause = Cause { policy: &self.span, span: &counted.deepest.0, depth: counted.deepest.1, now, put_off: 0 };
            drafts.push(counted.tally.draft(counted.count, counted.sum, before.as_ref(), cause));
        }
        let effects = drafts.len() as u64;
        self.effects += drafts.iter().filter(|draft| draft.columns().entity_type != "policy_violation").count() as u64;
        let cursor = cursor(&self.span, self.saved.as_ref(), &last, (self.day, self.effects), now, site.id);
        drafts.push(cursor);
        let written = site.host.record(tenant, drafts, &AppendOptions::keep()).await?;
        self.saved = written.into_iter().last();
        self.unsaved = 0;
        report.effects += effects;
        metrics::counter!("logline_policy_effects_total").increment(effects);
        Ok(())
    }
}

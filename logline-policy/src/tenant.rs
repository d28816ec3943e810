//! The policies of one tenant: which are active, and one look at what they have not read yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{
    ActiveKind, Activity, Cursor, Ledger as _, LedgerError, LedgerExt as _, Page, Query, Versions, Work, WorkQueue as _, weight,
};
use logline_core::{EXECUTIONS_QUOTA, Failure, Hash, HostError, Scope, SpanKey, Timestamp, VerifiedSpan, Verifier, Visibility};
use logline_kernels::harness::active::{MAX_PER_TENANT, Refusal, in_force};
use logline_kernels::harness::is_general;
use tokio::time::Instant;
use uuid::Uuid;

use crate::NAME;
use crate::active::{Active, Read, without_content};
use crate::cursor::{after, cursor_id};
use crate::policy::{Facts, Policy};
use crate::site::{AgentReport, Site};

/// How long one look at a tenant goes on with the next policy. The tenants take turns.
const LOOK: Duration = Duration::from_millis(500);

/// How long one policy may take in one look, so that the other policies of its tenant do not wait for it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The most policies that one look reads for the first time.
const READ_AT_ONCE: usize = 256;

/// The most bytes of all active policies of a tenant together, as they are stored.
const MAX_BYTES: usize = 16 << 20;

/// What the agent knows of an active policy.
struct Known {
    hash: Hash,
    bytes: usize,
    /// `None` if the policy cannot be run. A violation has been recorded.
    active: Option<Box<Active>>,
}

/// The result of reading an active policy.
enum Activation {
    Active(Box<Active>, usize),
    /// Its signer may not sign it, or it cannot be read.
    Unauthorised(Failure),
    /// The policy cannot be run. The reason may quote it.
    Invalid(Failure, Visibility),
    /// There is a newer version, or a position in append order is not final yet. A later look tries again.
    Later,
}

/// What one look at a tenant left to do.
#[derive(Default)]
pub(super) struct Looked {
    /// There is more to read now.
    pub(super) has_more: bool,
    /// Something must wait: a policy rests, or a position is not final. Another look is needed although no row comes.
    pub(super) waits: bool,
    /// Policies whose signers may not sign them.
    pub(super) unauthorised: Vec<Work>,
    /// Why the first of them may not be signed; `None` if there is none.
    pub(super) failure: Option<Failure>,
    pub(super) report: AgentReport,
}

/// The policies of one tenant.
pub(super) struct Tenant {
    pub(super) name: String,
    known: BTreeMap<Uuid, Known>,
    /// The manifest under which they were read.
    manifest: Option<Hash>,
    /// The policy that was read for the first time last. The next look begins after it.
    read: Option<Uuid>,
    /// The policy that was asked last. The next look begins after it.
    asked: Option<Uuid>,
}

impl Tenant {
    pub(super) fn new(name: String) -> Self {
        Self { name, known: BTreeMap::new(), manifest: None, read: None, asked: None }
    }

    /// Reads one page for every policy, until the time of the look is used up.
    pub(super) async fn look(
        &mut self,
        site: &Site,
        works: &BTreeMap<Uuid, Work>,
        looked: &mut Looked,
    ) -> Result<(), HostError> {
        let until = Instant::now() + LOOK;
        let now = site.host.ledger().now().await?;
        self.learn(site, works, now, until, looked).await?;
        let mut policies = Vec::new();
        for (id, known) in &self.known {
            let Some(active) = &known.active else { continue };
            if active.rests(now) {
                looked.waits = true;
            } else {
                policies.push((*id, active.position.clone()));
            }
        }
        let first = policies.partition_point(|(id, _)| Some(*id) <= self.asked);
        policies.rotate_left(first);
        // Policies at the same position share a page. Policies that keep up are all at the same position.
        let mut page: Option<(Cursor, Read)> = None;
        for (id, position) in policies {
            if Instant::now() > until {
                looked.has_more = true;
                break;
            }
            let read = match page.take().filter(|(at, _)| *at == position) {
                Some((_, read)) => read,
                None => self.page(site, &position, now).await?,
            };
            looked.has_more |= read.has_more;
            self.asked = Some(id);
            self.ask(site, id, &read, until.min(Instant::now() + PATIENCE), looked).await?;
            page = Some((position, read));
        }
        Ok(())
    }

    /// Asks one policy about a page.
    async fn ask(&mut self, site: &Site, id: Uuid, read: &Read, until: Instant, looked: &mut Looked) -> Result<(), HostError> {
        let Some(active) = self.known.get_mut(&id).and_then(|known| known.active.as_mut()) else { return Ok(()) };
        match active.step(site, read, until, &mut looked.report).await {
            Ok(more) => looked.has_more |= more,
            // The next look reads the policy again.
            Err(error) if error.is_conflict() || error.is_keep_mismatch() => {
                tracing::debug!(policy = %id, tenant = self.name, %error, "another agent was faster");
                looked.report.conflicts += 1;
                looked.has_more = true;
                self.known.remove(&id);
            }
            Err(error) if is_general(&error) => {
                // The policy is read again, because some of the page may have been carried out.
                self.known.remove(&id);
                return Err(error);
            }
            // An error of one policy must not stop the others.
            Err(error) => {
                active.suspend(&site.host, read, &error).await?;
                looked.waits = true;
            }
        }
        Ok(())
    }

    /// Reads policies that are new or have a new version, and forgets those that are no longer active.
    async fn learn(
        &mut self,
        site: &Site,
        works: &BTreeMap<Uuid, Work>,
        now: Timestamp,
        until: Instant,
        looked: &mut Looked,
    ) -> Result<(), HostError> {
        let manifest = site.host.trusted().span.seal.curr_hash;
        if self.manifest.replace(manifest) != Some(manifest) {
            // The rights of those who signed them may have ended.
            self.known.clear();
            self.read = None;
        }
        self.known.retain(|id, known| works.get(id).is_some_and(|work| work.curr_hash == known.hash));
        let new: Vec<&Work> = works.values().filter(|work| !self.known.contains_key(&work.id)).collect();
        let first = new.partition_point(|work| Some(work.id) <= self.read);
        looked.has_more |= new.len() > READ_AT_ONCE;
        for work in new.iter().cycle().skip(first).take(new.len().min(READ_AT_ONCE)) {
            if Instant::now() > until {
                looked.has_more = true;
                break;
            }
            self.read = Some(work.id);
            let mut active = None;
            let mut bytes = 0;
            match self.activate(site, work, now).await? {
                Activation::Active(found, size) => match self.over_the_limit(size) {
                    None => (active, bytes) = (Some(found), size),
                    Some(failure) => self.refuse(site, work, (&failure, found.span.visibility), now, looked).await?,
                },
                Activation::Invalid(failure, visibility) => {
                    self.refuse(site, work, (&failure, visibility), now, looked).await?
                }
                Activation::Unauthorised(failure) => {
                    looked.report.refused += 1;
                    looked.unauthorised.push((*work).clone());
                    looked.failure.get_or_insert(failure);
                    continue;
                }
                Activation::Later => {
                    looked.waits = true;
                    continue;
                }
            }
            self.known.insert(work.id, Known { hash: work.curr_hash, bytes, active });
        }
        Ok(())
    }

    /// Why one more policy of this size is too much; `None` if it is not.
    fn over_the_limit(&self, bytes: usize) -> Option<Failure> {
        let active = self.known.values().filter(|known| known.active.is_some());
        let (count, held) = active.fold((0, 0_usize), |(count, held), known| (count + 1, held + known.bytes));
        let advice = "give others another status than `active`";
        if count >= MAX_PER_TENANT {
            let message = format!("the tenant has {MAX_PER_TENANT} active policies already, the limit: {advice}");
            return Some(Failure::new("too_many_policies", message));
        }
        (held.saturating_add(bytes) > MAX_BYTES).then(|| {
            let message =
                format!("the active policies of the tenant have {held} bytes, and the limit is {MAX_BYTES}: {advice}");
            Failure::new("too_many_policies", message)
        })
    }

    /// Records that a policy cannot be run. It is ignored until it has another version.
    async fn refuse(
        &self,
        site: &Site,
        work: &Work,
        (failure, visibility): (&Failure, Visibility),
        now: Timestamp,
        looked: &mut Looked,
    ) -> Result<(), HostError> {
        tracing::warn!(policy = %work.id, tenant = work.tenant_id, %failure, "a policy cannot be run");
        looked.report.refused += 1;
        let refusal = Refusal { kernel: NAME, kind: ActiveKind::Policy, failure, now };
        refusal.record(&site.host, refusal.of(work, visibility)).await
    }

    /// Reads a policy and how far it has read.
    async fn activate(&self, site: &Site, work: &Work, now: Timestamp) -> Result<Activation, HostError> {
        let (ledger, tenant) = (site.host.ledger(), &work.tenant_id);
        let scope = Scope::runtime(tenant);
        let span = match in_force(&site.host, work, now).await {
            Ok(Some(span)) => span,
            Ok(None) => return Ok(Activation::Later),
            Err(error @ LedgerError::Damaged { .. }) => {
                return Ok(Activation::Unauthorised(Failure::new("policy_damaged", error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        let key = span.key();
        let span = match span.verify(&mut Verifier::new()) {
            Ok(span) => span,
            Err(error) => return Ok(Activation::Unauthorised(Failure::new("policy_not_verified", error.to_string()))),
        };
        if let Err(error) = site.host.trusted().authorities.check(&span) {
            return Ok(Activation::Unauthorised(Failure::new("policy_not_authorised", error.to_string())));
        }
        // A large policy takes up to a second, on a thread of its own.
        let span = Arc::new(span);
        let compiling = {
            let span = Arc::clone(&span);
            tokio::task::spawn_blocking(move || Policy::of(&span))
        };
        let policy = match compiling.await.map_err(|_| HostError::Panicked { what: "the compilation of a policy" })? {
            Ok(policy) => policy,
            Err(failure) => return Ok(Activation::Invalid(failure, span.visibility)),
        };
        let saved = match ledger.find(&scope, tenant, cursor_id(tenant, work.id)).await {
            Ok(saved) => saved.and_then(|saved| saved.verify(&mut Verifier::new()).ok()),
            Err(error @ LedgerError::Damaged { .. }) => {
                return Ok(Activation::Invalid(Failure::new("cursor_damaged", error.to_string()), span.visibility));
            }
            Err(error) => return Err(error.into()),
        };
        let told = last_of_a_host(site, &scope, saved.as_ref()).await?;
        let last = told.as_ref().and_then(|told| after(tenant, told));
        let found = match &last {
            Some(last) => position(site, &scope, last).await?,
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
            return Ok(Activation::Invalid(Failure::new("cursor_lost", message), span.visibility));
        }
        let position = match found {
            Some(position) => position,
            // A policy concerns only spans that are appended after it. What its versions before this one have not read yet is
            // this one's to read.
            None => match position(site, &scope, &begin(site, &scope, key).await?).await? {
                Some(position) => position,
                None => return Ok(Activation::Later),
            },
        };
        let counted = told.as_ref().and_then(|told| told.meta("effects"));
        let day = counted.and_then(|counted| counted.get("day")?.as_str()?.parse().ok()).unwrap_or(now.day());
        let effects = counted.and_then(|counted| counted.get("count")?.as_u64()).unwrap_or(0);
        let bytes = weight(&span.to_line());
        let active = Active {
            span: Arc::new(without_content(&span)),
            policy: Arc::new(policy),
            saved,
            position,
            last,
            unsaved: 0,
            day,
            effects,
            is_careful,
            suspended_until: None,
        };
        Ok(Activation::Active(Box::new(active), bytes))
    }

    async fn page(&self, site: &Site, position: &Cursor, now: Timestamp) -> Result<Read, HostError> {
        let tenant = self.name.as_str();
        let (ledger, scope) = (site.host.ledger(), Scope::runtime(tenant));
        let query = Query::timeline().tenant(tenant).limit(site.options.page);
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
            let limit = site.host.trusted().manifest.throttle.per_tenant_daily_exec_limit.unwrap_or(0);
            Facts::new(ledger.used(tenant, EXECUTIONS_QUOTA).await?, limit)
        };
        let end = end.unwrap_or_else(|| position.clone());
        Ok(Read { spans: Arc::new(spans), end, has_more: next.is_some(), facts, now })
    }
}

/// How many versions of a policy or of a cursor are read to find out where a policy begins.
const MAX_VERSIONS: usize = 1000;

/// The version with which a policy became active: from it on, every version up to `key` is active and signed by a key that may.
async fn begin(site: &Site, scope: &Scope, key: SpanKey) -> Result<SpanKey, HostError> {
    let (mut first, mut from, mut read) = (None, 0, 0);
    while read < MAX_VERSIONS && from <= key.seq {
        let versions = site.host.ledger().history(scope, &key.tenant_id, key.id, from, 100).await?;
        let Some(last) = versions.last() else { break };
        (from, read) = (last.seq.saturating_add(1), read + versions.len());
        for version in versions.into_iter().filter(|version| version.seq <= key.seq) {
            let is_active = Activity::of(&version) == Activity::Active(ActiveKind::Policy);
            let key = version.key();
            let counts = is_active
                && version.verify(&mut Verifier::new()).is_ok_and(|span| site.host.trusted().authorities.check(&span).is_ok());
            first = if counts { first.or(Some(key)) } else { None };
        }
    }
    Ok(first.unwrap_or(key))
}

/// The last version of a cursor that a host has signed. `saved` is the last version of all.
async fn last_of_a_host(site: &Site, scope: &Scope, saved: Option<&VerifiedSpan>) -> Result<Option<VerifiedSpan>, HostError> {
    let Some(saved) = saved else { return Ok(None) };
    let is_of_a_host =
        |span: &VerifiedSpan| span.entity_type == "policy_cursor" && site.host.trusted().authorities.check(span).is_ok();
    if is_of_a_host(saved) {
        return Ok(Some(saved.clone()));
    }
    tracing::error!(cursor = %saved.key(), "a cursor is signed by a key that may not: it is not obeyed; run fsck");
    let from = saved.seq.saturating_sub(u32::try_from(MAX_VERSIONS).unwrap_or(u32::MAX));
    let versions = site.host.ledger().history(scope, &saved.tenant_id, saved.id, from, MAX_VERSIONS).await?;
    let verified = versions.into_iter().rev().filter_map(|version| version.verify(&mut Verifier::new()).ok());
    Ok(verified.into_iter().find(is_of_a_host))
}

/// The position of a span version in append order. `None` if it is not found, or its position is not final yet.
async fn position(site: &Site, scope: &Scope, key: &SpanKey) -> Result<Option<Cursor>, HostError> {
    let query = Query::new().tenant(&key.tenant_id).id(key.id).versions(Versions::All);
    let mut cursor = None;
    loop {
        let page = site.host.ledger().scan(scope, &query, cursor.as_ref()).await?;
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

//! `observer_bot`: submits one request for every slot of every schedule, also if several schedulers run.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::work::in_turns;
use logline_core::ledger::{ActiveKind, Ledger as _, LedgerError, Work, WorkQueue as _};
use logline_core::request::Request;
use logline_core::{
    Failure, Hash, Host, HostError, Scope, Service, ServiceReport, Shutdown, SignedSpan, Timestamp, VerifiedSpan, Verifier,
    Visibility, ids,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::NAME;
use super::rule::Schedule;
use crate::harness::active::{ActiveList, MAX_PER_TENANT, Refusal, in_force};
use crate::harness::{Backoff, is_general, jittered, may_pass};

const VERSION: u32 = 2;

/// The options of a [`Scheduler`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// The time between polls. Each interval is up to a quarter shorter or longer. Default 2 seconds.
    pub poll: Duration,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(2) }
    }
}

impl SchedulerOptions {
    /// Sets the time between polls.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }
}

/// What a scheduler did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SchedulerReport {
    /// Slots for which it submitted a request. Requests that another scheduler submitted first count as well.
    pub submitted: u64,
    /// Functions whose schedule it could not run.
    pub refused: u64,
}

impl ServiceReport for SchedulerReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("submitted", self.submitted), ("refused", self.refused)]
    }
}

/// The most slots of one function in one poll, so that the other functions do not wait for it.
const PER_FUNCTION: usize = 16;

/// How long one poll works for one tenant. The next poll follows at once, and begins with its next function.
const PER_TENANT: Duration = Duration::from_millis(250);

/// What the scheduler knows of a scheduled function. The function itself, which may be large, is read when a slot is due.
struct Known {
    hash: Hash,
    /// Without its input. `None` if the schedule cannot be run. A violation has been recorded.
    schedule: Option<Schedule>,
    /// Slots up to this time have requests, or were missed.
    done: Timestamp,
    /// The next slot. `None` if there is none.
    next: Option<Timestamp>,
}

impl Known {
    fn is_due(&self, now: Timestamp) -> bool {
        self.schedule.is_some() && self.next.is_some_and(|next| next <= now)
    }
}

/// The loop `observer_bot`, version 2. Any number of hosts may run it, and each slot still gets one request.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    options: SchedulerOptions,
}

impl Scheduler {
    /// Creates a scheduler with these options.
    #[must_use]
    pub fn new(options: SchedulerOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Service for Scheduler {
    fn id(&self) -> Uuid {
        ids::OBSERVER
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, mut shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        host.boot(ids::OBSERVER).await?;
        let list = ActiveList::new(ActiveKind::Schedule);
        let mut schedules =
            Schedules { host, list, known: HashMap::new(), last: HashMap::new(), report: SchedulerReport::default() };
        let mut backoff = Backoff::default();
        loop {
            let pause = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(schedules.report)),
                polled = schedules.poll() => match polled {
                    Ok(true) => Duration::ZERO,
                    Ok(false) => {
                        backoff = Backoff::default();
                        jittered(host, self.options.poll)
                    }
                    Err(error) if may_pass(&error) => {
                        tracing::warn!(%error, "schedules cannot be processed now; trying again");
                        backoff.next(host)
                    }
                    Err(error) => return Err(error),
                },
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(schedules.report)),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The result of reading a scheduled function.
enum Reading {
    Function(Box<VerifiedSpan>, Schedule),
    /// Its signer may not sign it.
    Unauthorised(Failure),
    /// The schedule cannot be run. What it says may be as private as the function.
    Invalid(Failure, Visibility),
    /// It has another version by now.
    Gone,
}

struct Schedules<'a> {
    host: &'a Host,
    list: ActiveList,
    known: HashMap<(String, Uuid), Known>,
    /// The function of each tenant that had the last turn. The next poll begins after it.
    last: HashMap<String, Uuid>,
    report: SchedulerReport,
}

impl Schedules<'_> {
    /// Submits the due slots of every schedule. Returns true if there is more to do now.
    async fn poll(&mut self) -> Result<bool, HostError> {
        let now = self.host.ledger().now().await?;
        self.list.update(self.host).await?;
        let list = &self.list;
        self.known.retain(|(tenant, id), _| list.of(tenant).contains_key(id));
        self.last.retain(|tenant, _| !list.of(tenant).is_empty());
        // Tenants take turns, so that the schedules of one tenant do not delay those of another.
        let mut tenants = Vec::new();
        for tenant in list.tenants() {
            let mut schedules: Vec<Work> = list.of(tenant).values().cloned().collect();
            if let Some(last) = self.last.get(tenant) {
                let after = schedules.partition_point(|work| work.id <= *last);
                schedules.rotate_left(after);
            }
            schedules.retain(|work| self.known(work).is_none_or(|known| known.is_due(now)));
            tenants.push(schedules);
        }
        let mut accepted: HashMap<String, usize> = HashMap::new();
        for ((tenant, _), _) in self.known.iter().filter(|(_, known)| known.schedule.is_some()) {
            *accepted.entry(tenant.clone()).or_default() += 1;
        }
        let mut spent: HashMap<String, Duration> = HashMap::new();
        let mut has_more = false;
        let mut denied = HashSet::new();
        let mut unauthorised: Vec<(Work, Failure)> = Vec::new();
        for work in in_turns(tenants, usize::MAX) {
            let began = Instant::now();
            if spent.get(&work.tenant_id).is_some_and(|spent| *spent >= PER_TENANT) {
                has_more = true;
                continue;
            }
            self.last.insert(work.tenant_id.clone(), work.id);
            if self.known(&work).is_none() {
                let of_tenant = accepted.entry(work.tenant_id.clone()).or_default();
                match self.learn(&work, *of_tenant, now).await {
                    Ok(Reading::Unauthorised(failure)) => unauthorised.push((work.clone(), failure)),
                    Ok(Reading::Function(..)) => *of_tenant += 1,
                    Ok(_) => {}
                    Err(error) if is_general(&error) => return Err(error),
                    Err(error) => self.fail(&work, &error, now).await?,
                }
            }
            match self.attend(&work, now, &mut denied).await {
                Ok(more) => has_more |= more,
                Err(error) if is_general(&error) => return Err(error),
                // An error of one schedule must not stop the others.
                Err(error) => self.fail(&work, &error, now).await?,
            }
            *spent.entry(work.tenant_id).or_default() += began.elapsed();
        }
        unauthorised.sort_by(|(one, _), (other, _)| one.tenant_id.cmp(&other.tenant_id));
        for tenant in unauthorised.chunk_by(|(one, _), (other, _)| one.tenant_id == other.tenant_id) {
            let Some((_, failure)) = tenant.first() else { continue };
            let refused: Vec<_> = tenant.iter().map(|(work, _)| work.clone()).collect();
            self.report.refused += refused.len() as u64;
            self.list.refuse(self.host, &refused, (NAME, failure), now).await?;
        }
        Ok(has_more)
    }

    /// What is known of this version of a schedule; `None` if it has not been read.
    fn known(&self, work: &Work) -> Option<&Known> {
        self.known.get(&(work.tenant_id.clone(), work.id)).filter(|known| known.hash == work.curr_hash)
    }

    /// Submits the due slots of one schedule. Returns true if more of its slots are due.
    async fn attend(&mut self, work: &Work, now: Timestamp, denied: &mut HashSet<String>) -> Result<bool, HostError> {
        let key = (work.tenant_id.clone(), work.id);
        let Some(known) = self.known.get(&key) else { return Ok(false) };
        if !known.is_due(now) || denied.contains(&work.tenant_id) {
            return Ok(false);
        }
        let Reading::Function(function, schedule) = self.read(work).await? else { return Ok(false) };
        if !self.host.is_within_quota(&function).await? {
            denied.insert(work.tenant_id.clone());
            return Ok(false);
        }
        let mut due = schedule.due(known.done, now);
        let has_more = due.len() > PER_FUNCTION;
        due.truncate(PER_FUNCTION);
        let requests = due.iter().map(|slot| schedule.request(&function, *slot));
        let submitted = submit(self.host, requests.collect()).await?;
        self.report.submitted += submitted.count;
        if let Some(id) = submitted.occupied {
            let message =
                format!("a row that no host may have written has the id of a slot, {id}: the slot was not submitted; run fsck");
            let failure = Failure::new("slot_occupied", message);
            tracing::error!(function = %work.id, tenant = work.tenant_id, %failure, "a slot is occupied");
            let refusal = Refusal { kernel: NAME, kind: ActiveKind::Schedule, failure: &failure, now };
            refusal.record(self.host, refusal.of(work, function.visibility)).await?;
        }
        let Some(known) = self.known.get_mut(&key) else { return Ok(false) };
        // If no slot is to run, the slots up to `now` were missed and `catch_up` skips them.
        known.done = due.last().copied().unwrap_or(now);
        known.next = schedule.next(known.done);
        Ok(has_more)
    }

    /// Records that a schedule failed. It is ignored until it has another version.
    async fn fail(&mut self, work: &Work, error: &HostError, now: Timestamp) -> Result<(), HostError> {
        let failure = Failure::new("schedule_failed", error.to_string());
        self.ignore(work, &failure, Visibility::Private, now).await
    }

    /// Records that a schedule cannot be run. It is ignored until it has another version.
    async fn ignore(
        &mut self,
        work: &Work,
        failure: &Failure,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<(), HostError> {
        tracing::warn!(function = %work.id, tenant = work.tenant_id, %failure, "a schedule cannot be run");
        self.report.refused += 1;
        let refusal = Refusal { kernel: NAME, kind: ActiveKind::Schedule, failure, now };
        refusal.record(self.host, refusal.of(work, visibility)).await?;
        let known = Known { hash: work.curr_hash, schedule: None, done: now, next: None };
        self.known.insert((work.tenant_id.clone(), work.id), known);
        Ok(())
    }

    /// Reads a schedule for the first time, beside `others` of its tenant.
    async fn learn(&mut self, work: &Work, others: usize, now: Timestamp) -> Result<Reading, HostError> {
        let reading = self.read(work).await?;
        let (function, rule) = match &reading {
            Reading::Function(function, rule) => (function, rule),
            Reading::Invalid(failure, visibility) => {
                self.ignore(work, failure, *visibility, now).await?;
                return Ok(reading);
            }
            _ => return Ok(reading),
        };
        if others >= MAX_PER_TENANT {
            let message =
                format!("the tenant has {MAX_PER_TENANT} schedules already, the limit: give the others another status");
            let failure = Failure::new("too_many_schedules", message);
            self.ignore(work, &failure, function.visibility, now).await?;
            return Ok(Reading::Invalid(failure, function.visibility));
        }
        // Slots before the publication of this version do not run. Of the later slots, requests exist up to one slot and for
        // none after it, so a binary search finds that slot.
        let (scope, due) = (Scope::runtime(&work.tenant_id), rule.due(function.at, now));
        let (mut low, mut high) = (0_usize, due.len());
        while let Some(slot) = due.get(low.midpoint(high)).filter(|_| low < high) {
            let Some(id) = rule.request(function, *slot).derived_id() else { break };
            let stored = self.host.ledger().history(&scope, &work.tenant_id, id, 0, 1).await?.into_iter().next();
            if !stored.is_some_and(|row| is_request_of(self.host, row, work.id)) {
                high = low.midpoint(high);
            } else {
                low = low.midpoint(high) + 1;
            }
        }
        let done = low.checked_sub(1).and_then(|n| due.get(n)).copied().unwrap_or(function.at);
        let next = rule.next(done);
        let known = Known { hash: work.curr_hash, done, next, schedule: Some(rule.clone().without_input()) };
        self.known.insert((work.tenant_id.clone(), work.id), known);
        Ok(reading)
    }

    async fn read(&self, work: &Work) -> Result<Reading, HostError> {
        let function = match in_force(self.host, work, self.host.ledger().now().await?).await {
            Ok(Some(function)) => function,
            Ok(None) => return Ok(Reading::Gone),
            Err(error @ LedgerError::Damaged { .. }) => {
                return Ok(Reading::Unauthorised(Failure::new("function_damaged", error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        let function = match function.verify(&mut Verifier::new()) {
            Ok(function) => function,
            Err(error) => return Ok(Reading::Unauthorised(Failure::new("function_not_verified", error.to_string()))),
        };
        if let Err(error) = self.host.trusted().authorities.check(&function) {
            return Ok(Reading::Unauthorised(Failure::new("function_not_authorised", error.to_string())));
        }
        Ok(match Schedule::of(&function) {
            Ok(schedule) => Reading::Function(Box::new(function), schedule),
            Err(failure) => Reading::Invalid(failure, function.visibility),
        })
    }
}

/// Whether a stored row is a request of this function whose signer may sign it. Anybody who can write to the store can take an id.
fn is_request_of(host: &Host, row: SignedSpan, function: Uuid) -> bool {
    let row = row.verify(&mut Verifier::new());
    row.is_ok_and(|row| {
        row.entity_type == "request" && row.parent_id == Some(function) && host.trusted().authorities.check(&row).is_ok()
    })
}

struct Submitted {
    /// How many requests there are now, including those that existed already.
    count: u64,
    /// The id of a request that could not be stored, because a row that is none has it.
    occupied: Option<Uuid>,
}

/// Submits requests of one function.
async fn submit(host: &Host, requests: Vec<Request>) -> Result<Submitted, HostError> {
    let (mut count, mut occupied) = (requests.len() as u64, None);
    match host.submit_all(requests.clone()).await {
        Ok(_) => {}
        // Another scheduler made one of them from another version of the function. They are submitted one by one, so that the
        // others are made.
        Err(error) if is_taken(&error) => {
            for request in requests {
                let (tenant, function, id) = (request.tenant.clone(), request.function, request.derived_id());
                match host.submit(request).await {
                    Ok(_) => continue,
                    Err(error) if !is_taken(&error) => return Err(error),
                    Err(_) => {}
                }
                let Some(id) = id else { continue };
                let stored = host.ledger().history(&Scope::runtime(&tenant), &tenant, id, 0, 1).await?.into_iter().next();
                if !stored.is_some_and(|row| is_request_of(host, row, function)) {
                    (count, occupied) = (count.saturating_sub(1), Some(id));
                }
            }
        }
        Err(error) => return Err(error),
    }
    metrics::counter!("logline_slots_total").increment(count);
    Ok(Submitted { count, occupied })
}

/// Whether another row has the id of a request.
fn is_taken(error: &HostError) -> bool {
    error.is_keep_mismatch() || matches!(error, HostError::NotAuthorised(_) | HostError::NotVerified(_))
}

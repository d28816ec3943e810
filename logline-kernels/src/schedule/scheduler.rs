//! `observer_bot`: submits one request for every slot of every schedule, also if several schedulers run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::{ActiveKind, Ledger as _, LedgerExt as _, Work, WorkQueue as _};
use logline_core::request::Request;
use logline_core::{
    Failure, Hash, Host, HostError, Scope, Service, ServiceReport, Shutdown, Timestamp, VerifiedSpan, Verifier, ids,
};
use uuid::Uuid;

use super::NAME;
use super::rule::Schedule;
use crate::harness::{Backoff, active, is_general, jittered, may_pass};

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

/// The most functions that one poll reads for the first time.
const READ_AT_ONCE: usize = 256;

/// What the scheduler knows of a scheduled function.
struct Known {
    hash: Hash,
    /// `None` if the schedule cannot be run. A violation has been recorded.
    schedule: Option<(Arc<VerifiedSpan>, Schedule)>,
    /// Slots up to this time have requests, or were missed.
    done: Timestamp,
    /// The next slot. `None` if there is none.
    next: Option<Timestamp>,
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
        let mut schedules = Schedules { host, known: HashMap::new(), read: None, report: SchedulerReport::default() };
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

struct Schedules<'a> {
    host: &'a Host,
    known: HashMap<(String, Uuid), Known>,
    /// The function that was read last. The next poll begins after it, so that each function has its turn.
    read: Option<Work>,
    report: SchedulerReport,
}

impl Schedules<'_> {
    /// Submits the due slots of every schedule. Returns true if there is more to do now.
    async fn poll(&mut self) -> Result<bool, HostError> {
        let now = self.host.ledger().now().await?;
        let schedules = active::list(self.host, ActiveKind::Schedule, self.read.as_ref()).await?;
        let keys: HashSet<(&str, Uuid)> = schedules.iter().map(|work| (work.tenant_id.as_str(), work.id)).collect();
        self.known.retain(|(tenant, id), _| keys.contains(&(tenant.as_str(), *id)));
        let (mut has_more, mut read) = (false, 0);
        let mut denied = HashSet::new();
        for work in &schedules {
            let key = (work.tenant_id.clone(), work.id);
            let is_new = self.known.get(&key).is_none_or(|known| known.hash != work.curr_hash);
            if is_new {
                if read == READ_AT_ONCE {
                    has_more = true;
                    continue;
                }
                read += 1;
                self.read = Some(work.clone());
            }
            match self.attend(work, is_new, now, &mut denied).await {
                Ok(more) => has_more |= more,
                Err(error) if is_general(&error) => return Err(error),
                // An error of one schedule must not stop the others.
                Err(error) => {
                    let refused = self.refuse(work, &Failure::new("schedule_failed", error.to_string()), now).await?;
                    self.known.insert(key, refused);
                }
            }
        }
        Ok(has_more)
    }

    /// Submits the due slots of one schedule. Returns true if more of its slots are due.
    async fn attend(
        &mut self,
        work: &Work,
        is_new: bool,
        now: Timestamp,
        denied: &mut HashSet<String>,
    ) -> Result<bool, HostError> {
        let key = (work.tenant_id.clone(), work.id);
        if is_new {
            let Some(known) = self.read(work, now).await? else { return Ok(false) };
            self.known.insert(key.clone(), known);
        }
        let Some(known) = self.known.get_mut(&key) else { return Ok(false) };
        let is_due = known.next.is_some_and(|next| next <= now) && !denied.contains(&work.tenant_id);
        let Some((function, schedule)) = known.schedule.as_ref().filter(|_| is_due) else { return Ok(false) };
        if !self.host.is_within_quota(function).await? {
            denied.insert(work.tenant_id.clone());
            return Ok(false);
        }
        let mut due = schedule.due(known.done, now);
        let has_more = due.len() > PER_FUNCTION;
        due.truncate(PER_FUNCTION);
        let requests = due.iter().map(|slot| schedule.request(function, *slot));
        self.report.submitted += submit(self.host, requests.collect()).await?;
        // If no slot is to run, the slots up to `now` were missed and `catch_up` skips them.
        known.done = due.last().copied().unwrap_or(now);
        known.next = schedule.next(known.done);
        Ok(has_more)
    }

    /// Records that a schedule cannot be run. It is ignored until it has another version.
    async fn refuse(&mut self, work: &Work, failure: &Failure, now: Timestamp) -> Result<Known, HostError> {
        tracing::warn!(function = %work.id, tenant = work.tenant_id, %failure, "a schedule cannot be run");
        self.report.refused += 1;
        match active::refuse(self.host, work, (NAME, ActiveKind::Schedule), failure, now).await {
            Err(error) if is_general(&error) => return Err(error),
            Err(error) => tracing::error!(%error, "the violation could not be recorded"),
            Ok(()) => {}
        }
        Ok(Known { hash: work.curr_hash, schedule: None, done: now, next: None })
    }

    /// Reads a schedule for the first time. `None` if the function has another version by now.
    async fn read(&mut self, work: &Work, now: Timestamp) -> Result<Option<Known>, HostError> {
        let scope = Scope::runtime(&work.tenant_id);
        let Some(function) = self.host.ledger().find(&scope, &work.tenant_id, work.id).await? else { return Ok(None) };
        if function.seal.curr_hash != work.curr_hash {
            return Ok(None);
        }
        let checked = match function.verify(&mut Verifier::new()) {
            Ok(function) => match self.host.trusted().authorities.check(&function) {
                Ok(()) => Schedule::of(&function).map(|schedule| (Arc::new(function), schedule)),
                Err(error) => Err(Failure::new("function_not_authorised", error.to_string())),
            },
            Err(error) => Err(Failure::new("function_not_verified", error.to_string())),
        };
        let schedule = match checked {
            Ok(schedule) => schedule,
            Err(failure) => return self.refuse(work, &failure, now).await.map(Some),
        };
        let (function, rule) = &schedule;
        // Slots before the publication of this version do not run. Of the later slots, requests exist up to one slot and for
        // none after it, so a binary search finds that slot.
        let due = rule.due(function.at, now);
        let (mut low, mut high) = (0_usize, due.len());
        while let Some(slot) = due.get(low.midpoint(high)).filter(|_| low < high) {
            let Some(id) = rule.request(function, *slot).derived_id() else { break };
            if self.host.ledger().history(&scope, &work.tenant_id, id, 0, 1).await?.is_empty() {
                high = low.midpoint(high);
            } else {
                low = low.midpoint(high) + 1;
            }
        }
        let done = low.checked_sub(1).and_then(|n| due.get(n)).copied().unwrap_or(function.at);
        let next = rule.next(done);
        Ok(Some(Known { hash: work.curr_hash, done, next, schedule: Some(schedule) }))
    }
}

/// Submits requests of one function and returns their number, including those that existed already.
async fn submit(host: &Host, requests: Vec<Request>) -> Result<u64, HostError> {
    let count = requests.len() as u64;
    match host.submit_all(requests.clone()).await {
        Ok(_) => {}
        // Another scheduler made one of them from another version of the function. They are submitted one by one, so that the
        // others are made.
        Err(error) if error.is_keep_mismatch() => {
            for request in requests {
                match host.submit(request).await {
                    Err(error) if !error.is_keep_mismatch() => return Err(error),
                    _ => {}
                }
            }
        }
        Err(error) => return Err(error),
    }
    metrics::counter!("logline_slots_total").increment(count);
    Ok(count)
}

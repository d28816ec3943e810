//! `observer_bot`: submits a request for every slot of every schedule, once, whoever else observes.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use logline_core::kernel::Service;
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, MAX_STANDING, Standing, Work, WorkQueue as _};
use logline_core::request::Request;
use logline_core::sandbox::Failure;
use logline_core::{Draft, Hash, Host, HostError, Scope, Timestamp, VerifiedSpan, Verifier, Visibility, ids};
use serde_json::json;
use uuid::Uuid;

use crate::pace::{Backoff, jittered, may_pass};
use crate::schedule::Schedule;

/// The kernel `observer_bot`, version 2.
pub(crate) const SERVICE: Service = Service { name: "observer_bot", version: 2 };

/// How a host attends to schedules.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ObserverOptions {
    /// How often to look; each look comes up to a quarter early or late. Default 2 seconds.
    pub poll: Duration,
}

impl Default for ObserverOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(2) }
    }
}

impl ObserverOptions {
    /// Sets how often to look.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }
}

/// What an observer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Observed {
    /// Requests that it submitted, or that another observer had submitted first.
    pub submitted: u64,
    /// Functions whose schedule it could not follow.
    pub refused: u64,
}

/// Slots of one function in one look, so that none keeps the others waiting.
const PER_FUNCTION: usize = 16;

/// Functions that are read for the first time in one look.
const READ_AT_ONCE: usize = 256;

/// What is known of a scheduled function.
struct Known {
    hash: Hash,
    /// `None`: it cannot be followed, which has been recorded.
    schedule: Option<(Arc<VerifiedSpan>, Schedule)>,
    /// Slots up to here have requests.
    done: Timestamp,
    /// The next slot.
    next: Option<Timestamp>,
}

pub(crate) async fn run<S>(host: &Host, options: ObserverOptions, shutdown: S) -> Result<Observed, HostError>
where
    S: Future<Output = ()> + Send,
{
    host.boot(ids::OBSERVER).await?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut observer = Observer { host, known: HashMap::new(), observed: Observed::default() };
    let mut backoff = Backoff::default();
    loop {
        let pause = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(observer.observed),
            looked = observer.look() => match looked {
                Ok(true) => Duration::ZERO,
                Ok(false) => {
                    backoff = Backoff::default();
                    jittered(host, options.poll)
                }
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%error, "cannot attend to schedules");
                    backoff.next(host)
                }
                Err(error) => return Err(error),
            },
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(observer.observed),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Observer<'a> {
    host: &'a Host,
    known: HashMap<(String, Uuid), Known>,
    observed: Observed,
}

impl Observer<'_> {
    /// Attends to every schedule once. True where there is more to do at once.
    async fn look(&mut self) -> Result<bool, HostError> {
        let ledger = self.host.ledger();
        let now = ledger.now().await?;
        let mut standing: Vec<Work> = Vec::new();
        loop {
            let page = ledger.standing(Standing::Schedule, standing.last(), MAX_STANDING).await?;
            let is_last = page.len() < MAX_STANDING;
            standing.extend(page);
            if is_last {
                break;
            }
        }
        let stands: std::collections::HashSet<(&str, Uuid)> =
            standing.iter().map(|work| (work.tenant_id.as_str(), work.id)).collect();
        self.known.retain(|(tenant, id), _| stands.contains(&(tenant.as_str(), *id)));
        let (mut has_more, mut read) = (false, 0);
        let mut denied = std::collections::HashSet::new();
        for work in &standing {
            let key = (work.tenant_id.clone(), work.id);
            if self.known.get(&key).is_none_or(|known| known.hash != work.curr_hash) {
                if read == READ_AT_ONCE {
                    has_more = true;
                    continue;
                }
                read += 1;
                let Some(known) = self.read(work, now).await? else { continue };
                self.known.insert(key.clone(), known);
            }
            let Some(known) = self.known.get_mut(&key) else { continue };
            let Some((function, schedule)) = known.schedule.as_ref().filter(|_| known.next.is_some_and(|next| next <= now))
            else {
                continue;
            };
            if denied.contains(&work.tenant_id) {
                continue;
            }
            if !self.host.is_within_quota(function).await? {
                denied.insert(work.tenant_id.clone());
                continue;
            }
            let mut due = schedule.due(known.done, now);
            has_more |= due.len() > PER_FUNCTION;
            due.truncate(PER_FUNCTION);
            let requests = due.iter().map(|slot| schedule.request(function, *slot));
            self.observed.submitted += submit(self.host, requests.collect()).await?;
            // Where nothing was due, what there was has been missed.
            known.done = due.last().copied().unwrap_or(now);
            known.next = schedule.next(known.done);
        }
        Ok(has_more)
    }

    /// Reads a schedule for the first time; `None` where it is another by now.
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
            Err(failure) => {
                tracing::warn!(function = %work.id, tenant = work.tenant_id, %failure, "a schedule cannot be followed");
                self.observed.refused += 1;
                record_refusal(self.host, work, "schedule", &failure, now).await?;
                return Ok(Some(Known { hash: work.curr_hash, schedule: None, done: now, next: None }));
            }
        };
        let (function, rule) = &schedule;
        // Slots before its publication are nobody's; of the others, requests exist up to some slot and none after it.
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

/// Submits requests of one function; how many there are now.
async fn submit(host: &Host, requests: Vec<Request>) -> Result<u64, HostError> {
    let count = requests.len() as u64;
    match host.submit_all(requests.clone()).await {
        Ok(_) => {}
        // Another observer made one of them from another version of the function: one by one, so that the others are made.
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

/// Records once, for this version, that something which stands cannot be followed.
pub(crate) async fn record_refusal(
    host: &Host,
    work: &Work,
    what: &str,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), HostError> {
    let (id, hash) = (work.id.to_string(), work.curr_hash.to_string());
    let violation = Draft::new("policy_violation")
        .id(ids::derive("policy_violation", &[&work.tenant_id, &id, &hash, &failure.code]))
        .at(now)
        .tenant(&work.tenant_id)
        .owner(&work.owner_id)
        .visibility(Visibility::Tenant)
        .who("kernel:observer_bot")
        .did("refused")
        .this(format!("{what}.{}", failure.code))
        .parent(work.id)
        .related([work.id])
        .status("open")
        .error(failure.to_value())
        .metadata(json!({"subject": {"tenant": work.tenant_id, "id": id, "seq": work.seq, "curr_hash": hash}}))
        .deterministic();
    match host.record(&work.tenant_id, vec![violation], &AppendOptions::keep()).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_keep_mismatch() => Ok(()),
        Err(error) => Err(error),
    }
}

//! The running attempts of a worker: how many may run, which need a heartbeat, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logline_core::ledger::Work;
use logline_core::{Claim, Execution, Hash, Host, HostError, VerifiedSpan};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::WorkerReport;

/// How long to wait for more free permits before a poll, so that one poll can take several requests.
const GATHER: Duration = Duration::from_millis(5);

/// The running attempts of one worker.
#[derive(Default)]
pub(super) struct Attempts {
    state: Mutex<State>,
    /// Notified when a permit becomes free.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// The key is the hash of the version that claimed the attempt, so two attempts of one request have different keys.
    running: BTreeMap<Hash, Running>,
    report: WorkerReport,
    /// The tenants of the requests so far, at most [`MAX_TENANTS`].
    tenants: BTreeSet<String>,
}

/// How many tenants are remembered.
const MAX_TENANTS: usize = 10_000;

struct Running {
    claimed: Arc<VerifiedSpan>,
    since: Instant,
    task: Option<AbortHandle>,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> WorkerReport {
        self.lock().report
    }

    pub(super) fn note_conflict(&self) {
        self.lock().report.conflicts += 1;
    }

    /// The tenants of the requests that this worker had.
    pub(super) fn tenants(&self) -> BTreeSet<String> {
        self.lock().tenants.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().running.len()
    }

    pub(super) fn by_tenant(&self) -> BTreeMap<String, usize> {
        let mut tenants = BTreeMap::new();
        for running in self.lock().running.values() {
            *tenants.entry(running.claimed.tenant_id.clone()).or_insert(0) += 1;
        }
        tenants
    }

    /// Waits until a poll is worthwhile: half the permits are free, or at least one has been free for [`GATHER`].
    pub(super) async fn room(&self, permits: usize) {
        let mut gathered = None;
        loop {
            let running = self.len();
            if running * 2 <= permits {
                return;
            }
            if running < permits {
                let until = *gathered.get_or_insert_with(|| Instant::now() + GATHER);
                if tokio::time::timeout_at(until, self.freed.notified()).await.is_err() {
                    return;
                }
            } else {
                self.freed.notified().await;
            }
        }
    }

    /// Waits until an attempt has ended. One that ended before may count.
    pub(super) async fn one_ends(&self) {
        self.freed.notified().await;
    }

    pub(super) fn start(self: &Arc<Self>, host: &Host, claim: Claim) {
        let key = claim.running().seal.curr_hash;
        let running = Running { claimed: Arc::clone(claim.running()), since: Instant::now(), task: None };
        {
            let mut state = self.lock();
            state.report.claimed += 1;
            let tenant = &claim.running().tenant_id;
            if state.tenants.len() < MAX_TENANTS && !state.tenants.contains(tenant) {
                state.tenants.insert(tenant.clone());
            }
            // An older attempt at the same request has lost its claim: what it comes to cannot be recorded any more.
            let (tenant, id) = (claim.running().tenant_id.as_str(), claim.running().id);
            let older = state.running.values().filter(|other| other.claimed.id == id && other.claimed.tenant_id == tenant);
            let older: Vec<_> = older.filter_map(|other| other.task.clone()).collect();
            state.report.lost += older.len() as u64;
            older.iter().for_each(AbortHandle::abort);
            state.running.insert(key, running);
            #[allow(clippy::cast_precision_loss, reason = "a few")]
            metrics::gauge!("logline_attempts_running").set(state.running.len() as f64);
        }
        metrics::counter!("logline_claims_total").increment(1);
        let (host, permit) = (host.clone(), Permit { attempts: Arc::clone(self), key });
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let finished = host.finish(claim).await;
            permit.attempts.note(&finished, began);
            drop(permit);
        });
        // The attempt may have ended already.
        if let Some(running) = self.lock().running.get_mut(&key) {
            running.task = Some(task.abort_handle());
        }
    }

    fn note(&self, finished: &Result<Execution, HostError>, began: Instant) {
        let status = match finished {
            Ok(execution) => execution.request.status.clone().unwrap_or_default(),
            Err(_) => "lost".to_owned(),
        };
        metrics::counter!("logline_attempts_total", "status" => status).increment(1);
        metrics::histogram!("logline_attempt_seconds").record(began.elapsed().as_secs_f64());
        let mut state = self.lock();
        match finished {
            Ok(execution) => {
                state.report.recorded += 1;
                state.report.failed += u64::from(execution.result.is_err());
            }
            Err(error) => {
                state.report.lost += 1;
                drop(state);
                tracing::warn!(%error, "the outcome of an attempt was not recorded");
            }
        }
    }

    /// The attempts that began at least `age` ago and so need a heartbeat.
    pub(super) fn older_than(&self, age: Duration) -> Vec<Work> {
        let state = self.lock();
        state.running.values().filter(|running| running.since.elapsed() >= age).map(|r| Work::of(&r.claimed)).collect()
    }

    /// Stops an attempt whose claim is lost.
    pub(super) fn stop(&self, work: &Work) {
        let mut state = self.lock();
        let Some(running) = state.running.get(&work.curr_hash) else { return };
        if let Some(task) = &running.task {
            task.abort();
            state.report.lost += 1;
        }
    }

    /// Waits for running attempts. Gives back those that are still running after `grace`.
    pub(super) async fn clear(&self, host: &Host, grace: Duration) {
        let deadline = Instant::now() + grace;
        while self.len() > 0 {
            if tokio::time::timeout_at(deadline, self.freed.notified()).await.is_err() {
                break;
            }
        }
        let left: Vec<_> =
            self.lock().running.values().map(|running| (Arc::clone(&running.claimed), running.task.clone())).collect();
        for (claimed, task) in left {
            task.inspect(AbortHandle::abort);
            match host.hand_back(&claimed).await {
                Ok(_) => self.lock().report.handed_back += 1,
                // The attempt ended in the meantime.
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, "a request could not be given back; it is free again when its lease ends"),
            }
        }
    }

    pub(super) fn abort_all(&self) {
        for running in self.lock().running.values() {
            running.task.iter().for_each(AbortHandle::abort);
        }
    }
}

/// The permit of one running attempt. Dropping it frees the permit, also if the attempt panicked or was aborted.
struct Permit {
    attempts: Arc<Attempts>,
    key: Hash,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.attempts.lock();
        state.running.remove(&self.key);
        #[allow(clippy::cast_precision_loss, reason = "a few")]
        metrics::gauge!("logline_attempts_running").set(state.running.len() as f64);
        drop(state);
        self.attempts.freed.notify_one();
    }
}

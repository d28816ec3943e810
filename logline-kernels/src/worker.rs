//! `request_worker`: finds due requests, claims them in batches, runs them, and keeps their leases.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use logline_core::kernel::Service;
use logline_core::ledger::{Due, Retry, Work, WorkQueue as _};
use logline_core::request::NotRunnable;
use logline_core::{Claim, Execution, Host, HostError, Timestamp, VerifiedSpan, ids};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::pace::{Backoff, jittered, may_pass};

/// The kernel `request_worker`, version 2.
pub(crate) const SERVICE: Service = Service { name: "request_worker", version: 2 };

/// How a host works on requests.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Attempts at a time. Default 64.
    pub concurrency: usize,
    /// Attempts of one tenant at a time. Default: as many as in all.
    pub per_tenant: usize,
    /// How often to look for requests unasked; each look comes up to a quarter early or late. New requests are noticed at once where the
    /// ledger can tell. Default 1 second.
    pub poll: Duration,
    /// How long after its last sign of life a worker counts as lost. It gives one three times within. Default 30 seconds.
    pub lease: Duration,
    /// How long a shutdown waits for what is under way before it gives it back. Default 30 seconds.
    pub grace: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            per_tenant: usize::MAX,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

impl WorkerOptions {
    /// Sets how many attempts run at a time.
    #[must_use]
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.concurrency = attempts.max(1);
        self
    }

    /// Sets how many of them may be one tenant's.
    #[must_use]
    pub fn per_tenant(mut self, attempts: usize) -> Self {
        self.per_tenant = attempts.max(1);
        self
    }

    /// Sets how often to look unasked.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets the lease.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long a shutdown waits.
    #[must_use]
    pub fn grace(mut self, wait: Duration) -> Self {
        self.grace = wait;
        self
    }
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Worked {
    /// Attempts begun.
    pub claimed: u64,
    /// Attempts whose outcome it recorded.
    pub recorded: u64,
    /// Requests that another worker was faster to take.
    pub conflicts: u64,
    /// Attempts whose claim was lost before they ended, or whose outcome could not be recorded.
    pub lost: u64,
    /// Attempts given back at shutdown.
    pub handed_back: u64,
}

/// The most requests in one look.
const BATCH: usize = 100;

/// How long what was found is this worker's to claim.
const HOLD: Duration = Duration::from_secs(3);

/// How long free places are gathered, so that a look finds more than one request.
const GATHER: Duration = Duration::from_millis(5);

pub(crate) async fn run<S>(host: &Host, options: WorkerOptions, shutdown: S) -> Result<Worked, HostError>
where
    S: Future<Output = ()> + Send,
{
    host.boot(ids::REQUEST_WORKER).await?;
    host.boot(ids::RUN_CODE).await?;
    let desk = Arc::new(Desk::default());
    let keeping = AbortOnDrop(tokio::spawn(keep_leases(host.clone(), Arc::clone(&desk), options.lease)).abort_handle());
    let result = work(host, &options, &desk, shutdown).await;
    if result.is_ok() {
        desk.clear(host, options.grace).await;
    }
    drop(keeping);
    desk.abort_all();
    result.map(|()| desk.lock().worked)
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The loop: look, claim, start.
async fn work<S>(host: &Host, options: &WorkerOptions, desk: &Arc<Desk>, shutdown: S) -> Result<(), HostError>
where
    S: Future<Output = ()> + Send,
{
    let mut shutdown = std::pin::pin!(shutdown);
    let ledger = host.ledger();
    let arrivals = ledger.arrivals().await?;
    let mut after: Option<String> = None;
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = desk.room(options.concurrency) => {}
        }
        let wanted = options.concurrency.saturating_sub(desk.len()).min(BATCH);
        let seen = arrivals.seen();
        // What is held is kept from those who could work on it.
        let hold = if host.works_for_all() { HOLD } else { Duration::ZERO };
        let looked = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            looked = ledger.take(wanted, after.as_deref(), hold) => looked,
        };
        let mut look = match looked {
            Ok(look) => look,
            Err(error) if error.retry() == Retry::Later => {
                tracing::warn!(%error, "cannot look for requests");
                tokio::select! {
                    biased;
                    () = &mut shutdown => return Ok(()),
                    () = tokio::time::sleep(backoff.next(host)) => {}
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let found = look.due.len();
        after = look.due.last().map(|due| due.request.tenant_id.clone()).or(after);
        if hold.is_zero() {
            look.due.retain(|due| host.works_for(&due.request.tenant_id));
        }
        let started = take(host, options, desk, look.due, look.now).await?;
        if started > 0 {
            backoff = Backoff::default();
        }
        if found < wanted || started == 0 {
            let pause = if found < wanted { jittered(host, options.poll) } else { backoff.next(host) };
            // Whatever came since the look has changed the signal.
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = arrivals.changed(seen), if found < wanted => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Claims what was found, all of it at once so that the ledger commits it together, and starts the attempts.
async fn take(
    host: &Host,
    options: &WorkerOptions,
    desk: &Arc<Desk>,
    due: Vec<Due>,
    now: Timestamp,
) -> Result<usize, HostError> {
    let mut tenants = desk.by_tenant();
    let claims = due.into_iter().filter(|due| {
        let running = tenants.entry(due.request.tenant_id.clone()).or_insert(0);
        *running += 1;
        *running <= options.per_tenant
    });
    let lease = options.lease;
    let claims: Vec<_> = claims
        .map(|due| {
            let host = host.clone();
            tokio::spawn(async move { host.claim(due, now, lease).await })
        })
        .collect();
    let mut started = 0;
    for claimed in join_all(claims).await {
        let Ok(claimed) = claimed else {
            tracing::error!("claiming a request panicked");
            continue;
        };
        match claimed {
            Ok(claim) => {
                started += 1;
                desk.start(host, claim);
            }
            Err(error) if error.is_conflict() => {
                desk.lock().worked.conflicts += 1;
                metrics::counter!("logline_claim_conflicts_total").increment(1);
            }
            // It was closed or put off, which is a step as well.
            Err(HostError::NotRunnable(reason)) => {
                started += 1;
                if matches!(reason, NotRunnable::Deferred { .. }) {
                    metrics::counter!("logline_quota_denied_total").increment(1);
                }
                tracing::info!(%reason, "a request was not begun");
            }
            Err(error @ (HostError::NotVerified(_) | HostError::NotAuthorised(_))) => {
                started += 1;
                tracing::warn!(%error, "a request was refused");
            }
            Err(error) if may_pass(&error) => tracing::warn!(%error, "a request could not be claimed"),
            Err(error) => return Err(error),
        }
    }
    Ok(started)
}

/// What a worker has under way.
#[derive(Default)]
struct Desk {
    state: Mutex<DeskState>,
    /// A place became free.
    freed: Notify,
}

#[derive(Default)]
struct DeskState {
    running: BTreeMap<(String, Uuid), Running>,
    worked: Worked,
}

struct Running {
    claimed: Arc<VerifiedSpan>,
    since: Instant,
    task: Option<AbortHandle>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().running.len()
    }

    fn by_tenant(&self) -> HashMap<String, usize> {
        let mut tenants = HashMap::new();
        for (tenant, _) in self.lock().running.keys() {
            *tenants.entry(tenant.clone()).or_insert(0) += 1;
        }
        tenants
    }

    /// Waits until a look is worth it: half the places are free, or one has been for a while.
    async fn room(&self, places: usize) {
        let mut gathered = None;
        loop {
            let running = self.len();
            if running * 2 <= places {
                return;
            }
            if running < places {
                let until = *gathered.get_or_insert_with(|| Instant::now() + GATHER);
                if tokio::time::timeout_at(until, self.freed.notified()).await.is_err() {
                    return;
                }
            } else {
                self.freed.notified().await;
            }
        }
    }

    fn start(self: &Arc<Self>, host: &Host, claim: Claim) {
        let key = (claim.running().tenant_id.clone(), claim.running().id);
        let running = Running { claimed: Arc::clone(claim.running()), since: Instant::now(), task: None };
        {
            let mut state = self.lock();
            state.worked.claimed += 1;
            state.running.insert(key.clone(), running);
            #[allow(clippy::cast_precision_loss, reason = "a few")]
            metrics::gauge!("logline_attempts_running").set(state.running.len() as f64);
        }
        metrics::counter!("logline_claims_total").increment(1);
        let (host, place) = (host.clone(), Place { desk: Arc::clone(self), key: key.clone() });
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let finished = host.finish(claim).await;
            place.desk.note(&finished, began);
            drop(place);
        });
        // It may have ended already.
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
            Ok(_) => state.worked.recorded += 1,
            Err(error) => {
                state.worked.lost += 1;
                drop(state);
                tracing::warn!(%error, "the outcome of an attempt was not recorded");
            }
        }
    }

    /// What has to show a sign of life by now.
    fn older_than(&self, age: Duration) -> Vec<Work> {
        let state = self.lock();
        state.running.values().filter(|running| running.since.elapsed() >= age).map(|r| Work::of(&r.claimed)).collect()
    }

    /// Stops an attempt whose claim is lost.
    fn stop(&self, work: &Work) {
        let mut state = self.lock();
        let Some(running) = state.running.get(&(work.tenant_id.clone(), work.id)) else { return };
        if let Some(task) = &running.task {
            task.abort();
            state.worked.lost += 1;
        }
    }

    /// Waits for what is under way; gives back what takes longer than `grace`.
    async fn clear(&self, host: &Host, grace: Duration) {
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
                Ok(_) => self.lock().worked.handed_back += 1,
                // It ended in the meantime.
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, "a request could not be given back; its lease will end"),
            }
        }
    }

    fn abort_all(&self) {
        for running in self.lock().running.values() {
            running.task.iter().for_each(AbortHandle::abort);
        }
    }
}

/// A place at the desk, free again when this is dropped, however the attempt ended.
struct Place {
    desk: Arc<Desk>,
    key: (String, Uuid),
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.running.remove(&self.key);
        #[allow(clippy::cast_precision_loss, reason = "a few")]
        metrics::gauge!("logline_attempts_running").set(state.running.len() as f64);
        drop(state);
        self.desk.freed.notify_one();
    }
}

/// Shows signs of life for attempts that take long.
async fn keep_leases(host: Host, desk: Arc<Desk>, lease: Duration) {
    let step = lease / 3;
    loop {
        tokio::time::sleep(step / 2).await;
        let beats = desk.older_than(step / 2).into_iter().map(|work| {
            let host = &host;
            async move { (host.ledger().heartbeat(&work, lease).await, work) }
        });
        for (kept, work) in join_all(beats).await {
            match kept {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(request = %work.id, tenant = work.tenant_id, "the claim is lost: the attempt stops");
                    desk.stop(&work);
                }
                Err(error) => tracing::warn!(%error, request = %work.id, "a lease could not be extended"),
            }
        }
    }
}

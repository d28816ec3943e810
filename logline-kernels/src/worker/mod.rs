//! `request_worker`: finds due requests, claims them in batches, carries them out, and extends their leases.

mod attempts;
mod deferred;
mod heartbeat;
mod open_calls;
mod poll;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::Tenants;
use logline_core::{Host, HostError, Service, ServiceReport, Shutdown, ids};
use uuid::Uuid;

use attempts::Attempts;

const NAME: &str = "request_worker";
const VERSION: u32 = 2;

/// The options of a [`Worker`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// The most attempts that run at the same time. Default 64.
    pub concurrency: usize,
    /// The most attempts of one tenant that run at the same time. `None`: half of `concurrency`, so that one tenant whose
    /// attempts take long does not make all others wait; or all of it, if the host works for one tenant only.
    pub per_tenant: Option<usize>,
    /// The time between polls for requests. Each interval is up to a quarter shorter or longer. The ledger's signal of new
    /// requests causes an earlier poll. Default 1 second.
    pub poll: Duration,
    /// How long after its last heartbeat a worker counts as lost. It sends at least three heartbeats in this time. Default 30
    /// seconds.
    pub lease: Duration,
    /// How long a shutdown waits for running attempts before it gives them back. Default 30 seconds.
    pub grace: Duration,
    /// The time between passes over the calls to the outside, which close those that no attempt will close
    /// ([`Host::close_open_calls`]). Default 60 seconds.
    pub open_calls: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            per_tenant: None,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            open_calls: Duration::from_secs(60),
        }
    }
}

impl WorkerOptions {
    /// Sets the most attempts that run at the same time, at least 1.
    #[must_use]
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.concurrency = attempts.max(1);
        self
    }

    /// Sets the most attempts of one tenant that run at the same time, at least 1.
    #[must_use]
    pub fn per_tenant(mut self, attempts: usize) -> Self {
        self.per_tenant = Some(attempts.max(1));
        self
    }

    pub(crate) fn of_one_tenant(&self, tenants: &Tenants) -> usize {
        let is_one = matches!(tenants, Tenants::Only(names) if names.len() <= 1);
        self.per_tenant.unwrap_or(if is_one { self.concurrency } else { self.concurrency.div_ceil(2) })
    }

    /// Sets the time between polls.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets how long after its last heartbeat a worker counts as lost.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the time between passes over the calls to the outside.
    #[must_use]
    pub fn open_calls(mut self, interval: Duration) -> Self {
        self.open_calls = interval;
        self
    }

    /// Sets how long a shutdown waits for running attempts.
    #[must_use]
    pub fn grace(mut self, wait: Duration) -> Self {
        self.grace = wait;
        self
    }
}

/// What a worker did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Requests that it claimed. Each claim begins an attempt.
    pub claimed: u64,
    /// Attempts whose outcome it recorded, whether they succeeded or failed.
    pub recorded: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Requests that another worker claimed first.
    pub conflicts: u64,
    /// Attempts whose claim was lost before they ended, or whose outcome could not be recorded.
    pub lost: u64,
    /// Attempts that were given back at shutdown.
    pub handed_back: u64,
}

impl ServiceReport for WorkerReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("claimed", self.claimed),
            ("recorded", self.recorded),
            ("failed", self.failed),
            ("conflicts", self.conflicts),
            ("lost", self.lost),
            ("handed_back", self.handed_back),
        ]
    }
}

/// The loop `request_worker`, version 2. At shutdown it waits for running attempts, and gives back those that still run after
/// [`WorkerOptions::grace`].
#[derive(Debug, Clone, Default)]
pub struct Worker {
    options: WorkerOptions,
}

impl Worker {
    /// Creates a worker with these options.
    #[must_use]
    pub fn new(options: WorkerOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Service for Worker {
    fn id(&self) -> Uuid {
        ids::REQUEST_WORKER
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        host.boot(ids::REQUEST_WORKER).await?;
        host.boot_request_kernels().await?;
        for (kernel, lacks) in host.lacking() {
            tracing::warn!(kernel, lacks, "this host leaves requests to others: add what it lacks on the builder");
        }
        let attempts = Arc::new(Attempts::default());
        let heartbeats = heartbeat::start(host, &attempts, self.options.lease);
        let passes = open_calls::start(host, &attempts, self.options.open_calls);
        let result = poll::work(host, &self.options, &attempts, shutdown).await;
        if result.is_ok() {
            attempts.clear(host, self.options.grace).await;
        }
        drop((heartbeats, passes));
        attempts.abort_all();
        result.map(|()| Box::new(attempts.report()) as Box<dyn ServiceReport>)
    }
}

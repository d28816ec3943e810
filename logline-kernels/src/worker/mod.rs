//! `request_worker`: finds due requests, claims them in batches, carries them out, and keeps their leases.

mod attempts;
mod heartbeat;
mod poll;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::{Host, HostError, Service, ServiceReport, Shutdown, ids};
use uuid::Uuid;

use attempts::Attempts;

const NAME: &str = "request_worker";
const VERSION: u32 = 2;

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
pub struct WorkerReport {
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

impl ServiceReport for WorkerReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("claimed", self.claimed),
            ("recorded", self.recorded),
            ("conflicts", self.conflicts),
            ("lost", self.lost),
            ("handed_back", self.handed_back),
        ]
    }
}

/// The loop `request_worker`, version 2. Attempts that are under way at shutdown are finished, or given back after
/// [`WorkerOptions::grace`].
#[derive(Debug, Clone, Default)]
pub struct Worker {
    options: WorkerOptions,
}

impl Worker {
    /// A worker with these options.
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
        let attempts = Arc::new(Attempts::default());
        let heartbeats = heartbeat::start(host, &attempts, self.options.lease);
        let result = poll::work(host, &self.options, &attempts, shutdown).await;
        if result.is_ok() {
            attempts.clear(host, self.options.grace).await;
        }
        drop(heartbeats);
        attempts.abort_all();
        result.map(|()| Box::new(attempts.report()) as Box<dyn ServiceReport>)
    }
}

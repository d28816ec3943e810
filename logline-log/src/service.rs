//! `log_keeper`: the loop that enters the spans of some tenants into their logs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use logline_core::ledger::{Ledger, WorkQueue as _};
use logline_core::{Host, HostError, KernelSet, Service, ServiceReport, Shutdown};
use logline_kernels::harness::{Backoff, jittered};
use uuid::{Uuid, uuid};

use crate::integrator::{IntegrateError, Integrator, LogSite, Step};

/// The id of the loop's function span.
pub const LOG_KEEPER: Uuid = uuid!("00000000-0000-4000-8000-000000000011");

const NAME: &str = "log_keeper";
const VERSION: u32 = 1;
const SEEDS: &str = include_str!("../seeds/log.ndjson");

/// How long spans are gathered for one checkpoint.
const GATHER: Duration = Duration::from_millis(250);

/// The most batches of one tenant before the others have their turn.
const BATCHES: usize = 8;

/// How often a log is looked at that a person must repair.
const STOPPED: Duration = Duration::from_secs(60);

/// The loop `log_keeper`, version 1. Any number of hosts may run it for the same tenants: one of them signs at a time.
///
/// In new stores it begins the logs of its tenants. In stores that are in use it begins none, as [`IntegrateError::Missing`] says: a tenant
/// that is new there is begun once by [`Integrator::begins`] or `logline log run --begin`, and the loop goes on with it.
#[derive(Debug, Clone)]
pub struct LogKeeper {
    site: LogSite,
    tenants: Vec<String>,
    poll: Duration,
}

impl LogKeeper {
    /// Keeps the logs of these tenants in this site.
    pub fn new<T: Into<String>>(site: LogSite, tenants: impl IntoIterator<Item = T>) -> Self {
        Self { site, tenants: tenants.into_iter().map(Into::into).collect(), poll: Duration::from_secs(2) }
    }

    /// Sets the longest time between two looks. The ledger wakes the loop earlier when rows arrive. Default 2 seconds.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }
}

/// The loop with its seed, to be installed in hosts and ledgers.
#[must_use]
pub fn all(keeper: &LogKeeper) -> KernelSet {
    // The tests prove that the seed can be read.
    let seeds = logline_kernels::parse_seeds(SEEDS).unwrap_or_default();
    KernelSet::new().service(keeper.clone()).seeds(seeds)
}

/// What the loop did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogReport {
    /// Spans that this host entered.
    pub entered: u64,
    /// Checkpoints that it signed and published.
    pub checkpoints: u64,
    /// Steps that failed.
    pub failed: u64,
}

impl ServiceReport for LogReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("entered", self.entered), ("checkpoints", self.checkpoints), ("failed", self.failed)]
    }
}

#[async_trait]
impl Service for LogKeeper {
    fn id(&self) -> Uuid {
        LOG_KEEPER
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, mut shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        host.boot(LOG_KEEPER).await?;
        let ledger: Arc<dyn Ledger> = Arc::new(Arc::clone(host.ledger()));
        let (mut logs, mut report, mut backoff) = (Vec::new(), LogReport::default(), Backoff::default());
        let tenants: BTreeSet<_> = self.tenants.iter().collect();
        // In new stores all logs are begun.
        let is_new = loop {
            match self.site.missing(&tenants).await {
                Ok(missing) => break !missing.is_in_use,
                Err(error) => tracing::warn!(%error, "the logs cannot be looked at now; trying again"),
            }
            report.failed += 1;
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(report)),
                () = tokio::time::sleep(backoff.next(host)) => {}
            }
        };
        for tenant in tenants {
            let integrator = Integrator::new(Arc::clone(&ledger), self.site.clone(), tenant);
            let integrator = if is_new { integrator.begins() } else { integrator };
            logs.push(Log { tenant: tenant.clone(), integrator, backoff: Backoff::default(), rests_until: None });
        }
        // Without the signal, for example while the store is away, the loop looks at its own pace.
        let arrivals = host.ledger().arrivals().await.ok();
        loop {
            let seen = arrivals.as_ref().map(|arrivals| arrivals.seen());
            let mut has_more = false;
            for log in &mut logs {
                // What was begun is finished: a batch that is published and not counted would confuse whoever reads the report.
                if (&mut shutdown).now_or_never().is_some() {
                    return Ok(Box::new(report));
                }
                has_more |= log.turn(host, &mut report).await;
            }
            let woken = async {
                match (&arrivals, seen) {
                    (Some(arrivals), Some(seen)) => arrivals.changed(seen).await,
                    _ => std::future::pending().await,
                }
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(report)),
                () = std::future::ready(()), if has_more => {}
                () = woken => {}
                () = tokio::time::sleep(jittered(host, self.poll)) => {}
            }
        }
    }
}

/// The log of one tenant. What fails for one does not delay the others.
struct Log {
    tenant: String,
    integrator: Integrator,
    backoff: Backoff,
    rests_until: Option<tokio::time::Instant>,
}

impl Log {
    /// Enters some batches. Returns true if there is more.
    async fn turn(&mut self, host: &Host, report: &mut LogReport) -> bool {
        let tenant = self.tenant.as_str();
        let now = tokio::time::Instant::now();
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        if !host.works_for(tenant) {
            tracing::warn!(
                tenant,
                "this host may not keep the log of a tenant for which it is no runtime: change the manifest, or its tenants"
            );
            self.rests_until = Some(now + STOPPED);
            return false;
        }
        for _ in 0..BATCHES {
            match self.integrator.step().await {
                Ok(Step::Idle) => return false,
                Ok(Step::Integrated { spans, checkpoint }) => {
                    report.entered += spans;
                    report.checkpoints += 1;
                    metrics::counter!("logline_log_leaves_total").increment(spans);
                    tracing::debug!(tenant, %checkpoint, "spans were entered");
                }
                // Another host is at it.
                Ok(Step::Lost) => return false,
                Ok(Step::Begun(_)) => report.checkpoints += 1,
                Err(error) => {
                    report.failed += 1;
                    self.rest(host, &error);
                    return false;
                }
            }
            (self.backoff, self.rests_until) = (Backoff::default(), None);
        }
        true
    }

    fn rest(&mut self, host: &Host, error: &IntegrateError) {
        let tenant = self.tenant.as_str();
        metrics::counter!("logline_log_failures_total").increment(1);
        let pause = if error.is_temporary() {
            tracing::warn!(tenant, %error, "a log cannot go on now; trying again");
            self.backoff.next(host)
        } else {
            tracing::error!(tenant, %error, "a log has stopped");
            STOPPED
        };
        self.rests_until = Some(tokio::time::Instant::now() + pause);
    }
}

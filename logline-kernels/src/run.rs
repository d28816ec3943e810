//! The loops of a host on one call.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{FutureExt as _, Shared};
use futures_util::{StreamExt as _, TryFutureExt as _};
use logline_core::ledger::{Ledger as _, WatchFrom};
use logline_core::{Host, HostError, SYSTEM_TENANT, Scope};
use tokio::sync::watch;

use crate::observer::{self, Observed, ObserverOptions};
use crate::policy::agent::{self, AgentOptions, Decided};
use crate::worker::{self, Worked, WorkerOptions};

/// Which loops a host runs, and how. Every host may run all of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loops {
    /// `request_worker`: carries out requests.
    pub worker: Option<WorkerOptions>,
    /// `observer_bot`: submits the requests of schedules.
    pub observer: Option<ObserverOptions>,
    /// `policy_agent`: carries out what policies decide about new spans. What they decide later is a request, for workers.
    pub policies: Option<AgentOptions>,
}

impl Loops {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self {
            worker: Some(WorkerOptions::default()),
            observer: Some(ObserverOptions::default()),
            policies: Some(AgentOptions::default()),
        }
    }

    /// None of them, to begin with.
    #[must_use]
    pub fn none() -> Self {
        Self { worker: None, observer: None, policies: None }
    }

    /// Carries out requests.
    #[must_use]
    pub fn worker(mut self, options: WorkerOptions) -> Self {
        self.worker = Some(options);
        self
    }

    /// Attends to schedules.
    #[must_use]
    pub fn observer(mut self, options: ObserverOptions) -> Self {
        self.observer = Some(options);
        self
    }

    /// Attends to policies.
    #[must_use]
    pub fn policies(mut self, options: AgentOptions) -> Self {
        self.policies = Some(options);
        self
    }
}

impl From<WorkerOptions> for Loops {
    fn from(options: WorkerOptions) -> Self {
        Self::none().worker(options)
    }
}

/// What the loops did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Ran {
    /// The worker.
    pub worker: Worked,
    /// The observer.
    pub observer: Observed,
    /// The policy agent.
    pub policies: Decided,
}

/// Runs a host's loops.
#[async_trait]
pub trait Run {
    /// Works until `shutdown` is done. The worker finds due requests, claims them in batches, runs them, and keeps their leases;
    /// what is under way at the end is finished, or given back after [`WorkerOptions::grace`]. The observer submits the requests
    /// of schedules, the policy agent carries out what policies decide. New versions of manifest, delegations, kernels, functions
    /// and policies take effect while they run, never within an attempt.
    ///
    /// Must be called within a Tokio runtime. If the future is dropped, what is under way is left to its leases.
    ///
    /// # Errors
    /// Where the host may not run the loops at all, or the ledger refuses for a reason that does not pass; the other loops are
    /// then shut down as well. Failures that may pass are waited out.
    async fn run<L, S>(&self, loops: L, shutdown: S) -> Result<Ran, HostError>
    where
        L: Into<Loops> + Send,
        S: Future<Output = ()> + Send;
}

#[async_trait]
impl Run for Host {
    async fn run<L, S>(&self, loops: L, shutdown: S) -> Result<Ran, HostError>
    where
        L: Into<Loops> + Send,
        S: Future<Output = ()> + Send,
    {
        let Loops { worker, observer, policies } = loops.into();
        let (stop, mut stopped) = watch::channel(false);
        let ending = async move {
            tokio::select! {
                biased;
                () = shutdown => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        };
        let ending = ending.shared();
        // The end of one is the end of all.
        let failed = |error: HostError| {
            stop.send_replace(true);
            error
        };
        let worker = unless_absent(worker, &ending, |options, end| worker::run(self, options, end).map_err(failed));
        let observer = unless_absent(observer, &ending, |options, end| observer::run(self, options, end).map_err(failed));
        let policies = unless_absent(policies, &ending, |options, end| agent::run(self, options, end).map_err(failed));
        let ran = futures_util::future::join3(worker, observer, policies);
        tokio::select! {
            biased;
            (worker, observer, policies) = ran => Ok(Ran { worker: worker?, observer: observer?, policies: policies? }),
            never = follow_system(self) => match never {},
        }
    }
}

/// A loop, where it has options.
async fn unless_absent<O, S, F, T>(
    options: Option<O>,
    ending: &Shared<S>,
    start: impl FnOnce(O, Shared<S>) -> F,
) -> Result<T, HostError>
where
    S: Future<Output = ()>,
    F: Future<Output = Result<T, HostError>>,
    T: Default,
{
    match options {
        Some(options) => start(options, ending.clone()).await,
        // A host without a loop waits for the others.
        None => Ok(T::default()),
    }
}

/// What nobody makes.
enum Never {}

/// How long to wait before following again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets the host look again whenever something that it obeys may have changed.
async fn follow_system(host: &Host) -> Never {
    const OBEYED: &[&str] = &["manifest", "approval", "delegation", "function"];
    loop {
        match host.ledger().watch(&Scope::runtime(SYSTEM_TENANT), WatchFrom::Now).await {
            Ok(mut watch) => {
                refresh(host).await;
                while let Some(Ok(row)) = watch.next().await {
                    if row.span.tenant_id == SYSTEM_TENANT && OBEYED.contains(&row.span.entity_type.as_str()) {
                        refresh(host).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot follow the tenant system; asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn refresh(host: &Host) {
    // What was in force stays in force.
    if let Err(error) = host.refresh().await {
        tracing::error!(%error, "what the host obeys could not be read again");
    }
}

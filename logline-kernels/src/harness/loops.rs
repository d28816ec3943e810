//! Running the loops of a host in one call.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::{FutureExt as _, join_all};
use logline_core::ledger::{Ledger as _, WatchFrom};
use logline_core::{Host, HostError, SYSTEM_TENANT, Scope, Service, ServiceReport};
use tokio::sync::watch;

/// The loops that a host runs, each with its options. Every host may run every loop.
#[derive(Clone, Default)]
pub struct Loops(Vec<Arc<dyn Service>>);

impl Loops {
    /// None yet.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every loop that the host has [installed](logline_core::HostBuilder::install), with the options it was installed with.
    #[must_use]
    pub fn installed(host: &Host) -> Self {
        Self(host.installed().services().to_vec())
    }

    /// Adds a loop. One of the same name takes its place.
    #[must_use]
    pub fn with(mut self, service: impl Service + 'static) -> Self {
        self.0.retain(|other| other.name() != service.name());
        self.0.push(Arc::new(service));
        self
    }
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|service| service.name())).finish()
    }
}

impl<S: Service + 'static> From<S> for Loops {
    fn from(service: S) -> Self {
        Self::none().with(service)
    }
}

/// What the loops did, by their names.
#[derive(Debug, Default)]
pub struct Ran(Vec<(&'static str, Box<dyn ServiceReport>)>);

impl Ran {
    /// The report of a loop by its type: `ran.report::<WorkerReport>()`. Where no such loop ran, one that says so with zeros.
    #[must_use]
    pub fn report<R: ServiceReport + Clone + Default>(&self) -> R {
        let mut reports = self.0.iter().map(|(_, report)| report.as_ref() as &dyn Any);
        reports.find_map(|report| report.downcast_ref::<R>()).cloned().unwrap_or_default()
    }

    /// Every report, with the name of its loop.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &dyn ServiceReport)> {
        self.0.iter().map(|(name, report)| (*name, report.as_ref()))
    }
}

/// Runs a host's loops.
#[async_trait]
pub trait Run {
    /// Works until `shutdown` is done. What is under way at the end is finished or given back, as each loop documents it. New versions of
    /// manifest, delegations, kernels, functions and policies take effect while the loops run, never within an attempt.
    ///
    /// Must be called within a Tokio runtime. If the future is dropped, what is under way is left to its leases.
    ///
    /// # Errors
    /// Where the host may not run one of the loops at all, or the ledger refuses for a reason that does not pass; the other loops are
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
        let Loops(loops) = loops.into();
        let (stop, mut stopped) = watch::channel(false);
        let ending = async move {
            tokio::select! {
                biased;
                () = shutdown => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        };
        let ending = ending.boxed().shared();
        let running = loops.iter().map(|service| {
            let (ending, stop) = (ending.clone(), &stop);
            async move {
                let ran = service.run(self, ending).await;
                if ran.is_err() {
                    // The end of one is the end of all.
                    stop.send_replace(true);
                }
                ran.map(|report| (service.name(), report))
            }
        });
        let ended = async {
            let ran = join_all(running).await.into_iter().collect::<Result<_, _>>().map(Ran);
            if loops.is_empty() {
                ending.clone().await;
            }
            ran
        };
        tokio::select! {
            biased;
            ran = ended => ran,
            never = follow_system(self) => match never {},
        }
    }
}

/// How long to wait before following again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets the host look again whenever something that it obeys may have changed.
async fn follow_system(host: &Host) -> Infallible {
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

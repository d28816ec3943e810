//! Runs the loops of a host in one call.

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

/// The loops that a host runs, each with its options. Several hosts may run the same loop.
#[derive(Clone, Default)]
pub struct Loops(Vec<Arc<dyn Service>>);

impl Loops {
    /// Creates an empty set. Add loops with [`Loops::with`].
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every loop that the host has [installed](logline_core::HostBuilder::install), with the options it was installed with.
    #[must_use]
    pub fn installed(host: &Host) -> Self {
        Self(host.installed().services().to_vec())
    }

    /// Adds a loop. It replaces a loop of the same name.
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

/// The reports of the loops, by their names.
#[derive(Debug, Default)]
pub struct Ran(Vec<(&'static str, Box<dyn ServiceReport>)>);

impl Ran {
    /// The report of a loop by its type: `ran.report::<WorkerReport>()`. If no such loop ran, the default report, which has
    /// zeros.
    #[must_use]
    pub fn report<R: ServiceReport + Clone + Default>(&self) -> R {
        let mut reports = self.0.iter().map(|(_, report)| report.as_ref() as &dyn Any);
        reports.find_map(|report| report.downcast_ref::<R>()).cloned().unwrap_or_default()
    }

    /// Iterates over the reports, each with the name of its loop.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &dyn ServiceReport)> {
        self.0.iter().map(|(name, report)| (*name, report.as_ref()))
    }
}

/// Runs a host's loops.
#[async_trait]
pub trait Run {
    /// Runs the loops until `shutdown` completes. Work in progress is then finished or given back, as each loop documents. New
    /// versions of manifest, delegations, kernels, functions and policies take effect while the loops run, but not within an
    /// attempt.
    ///
    /// Must be called within a Tokio runtime. If the future is dropped, requests in progress stay claimed until their leases
    /// end.
    ///
    /// # Errors
    /// [`HostError::NothingToRun`] if there are no loops. If the host may not run one of them, or the ledger fails for a reason that is not temporary. The other loops are
    /// then shut down as well. After a temporary failure a loop waits and tries again.
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
        if loops.is_empty() {
            return Err(HostError::NothingToRun);
        }
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
                    // If one loop fails, all loops stop.
                    stop.send_replace(true);
                }
                ran.map(|report| (service.name(), report))
            }
        });
        let ended = async { join_all(running).await.into_iter().collect::<Result<_, _>>().map(Ran) };
        tokio::select! {
            biased;
            ran = ended => ran,
            never = follow_system(self) => match never {},
        }
    }
}

/// How long to wait before watching again after the watch ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Refreshes the host when a span of tenant `system` is appended that may change the trust or the kernels of the host.
async fn follow_system(host: &Host) -> Infallible {
    const OBEYED: &[&str] = &["manifest", "approval", "delegation", "function"];
    loop {
        match host.ledger().watch(&Scope::runtime(SYSTEM_TENANT), WatchFrom::Now).await {
            Ok(mut watch) => {
                refresh(host).await;
                while let Some(Ok(row)) = watch.next().await {
                    if host.is_boot_of_another(&row.span) {
                        metrics::counter!("logline_shared_keys_total").increment(1);
                        tracing::error!(
                            key = %host.key(),
                            boot_event = %row.span.id,
                            "another process has started with this host's key: give each host a key of its own (`logline keygen`)"
                        );
                    }
                    if row.span.tenant_id == SYSTEM_TENANT && OBEYED.contains(&row.span.entity_type.as_str()) {
                        refresh(host).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot watch tenant `system`; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn refresh(host: &Host) {
    // If the refresh fails, the previous state stays in force.
    if let Err(error) = host.refresh().await {
        tracing::error!(%error, "manifest, delegations and kernels could not be read again; the previous ones stay in force");
    }
}

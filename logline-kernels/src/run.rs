//! The loops of a host on one call.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use logline_core::ledger::{Ledger as _, WatchFrom};
use logline_core::{Host, HostError, SYSTEM_TENANT, Scope};

use crate::worker::{self, Worked, WorkerOptions};

/// Runs a host's loops.
#[async_trait]
pub trait Run {
    /// Works until `shutdown` is done: finds due requests, claims them in batches, runs them, and keeps their leases. What is
    /// under way is then finished, or given back after [`WorkerOptions::grace`]. New versions of manifest, delegations, kernels
    /// and functions take effect while it runs, never within an attempt.
    ///
    /// Must be called within a Tokio runtime. If the future is dropped, what is under way is left to its leases.
    ///
    /// # Errors
    /// Where the host may not run the loops at all, or the ledger refuses for a reason that does not pass. Failures that may pass
    /// are waited out.
    async fn run<S>(&self, options: WorkerOptions, shutdown: S) -> Result<Worked, HostError>
    where
        S: Future<Output = ()> + Send;
}

#[async_trait]
impl Run for Host {
    async fn run<S>(&self, options: WorkerOptions, shutdown: S) -> Result<Worked, HostError>
    where
        S: Future<Output = ()> + Send,
    {
        tokio::select! {
            worked = worker::run(self, options, shutdown) => worked,
            never = follow_system(self) => match never {},
        }
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

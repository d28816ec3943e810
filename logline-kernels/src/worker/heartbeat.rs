//! Heartbeats extend the leases of long attempts. Attempts that have lost their claim are stopped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use logline_core::Host;
use logline_core::ledger::WorkQueue as _;
use tokio::task::AbortHandle;

use super::attempts::Attempts;

/// Stops a task when it is dropped.
pub(super) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(super) fn of(task: &tokio::task::JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the heartbeats. Each extends a lease to `lease` from now.
pub(super) fn start(host: &Host, attempts: &Arc<Attempts>, lease: Duration) -> AbortOnDrop {
    AbortOnDrop::of(&tokio::spawn(keep_leases(host.clone(), Arc::clone(attempts), lease)))
}

/// Extends the leases of attempts older than a sixth of `lease`, every sixth of `lease`.
async fn keep_leases(host: Host, attempts: Arc<Attempts>, lease: Duration) {
    let step = lease / 3;
    loop {
        tokio::time::sleep(step / 2).await;
        let beats = attempts.older_than(step / 2).into_iter().map(|work| {
            let host = &host;
            async move { (host.ledger().heartbeat(&work, lease).await, work) }
        });
        for (kept, work) in join_all(beats).await {
            match kept {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(request = %work.id, tenant = work.tenant_id, "the claim is lost: the attempt stops");
                    attempts.stop(&work);
                }
                Err(error) => tracing::warn!(%error, request = %work.id, "a lease could not be extended"),
            }
        }
    }
}

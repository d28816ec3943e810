//! Offers requests again that wait for the next day, when a manifest raises the quota for which they wait.

use logline_core::{Hash, Host};

use super::heartbeat::AbortOnDrop;

/// The manifest for which the open requests were looked through, and the task that does it.
#[derive(Default)]
pub(super) struct Deferred(Option<(Hash, AbortOnDrop)>);

impl Deferred {
    /// Starts to look through the open requests, if the host obeys another manifest than at the last call. What was begun for the one
    /// before is stopped.
    pub(super) fn follow(&mut self, host: &Host) {
        let manifest = host.trusted().span.seal.curr_hash;
        if self.0.as_ref().is_none_or(|(before, _)| *before != manifest) {
            self.0 = Some((manifest, AbortOnDrop::of(&tokio::spawn(offer(host.clone())))));
        }
    }
}

async fn offer(host: Host) {
    match host.offer_deferred().await {
        Ok(0) => {}
        Ok(offered) => {
            tracing::info!(offered, "requests that waited for a quota are offered again: the manifest has raised it")
        }
        Err(error) => {
            tracing::warn!(%error, "requests that wait for a raised quota could not be offered again: they wait for the next day")
        }
    }
}

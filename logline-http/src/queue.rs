//! The depth and the age of the queue, read when somebody asks for metrics and not more often than every ten seconds.

use std::time::Duration;

use logline_core::Host;
use logline_core::ledger::{LedgerError, MAX_ACTIVE, WorkQueue as _};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// How long what was read stands.
const KEPT: Duration = Duration::from_secs(10);

/// The most requests that are counted. A queue that is longer is shown as this long.
const MOST: usize = 10 * MAX_ACTIVE;

/// When the queue was read last.
#[derive(Default)]
pub(crate) struct QueueGauges {
    last: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Depth {
    due: u32,
    leased: u32,
    later: u32,
    parked: u32,
    /// Seconds since the request that waits longest became due.
    oldest: f64,
}

impl QueueGauges {
    /// Sets the gauges, unless that was done just now.
    pub(crate) async fn refresh(&self, host: &Host) {
        // Scrapes that come together do it once.
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.is_some_and(|at| at.elapsed() < KEPT) {
            return;
        }
        *last = Some(Instant::now());
        match read(host).await {
            Ok(depth) => {
                for (state, count) in
                    [("due", depth.due), ("leased", depth.leased), ("later", depth.later), ("parked", depth.parked)]
                {
                    metrics::gauge!("logline_queue_requests", "state" => state).set(f64::from(count));
                }
                metrics::gauge!("logline_queue_oldest_seconds").set(depth.oldest);
            }
            Err(error) => tracing::warn!(%error, "the queue cannot be read for metrics"),
        }
    }
}

async fn read(host: &Host) -> Result<Depth, LedgerError> {
    let (ledger, tenants) = (host.ledger(), host.tenants());
    let now = ledger.now().await?;
    let mut depth = Depth::default();
    let (mut after, mut read): (Option<(String, Uuid)>, usize) = (None, 0);
    while read < MOST {
        let from = after.as_ref().map(|(tenant, id)| (tenant.as_str(), *id));
        let page = ledger.open_requests(&tenants, from, MAX_ACTIVE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.work.tenant_id.clone(), last.work.id));
        for waiting in &page {
            match waiting.due {
                _ if waiting.parked.is_some() => depth.parked += 1,
                Some(due) if due > now && waiting.is_leased => depth.leased += 1,
                Some(due) if due > now => depth.later += 1,
                Some(due) => {
                    depth.due += 1;
                    depth.oldest = depth.oldest.max(now.since(due).as_secs_f64());
                }
                None => depth.parked += 1,
            }
        }
        read += page.len();
        if page.len() < MAX_ACTIVE {
            break;
        }
    }
    Ok(depth)
}

//! Polls for due requests, claims them together, and starts their attempts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use logline_core::ledger::{Due, Retry, WorkQueue as _};
use logline_core::request::NotRunnable;
use logline_core::{Host, HostError, Shutdown, Timestamp};

use super::WorkerOptions;
use super::attempts::Attempts;
use crate::harness::{Backoff, is_general, jittered, may_pass};

/// The most requests in one poll.
const BATCH: usize = 100;

/// How long the requests that a poll found are not offered to other workers.
const HOLD: Duration = Duration::from_secs(3);

/// The loop: poll, claim, start.
pub(super) async fn work(
    host: &Host,
    options: &WorkerOptions,
    attempts: &Arc<Attempts>,
    mut shutdown: Shutdown<'_>,
) -> Result<(), HostError> {
    let ledger = host.ledger();
    let arrivals = ledger.arrivals().await?;
    let mut after: Option<String> = None;
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = attempts.room(options.concurrency) => {}
        }
        let wanted = options.concurrency.saturating_sub(attempts.len()).min(BATCH);
        let seen = arrivals.seen();
        // A host that does not work for all tenants holds nothing: it would keep requests from hosts that can claim them.
        let hold = if host.works_for_all() { HOLD } else { Duration::ZERO };
        let polled = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            polled = ledger.take(wanted, after.as_deref(), hold) => polled,
        };
        let mut polled = match polled {
            Ok(polled) => polled,
            Err(error) if error.retry() == Retry::Later => {
                tracing::warn!(%error, "cannot poll for requests");
                tokio::select! {
                    biased;
                    () = &mut shutdown => return Ok(()),
                    () = tokio::time::sleep(backoff.next(host)) => {}
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let found = polled.due.len();
        after = polled.due.last().map(|due| due.request.tenant_id.clone()).or(after);
        if hold.is_zero() {
            polled.due.retain(|due| host.works_for(&due.request.tenant_id));
        }
        let taken = take(host, options, attempts, polled.due, polled.now).await?;
        if !taken.has_failed {
            backoff = Backoff::default();
        }
        if found < wanted || taken.has_failed || taken.steps == 0 {
            let pause = if taken.has_failed {
                // Only failures of the ledger cause longer pauses. A request that cannot be claimed must not delay the others.
                backoff.next(host)
            } else if found < wanted {
                jittered(host, options.poll)
            } else {
                jittered(host, CROWDED)
            };
            // `seen` was read before the poll, so a request that arrived since then has changed the signal.
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = arrivals.changed(seen), if found < wanted && !taken.has_failed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The pause after a full poll from which nothing could be claimed: other workers were faster, or the tenants' permits are in
/// use.
const CROWDED: Duration = Duration::from_millis(20);

/// The result of claiming the requests of one poll.
struct Taken {
    /// How many requests were claimed, closed, refused or put off.
    steps: usize,
    /// Whether the ledger failed.
    has_failed: bool,
}

/// Claims the requests concurrently, so that the ledger commits the claims together, and starts the attempts.
async fn take(
    host: &Host,
    options: &WorkerOptions,
    attempts: &Arc<Attempts>,
    due: Vec<Due>,
    now: Timestamp,
) -> Result<Taken, HostError> {
    let mut tenants = attempts.by_tenant();
    let claims = due.into_iter().filter(|due| {
        let running = tenants.entry(due.request.tenant_id.clone()).or_insert(0);
        *running += 1;
        *running <= options.per_tenant
    });
    let lease = options.lease;
    let claims: Vec<_> = claims
        .map(|due| {
            let host = host.clone();
            tokio::spawn(async move { host.claim(due, now, lease).await })
        })
        .collect();
    let mut taken = Taken { steps: 0, has_failed: false };
    for claimed in join_all(claims).await {
        let Ok(claimed) = claimed else {
            tracing::error!("claiming a request panicked");
            continue;
        };
        match claimed {
            Ok(claim) => {
                taken.steps += 1;
                attempts.start(host, claim);
            }
            Err(error) if error.is_conflict() => {
                attempts.note_conflict();
                metrics::counter!("logline_claim_conflicts_total").increment(1);
            }
            // The request was closed or put off. That counts as a step too.
            Err(HostError::NotRunnable(reason)) => {
                taken.steps += 1;
                if matches!(reason, NotRunnable::Deferred { .. }) {
                    metrics::counter!("logline_quota_denied_total").increment(1);
                }
                tracing::info!(%reason, "a request was not begun");
            }
            Err(error @ (HostError::NotVerified(_) | HostError::NotAuthorised(_))) => {
                taken.steps += 1;
                tracing::warn!(%error, "a request was refused");
            }
            Err(error) if may_pass(&error) => {
                taken.has_failed |= is_general(&error);
                tracing::warn!(%error, "a request could not be claimed");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

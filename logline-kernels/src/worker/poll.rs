//! Polls for due requests, claims them together, and starts their attempts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use logline_core::ledger::{Due, LedgerError, Parking, Poll, Retry, WorkQueue as _};
use logline_core::request::NotRunnable;
use logline_core::{AdmitError, Host, HostError, Shutdown, Timestamp};

use super::WorkerOptions;
use super::attempts::Attempts;
use super::deferred::Deferred;
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
    let mut deferred = Deferred::default();
    loop {
        deferred.follow(host);
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = attempts.room(options.concurrency) => {}
        }
        // If a newer version of a kernel is installed, this host leaves requests to newer hosts until it is shut down or the older
        // version is back.
        if let Err(error) = host.boot_request_kernels().await {
            if !may_pass(&error) {
                return Err(error);
            }
            tracing::warn!(%error, "requests are left to other hosts");
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(backoff.next(host)) => {}
            }
            continue;
        }
        let wanted = options.concurrency.saturating_sub(attempts.len()).min(BATCH);
        let seen = arrivals.seen();
        let tenants = host.tenants();
        let most = options.of_one_tenant(&tenants);
        let poll = Poll::new(wanted).tenants(tenants).after(after.clone()).hold(HOLD).per_tenant(most, attempts.by_tenant());
        let polled = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            polled = ledger.take(&poll) => polled,
        };
        let polled = match polled {
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
        let found = polled.taken();
        after = polled.due.last().map(|due| due.request.tenant_id.clone()).or(after);
        park(host, &polled.unreadable.into_iter().filter_map(Parking::of_damaged).collect::<Vec<_>>()).await;
        // A tenant at its limit may have more requests, which the poll has left where they are.
        let mut of_tenants = poll.running;
        polled.due.iter().for_each(|due| *of_tenants.entry(due.request.tenant_id.clone()).or_insert(0) += 1);
        let is_limited = of_tenants.values().any(|running| *running >= most);
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
                () = attempts.one_ends(), if is_limited && !taken.has_failed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Parks requests that this worker can neither claim nor close, so that polls do not find them again.
async fn park(host: &Host, parkings: &[Parking]) {
    if parkings.is_empty() {
        return;
    }
    metrics::counter!("logline_requests_parked_total").increment(parkings.len() as u64);
    for parking in parkings {
        tracing::error!(request = %parking.id, tenant = parking.tenant_id, reason = parking.reason, "a request is parked");
    }
    if let Err(error) = host.ledger().park(parkings).await {
        tracing::warn!(%error, "requests could not be parked; the next poll finds them again");
    }
}

/// The pause after a full poll from which nothing could be claimed: other workers were faster.
const CROWDED: Duration = Duration::from_millis(20);

/// How long a request is parked that this host could neither claim nor close. Another host may have other limits.
const PARKED: Duration = Duration::from_secs(3600);

/// Whether the same request would fail again, with any worker.
fn is_of_the_request(error: &HostError) -> bool {
    matches!(error, HostError::Admit(AdmitError::Seal(_)))
        || matches!(error.ledger_error(), Some(LedgerError::Damaged { .. } | LedgerError::Refused { .. }))
}

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
    let lease = options.lease;
    let claims: Vec<_> = due
        .into_iter()
        .map(|due| {
            let (host, parking) = (host.clone(), Parking::of(&due.request, None, String::new()));
            tokio::spawn(async move { (parking, host.claim(due, now, lease).await) })
        })
        .collect();
    let mut taken = Taken { steps: 0, has_failed: false };
    let mut failed = Vec::new();
    for claimed in join_all(claims).await {
        let Ok((parking, claimed)) = claimed else {
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
                if is_of_the_request(&error) {
                    // It would fail again at every poll.
                    taken.steps += 1;
                    failed.push(Parking { until: Some(now.saturating_add(PARKED)), reason: error.to_string(), ..parking });
                }
                tracing::warn!(%error, "a request could not be claimed");
            }
            Err(error) => return Err(error),
        }
    }
    park(host, &failed).await;
    Ok(taken)
}

//! Closes calls to the outside that no attempt will close: those of requests that have ended, and of hosts that died with nobody to try
//! again. Each pass is bounded, and so is what is remembered between two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{Cursor, Tenants};
use logline_core::request::CallKind;
use logline_core::{Host, HostError, OpenCall, SYSTEM_TENANT};
use uuid::Uuid;

use super::attempts::Attempts;
use super::heartbeat::AbortOnDrop;
use crate::harness::jittered;

/// How many calls one pass looks at, of all tenants.
const PER_PASS: usize = 2_000;

/// How many calls of one tenant and kind are read at once.
const PAGE: usize = 200;

/// How many open calls of one tenant are looked at again. While there are so many, no further ones are read.
const MAX_OPEN: usize = 200;

/// How old a call is at least before it is closed because the lease of its attempt has ended.
const PATIENCE: Duration = Duration::from_secs(900);

/// Where the passes over the calls of one tenant are.
#[derive(Debug, Default)]
struct Place {
    after: [Option<Cursor>; CallKind::ALL.len()],
    open: BTreeSet<Uuid>,
}

/// Starts the passes, one every `every`, the first after that time.
pub(super) fn start(host: &Host, attempts: &Arc<Attempts>, every: Duration) -> AbortOnDrop {
    AbortOnDrop::of(&tokio::spawn(keep_closing(host.clone(), Arc::clone(attempts), every)))
}

async fn keep_closing(host: Host, attempts: Arc<Attempts>, every: Duration) {
    let (mut places, mut last) = (BTreeMap::new(), None);
    let mut pause = every;
    loop {
        tokio::time::sleep(jittered(&host, pause)).await;
        // If there was more than one pass may look at, the next comes soon.
        let is_complete = pass(&host, &attempts.tenants(), &mut places, &mut last).await;
        pause = if is_complete { every } else { every.min(Duration::from_secs(1)) };
    }
}

/// One pass, over the tenants of the host and of the requests that its worker had. It begins after `last`, the tenant at which the pass
/// before ended, so that one with many calls does not keep the others waiting. False if it did not come to all.
async fn pass(
    host: &Host,
    tenants: &BTreeSet<String>,
    places: &mut BTreeMap<String, Place>,
    last: &mut Option<String>,
) -> bool {
    match host.tenants() {
        Tenants::Only(mine) => {
            places.retain(|tenant, _| mine.contains(tenant));
            for tenant in mine.into_iter().filter(|tenant| tenant != SYSTEM_TENANT) {
                places.entry(tenant).or_default();
            }
        }
        _ => {
            for tenant in tenants {
                places.entry(tenant.clone()).or_default();
            }
        }
    }
    let is_after = |tenant: &&String| last.as_ref().is_none_or(|last| *tenant > last);
    let (first, then): (Vec<_>, Vec<_>) = places.keys().partition(is_after);
    let order: Vec<String> = first.into_iter().chain(then).cloned().collect();
    let mut left = PER_PASS;
    for tenant in order {
        let Some(place) = places.get_mut(&tenant) else { continue };
        match of_tenant(host, &tenant, place, &mut left).await {
            Ok(0) => {}
            Ok(closed) => {
                metrics::counter!("logline_calls_closed_total").increment(closed);
                tracing::warn!(tenant, closed, "calls without an outcome were closed as unknown");
            }
            Err(error) => tracing::warn!(%error, tenant, "open calls could not be looked at; the next pass tries again"),
        }
        *last = Some(tenant);
        if left == 0 {
            return false;
        }
    }
    *last = None;
    true
}

/// Looks at the calls of a tenant that are known to be open, and at those that came since. Returns how many it closed.
async fn of_tenant(host: &Host, tenant: &str, place: &mut Place, left: &mut usize) -> Result<u64, HostError> {
    let mut closed = 0;
    for intent in place.open.clone() {
        if *left == 0 {
            return Ok(closed);
        }
        *left -= 1;
        match host.close_if_over(tenant, intent, PATIENCE).await? {
            OpenCall::Open => continue,
            OpenCall::Closed(_) => closed += 1,
            _ => {}
        }
        place.open.remove(&intent);
    }
    for (kind, after) in CallKind::ALL.into_iter().zip(&mut place.after) {
        while *left > 0 && place.open.len() < MAX_OPEN {
            let most = PAGE.min(*left).min(MAX_OPEN - place.open.len());
            let found = host.close_open_calls(tenant, kind, after.as_ref(), most, PATIENCE).await?;
            *left = left.saturating_sub(found.looked_at.max(1));
            closed += found.closed.len() as u64;
            place.open.extend(found.open);
            *after = found.next;
            if found.looked_at < most {
                break;
            }
        }
    }
    Ok(closed)
}

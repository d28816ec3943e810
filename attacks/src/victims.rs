//! Users who only want their answers.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use logline_core::request::Request;
use serde_json::json;

use crate::site::{Failure, HOSTILE, Site, VICTIM, tenants};

/// How long a victim waits. Whoever is not answered by then counts with this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waiting times in milliseconds, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Felt {
    /// Of users of the other tenants.
    pub(crate) others: Vec<f64>,
    /// Of another user of the hostile tenant.
    pub(crate) same: Vec<f64>,
}

impl Felt {
    /// Whether every user of the other tenants was answered. The users of one tenant share what the tenant gets.
    pub(crate) fn is_answered(&self) -> bool {
        self.others.last().copied().unwrap_or(f64::MAX) < PATIENCE.as_secs_f64() * 1000.0
    }
}

/// The value below which this share of the times is.
pub(crate) fn at(times: &[f64], share: f64) -> f64 {
    let index = (times.len() as f64 * share) as usize;
    times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Every victim asks `rounds` times, one request at a time.
pub(crate) async fn measure(site: &Site, rounds: usize) -> Result<Felt, Failure> {
    let victims = tenants().map(|tenant| async move {
        let mut times = Vec::with_capacity(rounds);
        for n in 0..rounds {
            times.push(ask(site, &tenant, n).await?);
        }
        Ok::<_, Failure>((tenant, times))
    });
    let mut felt = Felt::default();
    for (tenant, times) in try_join_all(victims).await? {
        let class = if tenant == HOSTILE { &mut felt.same } else { &mut felt.others };
        class.extend(times);
    }
    felt.others.sort_by(f64::total_cmp);
    felt.same.sort_by(f64::total_cmp);
    Ok(felt)
}

async fn ask(site: &Site, tenant: &str, n: usize) -> Result<f64, Failure> {
    let began = Instant::now();
    let request = Request::new(tenant, VICTIM, site.echo(), json!(n));
    let host = site.host();
    // As a service does that leaves the work to its workers: the request waits in the queue with all the others.
    let answer = async {
        let asked = host.submit(request).await?;
        host.outcome(tenant, asked.id).await
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(done) => {
            let done = done?;
            if !done.result.as_ref().is_ok_and(|answer| answer.get("input") == Some(&json!(n))) {
                return Err(format!("a victim of `{tenant}` was answered {:?}", done.result).into());
            }
            Ok(began.elapsed().as_secs_f64() * 1000.0)
        }
        Err(_) => Ok(PATIENCE.as_secs_f64() * 1000.0),
    }
}

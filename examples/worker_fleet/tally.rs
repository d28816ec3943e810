//! Counts outcomes: live while the fleet runs, and again from the rows after it has stopped.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{Ledger as _, Query, Watch, WatchFrom};
use logline_core::trust::TrustRoot;
use logline_core::{Host, Scope, SignedSpan, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::Result;

const ENDED: [&str; 4] = ["complete", "error", "dead", "cancelled"];

/// How long to wait for the next row before the run fails.
const PATIENCE: Duration = Duration::from_secs(120);

fn is_end(span: &SignedSpan) -> bool {
    span.entity_type == "request" && span.status.as_deref().is_some_and(|status| ENDED.contains(&status))
}

/// Follows the ledger and counts the ends of requests.
pub(crate) struct Tally {
    watch: Watch,
    ended: HashSet<Uuid>,
}

impl Tally {
    pub(crate) async fn follow(host: &Host) -> Result<Self> {
        let watch = host.ledger().watch(&Scope::Operator, WatchFrom::Now).await?;
        Ok(Self { watch, ended: HashSet::new() })
    }

    /// Waits until `requests` have ended. Reports the number of ended requests and the rate about once a second.
    pub(crate) async fn until(&mut self, requests: usize, say: impl Fn(usize, f64)) -> Result<()> {
        let (mut told, mut at) = (0, Instant::now());
        while self.ended.len() < requests {
            let row = tokio::time::timeout(PATIENCE, self.watch.next()).await;
            let row = row.map_err(|_| format!("nothing happens: {} of {requests} requests have ended", self.ended.len()))?;
            let span = row.ok_or("the watch ended")??.span;
            if is_end(&span) {
                self.ended.insert(span.id);
            }
            if at.elapsed() >= Duration::from_secs(1) {
                say(self.ended.len(), (self.ended.len() - told) as f64 / at.elapsed().as_secs_f64());
                (told, at) = (self.ended.len(), Instant::now());
            }
        }
        Ok(())
    }
}

/// What the rows of the ledger show.
#[derive(Default)]
pub(crate) struct Count {
    pub(crate) rows: u64,
    pub(crate) problems: u64,
    pub(crate) ended: usize,
    pub(crate) attempts: u64,
    pub(crate) lost_attempts: usize,
    /// Attempts without an execution.
    pub(crate) unrecorded: usize,
    /// Second and further executions of one attempt.
    pub(crate) duplicated: usize,
    /// Time from the request to its recorded outcome, in milliseconds, in ascending order.
    latencies: Vec<f64>,
}

impl Count {
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let at = (self.latencies.len() as f64 * part) as usize;
        let value = self.latencies.get(at.min(self.latencies.len().saturating_sub(1)));
        (value.copied().unwrap_or_default() * 10.0).round() / 10.0
    }
}

/// Reads every row, counts outcomes and attempts, and audits the ledger.
pub(crate) async fn count(host: &Host, trust: &TrustRoot) -> Result<Count> {
    let ledger = host.ledger();
    let mut count = Count::default();
    let mut began: BTreeMap<Uuid, Timestamp> = BTreeMap::new();
    let mut attempts: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut executions: BTreeMap<(Uuid, u64), usize> = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = ledger.scan(&Scope::Operator, &Query::timeline(), cursor.as_ref()).await?;
        cursor = page.next.clone();
        for span in page.into_spans()? {
            let attempt = span.meta("attempt").and_then(Value::as_u64).unwrap_or(0);
            if span.entity_type == "request" {
                let first = *began.entry(span.id).or_insert(span.at);
                attempts.insert(span.id, attempt);
                if is_end(&span) {
                    count.ended += 1;
                    count.latencies.push(span.at.since(first).as_secs_f64() * 1000.0);
                }
            } else if span.entity_type == "execution" {
                let request = span.related_to.first().copied().unwrap_or_default();
                *executions.entry((request, attempt)).or_default() += 1;
                let code = span.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str);
                count.lost_attempts += usize::from(code == Some("lost"));
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    for (request, last) in attempts {
        count.attempts += last;
        count.unrecorded += (1..=last).filter(|attempt| !executions.contains_key(&(request, *attempt))).count();
    }
    count.duplicated = executions.values().map(|records| records - 1).sum();
    count.latencies.sort_by(f64::total_cmp);
    let trusted = trust.resolve(ledger).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(ledger, audit, &mut |_| {}).await?;
    (count.rows, count.problems) = (report.rows, report.problems);
    Ok(count)
}

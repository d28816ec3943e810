//! What must hold of the ledger of a fleet, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::{LedgerExt as _, Poll, Query, WorkQueue};
use logline_core::{EXECUTIONS_QUOTA, MemoryLedger, Scope, SignedSpan, Timestamp, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::setup;
use crate::{PER_DAY, TENANTS};

/// What policies wrote about notes: the numbers of the notes.
pub async fn replies(ledger: &MemoryLedger) -> Vec<u64> {
    let query = Query::timeline().entity_type("reply");
    let replies = ledger.collect(&Scope::Operator, &query, usize::MAX).await.unwrap();
    replies.iter().map(|reply| reply.content.as_ref().unwrap().as_u64().unwrap()).collect()
}

/// Every note has one reply, and is counted once.
pub async fn check_policies(ledger: &MemoryLedger, notes: usize) -> Result<(), String> {
    let mut replies = replies(ledger).await;
    replies.sort_unstable();
    let notes = notes as u64;
    if replies != (0..notes).collect::<Vec<_>>() {
        return Err(format!("{notes} notes, and replies to {replies:?}"));
    }
    let metrics = ledger.collect(&Scope::Operator, &Query::new().entity_type("metric"), usize::MAX).await.unwrap();
    let last = metrics.iter().find(|metric| metric.this == "notes").and_then(|metric| metric.output.clone());
    let expected = (notes > 0).then(|| json!({"count": notes, "sum": (0..notes).sum::<u64>()}));
    if last != expected {
        return Err(format!("counted {last:?}, not {expected:?}"));
    }
    Ok(())
}

/// How many requests somebody has to do something about now.
pub async fn size_of_open(ledger: &MemoryLedger) -> usize {
    let query = Query::new().entity_type("request");
    let requests = ledger.collect(&Scope::Operator, &query, usize::MAX).await.unwrap();
    requests.iter().filter(|request| is_open(request)).count()
}

/// What waits for tomorrow's quota waits rightly.
pub fn is_open(request: &SignedSpan) -> bool {
    let waits = request.error.as_ref().is_some_and(|error| error["code"] == "quota_exceeded");
    matches!(request.status.as_deref(), Some("scheduled" | "running")) && !waits
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub requests: usize,
    pub attempts: usize,
    pub lost: usize,
    pub slots: usize,
    pub crashes: u64,
    pub failures: u64,
    pub hash: [u8; 32],
}

impl Counted {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.lost += other.lost;
        self.slots += other.slots;
        self.crashes += other.crashes;
        self.failures += other.failures;
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, attempts, lost, slots, crashes, failures, .. } = self;
        write!(
            f,
            "{requests} requests ({slots} of schedules), {attempts} attempts, {lost} of them lost, {crashes} crashes of hosts, \
             {failures} failures of the ledger"
        )
    }
}

/// What must hold whatever happened.
pub async fn check(
    ledger: &MemoryLedger,
    submitted: &BTreeMap<Uuid, u64>,
    scheduled: &VerifiedSpan,
    stopped: Timestamp,
) -> Result<Counted, String> {
    let rows = ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap();
    let mut hasher = blake3::Hasher::new();
    for row in &rows {
        hasher.update(&row.seal.curr_hash.0);
    }
    let mut requests: BTreeMap<(String, Uuid), Vec<&SignedSpan>> = BTreeMap::new();
    let mut executions: BTreeMap<(Uuid, u64), Vec<&SignedSpan>> = BTreeMap::new();
    let mut charged: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in &rows {
        match row.entity_type.as_str() {
            "request" => {
                requests.entry((row.tenant_id.clone(), row.id)).or_default().push(row);
                if row.prev_hash.is_some() && row.status.as_deref() == Some("running") {
                    let day = row.meta("quota").and_then(|quota| quota["day"].as_str()).ok_or("a claim without quota")?;
                    *charged.entry((row.tenant_id.clone(), day.to_owned())).or_default() += 1;
                }
            }
            "execution" => {
                let attempt = row.meta("attempt").and_then(Value::as_u64).ok_or("an execution without attempt")?;
                executions.entry((row.related_to[0], attempt)).or_default().push(row);
            }
            _ => {}
        }
    }
    let mut counted = Counted { requests: requests.len(), hash: *hasher.finalize().as_bytes(), ..Counted::default() };
    for ((tenant, id), versions) in &requests {
        let last = versions[versions.len() - 1];
        let say = |what: &str| Err(format!("request {id} of {tenant} {what}; its versions: {:?}", shown(versions)));
        if is_open(last) {
            return say("never ended");
        }
        let attempts: Vec<u64> = versions
            .iter()
            .filter(|version| version.status.as_deref() == Some("running"))
            .map(|version| version.meta("attempt").and_then(Value::as_u64).unwrap_or(0))
            .collect();
        if attempts != (1..=attempts.len() as u64).collect::<Vec<_>>() {
            return say("has attempts that do not count from 1");
        }
        counted.attempts += attempts.len();
        let mut completed = 0;
        for attempt in attempts {
            let recorded = executions.remove(&(*id, attempt)).unwrap_or_default();
            let [execution] = recorded.as_slice() else {
                return say(&format!("has {} executions of attempt {attempt}", recorded.len()));
            };
            completed += usize::from(execution.status.as_deref() == Some("complete"));
            counted.lost += usize::from(execution.error.as_ref().is_some_and(|error| error["code"] == "lost"));
            if execution.status.as_deref() == Some("complete") {
                let wanted = submitted.get(id).map_or(0, |n| *n);
                if execution.output != Some(json!(wanted)) || last.meta("execution") != Some(&json!(execution.id.to_string())) {
                    return say("was completed with somebody else's outcome");
                }
            }
        }
        if completed != usize::from(last.status.as_deref() == Some("complete")) {
            return say(&format!("has {completed} completed attempts"));
        }
    }
    if let Some((attempt, _)) = executions.first_key_value() {
        return Err(format!("an execution of an attempt that never began: {attempt:?}"));
    }
    if let Some((of, used)) = charged.iter().find(|(_, used)| **used > PER_DAY) {
        return Err(format!("{of:?} used {used} of {PER_DAY}"));
    }
    for tenant in TENANTS {
        let used = ledger.used(tenant, EXECUTIONS_QUOTA).await.unwrap();
        let claims = charged.iter().filter(|((of, _), _)| of == tenant).map(|(_, used)| used).sum::<u64>();
        if used != claims {
            return Err(format!("{tenant}: the counter says {used}, the claims {claims}"));
        }
    }
    if let Some(missing) = submitted.keys().find(|id| !requests.keys().any(|(_, of)| of == *id)) {
        return Err(format!("request {missing} is gone"));
    }
    let slots: Vec<Timestamp> =
        requests.values().filter_map(|versions| versions[0].meta("slot")?.as_str()?.parse().ok()).collect();
    counted.slots = slots.len();
    let first = scheduled.at.unix_micros() / 10_000_000 * 10_000_000 + 10_000_000;
    let expected: BTreeSet<i64> = (first..=stopped.unix_micros() - 5_000_000).step_by(10_000_000).collect();
    let found: BTreeSet<i64> = slots.iter().map(|slot| slot.unix_micros()).collect();
    let is_denied = charged.get(&("globex".to_owned(), "2026-05-01".to_owned())).is_some_and(|used| *used >= PER_DAY);
    if found.len() != slots.len() || (!is_denied && !expected.is_subset(&found)) {
        return Err(format!("{} requests for {} slots, of {} expected", slots.len(), found.len(), expected.len()));
    }
    let open = ledger.claimable(&Poll::new(100)).await.unwrap();
    ledger.rebuild().await.unwrap();
    if ledger.claimable(&Poll::new(100)).await.unwrap() != open {
        return Err("the queue differs from the rows".to_owned());
    }
    let trusted = setup::trust().resolve(ledger).await.unwrap();
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let mut problems = Vec::new();
    fsck(ledger, audit, &mut |event| problems.extend(matches!(event, Event::Problem(_)).then_some(event))).await.unwrap();
    if !problems.is_empty() {
        return Err(format!("fsck: {problems:?}"));
    }
    Ok(counted)
}

pub fn shown(versions: &[&SignedSpan]) -> Vec<String> {
    versions.iter().map(|v| format!("{} {:?} {:?} {:?}", v.seq, v.status, v.meta("attempt"), v.error)).collect()
}

//! The circuit breaker: whether a provider is left alone because it fails.
//!
//! Its state follows from the recorded outcomes of the provider's last calls. So all hosts of a fleet come to the same decision without
//! talking to each other, a restart forgets nothing, and anybody can compute it again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use logline_core::contract::Reader;
use logline_core::contract::provider::ErrorKind;
use logline_core::ledger::{LedgerError, Query};
use logline_core::request::CallKind;
use logline_core::trust::Authorities;
use logline_core::{SignedSpan, Timestamp, VerifiedSpan};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::schemas::NEW_SCHEMA;

/// The most failures that a breaker may wait for.
const MAX_FAILURES: usize = 50;

/// How many outcomes are read at most: a request may have several.
const MAX_READ_OUTCOMES: usize = 200;

/// How far the clocks of hosts may be apart.
const CLOCKS: Duration = Duration::from_secs(60);

/// The longest time, milliseconds: a day.
const MAX_MS: u64 = 86_400_000;

/// When a provider is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Breaker {
    /// After so many requests one after the other whose calls failed. 0: never. Default 5, at most 50.
    pub failures: usize,
    /// For so long after the last of them, milliseconds. Then calls may try again. Default 30,000.
    pub open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open_ms: 30_000 }
    }
}

impl Breaker {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.failures > MAX_FAILURES {
            return Err(format!("failures is {}: {MAX_FAILURES} is the most", self.failures));
        }
        if !(1..=MAX_MS).contains(&self.open_ms) {
            return Err(format!("open_ms is {}: it must be from 1 to {MAX_MS}", self.open_ms));
        }
        Ok(())
    }

    /// Until when the provider is left alone, given its last outcomes, newest first. `None`: it may be called.
    ///
    /// The tries of one request are one failure, as what it asks may be the cause. Outcomes that nobody knows say nothing, nor do those
    /// that are dated later than hosts' clocks may be apart.
    #[must_use]
    pub fn open_until(&self, newest_first: &[SignedSpan], now: Timestamp) -> Option<Timestamp> {
        let latest = now.saturating_add(CLOCKS);
        let (mut requests, mut newest) = (HashSet::new(), None);
        for outcome in newest_first.iter().filter(|outcome| outcome.at <= latest && says_something(outcome)) {
            if !is_failure(outcome) {
                return None;
            }
            newest = newest.or(Some(outcome.at));
            requests.insert(outcome.related_to.first().copied());
            if requests.len() == self.failures {
                let until = newest?.min(now).saturating_add(Duration::from_millis(self.open_ms));
                return (now < until).then_some(until);
            }
        }
        None
    }

    /// Reads the provider's last outcomes, and says until when it is left alone.
    async fn read(
        &self,
        (reader, authorities): (&Reader<'_>, &Authorities),
        tenant: &str,
        provider: Uuid,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let outcomes = Query::timeline().tenant(tenant).entity_type(CallKind::Provider.outcome()).parent_id(provider);
        // What no host of the tenant has signed does not count: others may have brought it into the store.
        let last = async |count: usize| -> Result<Vec<SignedSpan>, LedgerError> {
            let mut last = Vec::new();
            let take = |outcome: VerifiedSpan| {
                last.push(outcome.into_signed());
                true
            };
            reader.newest_that_count(authorities, outcomes.clone(), count, take).await?;
            Ok(last)
        };
        // Usually the last call succeeded, and an answer may be long.
        if last(1).await?.first().is_some_and(|last| says_something(last) && !is_failure(last)) {
            return Ok(None);
        }
        Ok(self.open_until(&last(MAX_READ_OUTCOMES).await?, now))
    }
}

/// For how long a host believes that it may call a provider, after it has read the last outcomes.
const BELIEVED: Duration = Duration::from_millis(250);

/// How many providers a host remembers.
const MAX_READ: usize = 4096;

/// The breakers that this host has just read, and that let calls through. A host that makes many calls need not read before each.
#[derive(Default)]
pub(crate) struct Breakers(Mutex<HashMap<(String, Uuid), Instant>>);

impl Breakers {
    fn known(&self) -> MutexGuard<'_, HashMap<(String, Uuid), Instant>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Until when a provider is left alone. `None`: it may be called.
    pub(crate) async fn open_until(
        &self,
        breaker: &Breaker,
        (reader, authorities): (&Reader<'_>, &Authorities),
        (tenant, provider): (&str, Uuid),
        now: Timestamp,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let key = (tenant.to_owned(), provider);
        if breaker.failures == 0 || self.known().get(&key).is_some_and(|read| read.elapsed() < BELIEVED) {
            return Ok(None);
        }
        let read = Instant::now();
        let until = breaker.read((reader, authorities), tenant, provider, now).await?;
        if until.is_none() {
            let mut known = self.known();
            if known.len() >= MAX_READ {
                known.clear();
            }
            known.insert(key, read);
        }
        Ok(until)
    }

    /// Reads again before the next call, because a call has failed.
    pub(crate) fn forget(&self, tenant: &str, provider: Uuid) {
        self.known().remove(&(tenant.to_owned(), provider));
    }
}

/// Whether it is known how the call ended, and whether that says something about the state of the provider. That it was slow with a new
/// schema does not.
fn says_something(outcome: &SignedSpan) -> bool {
    matches!(outcome.status.as_deref(), Some("complete" | "error"))
        && !(is_of_new_schema(outcome) && code_of(outcome) == Some(ErrorKind::TimedOut))
}

fn is_of_new_schema(outcome: &SignedSpan) -> bool {
    outcome.meta("details").and_then(|details| details.get(NEW_SCHEMA)).and_then(Value::as_bool) == Some(true)
}

fn code_of(outcome: &SignedSpan) -> Option<ErrorKind> {
    outcome.error.as_ref()?.get("code")?.as_str().and_then(ErrorKind::from_code)
}

/// Whether an outcome says that the provider failed. What was wrong with the request, and what nobody knows, does not count.
fn is_failure(outcome: &SignedSpan) -> bool {
    code_of(outcome).is_some_and(ErrorKind::is_providers)
}

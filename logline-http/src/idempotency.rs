//! Idempotency keys: a call with the same key is carried out once, also across hosts and restarts.
//!
//! The record is a span of type `idempotency_record` with an id that follows from the caller, the method, the path and the key. It
//! is `open` while the call runs, for at most [`LEASE`]; `complete` with the answer, or `failed` if the answer is the service's fault
//! and the call may be tried again. Who writes a version first carries out the call: the ledger decides.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use logline_core::ledger::{AppendOptions, LedgerExt as _, WorkQueue as _};
use logline_core::{Draft, HostError, Scope, Timestamp, VerifiedSpan, Verifier, ids};
use serde_json::{Value, json};
use tracing::Instrument as _;

use crate::problem::{Code, Problem};
use crate::service::{Caller, Service};

/// After this time a call without an outcome may be carried out again: its host is lost.
const LEASE: Duration = Duration::from_secs(60);
/// The longest pause that is asked of a client whose call still runs.
const LONGEST: Duration = Duration::from_secs(15);
const MAX_KEY: usize = 255;
/// When an outcome that could not be recorded is tried again. Together they are shorter than a lease.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(25),
];
/// How often a version is written before somebody else is blamed for being faster.
const TRIES: u32 = 4;

/// The answer to a call that is carried out once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// Whether it was given before.
    pub(crate) is_repeated: bool,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, is_repeated: false }
    }
}

/// A call that has a key.
pub(crate) struct Keyed {
    pub(crate) key: String,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// A digest of what is asked for.
    pub(crate) body: String,
}

/// The headers that name a key.
const NAMES: [&str; 2] = ["idempotency-key", "x-idempotency-key"];

/// Refuses a call with a key, which would be carried out again all the same. `why` says what follows.
pub(crate) fn none(headers: &HeaderMap, why: &str) -> Result<(), Problem> {
    match NAMES.iter().find(|name| headers.contains_key(**name)) {
        Some(name) => Err(Problem::parameter(name, &format!("left out: {why}"))),
        None => Ok(()),
    }
}

/// The key of a call, from `Idempotency-Key` (a structured string or a bare value) or `X-Idempotency-Key`.
pub(crate) fn key(headers: &HeaderMap, is_required: bool) -> Result<Option<String>, Problem> {
    let expected = format!("1 to {MAX_KEY} visible ASCII characters, the same in every header that names it");
    let refused = || Problem::parameter("Idempotency-Key", &expected);
    let mut keys = Vec::new();
    for value in NAMES.iter().flat_map(|name| headers.get_all(*name)) {
        let text = value.to_str().map_err(|_| refused())?.trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if text.is_empty() || text.len() > MAX_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return Err(refused());
        }
        keys.push(text.to_owned());
    }
    let Some(key) = keys.pop() else {
        return if is_required { Err(refused()) } else { Ok(None) };
    };
    if keys.iter().any(|other| *other != key) { Err(refused()) } else { Ok(Some(key)) }
}

/// Carries out `work`, or returns the answer that it had. The work goes on if the client leaves.
pub(crate) async fn once(
    service: &Arc<Service>,
    caller: &Caller,
    keyed: Option<Keyed>,
    work: impl Future<Output = Result<Answer, Problem>> + Send + 'static,
) -> Result<Answer, Problem> {
    let Some(keyed) = keyed else { return work.await };
    let (service, caller) = (Arc::clone(service), caller.clone());
    let carried_out = async move {
        let record = Record { service: &service, caller: &caller, keyed: &keyed };
        match record.begin().await? {
            Begun::Before(answer) => Ok(answer),
            Begun::Now(open) => {
                let done = work.await;
                record.end(*open, &done).await;
                done
            }
        }
    };
    let task = tokio::spawn(carried_out.instrument(tracing::Span::current()));
    task.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the call broke off: try it again with the same key")))
}

fn in_flight() -> Problem {
    Problem::new(Code::InFlight, "wait for its end, then ask again with the same key")
}

/// Whether a lease that ends at `until` is held. One that is longer than leases are was made by a clock that was wrong.
fn is_held(until: Timestamp, now: Timestamp) -> bool {
    now < until && until.since(now) <= LEASE
}

/// When to ask again for a call whose lease ends at `until`: it is expected to take as long again as it has run, and at most
/// [`LONGEST`]. When its lease has ended, it may be carried out again in any case.
fn expected(until: Timestamp, now: Timestamp) -> Duration {
    let left = until.since(now);
    LEASE.saturating_sub(left).clamp(Duration::from_secs(1), LONGEST).min(left)
}

enum Begun {
    Now(Box<VerifiedSpan>),
    Before(Answer),
}

struct Record<'a> {
    service: &'a Service,
    caller: &'a Caller,
    keyed: &'a Keyed,
}

impl Record<'_> {
    async fn begin(&self) -> Result<Begun, Problem> {
        let (identity, keyed) = (&self.caller.identity, self.keyed);
        let id = ids::derive("http idempotency", &[&identity.tenant, &identity.user, keyed.method, keyed.path, &keyed.key]);
        let (tenant, scope) = (identity.tenant.as_str(), Scope::runtime(&identity.tenant));
        for _ in 0..TRIES {
            let now = self.service.ledger().now().await?;
            let until = now.saturating_add(LEASE).to_string();
            let draft = match self.service.ledger().head(&scope, tenant, id).await? {
                None => Draft::new("idempotency_record")
                    .id(id)
                    .tenant(tenant)
                    .owner(&identity.user)
                    .who(format!("user:{}", identity.user))
                    .this("http.call")
                    .meta("method", keyed.method)
                    .meta("path", keyed.path)
                    .meta("key", keyed.key.as_str())
                    .meta("body_hash", keyed.body.as_str()),
                Some(last) => {
                    // Anybody who can write to the store could have put a row there.
                    let last = last.verify(&mut Verifier::new()).map_err(HostError::from)?;
                    self.service.host.trusted().authorities.check(&last).map_err(HostError::from)?;
                    if last.meta("body_hash").and_then(Value::as_str) != Some(&keyed.body) {
                        return Err(Problem::new(Code::KeyReused, "send the same body again, or use another key"));
                    }
                    if let Some(answer) = answer_of(&last) {
                        return Ok(Begun::Before(answer));
                    }
                    let lease =
                        last.meta("lease_until").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
                    if last.status.as_deref() == Some("open") && lease.is_some_and(|until| is_held(until, now)) {
                        let pause = lease.map_or(LEASE, |until| expected(until, now));
                        return Err(in_flight().retry_after(pause));
                    }
                    Draft::next_version(&last)
                }
            };
            let draft = draft.did("began").status("open").meta("lease_until", until);
            match self.service.host.record(tenant, vec![draft], &AppendOptions::default()).await {
                Ok(written) => {
                    let open = written.into_iter().next();
                    return open.map(|open| Begun::Now(Box::new(open))).ok_or_else(Problem::not_found);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(in_flight())
    }

    /// Records the outcome. If that fails, the lease ends and the call may be made again.
    async fn end(&self, open: VerifiedSpan, done: &Result<Answer, Problem>) {
        let (status, body) = match done {
            Ok(answer) => (answer.status, answer.body.clone()),
            Err(problem) => (problem.code().status(), problem.body()),
        };
        let next = Draft::next_version(&open).without_meta("lease_until");
        // What was full, away or too fast may be tried again.
        let is_final = !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS;
        let next = if is_final {
            next.did("answered").status("complete").output(json!({"status": status.as_u16(), "body": body}))
        } else {
            next.did("failed").status("failed")
        };
        let (host, tenant, record) = (self.service.host.clone(), open.tenant_id.clone(), open.key());
        let write = async move || host.record(&tenant, vec![next.clone()], &AppendOptions::default()).await;
        if write().await.is_ok() {
            return;
        }
        // Until it is written, whoever repeats the call is told that it runs: the ledger may be back soon.
        tokio::spawn(async move {
            for pause in PAUSES {
                tokio::time::sleep(pause).await;
                match write().await {
                    Ok(_) => return,
                    // It was written, or somebody else has carried out the call.
                    Err(error) if error.is_conflict() => return,
                    Err(error) => tracing::debug!(%error, record = %record, "the outcome of a call is not recorded yet"),
                }
            }
            tracing::warn!(record = %record, "the outcome of a call with an idempotency key is not recorded");
        });
    }
}

fn answer_of(record: &VerifiedSpan) -> Option<Answer> {
    if record.status.as_deref() != Some("complete") {
        return None;
    }
    let output = record.output.as_ref()?;
    let status = StatusCode::from_u16(output.get("status")?.as_u64()?.try_into().ok()?).ok()?;
    Some(Answer { status, body: output.get("body")?.clone(), is_repeated: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_lease_that_a_wrong_clock_has_made_is_not_held() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| now.saturating_add(Duration::from_secs(seconds));
        assert!(is_held(after(1), now) && is_held(now.saturating_add(LEASE), now));
        assert!(!is_held(now, now) && !is_held(after(5 * 3600), now));
    }

    #[test]
    fn who_asks_for_a_running_call_waits_as_long_again_as_it_has_run() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (left, pause) in [(60, 1), (59, 1), (55, 5), (40, 15), (20, 15), (4, 4), (0, 0)] {
            let until = now.saturating_add(Duration::from_secs(left));
            assert_eq!(expected(until, now).as_secs(), pause, "{left}");
        }
    }

    #[test]
    fn a_key_may_be_a_structured_string_or_bare() {
        for pairs in [
            &[("idempotency-key", "\"k-1\"")][..],
            &[("idempotency-key", "k-1")],
            &[("x-idempotency-key", "k-1")],
            &[("idempotency-key", "\"k-1\""), ("x-idempotency-key", "k-1")],
        ] {
            assert_eq!(key(&headers(pairs), true).unwrap().as_deref(), Some("k-1"), "{pairs:?}");
        }
        assert_eq!(key(&headers(&[]), false).unwrap(), None);
    }

    #[test]
    fn two_keys_no_key_and_odd_keys_are_refused() {
        let long = "k".repeat(MAX_KEY + 1);
        for pairs in [
            &[("idempotency-key", "k-1"), ("x-idempotency-key", "k-2")][..],
            &[("idempotency-key", "")],
            &[("idempotency-key", "a b")],
            &[("idempotency-key", "\"")],
            &[("idempotency-key", &long)],
            &[],
        ] {
            assert_eq!(key(&headers(pairs), true).unwrap_err().code(), Code::InvalidParameter, "{pairs:?}");
        }
    }
}

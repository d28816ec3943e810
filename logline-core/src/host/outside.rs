//! Records calls to the outside: an intent before each call, an outcome after it.
//!
//! An intent is stored only while the attempt holds its claim, and the same append extends the lease. So an attempt that replaces this
//! one later finds the intent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::contract::{
    Answer, Attempt, Call, CipherError, Confidential, Outside, OutsideError, Remote, RemoteCall, Reply, Reservation,
};
use crate::host::confidential::{OUTPUT, hide_result};
use crate::host::driver::AdmitError;
use crate::host::{Host, HostError};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, HeldClaim, Ledger as _, LedgerError, Limit, Query, Retry, Work, WorkQueue as _};
use crate::request::CallKind;
use crate::request::call::{CallId, Ended, Intent, MAX_NAME, Recorded, Said, call_body, call_hash};
use crate::request::quota::{Charges, MAX_KEY_BYTES, MAX_KEYS, MAX_UNITS};
use crate::request::state::{OnUnknown, State};
use crate::roles::Role;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey};
use crate::value::failure::Failure;
use crate::value::hex::Hash;

/// The most calls of one attempt.
const MAX_CALLS: usize = 1000;

/// How often the host tries to append an outcome if the ledger is unavailable: the call was made and cannot be undone.
const RECORD_TRIES: u32 = 3;

/// What a service answered, or why it did not.
type Told = Result<Value, Failure>;

/// The intents of a request by the call that each is for.
type Intents = HashMap<CallId, Vec<Intent>>;

/// The calls of one attempt.
pub(super) struct RecordedCalls<'a> {
    host: &'a Host,
    running: &'a VerifiedSpan,
    on_unknown: OnUnknown,
    lease: Duration,
    attempt: Attempt,
    /// What encrypts what is asked and answered; `None` if the request is not confidential.
    confidential: Option<&'a Confidential>,
    /// The intents of earlier attempts, read at the first call.
    earlier: futures_util::lock::Mutex<Option<Arc<Intents>>>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    calls: BTreeSet<(CallId, u32)>,
    /// Intents of this attempt whose outcome is not recorded yet.
    open: BTreeMap<Uuid, Intent>,
}

impl<'a> RecordedCalls<'a> {
    pub(super) fn new(
        host: &'a Host,
        running: &'a VerifiedSpan,
        state: &State,
        attempt: Attempt,
        confidential: Option<&'a Confidential>,
    ) -> Self {
        let on_unknown = state.terms.on_unknown;
        Self {
            host,
            running,
            on_unknown,
            lease: state.lease,
            attempt,
            confidential,
            earlier: futures_util::lock::Mutex::new(None),
            made: Mutex::default(),
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The outcomes of calls whose futures the kernel has dropped. They are appended with the end of the attempt. Also whether an
    /// append was dropped that may still be stored, so that its intent has no outcome yet.
    pub(super) async fn unfinished(&self) -> Result<(Vec<Draft>, bool), LedgerError> {
        let open = std::mem::take(&mut self.made().open);
        let (tenant, scope) = (&self.running.tenant_id, Scope::runtime(&self.running.tenant_id));
        let is_stored =
            async |id: Uuid| self.host.ledger().history(&scope, tenant, id, 0, 1).await.map(|found| !found.is_empty());
        let (mut drafts, mut may_come) = (Vec::new(), false);
        for intent in open.into_values() {
            if !is_stored(intent.id).await? {
                may_come = true;
            } else if !is_stored(intent.outcome_id(tenant)).await? {
                drafts.push(intent.end(self.running, &Ended::new(Recorded::Unknown)).who(self.host_name()));
            }
        }
        Ok((drafts, may_come))
    }

    /// Whether the attempt has called nothing outside the ledger.
    pub(super) fn has_made_none(&self) -> bool {
        self.made().calls.is_empty()
    }

    fn host_name(&self) -> String {
        format!("host:{}", self.attempt.worker)
    }

    /// The intents of earlier attempts, by their call.
    async fn earlier(&self) -> Result<Arc<Intents>, LedgerError> {
        let mut earlier = self.earlier.lock().await;
        if let Some(known) = &*earlier {
            return Ok(Arc::clone(known));
        }
        let mut found = Intents::new();
        if self.attempt.number > 1 {
            for intent in self.host.intents(self.running).await? {
                if intent.attempt < self.attempt.number {
                    found.entry(intent.call.clone()).or_default().push(intent);
                }
            }
        }
        let found = Arc::new(found);
        *earlier = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The answer to `call` that an earlier attempt recorded. Intents of earlier attempts without an outcome are closed as
    /// unknown.
    async fn recorded(&self, call: &CallId) -> Result<Option<Answer>, OutsideError> {
        let earlier = self.earlier().await?;
        let mut unknown = None;
        for intent in earlier.get(call).into_iter().flatten() {
            let Settled { outcome, ended: Ended { recorded, details, .. }, .. } =
                self.host.settle(self.running, intent).await.map_err(not_recorded)?;
            match recorded {
                Recorded::Answered(value) => {
                    let value = match self.confidential {
                        None => value,
                        Some(key) => {
                            key.open(outcome.id, OUTPUT, &value).await.map_err(|error| not_called(&call.key, error))?
                        }
                    };
                    return Ok(Some(Answer { value, details, outcome, was_recorded: true }));
                }
                Recorded::Unknown => unknown = Some(self.key_of(intent)),
                Recorded::Failed(_) => {}
            }
        }
        if unknown.is_none() {
            unknown = self.left_open(&earlier, &call.key).await?;
        }
        match unknown {
            Some(intent) if self.on_unknown == OnUnknown::Fail => Err(OutsideError::Unknown { key: call.key.clone(), intent }),
            _ => Ok(None),
        }
    }

    /// A call with this key that an earlier attempt has left unknown, whatever it has asked: the prompt or the function may be another
    /// one since then.
    async fn left_open(&self, earlier: &Intents, key: &str) -> Result<Option<SpanKey>, OutsideError> {
        for intent in earlier.iter().filter(|(call, _)| call.key == key).flat_map(|(_, intents)| intents) {
            let settled = self.host.settle(self.running, intent).await.map_err(not_recorded)?;
            if settled.ended.recorded == Recorded::Unknown {
                return Ok(Some(self.key_of(intent)));
            }
        }
        Ok(None)
    }

    /// What tells a call from others.
    async fn id_of(&self, service: &str, call: &Call) -> Result<CallId, OutsideError> {
        let hash = self.hash_of(service, call).await.map_err(|error| not_called(&call.key, error))?;
        CallId::new(&call.key, service, &call.operation, hash).map_err(|reason| malformed(call, reason))
    }

    /// The hash of a call. That of a confidential request would tell what was asked, to those who can guess it: it is keyed.
    async fn hash_of(&self, service: &str, call: &Call) -> Result<Hash, CipherError> {
        match self.confidential {
            None => Ok(call_hash(service, &call.operation, &call.body)),
            Some(key) => key.hash("logline.call.v1", &call_body(service, &call.operation, &call.body)).await,
        }
    }

    /// What an outcome records of a reply, and the reply in the clear if it is recorded encrypted. Adds to `details` what cannot stand in
    /// the outcome's result.
    async fn recorded_of(
        &self,
        intent: &Intent,
        mut result: Told,
        details: &mut Map<String, Value>,
    ) -> (Recorded, Option<Told>) {
        if result.as_ref().is_err_and(|failure| failure.code == OutsideError::UNKNOWN) {
            return (Recorded::Unknown, None);
        }
        let Some(key) = self.confidential else { return (result.into(), None) };
        match hide_result(key, intent.outcome_id(&self.running.tenant_id), &mut result, details).await {
            Ok(hidden) => (hidden.into(), Some(result)),
            // The call was made, and what was answered must not be written in the clear.
            Err(error) => {
                tracing::warn!(%error, call = intent.call.key, "an answer could not be encrypted: its outcome is unknown");
                (Recorded::Unknown, None)
            }
        }
    }

    fn key_of(&self, intent: &Intent) -> SpanKey {
        SpanKey { tenant_id: self.running.tenant_id.clone(), id: intent.id, seq: 0 }
    }

    /// Appends the intent of a call, with what it reserves.
    async fn begin(
        &self,
        remote: &dyn Remote,
        call: &Call,
        call_id: CallId,
        idempotency_key: &str,
    ) -> Result<Intent, OutsideError> {
        let (host, running) = (self.host, self.running);
        let limit =
            |one: &Reservation| Limit { tenant: running.tenant_id.clone(), key: one.quota.clone(), per_day: one.per_day };
        let options =
            AppendOptions::default().limits(call.reserve.iter().map(limit).collect()).held(HeldClaim::of(running, self.lease));
        let mut tries = 1;
        loop {
            let reserved = match call.reserve.as_slice() {
                [] => None,
                some => {
                    Some(Charges::of_call(host.ledger().now().await?.day(), some.iter().map(|one| (&one.quota, one.units))))
                }
            };
            let intent = Intent {
                id: call_id.intent_id(running, self.attempt.number, call.ordinal, call.kind),
                call: call_id.clone(),
                kind: call.kind,
                subject: call.subject,
                attempt: self.attempt.number,
                ordinal: call.ordinal,
                reserved,
            };
            let said = Said { service: remote.name(), operation: &call.operation, idempotency_key, details: &call.details };
            let draft = intent.begin(running, self.attempt.execution_id, &said).who(self.host_name());
            // Before the append: if this future is dropped meanwhile, the intent may be stored all the same.
            self.made().open.insert(intent.id, intent.clone());
            let recorded = host.record(&running.tenant_id, vec![draft], &options).await;
            if recorded.is_err() {
                self.made().open.remove(&intent.id);
            }
            match recorded {
                Ok(_) => return Ok(intent),
                // The claim is lost. Only its holder writes under this id.
                Err(error) if error.is_conflict() => return Err(OutsideError::LostClaim),
                Err(error) => match ledger_error(&error) {
                    // Midnight passed between the two.
                    Some(LedgerError::WrongDay { .. }) if tries < RECORD_TRIES => tries += 1,
                    Some(LedgerError::QuotaExceeded { key: quota, per_day, day, .. }) => {
                        let (quota, per_day, day) = (quota.clone(), *per_day, *day);
                        host.record_used_up(&running.tenant_id, (&quota, per_day), day).await.map_err(not_recorded)?;
                        let units = call.reserve.iter().filter(|one| one.quota == quota).map(|one| one.units).sum();
                        return Err(OutsideError::Quota { key: call.key.clone(), quota, units, per_day, day });
                    }
                    _ => return Err(not_recorded(error)),
                },
            }
        }
    }

    /// Records the outcome of an intent of this attempt.
    async fn record(&self, intent: &Intent, ended: &Ended, took: Duration) -> Result<SpanKey, OutsideError> {
        let draft = intent.end(self.running, ended).who(self.host_name());
        let draft = draft.duration_ms(u32::try_from(took.as_millis()).unwrap_or(u32::MAX).min(crate::span::rules::MAX_INTEGER));
        let mut tries = 1;
        loop {
            match self.host.record(&self.running.tenant_id, vec![draft.clone()], &AppendOptions::default()).await {
                Ok(written) => {
                    self.made().open.remove(&intent.id);
                    return Ok(super::publish::last(written).map_err(not_recorded)?.key());
                }
                Err(error) if error.retry() == Retry::Later && tries < RECORD_TRIES => tries += 1,
                // Another attempt has begun and has closed this intent.
                Err(error) if error.is_conflict() => {
                    self.made().open.remove(&intent.id);
                    return Err(OutsideError::LostClaim);
                }
                Err(error) => return Err(not_recorded(error)),
            }
        }
    }
}

fn malformed(call: &Call, reason: String) -> OutsideError {
    OutsideError::Malformed { key: call.key.chars().take(MAX_NAME).collect(), reason }
}

#[async_trait]
impl Outside for RecordedCalls<'_> {
    async fn known(&self, service: &str, call: &Call) -> Result<Option<Answer>, OutsideError> {
        if self.attempt.number == 1 {
            return Ok(None);
        }
        self.recorded(&self.id_of(service, call).await?).await
    }

    async fn call(&self, remote: &dyn Remote, call: &Call) -> Result<Answer, OutsideError> {
        let (host, running) = (self.host, self.running);
        let malformed = |reason: String| malformed(call, reason);
        let id = self.id_of(remote.name(), call).await?;
        check_reservations(&call.reserve).map_err(malformed)?;
        if let Some(answer) = self.recorded(&id).await? {
            return Ok(answer);
        }
        {
            let mut made = self.made();
            if made.calls.len() == MAX_CALLS {
                return Err(malformed(format!("an attempt makes at most {MAX_CALLS} calls")));
            }
            if !made.calls.insert((id.clone(), call.ordinal)) {
                return Err(malformed(
                    "this attempt has made the same call already: give each call a key of its own".to_owned(),
                ));
            }
        }
        let idempotency_key = id.idempotency_key(running);
        let intent = self.begin(remote, call, id, &idempotency_key).await?;
        let began = host.inner.clock.now();
        let asked = RemoteCall { operation: &call.operation, body: &call.body, idempotency_key: &idempotency_key };
        let Reply { result, mut details, used } = remote.call(&asked).await;
        let took = host.inner.clock.now().since(began);
        let (recorded, clear) = self.recorded_of(&intent, result, &mut details).await;
        let ended = storable(running, &intent, Ended { recorded, details, used }, host);
        let outcome = self.record(&intent, &ended, took).await?;
        let (key, details) = (intent.call.key.clone(), ended.details);
        match (ended.recorded, clear) {
            (Recorded::Answered(_), Some(Ok(value))) | (Recorded::Answered(value), None) => {
                Ok(Answer { value, details, outcome, was_recorded: false })
            }
            (Recorded::Failed(_), Some(Err(failure))) | (Recorded::Failed(failure), _) => {
                Err(OutsideError::Failed { key, failure, details })
            }
            _ if self.on_unknown == OnUnknown::Retry => {
                let failure =
                    Failure::new("call_unanswered", "it is not known whether the call was carried out; it may be repeated");
                Err(OutsideError::Failed { key, failure, details })
            }
            _ => Err(OutsideError::Unknown { key, intent: self.key_of(&intent) }),
        }
    }

    async fn extend(&self) -> Result<bool, LedgerError> {
        self.host.ledger().heartbeat(&Work::of(self.running), self.lease).await
    }
}

/// A call that is not made now: what it asks, or what was answered to it, could not be encrypted or decrypted.
fn not_called(key: &str, error: CipherError) -> OutsideError {
    let key = key.chars().take(MAX_NAME).collect();
    match error.into_failure() {
        Ok(failure) => OutsideError::Failed { key, failure, details: Map::new() },
        Err(error) => OutsideError::Ledger(error),
    }
}

fn check_reservations(reservations: &[Reservation]) -> Result<(), String> {
    if reservations.len() > MAX_KEYS {
        return Err(format!("it reserves of {} quotas, {MAX_KEYS} is the most", reservations.len()));
    }
    let is_bad = |one: &&Reservation| !(1..=MAX_KEY_BYTES).contains(&one.quota.len()) || one.units > MAX_UNITS;
    match reservations.iter().find(is_bad) {
        None => Ok(()),
        Some(one) => Err(format!(
            "it reserves {} of a quota whose name has {} bytes: the most are {MAX_UNITS} units and {MAX_KEY_BYTES} bytes",
            one.units,
            one.quota.len()
        )),
    }
}

/// Turns an answer that no span can hold into a failure, because it could not be read again.
fn storable(running: &SignedSpan, intent: &Intent, ended: Ended, host: &Host) -> Ended {
    let draft = intent.end(running, &ended).who("host").at(running.at);
    match draft.validate(host.rules()) {
        Ok(()) => ended,
        Err(error) => {
            let failure = Failure::new("answer_limit", format!("the answer cannot be stored: {error}"));
            let failed = |details| Ended { details, used: ended.used.clone(), ..Ended::new(Recorded::Failed(failure.clone())) };
            // Usage and cost are kept, if they are not what cannot be stored.
            let with_details = failed(ended.details.clone());
            let fits = intent.end(running, &with_details).who("host").at(running.at).validate(host.rules()).is_ok();
            if fits { with_details } else { failed(Map::new()) }
        }
    }
}

/// The ledger's error in an error of the host.
fn ledger_error(error: &HostError) -> Option<&LedgerError> {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => Some(error),
        _ => None,
    }
}

fn not_recorded(error: HostError) -> OutsideError {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => OutsideError::Ledger(error),
        error => OutsideError::NotRecorded { reason: error.to_string() },
    }
}

/// The outcome of an intent.
pub(super) struct Settled {
    pub(super) outcome: SpanKey,
    ended: Ended,
    /// Whether it was recorded just now, as `unknown`.
    pub(super) is_new: bool,
}

impl Host {
    /// The span, if a host of its tenant has signed it. Others may have brought rows into the store, and must not steer this host.
    pub(super) fn by_host(&self, span: SignedSpan) -> Option<VerifiedSpan> {
        let (span, trusted) = (span.verify(&mut Verifier::new()).ok()?, self.trusted());
        let is_believed = trusted.authorities.check(&span).is_ok() && trusted.authorities.had_role(&span, Role::Runtime);
        is_believed.then_some(span)
    }

    /// Every intent of a request that a host has signed, in the order of the attempts.
    async fn intents(&self, request: &SignedSpan) -> Result<Vec<Intent>, LedgerError> {
        let (ledger, scope) = (self.ledger(), Scope::runtime(&request.tenant_id));
        let mut intents = Vec::new();
        for kind in CallKind::ALL {
            let query = Query::new().tenant(&request.tenant_id).entity_type(kind.intent()).parent_id(request.id);
            let mut cursor = None;
            loop {
                let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
                let spans = page.rows.into_iter().filter_map(|row| row.span.ok());
                intents.extend(spans.filter_map(|span| self.by_host(span)).filter_map(|span| Intent::read(&span)));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        intents.sort_by_key(|intent| (intent.attempt, intent.ordinal));
        Ok(intents)
    }

    /// The outcome of an intent. If it has none, `unknown` is recorded.
    pub(super) async fn settle(&self, request: &SignedSpan, intent: &Intent) -> Result<Settled, HostError> {
        let tenant = &request.tenant_id;
        let scope = Scope::runtime(tenant);
        let find = async || -> Result<Option<Settled>, HostError> {
            let found = self.ledger().history(&scope, tenant, intent.outcome_id(tenant), 0, 1).await?;
            let Some(found) = found.into_iter().next() else { return Ok(None) };
            let outcome = found.key();
            let ended = self.by_host(found).map(|found| Ended::read(&found)).unwrap_or_else(|| {
                // No host of the tenant has written it, so it says nothing; and no other outcome can have its id.
                tracing::error!(%outcome, "the outcome of a call is not what a host has signed: run fsck; the call counts as unknown");
                Ended::new(Recorded::Unknown)
            });
            Ok(Some(Settled { outcome, ended, is_new: false }))
        };
        if let Some(found) = find().await? {
            return Ok(found);
        }
        let unknown = Ended::new(Recorded::Unknown);
        let draft = intent.end(request, &unknown).who(format!("host:{}", self.key()));
        match self.record(tenant, vec![draft], &AppendOptions::default()).await {
            Ok(written) => {
                let outcome = super::publish::last(written)?.key();
                Ok(Settled { outcome, ended: unknown, is_new: true })
            }
            // The attempt that made the call, or another host, has recorded an outcome first.
            Err(error) if error.is_conflict() => find().await?.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Drafts the outcome `unknown` for the open calls of a request, for the batch that ends their attempt.
    pub(super) async fn unknown_outcomes(&self, request: &SignedSpan) -> Result<Vec<Draft>, HostError> {
        let (tenant, scope, mut drafts) = (&request.tenant_id, Scope::runtime(&request.tenant_id), Vec::new());
        for intent in self.intents(request).await? {
            if self.ledger().history(&scope, tenant, intent.outcome_id(tenant), 0, 1).await?.is_empty() {
                let draft = intent.end(request, &Ended::new(Recorded::Unknown));
                drafts.push(draft.who(format!("host:{}", self.key())));
            }
        }
        Ok(drafts)
    }

    /// Closes calls that an attempt has begun after [`Host::unknown_outcomes`] read them, although it had lost its claim.
    /// Normally there are none, because that attempt closes its own calls.
    pub(super) async fn close_late_calls(&self, request: &SignedSpan) {
        let close = async {
            for intent in self.intents(request).await? {
                self.settle(request, &intent).await?;
            }
            Ok::<_, HostError>(())
        };
        if let Err(error) = close.await {
            tracing::warn!(%error, request = %request.id, "open calls of an ended attempt could not be closed");
        }
    }
}

//! Records calls to the outside: an intent before each call, an outcome after it.
//!
//! The order of three steps must not change: append the intent, extend the lease, make the call. If the lease can be extended,
//! no other attempt has replaced this one yet. So an attempt that replaces it later finds the intent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::{Answer, Attempt, Call, Outside, OutsideError, Remote, RemoteCall};
use crate::host::driver::AdmitError;
use crate::host::{Host, HostError};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger as _, LedgerError, Query, Retry, Work, WorkQueue as _};
use crate::request::state::{self, CAUSE, OnUnknown, State};
use crate::span::canonical;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey};
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::ids;

const INTENT: &str = "outside_request";
const OUTCOME: &str = "outside_outcome";

/// The most bytes of a call's key, a service's name and an operation.
const MAX_NAME: usize = 128;

/// The most calls of one attempt.
const MAX_CALLS: usize = 1000;

/// How often the host tries to append an outcome if the ledger is unavailable: the call was made and cannot be undone.
const RECORD_TRIES: u32 = 3;

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq)]
enum Recorded {
    /// The service answered.
    Answered(Value),
    /// The service answered with a failure, or was not reached.
    Failed(Failure),
    /// It is not known whether the call was carried out.
    Unknown,
    /// No call was made.
    NotCalled,
}

impl Recorded {
    fn status(&self) -> &'static str {
        match self {
            Self::Answered(_) => "complete",
            Self::Failed(_) => "error",
            Self::Unknown => "unknown",
            Self::NotCalled => "not_called",
        }
    }

    fn of(outcome: &SignedSpan) -> Self {
        match outcome.status.as_deref() {
            Some("complete") => Self::Answered(outcome.output.clone().unwrap_or_default()),
            Some("error") => Self::Failed(outcome.error.as_ref().map(Failure::from_value).unwrap_or(Failure::new("", ""))),
            Some("not_called") => Self::NotCalled,
            _ => Self::Unknown,
        }
    }
}

/// A recorded intent, the number of its attempt, and the call that it is for.
#[derive(Debug, Clone)]
struct Intent {
    key: SpanKey,
    attempt: u32,
    call: CallId,
}

/// The intents of a request by the call that each is for.
type Intents = HashMap<CallId, Vec<Intent>>;

/// Identifies a call within a request: its key, and a hash of service, operation and body.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct CallId {
    key: String,
    hash: Hash,
}

impl CallId {
    fn of(remote: &dyn Remote, call: &Call) -> Result<Self, OutsideError> {
        let malformed = |reason: String| OutsideError::Malformed { key: call.key.chars().take(MAX_NAME).collect(), reason };
        for (what, text) in [("key", call.key.as_str()), ("service's name", remote.name()), ("operation", &call.operation)] {
            if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
                return Err(malformed(format!("its {what} must have 1 to {MAX_NAME} bytes, and no control characters")));
            }
        }
        let asked = json!({"service": remote.name(), "operation": call.operation, "body": call.body});
        Ok(Self { key: call.key.clone(), hash: Hash::of(&canonical::to_vec(&asked)) })
    }

    fn from_intent(intent: &SignedSpan) -> Option<Self> {
        let text = |name: &str| intent.meta(name).and_then(Value::as_str);
        Some(Self { key: text("call_key")?.to_owned(), hash: text("call_hash")?.parse().ok()? })
    }

    fn intent_id(&self, request: &SignedSpan, attempt: u32) -> Uuid {
        let parts = [&request.tenant_id, &request.id.to_string(), &self.key, &self.hash.to_string(), &attempt.to_string()];
        ids::derive(INTENT, &parts.map(String::as_str))
    }

    /// It does not depend on the attempt, so that the service recognises a repeated call.
    fn idempotency_key(&self, request: &SignedSpan) -> String {
        let parts = [&request.tenant_id, &request.id.to_string(), &self.key, &self.hash.to_string()];
        ids::derive("outside_call", &parts.map(String::as_str)).to_string()
    }
}

fn outcome_id(tenant: &str, intent: Uuid) -> Uuid {
    ids::derive(OUTCOME, &[tenant, &intent.to_string()])
}

/// The calls of one attempt.
pub(super) struct RecordedCalls<'a> {
    host: &'a Host,
    running: &'a VerifiedSpan,
    on_unknown: OnUnknown,
    lease: Duration,
    attempt: Attempt,
    /// The intents of earlier attempts, read at the first call.
    earlier: futures_util::lock::Mutex<Option<Arc<Intents>>>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    calls: BTreeSet<CallId>,
    /// Intents of this attempt whose outcome is not recorded yet.
    open: BTreeMap<Uuid, CallId>,
}

impl<'a> RecordedCalls<'a> {
    pub(super) fn new(host: &'a Host, running: &'a VerifiedSpan, state: &State, attempt: Attempt) -> Self {
        let on_unknown = state.terms.on_unknown;
        Self {
            host,
            running,
            on_unknown,
            lease: state.lease,
            attempt,
            earlier: futures_util::lock::Mutex::new(None),
            made: Mutex::default(),
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The outcomes of calls whose futures the kernel has dropped. They are appended with the end of the attempt.
    pub(super) fn unfinished(&self) -> Vec<Draft> {
        let open = std::mem::take(&mut self.made().open);
        let outcome = |(intent, call): (Uuid, CallId)| {
            outcome(self.running, intent, &call, self.attempt.number, &Recorded::Unknown).who(self.host_name())
        };
        open.into_iter().map(outcome).collect()
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
        let Some(intents) = earlier.get(call) else { return Ok(None) };
        let mut unknown = None;
        for intent in intents {
            let (key, outcome) = self.host.settle(self.running, intent).await.map_err(not_recorded)?;
            match outcome {
                Recorded::Answered(value) => return Ok(Some(Answer { value, outcome: key, was_recorded: true })),
                Recorded::Unknown => unknown = Some(intent.key.clone()),
                Recorded::Failed(_) | Recorded::NotCalled => {}
            }
        }
        match unknown {
            Some(intent) if self.on_unknown == OnUnknown::Fail => Err(OutsideError::Unknown { key: call.key.clone(), intent }),
            _ => Ok(None),
        }
    }

    /// Records the outcome of an intent of this attempt.
    async fn record(&self, intent: Uuid, call: &CallId, recorded: &Recorded, took: Duration) -> Result<SpanKey, OutsideError> {
        let draft = outcome(self.running, intent, call, self.attempt.number, recorded).who(self.host_name());
        let draft = draft.duration_ms(u32::try_from(took.as_millis()).unwrap_or(u32::MAX).min(crate::span::rules::MAX_INTEGER));
        let mut tries = 1;
        loop {
            match self.host.record(&self.running.tenant_id, vec![draft.clone()], &AppendOptions::default()).await {
                Ok(written) => {
                    self.made().open.remove(&intent);
                    return Ok(super::publish::last(written).map_err(not_recorded)?.key());
                }
                Err(error) if error.retry() == Retry::Later && tries < RECORD_TRIES => tries += 1,
                // Another attempt has begun and has closed this intent.
                Err(error) if error.is_conflict() => {
                    self.made().open.remove(&intent);
                    return Err(OutsideError::LostClaim);
                }
                Err(error) => return Err(not_recorded(error)),
            }
        }
    }
}

#[async_trait]
impl Outside for RecordedCalls<'_> {
    async fn call(&self, remote: &dyn Remote, call: &Call) -> Result<Answer, OutsideError> {
        let (host, running) = (self.host, self.running);
        let id = CallId::of(remote, call)?;
        if let Some(answer) = self.recorded(&id).await? {
            return Ok(answer);
        }
        let malformed = |reason: &str| OutsideError::Malformed { key: call.key.clone(), reason: reason.to_owned() };
        {
            let mut made = self.made();
            if made.calls.len() == MAX_CALLS {
                return Err(malformed(&format!("an attempt makes at most {MAX_CALLS} calls")));
            }
            if !made.calls.insert(id.clone()) {
                return Err(malformed("this attempt has made the same call already: give each call a key of its own"));
            }
        }
        let intent = id.intent_id(running, self.attempt.number);
        let idempotency_key = id.idempotency_key(running);
        let draft = intent_draft(running, intent, &id, (remote.name(), &call.operation), &idempotency_key, self.attempt);
        match host.record(&running.tenant_id, vec![draft.who(self.host_name())], &AppendOptions::default()).await {
            Ok(_) => {}
            // Only the holder of the claim writes under this id, so this host is no longer the holder.
            Err(error) if error.is_conflict() => return Err(OutsideError::LostClaim),
            Err(error) => return Err(not_recorded(error)),
        }
        self.made().open.insert(intent, id.clone());
        let began = host.inner.clock.now();
        if !host.ledger().heartbeat(&Work::of(running), self.lease).await? {
            // No call was made. If the next attempt has recorded `unknown` for this intent already, that outcome stays.
            self.record(intent, &id, &Recorded::NotCalled, Duration::ZERO).await.map(drop).or_else(|error| match error {
                OutsideError::LostClaim => Ok(()),
                error => Err(error),
            })?;
            return Err(OutsideError::LostClaim);
        }
        let asked = RemoteCall { operation: &call.operation, body: &call.body, idempotency_key: &idempotency_key };
        let answered = match remote.call(&asked).await {
            Ok(value) => Recorded::Answered(value),
            Err(failure) if failure.code == OutsideError::UNKNOWN => Recorded::Unknown,
            Err(failure) => Recorded::Failed(failure),
        };
        let answered = storable(running, intent, &id, answered, host);
        let took = host.inner.clock.now().since(began);
        let outcome = self.record(intent, &id, &answered, took).await?;
        match answered {
            Recorded::Answered(value) => Ok(Answer { value, outcome, was_recorded: false }),
            Recorded::Failed(failure) => Err(OutsideError::Failed { key: id.key, failure }),
            Recorded::Unknown | Recorded::NotCalled if self.on_unknown == OnUnknown::Retry => {
                let failure =
                    Failure::new("call_unanswered", "it is not known whether the call was carried out; it may be repeated");
                Err(OutsideError::Failed { key: id.key, failure })
            }
            Recorded::Unknown | Recorded::NotCalled => {
                let tenant_id = running.tenant_id.clone();
                Err(OutsideError::Unknown { key: id.key, intent: SpanKey { tenant_id, id: intent, seq: 0 } })
            }
        }
    }
}

/// Turns an answer that no span can hold into a failure, because it could not be read again.
fn storable(running: &SignedSpan, intent: Uuid, call: &CallId, recorded: Recorded, host: &Host) -> Recorded {
    let draft = outcome(running, intent, call, 1, &recorded).who("host").at(running.at);
    match draft.validate(host.rules()) {
        Ok(()) => recorded,
        Err(error) => Recorded::Failed(Failure::new("answer_limit", format!("the answer cannot be stored: {error}"))),
    }
}

fn not_recorded(error: HostError) -> OutsideError {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => OutsideError::Ledger(error),
        error => OutsideError::NotRecorded { reason: error.to_string() },
    }
}

/// The columns that intents and outcomes have in common.
fn identity(request: &SignedSpan, entity_type: &str, id: Uuid) -> Draft {
    let mut draft = Draft::new(entity_type)
        .id(id)
        .tenant(&request.tenant_id)
        .owner(&request.owner_id)
        .visibility(request.visibility)
        .this("outside.call");
    draft.columns_mut().trace_id.clone_from(&request.trace_id);
    match state::cause(request) {
        Some(cause) => draft.meta(CAUSE, cause.clone()),
        None => draft,
    }
}

fn intent_draft(
    request: &SignedSpan,
    id: Uuid,
    call: &CallId,
    (service, operation): (&str, &str),
    idempotency_key: &str,
    attempt: Attempt,
) -> Draft {
    identity(request, INTENT, id)
        .did("called")
        .parent(request.id)
        .related([request.id, attempt.execution_id])
        .status("open")
        .meta("call_key", call.key.as_str())
        .meta("call_hash", call.hash.to_string())
        .meta("service", service)
        .meta("operation", operation)
        .meta("idempotency_key", idempotency_key)
        .meta("attempt", attempt.number)
}

fn outcome(request: &SignedSpan, intent: Uuid, call: &CallId, attempt: u32, recorded: &Recorded) -> Draft {
    let draft = identity(request, OUTCOME, outcome_id(&request.tenant_id, intent))
        .did("answered")
        .parent(intent)
        .related([request.id, intent])
        .status(recorded.status())
        .meta("call_key", call.key.as_str())
        .meta("attempt", attempt);
    match recorded {
        Recorded::Answered(value) => draft.output(value.clone()),
        Recorded::Failed(failure) => draft.error(failure.to_value()),
        Recorded::Unknown => {
            let message = "the attempt ended before it recorded whether the call was carried out";
            draft.error(Failure::new(OutsideError::UNKNOWN, message).to_value())
        }
        Recorded::NotCalled => {
            draft.error(Failure::new("not_called", "the attempt had lost its claim: no call was made").to_value())
        }
    }
}

impl Host {
    /// Every intent of a request, in the order of the attempts.
    async fn intents(&self, request: &SignedSpan) -> Result<Vec<Intent>, LedgerError> {
        let (ledger, scope) = (self.ledger(), Scope::runtime(&request.tenant_id));
        let query = Query::new().tenant(&request.tenant_id).entity_type(INTENT).parent_id(request.id);
        let (mut cursor, mut intents) = (None, Vec::new());
        loop {
            let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
            for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
                let attempt = span.meta("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                if let (Some(attempt), Some(call)) = (attempt, CallId::from_intent(&span)) {
                    intents.push(Intent { key: span.key(), attempt, call });
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                intents.sort_by_key(|intent| intent.attempt);
                return Ok(intents);
            }
        }
    }

    /// The outcome of an intent. If it has none, `unknown` is recorded.
    async fn settle(&self, request: &SignedSpan, intent: &Intent) -> Result<(SpanKey, Recorded), HostError> {
        let (tenant, id) = (&request.tenant_id, intent.key.id);
        let scope = Scope::runtime(tenant);
        let find = async || -> Result<Option<(SpanKey, Recorded)>, HostError> {
            let found = self.ledger().history(&scope, tenant, outcome_id(tenant, id), 0, 1).await?;
            let Some(found) = found.into_iter().next() else { return Ok(None) };
            let found = found.verify(&mut Verifier::new())?;
            Ok(Some((found.key(), Recorded::of(&found))))
        };
        if let Some(found) = find().await? {
            return Ok(found);
        }
        let unknown =
            outcome(request, id, &intent.call, intent.attempt, &Recorded::Unknown).who(format!("host:{}", self.key()));
        match self.record(tenant, vec![unknown], &AppendOptions::default()).await {
            Ok(written) => Ok((super::publish::last(written)?.key(), Recorded::Unknown)),
            // The attempt that made the call, or another host, has recorded an outcome first.
            Err(error) if error.is_conflict() => find().await?.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Drafts the outcome `unknown` for the open calls of a request, for the batch that ends their attempt.
    pub(super) async fn unknown_outcomes(&self, request: &SignedSpan) -> Result<Vec<Draft>, HostError> {
        let (scope, mut drafts) = (Scope::runtime(&request.tenant_id), Vec::new());
        for intent in self.intents(request).await? {
            let id = outcome_id(&request.tenant_id, intent.key.id);
            if self.ledger().history(&scope, &request.tenant_id, id, 0, 1).await?.is_empty() {
                let draft = outcome(request, intent.key.id, &intent.call, intent.attempt, &Recorded::Unknown);
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

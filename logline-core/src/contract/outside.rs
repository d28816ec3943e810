//! Calls to the outside: calls that an attempt makes to a service outside the ledger.
//!
//! What a kernel writes is committed with its execution or not at all. A call cannot be undone, so it is recorded separately:
//! an *intent* (`outside_request`) is appended before the call, an *outcome* (`outside_outcome`) after it. If an attempt is
//! lost, the next one uses the recorded answer and does not call again. `docs/execution.md` is the specification.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::NaiveDate;
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::contract::kernel_error::KernelError;
use crate::ledger::LedgerError;
use crate::request::{CallKind, call};
use crate::span::SpanKey;
use crate::value::failure::Failure;

/// Makes the calls: a client of a provider, of a payment service, or of any other service outside the ledger.
#[async_trait]
pub trait Remote: Send + Sync {
    /// The name of the service, under which its calls are recorded. 1 to 128 bytes. It must not change: a later attempt finds
    /// the recorded call by it.
    fn name(&self) -> &str;

    /// Makes the call once. It must not retry: a retry would not be recorded.
    async fn call(&self, call: &RemoteCall<'_>) -> Reply;
}

/// What a client says of a call that it made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The answer of the service. A failure means that the service answered with it, or was not reached. If it is not known whether
    /// the service carried out the call, the failure must have the code [`OutsideError::UNKNOWN`].
    pub result: Result<Value, Failure>,
    /// What else is worth recording, such as durations and the service's own id of the call. It becomes `metadata.details` of the
    /// outcome.
    pub details: Map<String, Value>,
    /// What the call used of the quotas in [`Call::reserve`]. A quota that is left out counts as not used. `None`: the client does not
    /// know, and everything that was reserved stays used.
    pub used: Option<BTreeMap<String, u64>>,
}

impl Reply {
    /// Sets [`Reply::details`].
    #[must_use]
    pub fn details(mut self, details: Map<String, Value>) -> Self {
        self.details = details;
        self
    }

    /// Sets [`Reply::used`].
    #[must_use]
    pub fn used(mut self, used: BTreeMap<String, u64>) -> Self {
        self.used = Some(used);
        self
    }
}

impl From<Result<Value, Failure>> for Reply {
    fn from(result: Result<Value, Failure>) -> Self {
        Self { result, details: Map::new(), used: None }
    }
}

/// A call as [`Remote::call`] gets it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RemoteCall<'a> {
    /// The operation that the service is to carry out.
    pub operation: &'a str,
    /// The argument of the operation.
    pub body: &'a Value,
    /// A UUID that is the same whenever this request makes the same call, so that the service can refuse to act twice.
    pub idempotency_key: &'a str,
}

/// A call that an attempt wants made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// The caller's name for the call, a path such as `turn/2/tool/0`. It must be the same in every attempt, whatever runs in
    /// parallel. 1 to 128 bytes.
    pub key: String,
    /// The operation that the service is to carry out. 1 to 128 bytes.
    pub operation: String,
    /// The argument of the operation.
    pub body: Value,
    /// The number of the try, from 1, if the same call is tried again within an attempt. Each try has an intent and an outcome.
    pub ordinal: u32,
    /// The entity types as which the call is recorded.
    pub kind: CallKind,
    /// The span that describes the service, such as a provider. It becomes the parent of the outcome.
    pub subject: Option<Uuid>,
    /// What else is worth recording before the call. It becomes `metadata.details` of the intent.
    pub details: Map<String, Value>,
    /// What the call may use of the tenant's quotas at most. It is charged before the call, and what was not used is given back after
    /// it.
    pub reserve: Vec<Reservation>,
}

/// Units of a daily quota of the tenant, reserved for one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The name of the quota, 1 to 128 bytes.
    pub quota: String,
    /// The most that the call may use.
    pub units: u64,
    /// How many units the tenant may use in a UTC day. If fewer are left than `units`, the call is not made.
    pub per_day: u64,
}

impl Call {
    /// A call named `key` that asks for `operation` with `body`.
    pub fn new(key: impl Into<String>, operation: impl Into<String>, body: Value) -> Self {
        let (key, operation, kind) = (key.into(), operation.into(), CallKind::default());
        Self { key, operation, body, ordinal: 1, kind, subject: None, details: Map::new(), reserve: Vec::new() }
    }

    /// Sets [`Call::ordinal`].
    #[must_use]
    pub fn ordinal(mut self, ordinal: u32) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// Sets [`Call::kind`].
    #[must_use]
    pub fn kind(mut self, kind: CallKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets [`Call::subject`].
    #[must_use]
    pub fn subject(mut self, span: Uuid) -> Self {
        self.subject = Some(span);
        self
    }

    /// Sets [`Call::details`].
    #[must_use]
    pub fn details(mut self, details: Map<String, Value>) -> Self {
        self.details = details;
        self
    }

    /// Sets [`Call::reserve`].
    #[must_use]
    pub fn reserve(mut self, reserve: Vec<Reservation>) -> Self {
        self.reserve = reserve;
        self
    }
}

/// A recorded answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What the service answered.
    pub value: Value,
    /// What else the client said of the call.
    pub details: Map<String, Value>,
    /// The span that records the answer.
    pub outcome: SpanKey,
    /// Whether an earlier attempt made the call, so that no call was made now.
    pub was_recorded: bool,
}

/// Makes calls for one attempt.
///
/// # Contract
/// - Before `remote` is called, the intent is in the ledger and the attempt has confirmed that it still holds its request.
/// - If an earlier attempt got an answer to the same call (same request, key, operation, remote and body), the call is not made
///   again. The recorded answer is returned.
/// - If a lost attempt left an intent without an outcome, the outcome `unknown` is recorded for it, once. The request's
///   `on_unknown` decides whether the call then fails, or is made again with the same idempotency key.
/// - Dropping the future leaves at most an intent without an outcome.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Makes `call`, or returns its recorded answer.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn call(&self, remote: &dyn Remote, call: &Call) -> Result<Answer, OutsideError>;

    /// The answer that an earlier attempt of the request has recorded, without making the call: for a client that cannot make it now. `None`
    /// if there is none.
    ///
    /// # Errors
    /// [`OutsideError::Unknown`] if an earlier attempt has left a call with this key unknown, whatever it asked, and the request does not
    /// want it to be made again; if the ledger fails.
    async fn known(&self, service: &str, call: &Call) -> Result<Option<Answer>, OutsideError>;

    /// Extends the attempt's lease, for a kernel that waits for something else than its code. [`Outside::call`] extends it once, before
    /// the call is made. `false`: the attempt has lost its claim.
    ///
    /// # Errors
    /// If the ledger fails.
    async fn extend(&self) -> Result<bool, LedgerError>;
}

/// Why a call has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// The service answered with a failure, or was not reached. The failure is recorded. A later attempt makes the call again.
    #[error("call `{key}` failed: {failure}")]
    Failed {
        /// The key of the call.
        key: String,
        /// Why the call failed.
        failure: Failure,
        /// What else the client said of the call.
        details: Map<String, Value>,
    },
    /// Less is left of a daily quota than the call may use. It was not made.
    #[error(
        "call `{key}` may use {units} of quota `{quota}`, and less is left of the {per_day} of {day}: try again tomorrow (UTC), ask for \
         less, or raise the limit"
    )]
    Quota {
        /// The key of the call.
        key: String,
        /// The name of the quota.
        quota: String,
        /// What the call may use.
        units: u64,
        /// The units per day.
        per_day: u64,
        /// The day.
        day: NaiveDate,
    },
    /// It is not known whether the call was carried out, and the request does not allow repeating it.
    #[error(
        "call `{key}` may have been carried out, its outcome is not known: check intent {intent} with the service, or submit \
         the request with on_unknown = retry"
    )]
    Unknown {
        /// The key of the call.
        key: String,
        /// The intent without a known outcome.
        intent: SpanKey,
    },
    /// The call is malformed. It was not made.
    #[error("call `{key}` is malformed: {reason}")]
    Malformed {
        /// The key of the call, cut to 128 characters.
        key: String,
        /// What is wrong with the call.
        reason: String,
    },
    /// The attempt no longer holds its request. Another attempt reads what was recorded of the call.
    #[error("the attempt has lost its claim: another attempt may make the call")]
    LostClaim,
    /// The ledger failed. The call may have been made. The next attempt reads what was recorded of it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The host could not record the intent or the outcome of the call.
    #[error("the call cannot be recorded: {reason}")]
    NotRecorded {
        /// Why it could not be recorded.
        reason: String,
    },
}

impl OutsideError {
    /// The code of the failure if it is not known whether the call was carried out.
    pub const UNKNOWN: &'static str = call::UNKNOWN;

    /// The code of the failure if too little is left of a quota.
    pub const BUDGET: &'static str = "budget";

    /// For a kernel that cannot go on without the answer: the failure with which the attempt ends, or an error of the host,
    /// after which the attempt is not closed.
    ///
    /// # Errors
    /// [`KernelError`] if the claim was lost or the ledger failed.
    pub fn into_failure(self) -> Result<Failure, KernelError> {
        Ok(match self {
            Self::Failed { failure, .. } => failure,
            error @ Self::Unknown { .. } => Failure::new(Self::UNKNOWN, error.to_string()),
            error @ Self::Quota { .. } => Failure::new(Self::BUDGET, error.to_string()),
            error @ Self::Malformed { .. } => Failure::new("invalid_call", error.to_string()),
            error @ Self::NotRecorded { .. } => Failure::new("not_recorded", error.to_string()),
            Self::LostClaim => return Err(KernelError::LostClaim),
            Self::Ledger(error) => return Err(error.into()),
        })
    }
}

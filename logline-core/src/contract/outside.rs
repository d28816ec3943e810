//! Calls to the outside: what an attempt asks of a service that is not in the ledger.
//!
//! What a kernel writes is committed with its execution or not at all. A call cannot be taken back, so it is recorded apart: an *intent*
//! (`outside_request`) is in the ledger before the call is made, an *outcome* (`outside_outcome`) after it. An attempt after a lost one
//! reads the recorded outcome and does not call again. `docs/execution.md` is the specification.

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

use crate::contract::kernel::KernelError;
use crate::ledger::LedgerError;
use crate::span::SpanKey;
use crate::value::failure::Failure;

/// What answers calls: a client of a provider, of a payment service, of whatever is not the ledger.
#[async_trait]
pub trait Remote: Send + Sync {
    /// The name under which its calls are recorded. Stable: it identifies the call when the attempt is made again.
    fn name(&self) -> &str;

    /// Makes the call once. No retries here: each is a call of its own.
    ///
    /// # Errors
    /// A failure says that the service has answered so, or was not reached. If it is not known whether the call was carried out, the
    /// code is [`OutsideError::UNKNOWN`].
    async fn call(&self, call: &RemoteCall<'_>) -> Result<Value, Failure>;
}

/// A call as the service gets it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RemoteCall<'a> {
    /// What is asked of the service.
    pub operation: &'a str,
    /// The argument.
    pub body: &'a Value,
    /// The same for every call of this request with this key and body, so that the service can refuse to act twice.
    pub idempotency_key: &'a str,
}

/// A call that an attempt wants made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// The caller's name for the call, a path such as `turn/2/tool/0`: the same when the attempt is made again, whatever ran in
    /// parallel. 1 to 128 bytes.
    pub key: String,
    /// What is asked of the service.
    pub operation: String,
    /// The argument.
    pub body: Value,
}

impl Call {
    /// The call `key`: `operation` with `body`.
    pub fn new(key: impl Into<String>, operation: impl Into<String>, body: Value) -> Self {
        Self { key: key.into(), operation: operation.into(), body }
    }
}

/// A recorded answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What the service answered.
    pub value: Value,
    /// The `outside_outcome` that records it.
    pub outcome: SpanKey,
    /// Whether an earlier attempt made the call, so that none was made now.
    pub was_recorded: bool,
}

/// Makes calls for one attempt.
///
/// # Contract
/// - Before `remote` is called its intent is in the ledger, and the attempt still holds its request.
/// - A call that was answered, with the same request, key, operation, remote and body, is not made again: the recorded answer is
///   returned.
/// - An intent of a lost attempt that has no outcome gets the outcome `unknown`, once. The call then fails, or is made again with the
///   same idempotency key, as the request's `on_unknown` says.
/// - Dropping the future leaves at most an intent without an outcome.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Makes `call`, or returns its recorded answer.
    ///
    /// # Errors
    /// [`OutsideError`].
    async fn call(&self, remote: &dyn Remote, call: &Call) -> Result<Answer, OutsideError>;
}

/// Why a call has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// The service answered with a failure, or was not reached. It is recorded. A later attempt makes the call again.
    #[error("call `{key}` failed: {failure}")]
    Failed {
        /// The call.
        key: String,
        /// What the service said.
        failure: Failure,
    },
    /// Nobody knows whether an earlier call was carried out, and the request does not ask to repeat it.
    #[error(
        "call `{key}` may have been carried out, its outcome is not known: look at {intent}, or submit the request with \
         on_unknown = retry"
    )]
    Unknown {
        /// The call.
        key: String,
        /// The intent without a known outcome.
        intent: SpanKey,
    },
    /// The call itself is malformed; none was made.
    #[error("call `{key}` is malformed: {reason}")]
    Malformed {
        /// The call's key, cut.
        key: String,
        /// Why.
        reason: String,
    },
    /// The attempt does not hold its request any more; no call was made.
    #[error("the attempt has lost its claim: no call was made, another attempt may make it")]
    LostClaim,
    /// The ledger failed. The call may have been made; the next attempt finds out.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The host may not record the call; none was made.
    #[error("the call cannot be recorded, so none was made: {reason}")]
    NotRecorded {
        /// Why.
        reason: String,
    },
}

impl OutsideError {
    /// The code of a failure that says that it is not known whether the call was carried out.
    pub const UNKNOWN: &'static str = "outcome_unknown";

    /// What becomes of the request where the kernel cannot do without the answer: a failure that is recorded, or an error of the host,
    /// after which the attempt is not closed.
    ///
    /// # Errors
    /// Reasons of the host.
    pub fn into_failure(self) -> Result<Failure, KernelError> {
        Ok(match self {
            Self::Failed { failure, .. } => failure,
            error @ Self::Unknown { .. } => Failure::new(Self::UNKNOWN, error.to_string()),
            error @ Self::Malformed { .. } => Failure::new("invalid_call", error.to_string()),
            error @ Self::NotRecorded { .. } => Failure::new("not_recorded", error.to_string()),
            Self::LostClaim => return Err(KernelError::LostClaim),
            Self::Ledger(error) => return Err(error.into()),
        })
    }
}

//! Functions that a kernel wants run while it carries out a request: the tools of a model.
//!
//! Each is a request of its own, within the kernel's request, and takes the way of every request: the same checks, quotas, sandbox and
//! record. Its id follows from the kernel's request and the call's key, so that a later attempt finds what an earlier one has begun.
//! `docs/execution.md` is the specification.

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::contract::kernel_error::KernelError;
use crate::span::SpanKey;
use crate::value::failure::Failure;
use crate::value::hex::Hash;

/// A function that a kernel wants run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FunctionCall {
    /// The kernel's name for the call, such as `tool/1/0`. It must be the same in every attempt. 1 to 128 bytes.
    pub key: String,
    /// The function, in the tenant of the request.
    pub function: Uuid,
    /// The only version that may run.
    pub version: Hash,
    /// The input.
    pub input: Value,
}

impl FunctionCall {
    /// A call named `key` of this version of a function.
    pub fn new(key: impl Into<String>, function: Uuid, version: Hash, input: Value) -> Self {
        Self { key: key.into(), function, version, input }
    }
}

/// How far the run of a function is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FunctionRun {
    /// It has ended.
    Ended(Box<FunctionEnded>),
    /// Another host has the request, or must take it: ask again after a pause.
    Elsewhere,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FunctionEnded {
    /// The output, or the failure.
    pub result: Result<Value, Failure>,
    /// The request of the run; `None` if it could not be made.
    pub request: Option<SpanKey>,
    /// The execution that records the run; `None` if none was begun.
    pub execution: Option<SpanKey>,
    /// A [`reference`](crate::request::reference()) to the version that ran; null if none did.
    pub function: Value,
    /// Whether the run had ended before it was asked for.
    pub was_recorded: bool,
}

/// Runs functions for one attempt, as requests of the owner of its request.
///
/// # Contract
/// - Nothing is begun for an attempt that has lost its claim.
/// - There is one request for each key, whatever attempts there are. If it has ended, its result is returned and nothing runs.
/// - A request of this key with another function or input is never run again: [`FunctionEnded::result`] is then the failure
///   `other_call`.
/// - If the future is dropped, the request stays in the ledger, and the next attempt, or a worker, carries it out.
#[async_trait]
pub trait Functions: Send + Sync {
    /// Runs a function, or returns its recorded result.
    ///
    /// # Errors
    /// If the claim is lost or the ledger fails. A failure of the function is in [`FunctionEnded::result`].
    async fn run(&self, call: &FunctionCall) -> Result<FunctionRun, KernelError>;

    /// Cancels the request of a call that nobody waits for any longer. It does nothing if the request has ended or does not exist.
    ///
    /// # Errors
    /// If the ledger fails.
    async fn cancel(&self, key: &str) -> Result<(), KernelError>;
}

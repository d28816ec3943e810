//! The contract of a kernel: a behaviour that decides and writes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::contract::outside::Outside;
use crate::contract::sandbox::Sandbox;
use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, LedgerExt as _, Page, Query};
use crate::request::Details;
use crate::span::SignedSpan;
use crate::span::draft::Draft;
use crate::span::rules::Rules;
use crate::span::seal::VerifiedSpan;
use crate::trust::Trusted;
use crate::value::clock::Clock;
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;
use crate::value::timestamp::Timestamp;

/// The value of a kernel's `runtime` column: code of this process, named by the span's `code` as `name@version`.
pub const NATIVE_RUNTIME: &str = "native@1";

/// A behaviour of the runtime, registered with a host and booted through its function span.
///
/// # Contract
/// A kernel reads through its [`Context`] and returns [`Effects`]. The driver admits, seals and appends them in one batch with
/// the end of the attempt. A failure that is the request's stands in [`Effects::result`]. An error is the host's: the attempt is then
/// not closed, and may be made again.
#[async_trait]
pub trait Kernel: Send + Sync {
    /// The id of its function span in tenant `system`.
    fn id(&self) -> Uuid;

    /// The name in the `code` of its function span, before the `@`.
    fn name(&self) -> &'static str;

    /// The version in the `code` of its function span, after the `@`.
    fn version(&self) -> u32;

    /// The requests that it carries out; its function span names them in `metadata.requests` as well.
    fn requests(&self) -> &'static [RequestKind];

    /// Carries out one attempt. `request` is the version with which it was claimed.
    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError>;
}

/// A kind of request: all that have the same `this`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKind {
    /// The `this` of the requests.
    pub this: &'static str,
    /// Who may ask.
    pub asked_by: AskedBy,
    /// What is counted in the quotas of the tenant.
    pub meters: Meters,
}

/// Who may ask for a kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// Whoever may write requests in the tenant.
    Anybody,
    /// Hosts only: the first version of the request must be signed by one.
    Hosts,
}

/// What the attempts of a kind of request use of the tenant's daily quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meters {
    /// One unit of [`EXECUTIONS_QUOTA`](crate::EXECUTIONS_QUOTA), when an attempt is claimed.
    pub executions: bool,
    /// [`Usage::fuel`] units of [`FUEL_QUOTA`](crate::FUEL_QUOTA), when an attempt ends.
    pub fuel: bool,
}

impl Meters {
    /// Nothing is counted.
    pub const NONE: Self = Self { executions: false, fuel: false };

    /// Attempts and fuel are counted.
    pub const ALL: Self = Self { executions: true, fuel: true };
}

/// What an attempt came to, and what the kernel wants written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Effects {
    /// The output of the request, or why there is none. It decides how the request goes on.
    pub result: Result<Value, Failure>,
    /// What the kernel adds to the record of the attempt. The host writes the rest of it.
    pub execution: Details,
    /// Spans to write together with the execution, only where `result` is an output.
    pub emitted: Vec<Draft>,
    /// What the attempt used.
    pub usage: Usage,
}

impl Effects {
    /// Effects of an attempt that came to `result` and wants nothing else written.
    #[must_use]
    pub fn new(result: Result<Value, Failure>) -> Self {
        Self { result, execution: Details::default(), emitted: Vec::new(), usage: Usage::default() }
    }

    /// Sets what the kernel adds to the record of the attempt.
    #[must_use]
    pub fn execution(mut self, details: Details) -> Self {
        self.execution = details;
        self
    }

    /// Sets the spans to write where the result is an output.
    #[must_use]
    pub fn emitted(mut self, drafts: Vec<Draft>) -> Self {
        self.emitted = drafts;
        self
    }

    /// Sets what the attempt used.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }
}

/// What an attempt used of what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Units of fuel; `None` where no code ran.
    pub fuel: Option<u64>,
}

impl Usage {
    /// So much fuel.
    #[must_use]
    pub fn fuel(units: u64) -> Self {
        Self { fuel: Some(units) }
    }
}

/// The host could not carry out the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The attempt does not hold its request any more, so what it came to could not be recorded.
    #[error("the attempt has lost its claim: its outcome is not recorded, another attempt may be made")]
    LostClaim,
    /// The kernel was given something else than what it runs on.
    #[error("kernel cannot run on span {key}: {reason}")]
    Subject {
        /// The span.
        key: crate::span::SpanKey,
        /// Why.
        reason: String,
    },
}

/// What a kernel may look at.
#[non_exhaustive]
pub struct Context<'a> {
    /// Reads every row of the request's tenant.
    pub runtime: Reader<'a>,
    /// Reads what the request's owner may read.
    pub owner: Reader<'a>,
    /// The manifest and its authorities.
    pub trusted: &'a Trusted,
    /// The host's sandboxes.
    pub sandboxes: &'a [Arc<dyn Sandbox>],
    /// Time, for durations.
    pub clock: &'a dyn Clock,
    /// This attempt.
    pub attempt: Attempt,
    /// When it began, by `clock`: for durations.
    pub began: Timestamp,
    /// The kernel's own span.
    pub kernel: &'a SignedSpan,
    /// The last version of the function that the request names, verified, where the host knows it; whoever may see it.
    pub function: Option<&'a VerifiedSpan>,
    /// The input rules in force.
    pub rules: Rules,
    /// Makes calls to the outside, each recorded before and after it is made.
    pub outside: &'a dyn Outside,
}

/// One attempt of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it was claimed, by the ledger's clock: what the code is told as `now`.
    pub started: Timestamp,
    /// The id of the execution that will record it.
    pub execution_id: Uuid,
    /// The host's key.
    pub worker: PublicKey,
}

/// A ledger confined to one scope, for reading only.
#[derive(Clone)]
pub struct Reader<'a> {
    ledger: &'a dyn Ledger,
    scope: Scope,
}

impl<'a> Reader<'a> {
    /// Confines `ledger` to `scope`.
    #[must_use]
    pub fn new(ledger: &'a dyn Ledger, scope: Scope) -> Self {
        Self { ledger, scope }
    }

    /// As [`LedgerExt::find`](crate::ledger::LedgerExt::find).
    ///
    /// # Errors
    /// The ledger's.
    pub async fn find(&self, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
        self.ledger.find(&self.scope, tenant, id).await
    }

    /// One version of a span.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn version(&self, tenant: &str, id: Uuid, seq: u32) -> Result<Option<SignedSpan>, LedgerError> {
        let found = self.ledger.history(&self.scope, tenant, id, seq, 1).await?;
        Ok(found.into_iter().next().filter(|span| span.seq == seq))
    }

    /// As [`Ledger::scan`].
    ///
    /// # Errors
    /// The ledger's.
    pub async fn scan(&self, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.ledger.scan(&self.scope, query, cursor).await
    }

    /// The scope it reads with.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

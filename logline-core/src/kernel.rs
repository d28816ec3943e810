//! The contract of a kernel: a behaviour that decides and writes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::clock::Clock;
use crate::draft::Draft;
use crate::hex::PublicKey;
use crate::ledger::{Cursor, Ledger, LedgerError, LedgerExt as _, Page, Query};
use crate::rules::Rules;
use crate::sandbox::{Failure, Sandbox};
use crate::scope::Scope;
use crate::seal::VerifiedSpan;
use crate::span::{SignedSpan, Span};
use crate::timestamp::Timestamp;
use crate::trust::Trusted;

/// The value of a kernel's `runtime` column: code of this process, named by the span's `code` as `name@version`.
pub const NATIVE_RUNTIME: &str = "native@1";

/// A behaviour of the runtime, registered with a host and booted through its function span.
///
/// # Contract
/// A kernel reads through its [`Context`] and returns [`Effects`]; the driver admits, seals and appends them in one batch with
/// the end of the attempt. A kernel that fails for reasons of the request says so in [`Effects::result`]; an error is for
/// reasons of the host, after which the attempt is not closed and may be made again.
#[async_trait]
pub trait Kernel: Send + Sync {
    /// The name in the `code` of its function span, before the `@`.
    fn name(&self) -> &'static str;

    /// The version in the `code` of its function span, after the `@`.
    fn version(&self) -> u32;

    /// Carries out one attempt of `request`.
    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError>;
}

/// Knows what a span must say to work, and refuses to have it published otherwise.
pub trait Validator: Send + Sync {
    /// Whether a span will work; `Ok` for types that it does not know.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    fn validate(&self, span: &Span) -> Result<(), Failure>;
}

/// A loop of the host that a function span can name: the span lets it run, and says so to whoever audits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// The name in the `code` of its function span, before the `@`.
    pub name: &'static str,
    /// The version in the `code` of its function span, after the `@`.
    pub version: u32,
}

/// What a kernel wants written.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// The output of the request, or why there is none; decides its closing status.
    pub result: Result<Value, Failure>,
    /// The spans to write, the execution first.
    pub drafts: Vec<Draft>,
}

/// The host could not carry out the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
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

//! The contract of a kernel: it reads and decides, and the host writes.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::contract::cipher::Confidential;
use crate::contract::functions::Functions;
use crate::contract::kernel_error::KernelError;
use crate::contract::outside::Outside;
use crate::contract::sandbox::Sandbox;
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, LedgerExt as _, Order, Page, Premise, Query};
use crate::request::Details;
use crate::span::draft::Draft;
use crate::span::rules::Rules;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, Span};
use crate::trust::governance::{Class, Docket, InForce, InForceError, Pointer, ReadError, Version};
use crate::trust::{Authorities, Manifest, Trusted};
use crate::value::clock::Clock;
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;
use crate::value::timestamp::Timestamp;

/// The value of a kernel's `runtime` column. The code is part of this process. The span's `code` column names it as
/// `name@version`.
pub const NATIVE_RUNTIME: &str = "native@1";

/// A native behaviour that carries out requests. It is registered with a host and booted from its function span.
///
/// # Contract
/// A kernel reads through its [`Context`], writes nothing, and returns [`Effects`]. The driver checks, seals and appends them
/// in one batch with the end of the attempt. If the request fails, the failure is in [`Effects::result`]. An error means that
/// the host could not carry out the attempt: the attempt is not closed, and may be made again.
#[async_trait]
pub trait Kernel: Send + Sync {
    /// The id of its function span in tenant `system`.
    fn id(&self) -> Uuid;

    /// The name in the `code` of its function span, before the `@`.
    fn name(&self) -> &'static str;

    /// The version in the `code` of its function span, after the `@`.
    fn version(&self) -> u32;

    /// The kinds of requests that it carries out. Its function span names them as well: in `metadata.requests`, or in
    /// `metadata.host_requests` if only hosts may ask.
    fn requests(&self) -> &'static [RequestKind];

    /// What this host lacks to carry out requests for `function`, such as a sandbox; `None` if it lacks nothing. With `function` `None`:
    /// what it lacks for every function. A host leaves requests for which it lacks something to other hosts, and a worker that could
    /// carry out nothing refuses to start.
    fn lacks(&self, function: Option<&SignedSpan>, sandboxes: &[Arc<dyn Sandbox>]) -> Option<String>;

    /// Whether it carries out confidential requests: it takes their input from [`Context::input`], and writes nothing of it, or of what
    /// comes of it, in the clear. What it emits it encrypts itself ([`Context::confidential`]); its result and its calls to the outside
    /// are encrypted by the host.
    fn keeps_confidential(&self) -> bool {
        false
    }

    /// Checks a span before it is published. Returns `Ok` for spans that this kernel would not run. The default accepts everything.
    ///
    /// # Errors
    /// [`KernelError::Refused`] with what is wrong, where, and what to write instead.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        let _ = (span, publishing);
        Ok(())
    }

    /// Carries out one attempt. `request` is the version with which it was claimed.
    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError>;
}

/// What a kernel has when it checks a span before it is published.
pub struct Publishing<'a> {
    /// Reads what a runtime of the span's tenant may read.
    pub reader: Reader<'a>,
    /// The manifest in force.
    pub manifest: &'a Manifest,
    /// The sandboxes of the host.
    pub sandboxes: &'a [Arc<dyn Sandbox>],
}

/// A kind of request: all requests with the same `this`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKind {
    /// The `this` column of the requests.
    pub this: &'static str,
    /// Who may sign the first version of such a request.
    pub asked_by: AskedBy,
    /// Which daily quotas of the tenant its attempts use.
    pub meters: Meters,
}

/// Who may ask for a kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// Everybody who may write requests in the tenant.
    Anybody,
    /// Only hosts: a host must have signed the first version of the request.
    Hosts,
}

/// What the attempts of a kind of request use of the tenant's daily quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meters {
    /// Whether each claim uses one unit of [`EXECUTIONS_QUOTA`](crate::EXECUTIONS_QUOTA).
    pub executions: bool,
    /// Whether each attempt uses its [`Usage::fuel`] of [`FUEL_QUOTA`](crate::FUEL_QUOTA), counted when it ends.
    pub fuel: bool,
}

impl Meters {
    /// Nothing is counted.
    pub const NONE: Self = Self { executions: false, fuel: false };

    /// Attempts and fuel are counted.
    pub const ALL: Self = Self { executions: true, fuel: true };
}

/// The result of an attempt, and what the host is to write for the kernel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Effects {
    /// The output of the request, or its failure. It decides the next status of the request.
    pub result: Result<Value, Failure>,
    /// What the kernel adds to the execution. The host writes the rest of it.
    pub execution: Details,
    /// Spans to append together with the execution. They are dropped if `result` is a failure.
    pub emitted: Vec<Draft>,
    /// What the attempt used of the quotas.
    pub usage: Usage,
    /// Whether spans of `emitted` that are there already, with the same content, stay as they are.
    pub keeps: bool,
    /// What `emitted` relies on: versions that must still be the last ones when it is stored.
    pub premises: Vec<Premise>,
}

impl Effects {
    /// Effects with this result and nothing else to write.
    #[must_use]
    pub fn new(result: Result<Value, Failure>) -> Self {
        Self {
            result,
            execution: Details::default(),
            emitted: Vec::new(),
            usage: Usage::default(),
            keeps: false,
            premises: Vec::new(),
        }
    }

    /// Sets what the kernel adds to the execution.
    #[must_use]
    pub fn execution(mut self, details: Details) -> Self {
        self.execution = details;
        self
    }

    /// Sets the spans to append if the result is an output.
    #[must_use]
    pub fn emitted(mut self, drafts: Vec<Draft>) -> Self {
        self.emitted = drafts;
        self
    }

    /// Lets spans stay that another attempt has written with the same ids and content. They must be
    /// [deterministic](Draft::deterministic), so that it does not matter which attempt has written them.
    #[must_use]
    pub fn keep_existing(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Stores the output and what was emitted only if each of these versions is still the last one of its id at that moment. Otherwise
    /// the kernel runs again, as if somebody had been faster with a span that it writes.
    #[must_use]
    pub fn relies_on(mut self, premises: impl IntoIterator<Item = Premise>) -> Self {
        self.premises.extend(premises);
        self
    }

    /// Sets what the attempt used of the quotas.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }
}

/// What an attempt used of the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Units of fuel; `None` if no code ran.
    pub fuel: Option<u64>,
}

impl Usage {
    /// An attempt that used `units` units of fuel.
    #[must_use]
    pub fn fuel(units: u64) -> Self {
        Self { fuel: Some(units) }
    }
}

/// What a kernel may read and call during one attempt.
#[non_exhaustive]
pub struct Context<'a> {
    /// Reads every row of the request's tenant.
    pub runtime: Reader<'a>,
    /// Reads what the request's owner may read.
    pub owner: Reader<'a>,
    /// The manifest in force at the claim, and its authorities.
    pub trusted: &'a Trusted,
    /// Reads them as they are now: for a row whose signer may have got its right during the attempt.
    pub current_trust: &'a dyn CurrentTrust,
    /// The host's sandboxes.
    pub sandboxes: &'a [Arc<dyn Sandbox>],
    /// The host's clock. Use it only to measure durations.
    pub clock: &'a dyn Clock,
    /// The attempt that the kernel carries out.
    pub attempt: Attempt,
    /// When the attempt began, by `clock`. Use it only to measure durations.
    pub began: Timestamp,
    /// The function span from which the kernel was booted.
    pub kernel: &'a SignedSpan,
    /// The version in force of the function that the request names, verified; `None` if the host has not read it, or none may be used
    /// ([`Reader::in_force`] says why). The host has not checked whether the
    /// request's owner may see it.
    pub function: Option<&'a VerifiedSpan>,
    /// The promotion that has put `function` in force; `None` if it needs none.
    pub promotion: Option<Version>,
    /// The input of the request, decrypted if the request is confidential. `request.input` then has only the encrypted form.
    pub input: Option<&'a Value>,
    /// What encrypts the spans that the kernel emits; `None` if the request is not confidential.
    pub confidential: Option<&'a Confidential>,
    /// The limits that every span must keep.
    pub rules: Rules,
    /// Makes calls to services outside the ledger, and records each call before and after it is made.
    pub outside: &'a dyn Outside,
    /// Runs functions of the ledger, each as a request of its own.
    pub functions: &'a dyn Functions,
}

/// The manifest and its authorities as they are now.
#[async_trait]
pub trait CurrentTrust: Send + Sync {
    /// Reads them again, unless they were read within the last second. If what is read may not follow those in force, those stay in force.
    ///
    /// # Errors
    /// If the ledger cannot be read now.
    async fn read(&self) -> Result<Arc<Trusted>, LedgerError>;
}

/// One attempt of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the attempt, counted from 1.
    pub number: u32,
    /// When it was claimed, by the ledger's clock. The code gets this time as `now`.
    pub started: Timestamp,
    /// The id of the execution that will record it.
    pub execution_id: Uuid,
    /// The key of the host that claimed it.
    pub worker: PublicKey,
}

/// Read access to a ledger with one scope.
#[derive(Clone)]
pub struct Reader<'a> {
    ledger: &'a dyn Ledger,
    scope: Scope,
}

impl<'a> Reader<'a> {
    /// Reads `ledger` with `scope`.
    #[must_use]
    pub fn new(ledger: &'a dyn Ledger, scope: Scope) -> Self {
        Self { ledger, scope }
    }

    /// As [`LedgerExt::find`](crate::ledger::LedgerExt::find), with this reader's scope.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn find(&self, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
        self.ledger.find(&self.scope, tenant, id).await
    }

    /// The version `seq` of a span; `None` if it does not exist or the scope does not see it.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn version(&self, tenant: &str, id: Uuid, seq: u32) -> Result<Option<SignedSpan>, LedgerError> {
        let found = self.ledger.history(&self.scope, tenant, id, seq, 1).await?;
        Ok(found.into_iter().next().filter(|span| span.seq == seq))
    }

    /// The version of a span that a host uses, where `last` is its last version, as [`Reader::find`] gives it:
    /// [`Trusted::in_force`].
    ///
    /// # Errors
    /// If no version may be used, or the ledger fails.
    pub async fn in_force(&self, trusted: &Trusted, last: SignedSpan, now: Timestamp) -> Result<InForce, InForceError> {
        trusted.in_force(self.ledger, &self.scope, last, now).await
    }

    /// [`Trusted::last_that_counts`], with this reader's scope.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn last_that_counts(&self, trusted: &Trusted, last: SignedSpan) -> Result<SignedSpan, LedgerError> {
        trusted.last_that_counts(self.ledger, &self.scope, last).await
    }

    /// A proposal with the outcome of its vote, as a host of the tenant sees it: [`Trusted::docket`].
    ///
    /// # Errors
    /// If there is no such proposal, or the ledger fails.
    pub async fn docket(&self, trusted: &Trusted, tenant: &str, proposal: Uuid, now: Timestamp) -> Result<Docket, ReadError> {
        trusted.docket(self.ledger, tenant, proposal, now).await
    }

    /// What was promoted of a span in the environment of `trusted`: [`Trusted::pointer`].
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn promoted(&self, trusted: &Trusted, tenant: &str, class: Class, subject: Uuid) -> Result<Pointer, ReadError> {
        trusted.pointer(self.ledger, tenant, trusted.environment, class, subject).await
    }

    /// As [`Ledger::scan`], with this reader's scope.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn scan(&self, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.ledger.scan(&self.scope, query, cursor).await
    }

    /// Gives `take` the rows of `query` that count, the newest first, until it returns `false` or has got `most` of them. A row counts if what
    /// it says was signed, by a key that may sign it.
    ///
    /// Rows that do not count use up nothing of `most`: whoever can write to the store could otherwise push out those that count.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn newest_that_count(
        &self,
        authorities: &Authorities,
        query: Query,
        most: usize,
        mut take: impl FnMut(VerifiedSpan) -> bool,
    ) -> Result<(), LedgerError> {
        let mut verifier = Verifier::new();
        // Not what is left: behind many rows that do not count, the last ones would be read one by one.
        let query = query.order(Order::Newest).limit(most);
        let (mut cursor, mut left, mut passed_over) = (None, most, 0_u64);
        'pages: while left > 0 {
            let page = self.scan(&query, cursor.as_ref()).await?;
            for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
                let Some(span) = span.verify(&mut verifier).ok().filter(|span| authorities.check(span).is_ok()) else {
                    passed_over += 1;
                    continue;
                };
                left = left.saturating_sub(1);
                if !take(span) || left == 0 {
                    break 'pages;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if passed_over > 0 {
            let tenant = self.scope.tenant();
            tracing::warn!(tenant, passed_over, "rows that nobody may have signed are passed over: run fsck");
        }
        Ok(())
    }

    /// The scope of this reader.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

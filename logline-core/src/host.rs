//! The host: what an application composes and calls.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::clock::{Clock, IdSource, SystemClock, SystemIds};
use crate::draft::Draft;
use crate::driver::{AdmitError, Driver};
use crate::hex::Hash;
use crate::ids;
use crate::kernel::{Attempt, Context, Kernel, KernelError, Reader};
use crate::keys::{Signer, Verifier};
use crate::ledger::{AppendOptions, Ledger, LedgerError, LedgerExt as _, Outcome, Retry};
use crate::request::{self, NotRunnable, Request};
use crate::rules::Rules;
use crate::sandbox::{Failure, Sandbox};
use crate::scope::Scope;
use crate::seal::{VerifiedSpan, VerifyError};
use crate::stage0::{BootError, Booted, Stage0};
use crate::trust::{NotAuthorised, TrustError, TrustRoot, Trusted};

/// Runs functions of the ledger and records what happened. Cheap to clone; clones are one host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    trust: TrustRoot,
    signer: Arc<dyn Signer>,
    kernels: Vec<Arc<dyn Kernel>>,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    rules: Rules,
    lease: Duration,
    trusted: RwLock<Arc<Trusted>>,
    /// Booted kernels; the hash is the manifest's under which each was booted.
    booted: Mutex<HashMap<Uuid, (Hash, Booted)>>,
    /// Kernel versions whose boot this process has recorded under the manifest in force.
    recorded: Mutex<HashSet<(Hash, Hash)>>,
}

/// Composes a [`Host`]. Ledger, trust root and key are required.
#[derive(Default)]
pub struct HostBuilder {
    ledger: Option<Arc<dyn Ledger>>,
    trust: Option<TrustRoot>,
    signer: Option<Arc<dyn Signer>>,
    kernels: Vec<Arc<dyn Kernel>>,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Option<Arc<dyn Clock>>,
    ids: Option<Arc<dyn IdSource>>,
    rules: Rules,
    lease: Option<Duration>,
}

/// What a lease allows for besides the function's own time: compiling it, and committing the result.
const LEASE_MARGIN: Duration = Duration::from_secs(45);

/// How often a finished attempt is handed to a ledger that is unavailable.
const COMMIT_TRIES: u32 = 3;

/// What a host could not do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The builder lacks a part.
    #[error("host has no {part}: set it on the builder")]
    Incomplete {
        /// Which.
        part: &'static str,
    },
    /// No manifest to obey.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A kernel was refused.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Something could not be written.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// A kernel could not do its work.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The request cannot be run.
    #[error(transparent)]
    NotRunnable(#[from] NotRunnable),
    /// The ledger has lost the manifest that this host obeys.
    #[error("the ledger's manifest is version {found}, this host already obeys {current}: it was rolled back; run fsck")]
    ManifestRollback {
        /// Found now.
        found: u64,
        /// In force.
        current: u64,
    },
    /// The request's stored row does not verify.
    #[error("request is not what was signed: {0}")]
    NotVerified(#[from] VerifyError),
    /// The request was signed by a key that may not ask for anything.
    #[error("request is not authorised: {0}")]
    NotAuthorised(#[from] Box<NotAuthorised>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// The output, or why there is none.
    pub result: Result<Value, Failure>,
    /// The signed record of the attempt.
    pub span: VerifiedSpan,
    /// The request's closing version.
    pub request: VerifiedSpan,
}

impl HostBuilder {
    /// The ledger.
    #[must_use]
    pub fn ledger(mut self, ledger: impl Ledger) -> Self {
        self.ledger = Some(Arc::new(ledger));
        self
    }

    /// The keys this host trusts before it reads anything.
    #[must_use]
    pub fn trust(mut self, root: TrustRoot) -> Self {
        self.trust = Some(root);
        self
    }

    /// This host's own key. No two hosts share one.
    #[must_use]
    pub fn key(mut self, signer: impl Signer + 'static) -> Self {
        self.signer = Some(Arc::new(signer));
        self
    }

    /// Kernels this host has the code of.
    #[must_use]
    pub fn kernels(mut self, kernels: impl IntoIterator<Item = Arc<dyn Kernel>>) -> Self {
        self.kernels.extend(kernels);
        self
    }

    /// A sandbox for tenants' functions.
    #[must_use]
    pub fn sandbox(mut self, sandbox: impl Sandbox + 'static) -> Self {
        self.sandboxes.push(Arc::new(sandbox));
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Another source of ids than the machine's.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource + 'static) -> Self {
        self.ids = Some(Arc::new(ids));
        self
    }

    /// Other limits for spans than the default.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// How long an attempt may take before another host may make the next. Default 60 seconds.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Resolves the manifest and makes the host.
    ///
    /// # Errors
    /// A missing part, or no manifest that counts.
    pub async fn build(self) -> Result<Host, HostError> {
        let ledger = self.ledger.ok_or(HostError::Incomplete { part: "ledger" })?;
        let trust = self.trust.ok_or(HostError::Incomplete { part: "trust root" })?;
        let signer = self.signer.ok_or(HostError::Incomplete { part: "key" })?;
        let trusted = trust.resolve(&ledger).await?;
        Ok(Host {
            inner: Arc::new(Inner {
                ledger,
                trust,
                signer,
                kernels: self.kernels,
                sandboxes: self.sandboxes,
                clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
                ids: self.ids.unwrap_or_else(|| Arc::new(SystemIds)),
                rules: self.rules,
                lease: self.lease.unwrap_or(Duration::from_secs(60)),
                trusted: RwLock::new(Arc::new(trusted)),
                booted: Mutex::default(),
                recorded: Mutex::default(),
            }),
        })
    }
}

/// Writes the end of an attempt. What was computed is worth more than one try.
async fn commit(
    driver: &Driver<'_>,
    scope: &Scope,
    drafts: Vec<Draft>,
    signer: &dyn Signer,
) -> Result<Vec<VerifiedSpan>, AdmitError> {
    let mut tries = 1;
    loop {
        match driver.write(scope, drafts.clone(), signer, &AppendOptions::default()).await {
            Err(AdmitError::Ledger(error)) if error.retry() == Retry::Later && tries < COMMIT_TRIES => {
                tracing::warn!(%error, tries, "the end of an attempt could not be committed, trying again");
                tries += 1;
            }
            written => return written.map(|(spans, _)| spans),
        }
    }
}

impl Host {
    /// Starts composing one.
    #[must_use]
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.inner.ledger
    }

    /// The manifest in force and what it leads to.
    #[must_use]
    pub fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.inner.trusted.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn booted(&self) -> MutexGuard<'_, HashMap<Uuid, (Hash, Booted)>> {
        self.inner.booted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads the manifest again and forgets booted kernels, so that newer versions of both take effect.
    ///
    /// # Errors
    /// Where no manifest counts any more, or it demands what this library cannot do; the old one then stays in force.
    pub async fn refresh(&self) -> Result<(), HostError> {
        let trusted = self.inner.trust.resolve(&self.inner.ledger).await?;
        let (found, current) = (trusted.manifest.version, self.trusted().manifest.version);
        if found < current {
            return Err(HostError::ManifestRollback { found, current });
        }
        *self.inner.trusted.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(trusted);
        self.booted().clear();
        Ok(())
    }

    /// Boots a kernel through Stage-0, once per process and kernel version; the signed `boot_event` is in the ledger when this
    /// returns.
    ///
    /// # Errors
    /// Why it may not run. The refusal is recorded as well.
    pub async fn boot(&self, id: Uuid) -> Result<Booted, HostError> {
        let trusted = self.trusted();
        let manifest = trusted.span.seal.curr_hash;
        if let Some((_, booted)) = self.booted().get(&id).filter(|(under, _)| *under == manifest) {
            return Ok(booted.clone());
        }
        let inner = &self.inner;
        let stage0 = Stage0 {
            ledger: &inner.ledger,
            trusted: &trusted,
            kernels: &inner.kernels,
            signer: inner.signer.as_ref(),
            clock: inner.clock.as_ref(),
            ids: inner.ids.as_ref(),
            recorded: &inner.recorded,
        };
        let booted = stage0.boot(id).await?;
        self.booted().insert(id, (manifest, booted.clone()));
        Ok(booted)
    }

    /// Seals `draft` with `signer`, checks that it may sign such a span, and appends it: how a publisher publishes.
    ///
    /// # Errors
    /// Where the signer lacks the role, the draft breaks a rule, or the ledger refuses.
    pub async fn publish(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        let scope = Scope::runtime(draft.columns().tenant_id.clone());
        self.write_one(&scope, draft, signer).await
    }

    /// Records a request; [`Host::run`] carries it out. A request with an idempotency key that was submitted before is returned
    /// as it stands in the ledger.
    ///
    /// # Errors
    /// Where the ledger refuses it, or this host's key may not sign requests of the tenant.
    pub async fn submit(&self, request: Request) -> Result<VerifiedSpan, HostError> {
        let inner = &self.inner;
        let scope = Scope::runtime(request.tenant.clone());
        let draft = request.into_draft(inner.ids.next_id(inner.clock.now()));
        let draft = draft.stamp(inner.clock.as_ref(), inner.ids.as_ref());
        let span = draft.seal_within(inner.signer.as_ref(), &inner.rules).await.map_err(AdmitError::from)?;
        request::check_first(&span, &inner.rules)?;
        self.trusted().authorities.check_now(&span, inner.clock.now()).map_err(AdmitError::from)?;
        let receipts = inner.ledger.append(&scope, vec![span.clone()], &AppendOptions::keep()).await?;
        if receipts.iter().all(|receipt| receipt.outcome == Outcome::Appended) {
            return Ok(span);
        }
        let stored = inner.ledger.history(&scope, &span.tenant_id, span.id, span.seq, 1).await?;
        let not_found = || LedgerError::NotFound { tenant: span.tenant_id.clone(), id: span.id };
        Ok(stored.into_iter().next().ok_or_else(not_found)?.verify(&mut Verifier::new())?)
    }

    /// Submits a request and carries it out. One that had been submitted with the same idempotency key and has ended is not run
    /// again: its recorded execution is returned.
    ///
    /// # Errors
    /// Reasons of the host. What the function did wrong is in [`Execution::result`].
    pub async fn execute(&self, request: Request) -> Result<Execution, HostError> {
        let request = self.submit(request).await?;
        match self.run(&request.tenant_id, request.id).await {
            Err(HostError::NotRunnable(ended @ NotRunnable::Ended { .. })) => {
                self.recorded(&request).await?.ok_or(HostError::NotRunnable(ended))
            }
            executed => executed,
        }
    }

    /// The recorded end of a request, if it has one.
    async fn recorded(&self, request: &VerifiedSpan) -> Result<Option<Execution>, HostError> {
        let (ledger, scope) = (&self.inner.ledger, Scope::runtime(request.tenant_id.clone()));
        let tenant = &request.tenant_id;
        let closing = ledger.get(&scope, tenant, request.id).await?.verify(&mut Verifier::new())?;
        let execution = closing.meta("execution").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let Some(execution) = execution else { return Ok(None) };
        let Some(span) = ledger.find(&scope, tenant, execution).await? else { return Ok(None) };
        let span = span.verify(&mut Verifier::new())?;
        let text = |name: &str| span.error.as_ref().and_then(|e| e.get(name)).and_then(Value::as_str).unwrap_or_default();
        let result = match &span.error {
            Some(_) => Err(Failure::new(text("code"), text("message"))),
            None => Ok(span.output.clone().unwrap_or_default()),
        };
        Ok(Some(Execution { result, span, request: closing }))
    }

    /// Carries out a request that was submitted, here and now: claims it, runs it through `run_code`, and commits the execution,
    /// everything it emitted and the request's closing version in one batch.
    ///
    /// Where another worker's lease has ended, its attempt is recorded as lost in the same batch as the new claim. If this
    /// future is dropped or the host fails on the way, the request stays `running` until its lease ends and can be run again.
    ///
    /// # Errors
    /// Reasons of the host. What the function did wrong is in [`Execution::result`].
    #[tracing::instrument(skip(self), fields(trace_id, attempt), err)]
    pub async fn run(&self, tenant: &str, request: Uuid) -> Result<Execution, HostError> {
        let inner = &self.inner;
        let booted = self.boot(ids::RUN_CODE).await?;
        let trusted = self.trusted();
        let scope = Scope::runtime(tenant);
        let driver = self.driver(&trusted);
        let stored = inner.ledger.get(&scope, tenant, request).await?.verify(&mut Verifier::new())?;
        trusted.authorities.check(&stored)?;
        if let Err(reason) = request::check_first(&stored, &inner.rules) {
            let malformed = matches!(reason, NotRunnable::Malformed { .. });
            if malformed && stored.status.as_deref() == Some("scheduled") && stored.seq < crate::rules::MAX_INTEGER {
                let refusal = request::refuse(&stored, &reason, inner.clock.now());
                driver.write(&scope, vec![refusal], inner.signer.as_ref(), &AppendOptions::default()).await?;
            }
            return Err(reason.into());
        }
        let worker = inner.signer.public_key();
        let started = inner.clock.now();
        // Nobody else may take over while the function may still run.
        let lease = inner.lease.max(Duration::from_millis(trusted.manifest.timeout_ms()) + LEASE_MARGIN);
        let claim = request::claim(&stored, &worker, started, lease)?;
        let span = tracing::Span::current();
        span.record("trace_id", stored.trace_id.as_deref()).record("attempt", claim.attempt);
        let signer = inner.signer.as_ref();
        let (claimed, _) = driver.write(&scope, claim.drafts, signer, &AppendOptions::default()).await?;
        // INVARIANT: the running version is the last draft of a claim.
        let running = claimed.into_iter().last().ok_or(HostError::Incomplete { part: "claim" })?;
        let execution_id = ids::execution(tenant, request, claim.attempt);
        let context = Context {
            runtime: Reader::new(&inner.ledger, scope.clone()),
            owner: Reader::new(&inner.ledger, Scope::user(tenant, running.owner_id.clone())),
            trusted: &trusted,
            sandboxes: &inner.sandboxes,
            clock: inner.clock.as_ref(),
            attempt: Attempt { number: claim.attempt, started, execution_id, worker },
            kernel: &booted.span,
            rules: inner.rules,
        };
        let effects = booted.kernel.run(&running, &context).await?;
        let mut drafts = effects.drafts;
        drafts.push(request::close(&running, &effects.result, execution_id, inner.clock.now()));
        let mut written = commit(&driver, &scope, drafts, signer).await?;
        let closing = written.pop().ok_or(HostError::Incomplete { part: "closing version" })?;
        let execution = written.into_iter().find(|span| span.id == execution_id);
        let span = execution.ok_or(HostError::Incomplete { part: "execution among the kernel's effects" })?;
        tracing::debug!(execution = %execution_id, ok = effects.result.is_ok(), "request closed");
        Ok(Execution { result: effects.result, span, request: closing })
    }

    fn driver<'a>(&'a self, trusted: &'a Trusted) -> Driver<'a> {
        let inner = &self.inner;
        Driver {
            ledger: &inner.ledger,
            authorities: &trusted.authorities,
            clock: inner.clock.as_ref(),
            ids: inner.ids.as_ref(),
            rules: inner.rules,
        }
    }

    async fn write_one(&self, scope: &Scope, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let (written, _) = driver.write(scope, vec![draft], signer, &AppendOptions::default()).await?;
        written.into_iter().next().ok_or(HostError::Incomplete { part: "span" })
    }
}

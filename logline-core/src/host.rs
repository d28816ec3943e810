//! The host: what an application composes and calls.

mod attempts;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

pub use attempts::{Claim, EXECUTIONS_QUOTA, Execution, FUEL_QUOTA};

use crate::clock::{Clock, IdSource, SystemClock, SystemIds};
use crate::draft::Draft;
use crate::driver::{AdmitError, Driver};
use crate::hex::{Hash, PublicKey};
use crate::kernel::{Kernel, KernelError, Service, Validator};
use crate::keys::{Signer, Verifier};
use crate::ledger::{AppendOptions, Ledger as _, LedgerError, OnExisting, Outcome, WorkQueue};
use crate::recent::Recent;
use crate::request::{self, NotRunnable, Request};
use crate::roles::Role;
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
    ledger: Arc<dyn WorkQueue>,
    trust: TrustRoot,
    signer: Arc<dyn Signer>,
    kernels: Vec<Arc<dyn Kernel>>,
    services: Vec<Service>,
    validators: Vec<Arc<dyn Validator>>,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    rules: Rules,
    lease: Duration,
    trusted: RwLock<Arc<Trusted>>,
    /// Booted kernels; the hash is the manifest's under which each was booted.
    booted: Mutex<HashMap<Uuid, (Hash, Booted)>>,
    /// Functions that were verified, by their hash: what has it is the same.
    functions: Mutex<Recent<Hash, Arc<VerifiedSpan>>>,
    /// Kernel versions whose boot this process has recorded under the manifest in force.
    recorded: Mutex<HashSet<(Hash, Hash)>>,
}

/// Composes a [`Host`]. Ledger, trust root and key are required.
#[derive(Default)]
pub struct HostBuilder {
    ledger: Option<Arc<dyn WorkQueue>>,
    trust: Option<TrustRoot>,
    signer: Option<Arc<dyn Signer>>,
    kernels: Vec<Arc<dyn Kernel>>,
    services: Vec<Service>,
    validators: Vec<Arc<dyn Validator>>,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Option<Arc<dyn Clock>>,
    ids: Option<Arc<dyn IdSource>>,
    rules: Rules,
    lease: Option<Duration>,
}

/// Functions kept verified.
const MAX_FUNCTIONS: usize = 256;

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
    /// What was to be published would not work.
    #[error("the {entity_type} was not published: {reason}")]
    NotValid {
        /// Its type.
        entity_type: String,
        /// What is wrong with it.
        reason: Failure,
    },
    /// Requests of several tenants in one batch.
    #[error("a batch of requests is one tenant's, this has `{first}` and `{other}`: submit one batch for each")]
    TwoTenants {
        /// The first one's.
        first: String,
        /// Another.
        other: String,
    },
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

impl HostError {
    /// The code with which a request is closed that can never be claimed.
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::NotVerified(_) => Some("request_not_verified"),
            Self::NotAuthorised(_) => Some("request_not_authorised"),
            Self::NotRunnable(NotRunnable::Malformed { .. }) => Some("request_malformed"),
            Self::NotRunnable(NotRunnable::NotPermitted { .. }) => Some("request_not_permitted"),
            _ => None,
        }
    }

    /// Whether something else stands already under an id that follows from what was to be written.
    #[must_use]
    pub fn is_keep_mismatch(&self) -> bool {
        let mismatch = |error: &LedgerError| matches!(error, LedgerError::KeepMismatch { .. });
        matches!(self, Self::Admit(AdmitError::Ledger(error)) | Self::Ledger(error) if mismatch(error))
    }

    /// Whether another worker was faster, or has the request now.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Admit(AdmitError::Ledger(LedgerError::Conflict(_))) | Self::Ledger(LedgerError::Conflict(_)))
    }
}

impl HostBuilder {
    /// The ledger.
    #[must_use]
    pub fn ledger(mut self, ledger: impl WorkQueue) -> Self {
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

    /// Loops that this host may run.
    #[must_use]
    pub fn services(mut self, services: impl IntoIterator<Item = Service>) -> Self {
        self.services.extend(services);
        self
    }

    /// What checks spans before [`Host::publish`] publishes them.
    #[must_use]
    pub fn validators(mut self, validators: impl IntoIterator<Item = Arc<dyn Validator>>) -> Self {
        self.validators.extend(validators);
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

    /// How long an attempt of [`Host::run_request`] may take before another host may make the next. Default 60 seconds.
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
                services: self.services,
                validators: self.validators,
                sandboxes: self.sandboxes,
                clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
                ids: self.ids.unwrap_or_else(|| Arc::new(SystemIds)),
                rules: self.rules,
                lease: self.lease.unwrap_or(Duration::from_secs(60)),
                trusted: RwLock::new(Arc::new(trusted)),
                booted: Mutex::default(),
                functions: Mutex::new(Recent::new(MAX_FUNCTIONS)),
                recorded: Mutex::default(),
            }),
        })
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
    pub fn ledger(&self) -> &Arc<dyn WorkQueue> {
        &self.inner.ledger
    }

    /// This host's public key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.inner.signer.public_key()
    }

    /// Whether this host may record what happens in `tenant`.
    #[must_use]
    pub fn works_for(&self, tenant: &str) -> bool {
        self.trusted().authorities.has(&self.key(), Role::Runtime, tenant, self.inner.clock.now())
    }

    /// Whether this host may record what happens in whatever tenant.
    #[must_use]
    pub fn works_for_all(&self) -> bool {
        // No tenant has this name: it stands for all.
        self.works_for("*")
    }

    /// Whether this host has the code of a native kernel, and the manifest allows it.
    fn has_kernel(&self, id: Uuid, name: &str) -> bool {
        self.trusted().manifest.allowed_boot_ids.contains(&id) && self.inner.kernels.iter().any(|kernel| kernel.name() == name)
    }

    /// The sandboxes for tenants' code.
    #[must_use]
    pub fn sandboxes(&self) -> &[Arc<dyn Sandbox>] {
        &self.inner.sandboxes
    }

    /// Where ids come from, and what looks like chance.
    #[must_use]
    pub fn ids(&self) -> &dyn IdSource {
        self.inner.ids.as_ref()
    }

    /// The limits of spans.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
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
            services: &inner.services,
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
    /// Where the signer lacks the role, the draft breaks a rule or would not work, or the ledger refuses.
    pub async fn publish(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        for validator in &self.inner.validators {
            validator.validate(draft.columns()).map_err(|reason| {
                let entity_type = draft.columns().entity_type.clone();
                HostError::NotValid { entity_type, reason }
            })?;
        }
        let scope = Scope::runtime(draft.columns().tenant_id.clone());
        self.write_one(&scope, draft, signer).await
    }

    /// Records a request; a worker carries it out, or [`Host::run_request`]. A request with an idempotency key that was submitted before is returned
    /// as it stands in the ledger.
    ///
    /// # Errors
    /// Where the ledger refuses it, or this host's key may not sign requests of the tenant.
    pub async fn submit(&self, request: Request) -> Result<VerifiedSpan, HostError> {
        let submitted = self.submit_all([request]).await?;
        submitted.into_iter().next().ok_or(HostError::Incomplete { part: "span" })
    }

    /// Records requests of one tenant, all of them or none; at most
    /// [`Capability::max_batch`](crate::ledger::Capability::max_batch). Otherwise as [`Host::submit`]; in their order.
    ///
    /// # Errors
    /// As [`Host::submit`]; where they are of several tenants.
    pub async fn submit_all(&self, requests: impl IntoIterator<Item = Request>) -> Result<Vec<VerifiedSpan>, HostError> {
        let inner = &self.inner;
        let trusted = self.trusted();
        let mut batch: Vec<VerifiedSpan> = Vec::new();
        // Only where the id follows from what is asked can it stand there already, and looking takes time.
        let mut options = AppendOptions::default();
        for request in requests {
            if request.derived_id().is_some() {
                options.on_existing = OnExisting::Keep;
            }
            let draft = request.into_draft(inner.ids.next_id(inner.clock.now()));
            let draft = draft.stamp(inner.clock.as_ref(), inner.ids.as_ref());
            let span = draft.seal_within(inner.signer.as_ref(), &inner.rules).await.map_err(AdmitError::from)?;
            request::check_first(&span, &inner.rules)?;
            trusted.authorities.check_now(&span, inner.clock.now()).map_err(AdmitError::from)?;
            if let Some(first) = batch.first().filter(|first| first.tenant_id != span.tenant_id) {
                let (first, other) = (first.tenant_id.clone(), span.tenant_id.clone());
                return Err(HostError::TwoTenants { first, other });
            }
            batch.push(span);
        }
        let Some(first) = batch.first() else { return Ok(batch) };
        let scope = Scope::runtime(first.tenant_id.clone());
        let receipts = inner.ledger.append(&scope, batch.clone(), &options).await?;
        for (span, receipt) in batch.iter_mut().zip(receipts) {
            if receipt.outcome != Outcome::Appended {
                let stored = inner.ledger.history(&scope, &span.tenant_id, span.id, span.seq, 1).await?;
                let not_found = || LedgerError::NotFound { tenant: span.tenant_id.clone(), id: span.id };
                *span = stored.into_iter().next().ok_or_else(not_found)?.verify(&mut Verifier::new())?;
            }
        }
        Ok(batch)
    }

    /// Writes what a loop of this host has decided: seals `drafts` of `tenant` with the host's key, holds each to the authorities,
    /// and appends them as one batch.
    ///
    /// # Errors
    /// Where this host's key may not sign them, a draft breaks a rule, or the ledger refuses. Nothing is written then.
    pub async fn record(
        &self,
        tenant: &str,
        drafts: Vec<Draft>,
        options: &AppendOptions,
    ) -> Result<Vec<VerifiedSpan>, HostError> {
        let trusted = self.trusted();
        let (written, _) =
            self.driver(&trusted).write(&Scope::runtime(tenant), drafts, self.inner.signer.as_ref(), options).await?;
        Ok(written)
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

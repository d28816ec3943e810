//! Claims a request: checks it before an attempt begins, applies the quotas, and appends the version that claims it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::contract::{AskedBy, Attempt, Kernel, RequestKind};
use crate::host::driver::AdmitError;
use crate::host::quotas::{EXECUTIONS_QUOTA, FUEL_QUOTA};
use crate::host::stage0::Booted;
use crate::host::{Host, HostError, Kinds};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Due, Ledger as _, LedgerError, LedgerExt as _, Limit, Retry, Work, WorkQueue as _};
use crate::request::lifecycle::{self, Claiming, Open, Origin};
use crate::request::state::{ClaimTerms, State};
use crate::request::{Charges, DEFAULT_PRIORITY, NotRunnable, Phase};
use crate::roles::Role;
use crate::span::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, SignedSpan};
use crate::trust::Trusted;
use crate::trust::governance::{InForce, Version};
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// A request that this host has claimed.
pub struct Claim {
    pub(super) running: Arc<VerifiedSpan>,
    pub(super) kind: RequestKind,
    pub(super) attempt: Attempt,
    /// When it began, by this host's clock.
    pub(super) began: Timestamp,
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) booted: Booted,
    pub(super) trusted: Arc<Trusted>,
    pub(super) function: Option<Arc<VerifiedSpan>>,
    /// The promotion that has put the function in force; `None` if it needs none.
    pub(super) promotion: Option<Version>,
}

impl Claim {
    /// The `running` version, with which the request was claimed.
    #[must_use]
    pub fn running(&self) -> &Arc<VerifiedSpan> {
        &self.running
    }

    /// The attempt that the claim began.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// The work to name in a [heartbeat](crate::ledger::WorkQueue::heartbeat).
    #[must_use]
    pub fn work(&self) -> Work {
        Work::of(&self.running)
    }
}

/// A version of a request that has passed the checks that are needed before this host signs its next version.
pub(super) struct Checked {
    pub(super) span: VerifiedSpan,
    pub(super) state: State,
    pub(super) origin: Origin,
}

impl Checked {
    pub(super) fn open(&self) -> Open<'_> {
        Open::new(&self.span, self.state.clone(), self.origin)
    }
}

impl Host {
    /// Claims a due request: appends its `running` version. `now` is the ledger's time. A request that can never run, or has no
    /// attempt left, is closed instead. If its tenant has used up a quota, it is parked until the
    /// next day.
    ///
    /// # Errors
    /// Why it was closed or put off; a conflict if another worker was faster.
    pub async fn claim(&self, due: Due, now: Timestamp, lease: Duration) -> Result<Claim, HostError> {
        let inner = &self.inner;
        let Due { request, function } = due;
        let (request, kernel, kind) = match self.accept(&request).await {
            Ok(accepted) => accepted,
            Err(error) => {
                // If it stayed open, every poll would find it again.
                if let Some(code) = error.refusal() {
                    let mut drafts = Vec::new();
                    // Hosts sign later versions. If this one is running, its attempt is lost and needs its execution.
                    let is_running = request.prev_hash.is_some() && Phase::of(&request) == Some(Phase::Running);
                    if is_running && !matches!(error, HostError::NotVerified(_)) {
                        drafts
                            .extend(State::of(&request).ok().map(|state| lifecycle::lost(&request, &state, &self.key(), now)));
                        drafts.extend(self.unknown_outcomes(&request).await?);
                    }
                    drafts.push(lifecycle::refuse(&request, &self.key(), &Failure::new(code, error.to_string()), now));
                    self.record(&request.tenant_id, drafts, &AppendOptions::default()).await?;
                }
                return Err(error);
            }
        };
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let (scope, signer) = (Scope::runtime(request.span.tenant_id.clone()), inner.signer.as_ref());
        let open = request.open();
        let booted = self.boot(kernel.id()).await?;
        let throttle = &trusted.manifest.throttle;
        let executions_per_day = throttle.per_tenant_daily_exec_limit.filter(|_| kind.meters.executions);
        let fuel_per_day = throttle.per_tenant_daily_fuel.filter(|_| kind.meters.fuel);
        let tenant = &request.span.tenant_id;
        let in_force = |id| self.in_force(&trusted, &scope, tenant, id, now);
        let mut promotion = None;
        let function = match (function, request.span.parent_id) {
            (_, Some(id)) if trusted.requires_promotions(tenant) => match in_force(id).await? {
                Some(in_force) => {
                    promotion = in_force.promotion;
                    in_force.span.verify(&mut Verifier::new()).ok().map(Arc::new)
                }
                None => None,
            },
            (Some(hash), Some(id)) => self.function(&scope, tenant, id, hash).await?,
            (None, Some(id)) => {
                let found = inner.ledger.find(&scope, tenant, id).await?;
                found.and_then(|found| found.verify(&mut Verifier::new()).ok()).map(Arc::new)
            }
            _ => None,
        };
        // A function that may not run is the kernel's to refuse, whatever it would need.
        let may_run = function.as_ref().filter(|function| trusted.authorities.check(function).is_ok());
        if open.state.terms.confidential && inner.cipher.is_none() {
            let lacks = "a cipher for confidential requests".to_owned();
            return Err(NotRunnable::NotEquipped { key: request.span.key(), lacks }.into());
        }
        if let Some(lacks) = kernel.lacks(may_run.map(|function| &***function), &inner.sandboxes) {
            return Err(NotRunnable::NotEquipped { key: request.span.key(), lacks }.into());
        }
        let is_forced = function.as_ref().is_some_and(|function| trusted.manifest.is_forced(function));
        if let Some(per_day) = fuel_per_day.filter(|_| !is_forced)
            && inner.ledger.used(tenant, FUEL_QUOTA).await? >= per_day
        {
            return Err(self.deny(&driver, &scope, &open, (FUEL_QUOTA, per_day), now.day(), now).await?.into());
        }
        let fuel = fuel_per_day.map(|_| {
            let limits = function.as_ref().and_then(|function| trusted.manifest.limits_for(function).ok());
            limits.unwrap_or_else(|| trusted.manifest.limits_of(tenant)).fuel
        });
        let is_lost = open.state.phase == Phase::Running;
        let outcomes = if is_lost { self.unknown_outcomes(&request.span).await? } else { Vec::new() };
        let mut terms = ClaimTerms { worker: signer.public_key(), now, lease, charges: None, fuel };
        loop {
            let mut options = AppendOptions::default();
            if let Some(per_day) = executions_per_day {
                terms.charges = Some(Charges::new(terms.now.day(), [EXECUTIONS_QUOTA]));
                if !is_forced {
                    options.limits.push(Limit { tenant: tenant.clone(), key: EXECUTIONS_QUOTA.to_owned(), per_day });
                }
            }
            let (attempt, drafts) = match lifecycle::claim(&open, &terms)? {
                Claiming::Start { attempt, drafts } => (attempt, drafts),
                Claiming::End { drafts, reason } => {
                    let drafts = outcomes.into_iter().chain(drafts).collect();
                    driver.write(&scope, drafts, signer, &AppendOptions::default()).await?;
                    if is_lost {
                        self.close_late_calls(&request.span).await;
                    }
                    return Err(reason.into());
                }
            };
            let drafts = outcomes.iter().cloned().chain(drafts).collect();
            match driver.write(&scope, drafts, signer, &options).await {
                Ok(written) => {
                    // INVARIANT: the running version is the last draft of a claim.
                    let running = super::publish::last(written)?;
                    let execution_id = ids::execution(&running.tenant_id, running.id, attempt);
                    let attempt = Attempt { number: attempt, started: terms.now, execution_id, worker: terms.worker };
                    if is_lost {
                        self.close_late_calls(&running).await;
                    }
                    let began = inner.clock.now();
                    return Ok(Claim {
                        running: Arc::new(running),
                        kind,
                        attempt,
                        began,
                        kernel,
                        booted,
                        trusted,
                        function,
                        promotion,
                    });
                }
                // The ledger's UTC day has changed since `now`.
                Err(AdmitError::Ledger(LedgerError::WrongDay { today, .. })) if terms.now.day() < today => {
                    terms.now = inner.ledger.now().await?;
                }
                Err(AdmitError::Ledger(LedgerError::QuotaExceeded { per_day, day, .. })) => {
                    let quota = (EXECUTIONS_QUOTA, per_day);
                    return Err(self.deny(&driver, &scope, &open, quota, day, terms.now).await?.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Checks a request, and finds the kernel that carries it out.
    async fn accept(&self, request: &SignedSpan) -> Result<(Checked, Arc<dyn Kernel>, RequestKind), HostError> {
        let mut checked = self.check(request).await;
        if matches!(checked, Err(HostError::NotAuthorised(_))) {
            // A newer manifest or delegation may name its signer.
            checked = match self.refresh_seldom().await {
                Ok(true) => self.check(request).await,
                // The request stays open until the host has read the manifest again.
                Ok(false) => Err(NotRunnable::UnknownSigner { key: request.key() }.into()),
                Err(error) if error.retry() == Retry::Later => Err(error),
                Err(error) => {
                    tracing::error!(%error, "the manifest cannot be read again; the one in force stays in force");
                    Err(NotRunnable::UnknownSigner { key: request.key() }.into())
                }
            };
        }
        let checked = checked?;
        let (kernel, kind) = self.kernel_for(&checked.span, checked.origin).await?;
        Ok((checked, kernel, kind))
    }

    /// Makes the checks that are needed before this host signs the next version of a request. The version and the first version
    /// verify, are signed by keys that may sign them, and have the shape of a request. The result says who signed the first
    /// one.
    pub(super) async fn check(&self, request: &SignedSpan) -> Result<Checked, HostError> {
        let inner = &self.inner;
        if let Err(error @ NotRunnable::NotARequest { .. }) = lifecycle::check_shape(request, &inner.rules) {
            return Err(error.into());
        }
        let span = request.clone().verify(&mut Verifier::new())?;
        let trusted = self.trusted();
        let authorities = &trusted.authorities;
        authorities.check(&span)?;
        let state = lifecycle::check_shape(&span, &inner.rules)?;
        let is = |role, first: &VerifiedSpan| authorities.had_role(first, role);
        let signed_by = |first: &VerifiedSpan| (is(Role::Runtime, first), is(Role::Publisher, first));
        let ((is_by_host, is_by_publisher), asked) = if span.prev_hash.is_none() {
            (signed_by(&span), state.terms.clone())
        } else {
            let tenant = &span.tenant_id;
            let first = inner.ledger.history(&Scope::runtime(tenant), tenant, span.id, 0, 1).await?.into_iter().next();
            let not_found = || LedgerError::NotFound { tenant: tenant.clone(), id: span.id };
            let first = first.ok_or_else(not_found)?.verify(&mut Verifier::new())?;
            authorities.check(&first)?;
            let asked = lifecycle::check_shape(&first, &inner.rules)?.terms;
            (signed_by(&first), asked)
        };
        let (priority, max) = (asked.priority.unwrap_or(DEFAULT_PRIORITY), trusted.manifest.throttle.member_max_priority);
        if let Some(max) = max.filter(|max| priority > *max && !is_by_host && !is_by_publisher) {
            return Err(NotRunnable::PriorityTooHigh { key: span.key(), priority, max }.into());
        }
        let origin = if is_by_host { Origin::Host } else { Origin::Others };
        Ok(Checked { span, state, origin })
    }

    /// The kernel of this host that carries out such requests, if the manifest allows it.
    async fn kernel_for(&self, request: &SignedSpan, origin: Origin) -> Result<(Arc<dyn Kernel>, RequestKind), HostError> {
        let (key, this) = (request.key(), request.this.clone());
        let kernels = self.inner.installed.kernels.iter();
        let mut found = kernels.filter_map(|kernel| Some((kernel, kernel.requests().iter().find(|kind| kind.this == this)?)));
        let Some((kernel, kind)) = found.next() else {
            let declared = self.declared_kinds().await?;
            return Err(match declared.get(&this) {
                Some(AskedBy::Hosts) if origin != Origin::Host => NotRunnable::NotPermitted { key, this },
                // Another host carries it out. This host must go on with other requests.
                Some(_) => NotRunnable::NoKernel { key, this },
                None => NotRunnable::UnknownKind { key, this },
            }
            .into());
        };
        if kind.asked_by == AskedBy::Hosts && origin != Origin::Host {
            return Err(NotRunnable::NotPermitted { key, this }.into());
        }
        if !self.trusted().manifest.allowed_boot_ids.contains(&kernel.id()) {
            return Err(NotRunnable::NoKernel { key, this }.into());
        }
        Ok((Arc::clone(kernel), *kind))
    }

    /// The kinds of requests that the kernels of the manifest carry out, and who may ask, as their signed spans declare it:
    /// `metadata.requests` for anybody, `metadata.host_requests` for hosts.
    async fn declared_kinds(&self) -> Result<Arc<Kinds>, HostError> {
        let trusted = self.trusted();
        let manifest = trusted.span.seal.curr_hash;
        if let Some((_, kinds)) = self.declared().as_ref().filter(|(under, _)| *under == manifest) {
            return Ok(Arc::clone(kinds));
        }
        let (scope, mut kinds) = (Scope::runtime(SYSTEM_TENANT), Kinds::new());
        for id in &trusted.manifest.allowed_boot_ids {
            let now = self.inner.clock.now();
            let Some(in_force) = self.in_force(&trusted, &scope, SYSTEM_TENANT, *id, now).await? else { continue };
            let span = in_force.span;
            let Ok(span) = span.verify(&mut Verifier::new()) else { continue };
            if trusted.authorities.check(&span).is_err() {
                continue;
            }
            for (member, asked_by) in [("requests", AskedBy::Anybody), ("host_requests", AskedBy::Hosts)] {
                let declared = span.meta(member).and_then(Value::as_array).into_iter().flatten();
                kinds.extend(declared.filter_map(Value::as_str).map(|this| (this.to_owned(), asked_by)));
            }
        }
        let kinds = Arc::new(kinds);
        let mut declared = self.declared();
        // As in `boot`.
        if Arc::ptr_eq(&trusted, &self.trusted()) {
            *declared = Some((manifest, Arc::clone(&kinds)));
        }
        Ok(kinds)
    }

    /// The version in force of what a request names. `None` if there is none that may be used: the kernel reports why.
    async fn in_force(
        &self,
        trusted: &Trusted,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<InForce>, LedgerError> {
        let Some(last) = self.inner.ledger.find(scope, tenant, id).await? else { return Ok(None) };
        let last = trusted.last_that_counts(&self.inner.ledger, scope, last).await?;
        match trusted.in_force(&self.inner.ledger, scope, last, now).await {
            Ok(in_force) => Ok(Some(in_force)),
            Err(error) => error.refusal().map(|_| None),
        }
    }

    /// The verified function with this hash. `None` if it does not verify or has another hash by now: the kernel reports why.
    async fn function(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        hash: Hash,
    ) -> Result<Option<Arc<VerifiedSpan>>, LedgerError> {
        let functions = || self.inner.functions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = functions().find(&hash).filter(|known| known.id == id && known.tenant_id == tenant) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(found) = self.inner.ledger.find(scope, tenant, id).await? else { return Ok(None) };
        let Ok(verified) = found.verify(&mut Verifier::new()) else { return Ok(None) };
        if verified.seal.curr_hash != hash {
            return Ok(None);
        }
        let verified = Arc::new(verified);
        functions().keep(hash, Arc::clone(&verified));
        Ok(Some(verified))
    }
}

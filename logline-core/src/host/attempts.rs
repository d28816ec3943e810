//! Attempts of a host at requests: taking one, carrying it out, ending it otherwise.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use serde_json::Value;
use uuid::Uuid;

use super::{Host, HostError};
use crate::draft::Draft;
use crate::driver::{AdmitError, Driver};
use crate::hex::Hash;
use crate::ids;
use crate::kernel::{Attempt, Context, Reader};
use crate::keys::{Signer, Verifier};
use crate::ledger::{
    AppendOptions, Charges, Due, Ledger as _, LedgerError, LedgerExt as _, Limit, Retry, Work, WorkQueue as _,
};
use crate::request::{self, NotRunnable, Request, Terms};
use crate::roles::Role;
use crate::sandbox::Failure;
use crate::scope::Scope;
use crate::seal::VerifiedSpan;
use crate::span::SignedSpan;
use crate::stage0::Booted;
use crate::timestamp::Timestamp;
use crate::trust::Trusted;

/// The quota of attempts that a manifest may limit.
pub const EXECUTIONS_QUOTA: &str = "exec.per_tenant.daily";

/// The quota of fuel that a manifest may limit.
pub const FUEL_QUOTA: &str = "fuel.per_tenant.daily";

/// What a lease allows for besides the function's own time: compiling it, and committing the result.
const LEASE_MARGIN: Duration = Duration::from_secs(45);

/// How often a finished attempt is handed to a ledger that is unavailable.
const COMMIT_TRIES: u32 = 3;

/// A request that this host has taken.
pub struct Claim {
    running: Arc<VerifiedSpan>,
    attempt: Attempt,
    /// When it began, by this host's clock.
    began: Timestamp,
    booted: Booted,
    trusted: Arc<Trusted>,
    function: Option<Arc<VerifiedSpan>>,
}

impl Claim {
    /// The version with which it was taken.
    #[must_use]
    pub fn running(&self) -> &Arc<VerifiedSpan> {
        &self.running
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// What a heartbeat is for.
    #[must_use]
    pub fn work(&self) -> Work {
        Work::of(&self.running)
    }
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
    /// Submits a request and carries it out. One that had been submitted with the same idempotency key and has ended is not run
    /// again: its recorded execution is returned.
    ///
    /// # Errors
    /// Reasons of the host. What the function did wrong is in [`Execution::result`].
    pub async fn execute(&self, request: Request) -> Result<Execution, HostError> {
        let request = self.submit(request).await?;
        match self.run_request(&request.tenant_id, request.id).await {
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
        // What was recorded first: a later version is not what came of the attempt.
        let Some(span) = ledger.history(&scope, tenant, execution, 0, 1).await?.into_iter().next() else { return Ok(None) };
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
    pub async fn run_request(&self, tenant: &str, request: Uuid) -> Result<Execution, HostError> {
        let inner = &self.inner;
        let request = inner.ledger.get(&Scope::runtime(tenant), tenant, request).await?;
        if request.entity_type == "request" && matches!(request.status.as_deref(), Some("scheduled" | "running")) {
            let is_open = request.status.as_deref() == Some("scheduled") || request.prev_hash.is_some();
            if is_open && !inner.ledger.is_due(&Work::of(&request)).await? {
                let status = request.status.clone().unwrap_or_default();
                return Err(NotRunnable::NotDue { key: request.key(), status }.into());
            }
        }
        let now = inner.ledger.now().await?;
        // Nobody extends this lease, so it lasts as long as the function may take.
        let lease = inner.lease.max(Duration::from_millis(self.trusted().manifest.limits_of(tenant).timeout_ms) + LEASE_MARGIN);
        let claim = self.claim(Due { request, function: None }, now, lease).await?;
        self.finish(claim).await
    }

    /// Takes a due request: appends its `running` version. `now` is the ledger's time. A request that can never run, or has no
    /// attempt left, is closed instead; one whose tenant has used its quota is put off to the next day.
    ///
    /// # Errors
    /// Why it was closed or put off; a conflict where another worker was faster.
    pub async fn claim(&self, due: Due, now: Timestamp, lease: Duration) -> Result<Claim, HostError> {
        let inner = &self.inner;
        let Due { mut request, function } = due;
        let mut checked = self.check_request(&request);
        if matches!(checked, Err(HostError::NotAuthorised(_))) {
            // Its signer may have been named since this host looked.
            self.refresh().await?;
            checked = self.check_request(&request);
        }
        let kernel = request::kernel(&request);
        if checked.is_ok() {
            checked = self.check_origin(&mut request, kernel).await?;
        }
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let (scope, signer) = (Scope::runtime(request.tenant_id.clone()), inner.signer.as_ref());
        if let Err(error) = checked {
            // Left as it is, it would be found at every poll.
            if let Some(code) = error.refusal() {
                let refusal = request::refuse(&request, &Failure::new(code, error.to_string()), now);
                driver.write(&scope, vec![refusal], signer, &AppendOptions::default()).await?;
            }
            return Err(error);
        }
        // Whatever a request asks for, it must not keep a host from other requests.
        if kernel != ids::RUN_CODE && !self.has_kernel(kernel, "policy_agent") {
            return Err(NotRunnable::NoKernel { key: request.key(), kernel }.into());
        }
        let booted = self.boot(kernel).await?;
        let throttle = &trusted.manifest.throttle;
        let per_day = throttle.per_tenant_daily_exec_limit;
        let is_counted = per_day.is_some() || throttle.per_tenant_daily_fuel.is_some();
        let function = match (function, request.parent_id) {
            (Some(hash), Some(id)) => self.function(&scope, &request.tenant_id, id, hash).await?,
            // Whether it is exempt from the quota is the function's to say.
            (None, Some(id)) if is_counted => {
                let found = inner.ledger.find(&scope, &request.tenant_id, id).await?;
                found.and_then(|found| found.verify(&mut Verifier::new()).ok()).map(Arc::new)
            }
            _ => None,
        };
        let is_forced = function.as_ref().is_some_and(|function| trusted.manifest.is_forced(function));
        if let Some(per_day) = throttle.per_tenant_daily_fuel.filter(|_| kernel == ids::RUN_CODE && !is_forced)
            && inner.ledger.used(&request.tenant_id, FUEL_QUOTA).await? >= per_day
        {
            return Err(self.deny(&driver, &scope, &request, (FUEL_QUOTA, per_day), now.day(), now).await?.into());
        }
        let fuel = throttle.per_tenant_daily_fuel.filter(|_| kernel == ids::RUN_CODE).map(|_| {
            let limits = function.as_ref().and_then(|function| trusted.manifest.limits_for(function).ok());
            limits.unwrap_or_else(|| trusted.manifest.limits_of(&request.tenant_id)).fuel
        });
        let mut terms = Terms { worker: signer.public_key(), now, lease, charges: None, fuel };
        loop {
            let mut options = AppendOptions::default();
            // What policies look at again is no execution of a function.
            if let Some(per_day) = per_day.filter(|_| kernel == ids::RUN_CODE) {
                terms.charges = Some(Charges::new(terms.now.day(), [EXECUTIONS_QUOTA]));
                if !is_forced {
                    let (tenant, key) = (request.tenant_id.clone(), EXECUTIONS_QUOTA.to_owned());
                    options.limits.push(Limit { tenant, key, per_day });
                }
            }
            let (attempt, drafts) = match request::claim(&request, &terms)? {
                request::Claim::Start { attempt, drafts } => (attempt, drafts),
                request::Claim::End { drafts, reason } => {
                    driver.write(&scope, drafts, signer, &AppendOptions::default()).await?;
                    return Err(reason.into());
                }
            };
            match driver.write(&scope, drafts, signer, &options).await {
                Ok((written, _)) => {
                    // INVARIANT: the running version is the last draft of a claim.
                    let running = written.into_iter().last().ok_or(HostError::Incomplete { part: "claim" })?;
                    let execution_id = ids::execution(&running.tenant_id, running.id, attempt);
                    let attempt = Attempt { number: attempt, started: terms.now, execution_id, worker: terms.worker };
                    let began = inner.clock.now();
                    return Ok(Claim { running: Arc::new(running), attempt, began, booted, trusted, function });
                }
                // Midnight has passed since `now`.
                Err(AdmitError::Ledger(LedgerError::WrongDay { today, .. })) if terms.now.day() < today => {
                    terms.now = inner.ledger.now().await?;
                }
                Err(AdmitError::Ledger(LedgerError::QuotaExceeded { per_day, day, .. })) => {
                    return Err(self
                        .deny(&driver, &scope, &request, (EXECUTIONS_QUOTA, per_day), day, terms.now)
                        .await?
                        .into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether `function` may run once more today: the manifest sets no limit, it is exempt, or its tenant has not used the limit.
    /// A refusal is recorded, once a day. What is told may be over by the time of a claim, which decides.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn is_within_quota(&self, function: &VerifiedSpan) -> Result<bool, HostError> {
        let (trusted, ledger, tenant) = (self.trusted(), &self.inner.ledger, &function.tenant_id);
        if trusted.manifest.is_forced(function) {
            return Ok(true);
        }
        let throttle = &trusted.manifest.throttle;
        let limits = [(EXECUTIONS_QUOTA, throttle.per_tenant_daily_exec_limit), (FUEL_QUOTA, throttle.per_tenant_daily_fuel)];
        for (key, per_day) in limits {
            let Some(per_day) = per_day else { continue };
            if ledger.used(tenant, key).await? >= per_day {
                let (driver, now) = (self.driver(&trusted), ledger.now().await?);
                self.record_denial(&driver, &Scope::runtime(tenant), tenant, (key, per_day), now.day(), now).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records that a tenant has used its quota, once a day.
    async fn record_denial(
        &self,
        driver: &Driver<'_>,
        scope: &Scope,
        tenant: &str,
        (key, per_day): (&str, u64),
        day: NaiveDate,
        now: Timestamp,
    ) -> Result<(), HostError> {
        let violation = request::quota_violation(tenant, key, per_day, day).at(now);
        match driver.write(scope, vec![violation], self.inner.signer.as_ref(), &AppendOptions::keep()).await {
            // The first of the day stands, whatever limit it was about.
            Ok(_) | Err(AdmitError::Ledger(LedgerError::KeepMismatch { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that a tenant has used its quota, and puts the request off to the next day.
    async fn deny(
        &self,
        driver: &Driver<'_>,
        scope: &Scope,
        request: &SignedSpan,
        (key, per_day): (&str, u64),
        day: NaiveDate,
        now: Timestamp,
    ) -> Result<NotRunnable, HostError> {
        let signer = self.inner.signer.as_ref();
        self.record_denial(driver, scope, &request.tenant_id, (key, per_day), day, now).await?;
        let until = Timestamp::start_of_day_after(day);
        let failure =
            Failure::new("quota_exceeded", format!("tenant `{}` has used its {per_day} of {key} of {day}", request.tenant_id));
        let deferred = request::defer(request, until, &failure, now);
        driver.write(scope, vec![deferred], signer, &AppendOptions::default()).await?;
        Ok(NotRunnable::Deferred { key: request.key(), until })
    }

    /// What only a host may say in a request, a request of others does not say: it is refused, or taken out before anything follows
    /// from it.
    async fn check_origin(&self, request: &mut SignedSpan, kernel: Uuid) -> Result<Result<(), HostError>, HostError> {
        if kernel == ids::RUN_CODE && request.prev_hash.is_some() {
            // It was looked at when it was first claimed.
            return Ok(Ok(()));
        }
        let (tenant, id) = (&request.tenant_id, request.id);
        let first = match &request.prev_hash {
            None => Some(request.clone()),
            Some(_) => self.inner.ledger.history(&Scope::runtime(tenant), tenant, id, 0, 1).await?.into_iter().next(),
        };
        let first = first.and_then(|first| first.verify(&mut Verifier::new()).ok());
        let authorities = &self.trusted().authorities;
        if first.is_some_and(|first| authorities.has(&first.seal.public_key, Role::Runtime, tenant, first.at)) {
            return Ok(Ok(()));
        }
        if kernel != ids::RUN_CODE {
            return Ok(Err(NotRunnable::NotPermitted { key: request.key(), this: request.this.clone() }.into()));
        }
        request::forget_kept(request);
        Ok(Ok(()))
    }

    /// What a request must be before anything is done for it.
    fn check_request(&self, request: &SignedSpan) -> Result<(), HostError> {
        if let Err(malformed @ NotRunnable::NotARequest { .. }) = request::check_first(request, &self.inner.rules) {
            return Err(malformed.into());
        }
        let verified = request.clone().verify(&mut Verifier::new())?;
        self.trusted().authorities.check(&verified)?;
        Ok(request::check_first(request, &self.inner.rules)?)
    }

    /// The verified function with this hash; `None` where it does not verify or is another by now, for the kernel to find out.
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

    /// Runs what was claimed and commits the execution, everything it emitted and the request's next version in one batch. If
    /// this future is dropped nothing of it is stored.
    ///
    /// # Errors
    /// Reasons of the host; a conflict where the claim was lost. What the function did wrong is in [`Execution::result`].
    #[tracing::instrument(skip_all, fields(tenant = claim.running.tenant_id, request = %claim.running.id, attempt = claim.attempt.number, trace_id = claim.running.trace_id), err(level = "debug"))]
    pub async fn finish(&self, claim: Claim) -> Result<Execution, HostError> {
        let inner = &self.inner;
        let Claim { running, attempt, began, booted, trusted, function } = claim;
        let (tenant, scope) = (&running.tenant_id, Scope::runtime(running.tenant_id.clone()));
        let context = Context {
            runtime: Reader::new(&inner.ledger, scope.clone()),
            owner: Reader::new(&inner.ledger, Scope::user(tenant, running.owner_id.clone())),
            trusted: &trusted,
            sandboxes: &inner.sandboxes,
            clock: inner.clock.as_ref(),
            attempt,
            began,
            kernel: &booted.span,
            function: function.as_deref(),
            rules: inner.rules,
        };
        let kernel =
            booted.kernel.as_ref().ok_or(HostError::Incomplete { part: "code of the kernel that the request needs" })?;
        let effects = kernel.run(&running, &context).await?;
        // The ledger's time: what it was at the claim, and what has passed here since.
        let now = attempt.started.saturating_add(inner.clock.now().since(began));
        let mut drafts = effects.drafts;
        // Counted where a limit is set: each counter is a row that the tenant's attempts share.
        let used_up = trusted.manifest.throttle.per_tenant_daily_fuel.and_then(|_| {
            let execution = drafts.iter().find(|draft| draft.columns().id == attempt.execution_id)?;
            let fuel = execution.columns().meta("receipt")?.get("fuel_used")?.as_u64()?;
            Some(Charges::of_attempt(now.day(), FUEL_QUOTA, fuel))
        });
        drafts.push(request::close(&running, &effects.result, attempt.execution_id, used_up, now));
        let driver = self.driver(&trusted);
        let mut written = commit(&driver, &scope, drafts, inner.signer.as_ref()).await?;
        let closing = written.pop().ok_or(HostError::Incomplete { part: "closing version" })?;
        let execution = written.into_iter().find(|span| span.id == attempt.execution_id);
        let span = execution.ok_or(HostError::Incomplete { part: "execution among the kernel's effects" })?;
        tracing::debug!(execution = %attempt.execution_id, ok = effects.result.is_ok(), "attempt recorded");
        Ok(Execution { result: effects.result, span, request: closing })
    }

    /// Gives back what was claimed and will not be finished: its attempt ends without a result, and the next may begin at once.
    ///
    /// # Errors
    /// A conflict where the attempt has ended meanwhile.
    pub async fn hand_back(&self, running: &VerifiedSpan) -> Result<VerifiedSpan, HostError> {
        let drafts = request::hand_back(running, self.inner.ledger.now().await?);
        self.write_last(&running.tenant_id, drafts).await
    }

    /// Ends a request that has not ended. If it is running its attempt is recorded as cancelled; the worker stops at its next
    /// heartbeat, and what it still returns is refused.
    ///
    /// # Errors
    /// [`NotRunnable::Ended`]; a conflict where it changed meanwhile.
    pub async fn cancel(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let mut request = self.request(tenant, request).await?.into_signed();
        self.check_origin(&mut request, ids::RUN_CODE).await??;
        let now = self.inner.ledger.now().await?;
        let used_up = request::fuel_allowed(&request).map(|fuel| Charges::of_attempt(now.day(), FUEL_QUOTA, fuel));
        self.write_last(tenant, request::cancel(&request, who, used_up, now)?).await
    }

    /// Schedules a request again that is dead, cancelled or ended in error, with as many attempts as it had at first and
    /// without its deadline.
    ///
    /// # Errors
    /// [`NotRunnable::NotEnded`]; a conflict where it changed meanwhile.
    pub async fn revive(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let request = self.request(tenant, request).await?;
        let draft = request::revive(&request, who, self.inner.ledger.now().await?)?;
        self.write_last(tenant, vec![draft]).await
    }

    async fn request(&self, tenant: &str, id: Uuid) -> Result<VerifiedSpan, HostError> {
        let request = self.inner.ledger.get(&Scope::runtime(tenant), tenant, id).await?.verify(&mut Verifier::new())?;
        if request.entity_type != "request" {
            let entity_type = request.entity_type.clone();
            return Err(NotRunnable::NotARequest { key: request.key(), entity_type }.into());
        }
        Ok(request)
    }

    /// Writes a batch with this host's key; the last span of it.
    async fn write_last(&self, tenant: &str, drafts: Vec<Draft>) -> Result<VerifiedSpan, HostError> {
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let scope = Scope::runtime(tenant);
        let (written, _) = driver.write(&scope, drafts, self.inner.signer.as_ref(), &AppendOptions::default()).await?;
        written.into_iter().last().ok_or(HostError::Incomplete { part: "span" })
    }
}

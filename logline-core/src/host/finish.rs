//! Carries out a claimed request, and records the attempt in one batch.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::contract::{Context, Effects, Reader};
use crate::host::confidential::hide_result;
use crate::host::driver::{AdmitError, Driver};
use crate::host::functions::InnerRequests;
use crate::host::outside::RecordedCalls;
use crate::host::quotas::FUEL_QUOTA;
use crate::host::submit::trace_request;
use crate::host::{Claim, Host, HostError, publish};
use crate::keys::{Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Due, Ledger as _, LedgerError, Premise, Retry, WatchFrom, Work, WorkQueue as _};
use crate::request::lifecycle::{self, Open, Origin};
use crate::request::{self, Charges, Frame, NotRunnable, Phase, Recorded, Request, State, record, reference};
use crate::span::draft::Draft;
use crate::span::rules::MAX_INTEGER;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey};
use crate::value::failure::Failure;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The time that a lease allows in addition to the function's timeout: for compiling, and for committing the result.
const LEASE_MARGIN: Duration = Duration::from_secs(45);

/// How often the host tries to commit a finished attempt if the ledger is unavailable.
const COMMIT_TRIES: u32 = 3;

/// How often a kernel runs again in one attempt, if others were faster with a span that it wrote.
const RUNS: u32 = 16;

/// The recorded result of a request that was carried out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// The output, or the failure.
    pub result: Result<Value, Failure>,
    /// The signed record of the attempt.
    pub span: VerifiedSpan,
    /// The version of the request that ended the attempt.
    pub request: VerifiedSpan,
}

impl Execution {
    /// When the next attempt is due. `None` if this one was the last, so that its result is final.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        let state = State::of(&self.request).ok().filter(|state| state.phase == Phase::Scheduled)?;
        Some(state.terms.due_at.unwrap_or(self.request.at))
    }
}

/// Writes the end of an attempt. It retries, because otherwise the computed result would be lost.
async fn commit(
    driver: &Driver<'_>,
    scope: &Scope,
    drafts: Vec<Draft>,
    signer: &dyn Signer,
    keeps: bool,
    premises: &[Premise],
) -> Result<Vec<VerifiedSpan>, AdmitError> {
    let mut tries = 1;
    loop {
        match driver.write(scope, drafts.clone(), signer, &AppendOptions::default().premises(premises.to_vec())).await {
            // Perhaps another attempt has written what this one emits. If the claim is lost, this fails as well.
            Err(conflict @ AdmitError::Ledger(LedgerError::Conflict(_))) if keeps => {
                let kept = driver.write(scope, drafts, signer, &AppendOptions::keep().premises(premises.to_vec())).await;
                return if matches!(kept, Err(AdmitError::Ledger(LedgerError::KeepMismatch { .. }))) {
                    Err(conflict)
                } else {
                    kept
                };
            }
            Err(AdmitError::Ledger(error)) if error.retry() == Retry::Later && tries < COMMIT_TRIES => {
                tracing::warn!(%error, tries, "the end of an attempt could not be committed, retrying");
                tries += 1;
            }
            written => return written,
        }
    }
}

impl Host {
    /// Submits a request and carries it out. If a request with the same idempotency key was submitted before and has ended, it
    /// is not run again: the recorded execution is returned. If a worker has taken it, this waits for the end of the attempt
    /// ([`Host::outcome`]).
    ///
    /// # Errors
    /// If the host has no kernel or sandbox for it; nothing is stored then. After any other error it may be stored, and a worker will run it: give
    /// it an idempotency key if you call again. [`NotRunnable::NotDue`] at once if the request is for a later time, [`NotRunnable::Deferred`] if
    /// its tenant has used up a quota. If the host could not carry it out. A failure of the function is not an error: it is in [`Execution::result`].
    pub async fn execute(&self, request: Request) -> Result<Execution, HostError> {
        self.check_equipped(&request.this)?;
        let request = self.submit(request).await?;
        match Box::pin(self.run_request(&request.tenant_id, request.id)).await {
            Err(HostError::NotRunnable(NotRunnable::NotDue { key, status })) if status == Phase::Scheduled.as_str() => {
                match self.recorded(&request).await? {
                    // It waits for its next attempt.
                    Some(execution) => Ok(execution),
                    None => match self.waits(&request, key, status).await? {
                        Some(reason) => Err(reason.into()),
                        None => self.outcome(&request.tenant_id, request.id).await,
                    },
                }
            }
            // A worker has it, or had it: its outcome is this call's.
            Err(HostError::NotRunnable(NotRunnable::Ended { .. } | NotRunnable::NotDue { .. })) => {
                self.outcome(&request.tenant_id, request.id).await
            }
            Err(error) if error.is_conflict() => self.outcome(&request.tenant_id, request.id).await,
            executed => executed,
        }
    }

    /// Why nobody carries out a request that is not due: it is for a later time, or parked. `None` if a worker has it: one that is
    /// about to claim it, or that has done so meanwhile.
    async fn waits(&self, request: &VerifiedSpan, key: SpanKey, status: String) -> Result<Option<NotRunnable>, HostError> {
        let ledger = &self.inner.ledger;
        let Some(waiting) = ledger.waiting(&request.tenant_id, request.id).await? else { return Ok(None) };
        if waiting.parked.is_some() {
            return Ok(Some(match waiting.due {
                Some(until) => NotRunnable::Deferred { key, until },
                None => NotRunnable::NotDue { key, status },
            }));
        }
        let last = ledger.get(&Scope::runtime(&request.tenant_id), &request.tenant_id, request.id).await?;
        let state = State::of(&last).ok().filter(|state| state.phase == Phase::Scheduled);
        let due = state.and_then(|state| state.terms.due_at);
        let is_later = due > Some(ledger.now().await?);
        Ok(is_later.then_some(NotRunnable::NotDue { key, status }))
    }

    /// Waits until a request has ended or will be tried again later, whoever carries it out, and returns its last attempt. The wait
    /// follows the ledger; if no worker takes the request, it does not end.
    ///
    /// [`Execution::retry_at`] says whether another attempt follows.
    ///
    /// # Errors
    /// [`NotRunnable::Ended`] if the request ended without an attempt; the ledger's.
    pub async fn outcome(&self, tenant: &str, request: uuid::Uuid) -> Result<Execution, HostError> {
        let (ledger, scope) = (&self.inner.ledger, Scope::runtime(tenant));
        // From before the first look, so that no version is missed.
        let mut watch = ledger.watch(&scope, WatchFrom::Now).await?;
        loop {
            let last = ledger.get(&scope, tenant, request).await?.verify(&mut Verifier::new())?;
            let state = State::of(&last).map_err(|unreadable| {
                let (key, reason) = (last.key(), unreadable.to_string());
                NotRunnable::Malformed { key, reason }
            })?;
            let has_ended = !matches!(state.phase, Phase::Scheduled | Phase::Running);
            let waits_for_retry = state.phase == Phase::Scheduled && state.attempts > 0 && state.execution.is_some();
            if has_ended || waits_for_retry {
                let ended = NotRunnable::Ended { key: last.key(), status: state.phase.as_str().to_owned() };
                return self.recorded(&last).await?.ok_or(HostError::NotRunnable(ended));
            }
            loop {
                let row = watch.next().await.ok_or(LedgerError::Closed)??;
                if row.span.id == request && row.span.tenant_id == tenant {
                    break;
                }
            }
        }
    }

    /// The recorded result of a request, if it has one.
    pub(super) async fn recorded(&self, request: &VerifiedSpan) -> Result<Option<Execution>, HostError> {
        let (ledger, scope) = (&self.inner.ledger, Scope::runtime(request.tenant_id.clone()));
        let tenant = &request.tenant_id;
        let closing = ledger.get(&scope, tenant, request.id).await?.verify(&mut Verifier::new())?;
        let Some(execution) = State::of(&closing).ok().and_then(|state| state.execution) else { return Ok(None) };
        // Only the first version of an execution is the record of the attempt.
        let Some(span) = ledger.history(&scope, tenant, execution, 0, 1).await?.into_iter().next() else { return Ok(None) };
        let span = span.verify(&mut Verifier::new())?;
        let Some(Recorded { result, .. }) = Recorded::of(&span) else { return Ok(None) };
        let is_confidential = State::of(&closing).is_ok_and(|state| state.terms.confidential);
        let result = if is_confidential { self.open_result(&span, result).await? } else { result };
        Ok(Some(Execution { result, span, request: closing }))
    }

    /// Carries out a submitted request at once: claims it, runs its kernel, and commits the execution, everything it emitted
    /// and the request's next version in one batch.
    ///
    /// If the lease of another worker has ended, its attempt is recorded as lost in the same batch as the new claim. If this
    /// future is dropped or the host fails, the request stays `running` until its lease ends. Then it can be run again.
    ///
    /// # Errors
    /// If the host could not carry it out. A failure of the function is not an error: it is in [`Execution::result`].
    pub async fn run_request(&self, tenant: &str, request: uuid::Uuid) -> Result<Execution, HostError> {
        let inner = &self.inner;
        let request = inner.ledger.get(&Scope::runtime(tenant), tenant, request).await?;
        let phase = Phase::of(&request).filter(|_| request.entity_type == "request");
        let is_open = match phase {
            Some(Phase::Scheduled) => true,
            Some(Phase::Running) => request.prev_hash.is_some(),
            _ => false,
        };
        if is_open && !inner.ledger.is_due(&Work::of(&request)).await? {
            let status = request.status.clone().unwrap_or_default();
            return Err(NotRunnable::NotDue { key: request.key(), status }.into());
        }
        let now = inner.ledger.now().await?;
        // Nothing extends this lease, so it must last as long as the function may take.
        let lease = inner.lease.max(Duration::from_millis(self.trusted().manifest.limits_of(tenant).timeout_ms) + LEASE_MARGIN);
        // On the heap: what carries out a request is large, and a caller's stack may be small.
        let claim = Box::pin(self.claim(Due { request, function: None }, now, lease)).await?;
        Box::pin(self.finish(claim)).await
    }

    /// Runs a claimed request and commits the execution, everything it emitted and the request's next version in one batch. If
    /// this future is dropped, nothing is stored except calls to the outside, which are recorded when they are made.
    ///
    /// # Errors
    /// If the host could not carry it out; a conflict if the claim was lost. A failure of the function is not an error: it is
    /// in [`Execution::result`].
    #[tracing::instrument(name = "attempt", skip_all, fields(tenant = claim.running.tenant_id, request = %claim.running.id, attempt = claim.attempt.number, trace_id = claim.running.trace_id, outcome), err(level = "debug"))]
    pub async fn finish(&self, claim: Claim) -> Result<Execution, HostError> {
        let inner = &self.inner;
        let Claim { running, kind, attempt, began, kernel, booted, trusted, function, promotion } = claim;
        let (tenant, scope) = (&running.tenant_id, Scope::runtime(running.tenant_id.clone()));
        let driver = self.driver(&trusted);
        let unreadable = |_| HostError::Internal { what: "a claim that cannot be read" };
        let open = Open::new(&running, State::of(&running).map_err(unreadable)?, Origin::Host);
        let opened = self.open_request(&running, &open.state, kernel.as_ref()).await?;
        let confidential = opened.as_ref().map(|opened| &opened.key);
        let input = match &opened {
            None => Ok(running.input.as_ref()),
            Some(opened) => opened.input.as_ref().map(Option::as_ref),
        };
        let outside = RecordedCalls::new(self, &running, &open.state, attempt, confidential);
        let functions =
            InnerRequests { host: self, running: &running, kernel: kernel.name(), state: &open.state, outside: &outside };
        let context = Context {
            runtime: Reader::new(&inner.ledger, scope.clone()),
            owner: Reader::new(&inner.ledger, Scope::user(tenant, running.owner_id.clone())),
            trusted: &trusted,
            current_trust: self,
            sandboxes: &inner.sandboxes,
            clock: inner.clock.as_ref(),
            attempt,
            began,
            kernel: &booted.span,
            function: function.as_deref(),
            promotion,
            input: input.ok().flatten(),
            confidential,
            rules: inner.rules,
            outside: &outside,
            functions: &functions,
        };
        let mut runs = 1;
        let (mut written, may_come, result) = loop {
            let effects = match input {
                Ok(_) => kernel.run(&running, &context).await?,
                Err(failure) => Effects::new(Err(Failure::clone(failure))),
            };
            let Effects { mut result, mut execution, mut emitted, usage, keeps, mut premises } = effects;
            if result.is_ok() && runs > RUNS {
                let reason = "other writers were faster each time with a span that this attempt wrote: try again";
                (result, emitted) = (Err(Failure::new("conflict", reason)), Vec::new());
            }
            let (at, elapsed) = (inner.clock.now(), inner.clock.now().since(began));
            // The ledger's time: its time at the claim, plus the time that has passed on this host since.
            let now = attempt.started.saturating_add(elapsed);
            let frame = Frame {
                kernel_name: kernel.name().to_owned(),
                kernel: reference(&booted.span),
                attempt: attempt.number,
                worker: attempt.worker.to_string(),
                at,
                duration_ms: u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).min(MAX_INTEGER),
            };
            let mut hidden = match confidential {
                None => None,
                Some(key) => Some(hide_result(key, attempt.execution_id, &mut result, &mut execution.metadata).await?),
            };
            let stored = hidden.as_mut().unwrap_or(&mut result);
            let mut drafts = vec![record(&running, &frame, &mut execution, stored, &inner.rules)];
            if let Some(Err(failure)) = &hidden
                && result.is_ok()
            {
                // The record of the attempt could not hold the output.
                result = Err(failure.clone());
            }
            // The spans that a failed attempt emitted are not stored.
            if result.is_ok() {
                drafts.extend(emitted);
            } else {
                // The record of a failure relies on nothing.
                premises.clear();
            }
            let slow_ms = trusted.manifest.times.slow_ms;
            if u64::from(frame.duration_ms) > slow_ms {
                drafts.push(slow_mark(&running, &frame, attempt.execution_id, slow_ms));
            }
            let (unfinished, may_come) = outside.unfinished().await?;
            drafts.extend(unfinished);
            // Counted only if a limit is set: each counter is one row that all attempts of the tenant update.
            let is_counted = kind.meters.fuel && trusted.manifest.throttle.per_tenant_daily_fuel.is_some();
            let used = usage.fuel.filter(|_| is_counted).map(|fuel| Charges::of_attempt(now.day(), FUEL_QUOTA, fuel));
            drafts.push(lifecycle::close(&open, hidden.as_ref().unwrap_or(&result), attempt.execution_id, used.as_ref(), now));
            match commit(&driver, &scope, drafts, inner.signer.as_ref(), keeps, &premises).await {
                // Somebody else has written the next version of a span that the kernel wrote or relied on. It reads again and decides again, unless
                // it has called the outside: calls are made once.
                Err(AdmitError::Ledger(LedgerError::Conflict(conflict)))
                    if conflict.key().id != running.id && outside.has_made_none() && runs <= RUNS =>
                {
                    tracing::debug!(%conflict, runs, "an attempt runs again");
                    runs += 1;
                }
                written => break (written?.into_iter(), may_come, result),
            }
        };
        if may_come {
            self.close_late_calls(&running).await;
        }
        let incomplete = HostError::Internal { what: "an attempt without a record or an end" };
        // INVARIANT: the record of the attempt is the first draft, the closing version the last.
        let (Some(span), Some(request)) = (written.next(), written.next_back()) else { return Err(incomplete) };
        written.filter(|span| span.entity_type == "request").for_each(|request| trace_request(&request));
        tracing::Span::current().record("outcome", if result.is_ok() { "ok" } else { "error" });
        tracing::debug!(execution = %attempt.execution_id, ok = result.is_ok(), "attempt recorded");
        Ok(Execution { result, span, request })
    }

    /// Writes a batch of `tenant` with this host's key. Returns its last span.
    pub(super) async fn write_last(&self, tenant: &str, drafts: Vec<Draft>) -> Result<VerifiedSpan, HostError> {
        publish::last(self.record(tenant, drafts, &AppendOptions::default()).await?)
    }
}

/// Drafts the mark of an execution that took longer than the manifest's `policy.slow_ms`.
fn slow_mark(running: &SignedSpan, frame: &Frame, execution: uuid::Uuid, slow_ms: u64) -> Draft {
    let mut draft = Draft::new("status_patch")
        .id(ids::derive("status_patch", &[&execution.to_string(), "slow"]))
        .at(frame.at)
        .tenant(&running.tenant_id)
        .owner(&running.owner_id)
        .visibility(running.visibility)
        .who(format!("kernel:{}", frame.kernel_name))
        .did("marked")
        .this("execution.slow")
        .parent(execution)
        .related([execution])
        .status("slow")
        .duration_ms(frame.duration_ms)
        .metadata(json!({"slow_ms": slow_ms}));
    draft.columns_mut().trace_id.clone_from(&running.trace_id);
    match request::cause(running) {
        Some(cause) => draft.meta(request::CAUSE, cause.clone()),
        None => draft,
    }
}

//! Runs functions for a kernel: each is a request within the kernel's request.

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::contract::{FunctionCall, FunctionEnded, FunctionRun, Functions, KernelError, Outside as _};
use crate::host::driver::AdmitError;
use crate::host::outside::RecordedCalls;
use crate::host::{Execution, Host, HostError};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger as _, LedgerError};
use crate::request::call::MAX_NAME;
use crate::request::{self, FUNCTION_RUN, NotRunnable, Phase, Request, State, Within};
use crate::roles::Role;
use crate::span::seal::VerifiedSpan;
use crate::value::failure::Failure;

/// The requests within the request of one attempt.
pub(super) struct InnerRequests<'a> {
    pub(super) host: &'a Host,
    pub(super) running: &'a VerifiedSpan,
    /// The name of the kernel that carries the request out.
    pub(super) kernel: &'a str,
    pub(super) state: &'a State,
    pub(super) outside: &'a RecordedCalls<'a>,
}

#[async_trait]
impl Functions for InnerRequests<'_> {
    async fn run(&self, call: &FunctionCall) -> Result<FunctionRun, KernelError> {
        if self.state.terms.confidential {
            let reason = "a function keeps nothing confidential, and its input and output would stand in the clear";
            return Ok(failed(Failure::new("not_confidential", reason), None));
        }
        if call.key.is_empty() || call.key.len() > MAX_NAME || call.key.chars().any(char::is_control) {
            let reason = format!("the key of a call must have 1 to {MAX_NAME} bytes, and no control characters");
            return Ok(failed(Failure::new("invalid_call", reason), None));
        }
        // An attempt that another one has replaced begins nothing.
        if !self.outside.extend().await? {
            return Err(KernelError::LostClaim);
        }
        let within = self.within(&call.key);
        let id = within.id(&self.running.tenant_id);
        let first = match self.first(id).await? {
            Some(first) => first,
            None => match self.submit(call, within.clone()).await? {
                Ok(first) => first,
                Err(failure) => return Ok(failed(failure, None)),
            },
        };
        if let Err(reason) = self.check(&first, call, &within) {
            return Ok(failed(Failure::new("other_call", reason), Some(&first)));
        }
        self.carry_out(&first).await
    }

    async fn cancel(&self, key: &str) -> Result<(), KernelError> {
        let id = self.within(key).id(&self.running.tenant_id);
        if self.first(id).await?.is_none() {
            return Ok(());
        }
        match self.host.cancel(&self.running.tenant_id, id, &format!("kernel:{}", self.kernel)).await {
            Ok(_) | Err(HostError::NotRunnable(NotRunnable::Ended { .. })) => Ok(()),
            // It has just been claimed, or has just ended.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(of_host(error)),
        }
    }
}

impl InnerRequests<'_> {
    fn within(&self, key: &str) -> Within {
        Within { request: self.running.id, key: key.to_owned() }
    }

    fn scope(&self) -> Scope {
        Scope::runtime(self.running.tenant_id.clone())
    }

    /// The first version of the inner request, if it was made.
    async fn first(&self, id: Uuid) -> Result<Option<VerifiedSpan>, KernelError> {
        let tenant = &self.running.tenant_id;
        let found = self.host.inner.ledger.history(&self.scope(), tenant, id, 0, 1).await?;
        let Some(found) = found.into_iter().next() else { return Ok(None) };
        let key = found.key();
        let damaged = |reason: String| KernelError::Ledger(LedgerError::Damaged { row: key.to_string(), reason });
        found.verify(&mut Verifier::new()).map(Some).map_err(|error| damaged(error.to_string()))
    }

    async fn submit(&self, call: &FunctionCall, within: Within) -> Result<Result<VerifiedSpan, Failure>, KernelError> {
        let running = self.running;
        let mut inner = Request::new(&running.tenant_id, &running.owner_id, call.function, call.input.clone())
            .who(format!("kernel:{}", self.kernel))
            .visibility(running.visibility)
            .function_hash(call.version)
            .on_unknown(self.state.terms.on_unknown)
            .within(within.clone());
        inner.trace_id.clone_from(&running.trace_id);
        inner.terms.priority = self.state.terms.priority;
        inner.cause = request::cause(running).cloned();
        match self.host.submit(inner).await {
            Ok(first) => Ok(Ok(first)),
            // Another attempt has made it meanwhile.
            Err(error) if error.is_conflict() || error.is_keep_mismatch() => {
                let first = self.first(within.id(&running.tenant_id)).await?;
                first.map(Ok).ok_or_else(|| of_host(error))
            }
            Err(HostError::NotValid { reason, .. }) => Ok(Err(reason)),
            Err(error @ (HostError::NotRunnable(_) | HostError::Admit(AdmitError::Seal(_)))) => {
                Ok(Err(Failure::new("invalid_input", error.to_string())))
            }
            Err(error) => Err(of_host(error)),
        }
    }

    /// Whether the request that stands under the id is this call's. Anybody who can write requests can have taken the id, and an attempt
    /// that was asked something else can have used the key.
    fn check(&self, first: &VerifiedSpan, call: &FunctionCall, within: &Within) -> Result<(), String> {
        let authorities = &self.host.trusted().authorities;
        let is_hosts = authorities.check(first).is_ok() && authorities.had_role(first, Role::Runtime);
        let is_ours = first.owner_id == self.running.owner_id && first.this == FUNCTION_RUN;
        if first.entity_type != "request" || !is_hosts || !is_ours || Within::of(first).as_ref() != Some(within) {
            return Err(format!("request {} was not made by a host for this call", first.id));
        }
        if first.parent_id != Some(call.function) || first.input.as_ref() != Some(&call.input) {
            let reason =
                "an earlier attempt has used the key `{}` for another function or input, in request {}: it is not run again";
            return Err(reason.replacen("{}", &call.key, 1).replacen("{}", &first.id.to_string(), 1));
        }
        Ok(())
    }

    async fn carry_out(&self, first: &VerifiedSpan) -> Result<FunctionRun, KernelError> {
        let tenant = &self.running.tenant_id;
        match self.host.run_request(tenant, first.id).await {
            Ok(execution) => Ok(ended(first, &execution, false)),
            Err(HostError::NotRunnable(NotRunnable::Ended { .. })) => self.recorded(first).await,
            // Nobody would wait for it until tomorrow.
            Err(HostError::NotRunnable(reason @ NotRunnable::Deferred { .. })) => {
                self.cancel_of(first).await?;
                Ok(failed(Failure::new("quota", reason.to_string()), Some(first)))
            }
            Err(HostError::NotRunnable(
                NotRunnable::NotDue { .. } | NotRunnable::NotEquipped { .. } | NotRunnable::NoKernel { .. },
            )) => self.elsewhere(first).await,
            // The claim has closed the request: what it recorded says why.
            Err(HostError::NotRunnable(_) | HostError::NotVerified(_) | HostError::NotAuthorised(_)) => {
                self.recorded(first).await
            }
            Err(error) if error.is_conflict() => self.elsewhere(first).await,
            Err(error) => Err(of_host(error)),
        }
    }

    async fn cancel_of(&self, first: &VerifiedSpan) -> Result<(), KernelError> {
        match Within::of(first) {
            Some(within) => self.cancel(&within.key).await,
            None => Ok(()),
        }
    }

    /// What another host has recorded, or that it is not there yet.
    async fn elsewhere(&self, first: &VerifiedSpan) -> Result<FunctionRun, KernelError> {
        let last = self.host.inner.ledger.get(&self.scope(), &self.running.tenant_id, first.id).await?;
        match Phase::of(&last) {
            Some(Phase::Scheduled | Phase::Running) => Ok(FunctionRun::Elsewhere),
            _ => self.recorded(first).await,
        }
    }

    /// How a request that is closed has ended.
    async fn recorded(&self, first: &VerifiedSpan) -> Result<FunctionRun, KernelError> {
        if let Some(execution) = self.host.recorded(first).await.map_err(of_host)? {
            return Ok(ended(first, &execution, true));
        }
        let last = self.host.inner.ledger.get(&self.scope(), &self.running.tenant_id, first.id).await?;
        let status = last.status.clone().unwrap_or_default();
        let failure = match &last.error {
            Some(error) => Failure::from_value(error),
            None => Failure::new("not_run", format!("its request is `{status}` and has no result")),
        };
        Ok(failed(failure, Some(first)))
    }
}

fn ended(first: &VerifiedSpan, execution: &Execution, was_recorded: bool) -> FunctionRun {
    FunctionRun::Ended(Box::new(FunctionEnded {
        result: execution.result.clone(),
        request: Some(first.key()),
        execution: Some(execution.span.key()),
        function: execution.span.meta("function").cloned().unwrap_or(Value::Null),
        was_recorded,
    }))
}

fn failed(failure: Failure, first: Option<&VerifiedSpan>) -> FunctionRun {
    FunctionRun::Ended(Box::new(FunctionEnded {
        result: Err(failure),
        request: first.map(|first| first.key()),
        execution: None,
        function: Value::Null,
        was_recorded: false,
    }))
}

/// An error of the host after which the attempt is not closed, and may be made again.
fn of_host(error: HostError) -> KernelError {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => KernelError::Ledger(error),
        HostError::Kernel(error) => error,
        error => KernelError::Refused(Failure::new("not_run", error.to_string())),
    }
}

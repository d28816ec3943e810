//! The kernel: finds the function, checks it, runs it, and returns what the host has to record.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{
    AskedBy, Context, Effects, Job, Kernel, KernelError, Meters, NATIVE_RUNTIME, Publishing, RequestKind, Sandbox, Usage,
};
use logline_core::ledger::LedgerError;
use logline_core::request::{FUNCTION_RUN, State, reference};
use logline_core::trust::capability;
use logline_core::trust::governance::{Version, check_running};
use logline_core::{Failure, Scope, SignedSpan, Span, VerifiedSpan, Verifier, canonical, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::blob::{Blobs, Code};
use super::call::Calls;
use super::guest::{Facts, Guest};
use super::journal::Recorder;
use super::outcome::Outcome;
use crate::provider::Providers;
use crate::tool::ToolSpec;

/// The kernel `run_code`, version 2.
#[derive(Debug, Default)]
pub struct RunCode {
    blobs: Blobs,
    providers: Option<Providers>,
}

impl RunCode {
    /// Lets functions call these providers, as far as their capabilities and the manifest allow it.
    #[must_use]
    pub fn providers(mut self, providers: &Providers) -> Self {
        self.providers = Some(providers.clone());
        self
    }
}

pub(crate) const NAME: &str = "run_code";
const VERSION: u32 = 2;

#[async_trait]
impl Kernel for RunCode {
    fn id(&self) -> Uuid {
        ids::RUN_CODE
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: FUNCTION_RUN, asked_by: AskedBy::Anybody, meters: Meters::ALL }]
    }

    fn lacks(&self, function: Option<&SignedSpan>, sandboxes: &[Arc<dyn Sandbox>]) -> Option<String> {
        let Some(function) = function.filter(|span| span.entity_type == "function") else {
            let first = sandboxes.iter().map(|sandbox| sandbox.lacks()).reduce(Option::and);
            return first.unwrap_or_else(|| Some("sandbox".to_owned()));
        };
        let runtime = function.runtime.as_deref().unwrap_or_default();
        // No sandbox of any host runs what only kernels have: the attempt says so.
        if runtime == NATIVE_RUNTIME {
            return None;
        }
        match sandboxes.iter().find(|sandbox| sandbox.runtime() == runtime) {
            Some(sandbox) => sandbox.lacks(),
            None => Some(format!("sandbox for `{}`", runtime.chars().take(64).collect::<String>())),
        }
    }

    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type != "function" || span.is_deleted || span.runtime.as_deref() == Some(NATIVE_RUNTIME) {
            return Ok(());
        }
        let refused = |code: &str, message: String| KernelError::Refused(Failure::new(code, message));
        let Publishing { reader, manifest, sandboxes } = publishing;
        let sandbox = find_sandbox(span, sandboxes).map_err(|message| {
            let advice = "correct the column `runtime`, give this host the sandbox, or build it with `publish_unchecked`";
            refused("runtime_not_available", format!("{message}: {advice}"))
        })?;
        let limits = manifest.limits_for(span).map_err(|reason| refused("invalid_limits", reason))?;
        if let Some(wanted) = span.meta("limits") {
            let most = manifest.limits_of(&span.tenant_id);
            let within = most.with(wanted).and_then(|wanted| wanted.check_within(&most));
            let advice = "the manifest allows no more: lower it, or publish a manifest with a higher limit for the tenant";
            within.map_err(|reason| refused("invalid_limits", format!("metadata.{reason}; {advice}")))?;
        }
        if let Some(wanted) = span.meta("capabilities") {
            let named = wanted.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            let Some(Some(named)) = named else {
                return Err(refused("invalid_capabilities", "metadata.capabilities must be a list of texts".to_owned()));
            };
            for one in named {
                capability::check(one)
                    .map_err(|reason| refused("invalid_capabilities", format!("metadata.capabilities: {reason}")))?;
            }
        }
        ToolSpec::of(span).map_err(|reason| refused("invalid_tool", reason))?;
        match self.blobs.code(span, reader, limits.module_bytes).await? {
            Code::Text(code) if code.is_empty() => Err(refused("invalid_module", "the column `code` is empty".to_owned())),
            Code::Text(code) => sandbox.check(&span.tenant_id, &code, &limits).await.map_err(KernelError::Refused),
            Code::Refused(failure) => Err(KernelError::Refused(failure)),
        }
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let outcome = match find_function(request, context).await? {
            Found::Function(function, _) if is_other_version(request, &function) => {
                let hash = function.seal.curr_hash;
                let message =
                    format!("version {hash} of function {} is in force, and the request allows another one only", function.id);
                Outcome { function: Some(*function), ..Outcome::refused(Failure::new("other_version", message)) }
            }
            Found::Function(function, promotion) => {
                let outcome = run_function(request, *function, context, (&self.blobs, self.providers.as_ref())).await?;
                Outcome { promotion, ..outcome }
            }
            Found::Refused(failure) => Outcome::refused(failure),
        };
        let details = outcome.details(request);
        let usage = outcome.receipt.as_ref().map_or_else(Usage::default, |receipt| Usage::fuel(receipt.fuel_used));
        Ok(Effects::new(outcome.result).execution(details).emitted(outcome.emitted).usage(usage))
    }
}

/// The function that a request names.
enum Found {
    Function(Box<VerifiedSpan>, Option<Version>),
    /// There is no function that may run.
    Refused(Failure),
}

/// Finds the function that the request names. The request's owner must be able to see it, and a publisher of the tenant must
/// have signed it.
async fn find_function(request: &SignedSpan, context: &Context<'_>) -> Result<Found, LedgerError> {
    let Some(id) = request.parent_id else {
        return Ok(Found::Refused(Failure::new("function_not_found", "the request names no function: set its parent_id")));
    };
    let tenant = &request.tenant_id;
    if let Some(function) = context.function.filter(|function| function.id == id) {
        // The host has read the function already, whoever may see it. So the owner's rights are checked here.
        let owner = Scope::user(tenant, &request.owner_id);
        let may_run = context.trusted.authorities.check(function).is_ok();
        if may_run && function.entity_type == "function" && owner.may_read(function, Some(tenant)) {
            if let Err(stopped) = check_running(function) {
                return stopped.refusal().map(Found::Refused);
            }
            return Ok(authorised(function.clone(), context.promotion, context));
        }
    }
    let Some(function) = context.owner.find(tenant, id).await? else {
        let message = format!(
            "no function {id} in tenant `{tenant}` that `{}` can see: check the id, and the function's visibility (a private one is \
             seen by its owner only)",
            request.owner_id
        );
        return Ok(Found::Refused(Failure::new("function_not_found", message)));
    };
    if function.entity_type != "function" {
        let message = format!("span {id} is of type `{}`, not a function", function.entity_type);
        return Ok(Found::Refused(Failure::new("not_a_function", message)));
    }
    let function = context.owner.last_that_counts(context.trusted, function).await?;
    let (function, promotion) = match context.owner.in_force(context.trusted, function, context.attempt.started).await {
        Ok(in_force) => (in_force.span, in_force.promotion),
        Err(error) => return error.refusal().map(Found::Refused),
    };
    let function = match function.verify(&mut Verifier::new()) {
        Ok(function) => function,
        Err(e) => {
            return Ok(Found::Refused(Failure::new(
                "function_not_verified",
                format!("function {id} is not what was signed: {e}"),
            )));
        }
    };
    Ok(authorised(function, promotion, context))
}

fn authorised(function: VerifiedSpan, promotion: Option<Version>, context: &Context<'_>) -> Found {
    match context.trusted.authorities.check(&function) {
        Ok(()) => Found::Function(Box::new(function), promotion),
        Err(e) => {
            let message = format!("function {} may not run: {e}", function.id);
            Found::Refused(Failure::new("function_not_authorised", message))
        }
    }
}

/// Whether the request allows another version of the function only.
fn is_other_version(request: &SignedSpan, function: &SignedSpan) -> bool {
    let allowed = State::of(request).ok().and_then(|state| state.terms.function_hash);
    allowed.is_some_and(|allowed| allowed != function.seal.curr_hash)
}

/// The sandbox that runs a function.
fn find_sandbox<'a>(function: &Span, sandboxes: &'a [Arc<dyn Sandbox>]) -> Result<&'a dyn Sandbox, String> {
    let runtime = function.runtime.as_deref().unwrap_or_default();
    let found = sandboxes.iter().find(|sandbox| sandbox.runtime() == runtime);
    found.map(AsRef::as_ref).ok_or_else(|| {
        let known: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.runtime()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        format!("no sandbox of this host runs `{runtime}` (it has: {known})")
    })
}

async fn run_function(
    request: &SignedSpan,
    function: VerifiedSpan,
    context: &Context<'_>,
    (blobs, providers): (&Blobs, Option<&Providers>),
) -> Result<Outcome, KernelError> {
    let manifest = &context.trusted.manifest;
    let refuse = |code: &str, message: String| {
        Ok(Outcome { function: Some(function.clone()), ..Outcome::refused(Failure::new(code, message)) })
    };
    let sandbox = match find_sandbox(&function, context.sandboxes) {
        Ok(sandbox) => sandbox,
        Err(message) => return refuse("runtime_not_available", message),
    };
    let limits = match manifest.limits_for(&function) {
        Ok(limits) => limits,
        Err(reason) => return refuse("invalid_limits", format!("function {}: {reason}", function.id)),
    };
    let input_bytes = request.input.as_ref().map_or(0, |input| canonical::to_vec(input).len());
    if input_bytes > limits.input_bytes {
        return refuse("input_limit", format!("the input has {input_bytes} bytes, the limit is {}", limits.input_bytes));
    }
    let code = match blobs.code(&function, &context.runtime, limits.module_bytes).await? {
        Code::Text(code) => code,
        Code::Refused(failure) => return Ok(Outcome { function: Some(function), ..Outcome::refused(failure) }),
    };
    let argument = call(&function, request, context.attempt.number);
    let facts = Facts {
        request,
        function: function.id,
        execution: context.attempt.execution_id,
        started: context.attempt.started,
        limits: &limits,
        rules: context.rules,
    };
    let calls = providers.map(|providers| Calls { providers, context, request, function: &function });
    let recorder = Recorder::new(&context.owner, calls, facts.started, &limits);
    let mut guest = Guest::new(facts, recorder);
    let job = Job::new(&request.tenant_id, &code, &argument, &limits).share(manifest.share()).version(function.seal.curr_hash);
    let report = Sandbox::run(sandbox, job, &mut guest).await;
    let Guest { drafts: emitted, logs, logs_dropped, source, .. } = guest;
    let Recorder { host_error, journal, .. } = source;
    if let Some(error) = host_error {
        // The function may have continued although a query or a call was not answered.
        return Err(error);
    }
    Ok(Outcome {
        result: report.result,
        receipt: Some(report.receipt),
        function: Some(function),
        promotion: None,
        emitted,
        logs,
        logs_dropped,
        journal: Some(journal),
    })
}

/// Builds the argument that a function is called with.
pub(crate) fn call(function: &SignedSpan, request: &SignedSpan, attempt: u32) -> Value {
    json!({
        "function": reference(function),
        "request": {"id": request.id.to_string(), "attempt": attempt},
        "config": function.input,
        "input": request.input,
    })
}

//! `run_code`: runs a tenant's function in the sandbox for one request and records the execution.

use async_trait::async_trait;
use logline_core::kernel::{Context, Effects, Kernel, KernelError};
use logline_core::ledger::LedgerError;
use logline_core::sandbox::{Failure, Job, Sandbox};
use logline_core::{Draft, Scope, SignedSpan, VerifiedSpan, Verifier, canonical, ids, request};
use serde_json::{Value, json};

use crate::blob::Blobs;
use crate::guest::{Facts, Guest};
use crate::journal::Recorder;
use crate::record::{Frame, Outcome, record, reference};

/// The kernel `run_code`, version 2.
#[derive(Debug, Default)]
pub struct RunCode {
    blobs: Blobs,
}

const NAME: &str = "run_code";
const VERSION: u32 = 2;

#[async_trait]
impl Kernel for RunCode {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        if request.entity_type != "request" {
            let reason = format!("it is of type `{}`, not a request", request.entity_type);
            return Err(KernelError::Subject { key: request.key(), reason });
        }
        let mut outcome = match find_function(request, context).await? {
            Ok(function) => run_function(request, function, context, &self.blobs).await?,
            Err(failure) => Outcome::refused(failure),
        };
        let ended = context.clock.now();
        let elapsed = ended.since(context.began).as_millis();
        let duration_ms = u32::try_from(elapsed).unwrap_or(u32::MAX).min(logline_core::MAX_INTEGER);
        let frame = Frame {
            attempt: context.attempt.number,
            worker: context.attempt.worker.to_string(),
            kernel: reference(context.kernel),
            at: context.clock.now(),
            duration_ms,
        };
        let mut drafts = vec![record(request, &frame, &mut outcome, &context.rules)];
        // What a failed function emitted never happened.
        if outcome.result.is_ok() {
            drafts.extend(outcome.emitted);
        }
        let slow_ms = context.trusted.manifest.policy.slow_ms;
        if u64::from(duration_ms) > slow_ms {
            drafts.push(slow_mark(request, context, duration_ms, slow_ms));
        }
        Ok(Effects { result: outcome.result, drafts })
    }
}

/// The function that the request names, if the request's owner may see it and the tenant's publisher has signed it.
async fn find_function(request: &SignedSpan, context: &Context<'_>) -> Result<Result<VerifiedSpan, Failure>, LedgerError> {
    let Some(id) = request.parent_id else {
        return Ok(Err(Failure::new("function_not_found", "the request names no function: set its parent_id")));
    };
    let tenant = &request.tenant_id;
    if let Some(function) = context.function.filter(|function| function.id == id) {
        // The host has it; whether the owner may see it is asked all the same.
        let owner = Scope::user(tenant, &request.owner_id);
        if function.entity_type == "function" && owner.may_read(function, Some(tenant)) {
            return Ok(authorised(function.clone(), context));
        }
    }
    let Some(function) = context.owner.find(tenant, id).await? else {
        let message = format!("no function {id} in tenant `{tenant}` that `{}` can see", request.owner_id);
        return Ok(Err(Failure::new("function_not_found", message)));
    };
    if function.entity_type != "function" {
        let message = format!("span {id} is of type `{}`, not a function", function.entity_type);
        return Ok(Err(Failure::new("not_a_function", message)));
    }
    let function = match function.verify(&mut Verifier::new()) {
        Ok(function) => function,
        Err(e) => return Ok(Err(Failure::new("function_not_verified", format!("function {id} is not what was signed: {e}")))),
    };
    Ok(authorised(function, context))
}

fn authorised(function: VerifiedSpan, context: &Context<'_>) -> Result<VerifiedSpan, Failure> {
    match context.trusted.authorities.check(&function) {
        Ok(()) => Ok(function),
        Err(e) => Err(Failure::new("function_not_authorised", format!("function {} may not run: {e}", function.id))),
    }
}

async fn run_function(
    request: &SignedSpan,
    function: VerifiedSpan,
    context: &Context<'_>,
    blobs: &Blobs,
) -> Result<Outcome, KernelError> {
    let manifest = &context.trusted.manifest;
    let refuse = |code: &str, message: String| {
        Ok(Outcome { function: Some(function.clone()), ..Outcome::refused(Failure::new(code, message)) })
    };
    let runtime = function.runtime.as_deref().unwrap_or_default();
    let Some(sandbox) = context.sandboxes.iter().find(|s| s.runtime() == runtime) else {
        let known: Vec<_> = context.sandboxes.iter().map(|s| s.runtime()).collect();
        return refuse(
            "runtime_not_available",
            format!("no sandbox of this host runs `{runtime}` (it has: {})", known.join(", ")),
        );
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
        Ok(code) => code,
        Err(failure) => return Ok(Outcome { function: Some(function), ..Outcome::refused(failure) }),
    };
    let call = call(&function, request, context.attempt.number);
    let facts = Facts {
        request,
        function: function.id,
        execution: context.attempt.execution_id,
        started: context.attempt.started,
        limits: &limits,
        rules: context.rules,
    };
    let recorder = Recorder::new(&context.owner, facts.started, &limits);
    let mut guest = Guest::new(facts, recorder);
    let job = Job::new(&request.tenant_id, &code, &call, &limits).share(manifest.share()).version(function.seal.curr_hash);
    let report = Sandbox::run(sandbox.as_ref(), job, &mut guest).await;
    let Guest { drafts: emitted, logs, logs_dropped, source, .. } = guest;
    if let Some(error) = source.ledger_error {
        // The function may have gone on with an answer that was none.
        return Err(error.into());
    }
    Ok(Outcome {
        result: report.result,
        receipt: Some(report.receipt),
        function: Some(function),
        emitted,
        logs,
        logs_dropped,
        journal: Some(source.journal),
    })
}

/// What a function is called with.
pub(crate) fn call(function: &SignedSpan, request: &SignedSpan, attempt: u32) -> Value {
    json!({
        "function": reference(function),
        "request": {"id": request.id.to_string(), "attempt": attempt},
        "config": function.input,
        "input": request.input,
    })
}

fn slow_mark(request: &SignedSpan, context: &Context<'_>, duration_ms: u32, slow_ms: u64) -> Draft {
    let execution = context.attempt.execution_id;
    let id = ids::derive("status_patch", &[&execution.to_string(), "slow"]);
    let mut draft = Draft::new("status_patch")
        .id(id)
        .at(context.clock.now())
        .tenant(&request.tenant_id)
        .owner(&request.owner_id)
        .visibility(request.visibility)
        .who("kernel:run_code")
        .did("marked")
        .this("execution.slow")
        .parent(execution)
        .related([execution])
        .status("slow")
        .duration_ms(duration_ms)
        .metadata(json!({"slow_ms": slow_ms}));
    draft.columns_mut().trace_id.clone_from(&request.trace_id);
    match request.meta(request::CAUSE) {
        Some(cause) => draft.meta(request::CAUSE, cause.clone()),
        None => draft,
    }
}

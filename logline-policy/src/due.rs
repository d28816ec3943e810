//! The kernel `policy_agent`: decides about a span again at the time that a policy has named.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::ledger::{Query, Versions};
use logline_core::request;
use logline_core::{Draft, Failure, SignedSpan, Span, VerifiedSpan, Verifier, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::effects::{Cause, Consequence, Effect, PUT_OFF};
use crate::policy::{Decision, Facts, Policy};
use crate::{NAME, POLICY_DUE, VERSION};

/// The kernel `policy_agent`, version 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyDue;

#[async_trait]
impl Kernel for PolicyDue {
    fn id(&self) -> Uuid {
        ids::POLICY_AGENT
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn requests(&self) -> &'static [RequestKind] {
        // Deciding again does not run a function, so no quota counts it.
        &[RequestKind { this: POLICY_DUE, asked_by: AskedBy::Hosts, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    /// The code of a policy in WebAssembly compiles, as a function's does. [`PolicyValidator`](crate::PolicyValidator) checks the rest.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type != "policy" || span.is_deleted || span.language.as_deref() != Some("wasm") {
            return Ok(());
        }
        let refused = |code: &str, message: String| KernelError::Refused(Failure::new(code, message));
        let (Some(runtime), Some(code)) = (&span.runtime, &span.code) else {
            return Err(refused("invalid_policy", "a policy in wasm must have runtime and code, as a function has".to_owned()));
        };
        let Some(sandbox) = publishing.sandboxes.iter().find(|sandbox| sandbox.runtime() == runtime) else {
            let advice = "correct the column `runtime`, or give this host the sandbox";
            return Err(refused("runtime_not_available", format!("no sandbox of this host runs `{runtime}`: {advice}")));
        };
        let limits = publishing.manifest.limits_of(&span.tenant_id);
        sandbox.check(&span.tenant_id, code, &limits).await.map_err(KernelError::Refused)
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        Ok(match decide_again(request, context).await? {
            Again::Decided(decided, drafts) => Effects::new(Ok(json!({"decided": decided}))).emitted(drafts),
            Again::Failed(failure) => Effects::new(Err(failure)),
        })
    }
}

/// The result of deciding about the span again.
enum Again {
    /// What was decided, and the spans to write.
    Decided(&'static str, Vec<Draft>),
    /// The policy cannot decide.
    Failed(Failure),
}

async fn decide_again(request: &VerifiedSpan, context: &Context<'_>) -> Result<Again, KernelError> {
    let (tenant, authorities) = (&request.tenant_id, &context.trusted.authorities);
    let known = context.function.filter(|span| span.entity_type == "policy").cloned();
    let found = match (known, request.parent_id) {
        (Some(known), _) => Some(known),
        // The policy may have a new version since the request was claimed.
        (None, Some(id)) => match context.runtime.find(tenant, id).await? {
            Some(last) => {
                let last = context.runtime.last_that_counts(context.trusted, last).await?;
                match context.runtime.in_force(context.trusted, last, context.attempt.started).await {
                    Ok(in_force) => in_force.span.verify(&mut Verifier::new()).ok(),
                    Err(error) => return Ok(Again::Failed(error.refusal()?)),
                }
            }
            None => None,
        },
        (None, None) => None,
    };
    let Some(policy_span) = found.filter(|span| span.entity_type == "policy") else {
        let message = "the policy does not exist, or its last version does not verify: run fsck";
        return Ok(Again::Failed(Failure::new("policy_not_found", message)));
    };
    if policy_span.status.as_deref() != Some("active") {
        return Ok(Again::Decided("the policy is not active", Vec::new()));
    }
    if let Err(error) = authorities.check(&policy_span) {
        return Ok(Again::Failed(Failure::new("policy_not_authorised", error.to_string())));
    }
    let policy = match Policy::of(&policy_span) {
        Ok(policy) => policy,
        Err(failure) => return Ok(Again::Failed(failure)),
    };
    let subject = request.related_to.first().copied();
    let span = match subject {
        Some(id) => context.runtime.find(tenant, id).await?,
        None => None,
    };
    let Some(span) = span.and_then(|span| span.verify(&mut Verifier::new()).ok()) else {
        return Ok(Again::Decided("the span is gone", Vec::new()));
    };
    if !policy.concerns(&span.entity_type) {
        return Ok(Again::Decided("the policy is not about such spans", Vec::new()));
    }
    let now = context.attempt.started;
    // INVARIANT: only a host can have written this depth, because only hosts may make such requests.
    let depth = request::cause(request).and_then(|cause| cause.get("depth")).and_then(Value::as_u64).unwrap_or(0);
    let put_off = request.meta(PUT_OFF).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let cause = Cause { policy: &policy_span, span: &span, depth: depth.saturating_sub(1), now, put_off };
    let mut said = "act";
    let decided = match policy.decide_cel(&span, Facts::default(), now) {
        Ok(Decision::Act(actions)) => {
            let effects = actions.into_iter().enumerate().map(|(index, action)| cause.effect(action, index, &context.rules));
            let write = |consequence| match consequence {
                Consequence::Write(effect) => Ok(*effect),
                Consequence::Count(_) => Err(Failure::new("invalid_action", "`count` does not work with content.due")),
            };
            effects.map(|effect| effect.and_then(write)).collect::<Result<Vec<Effect>, _>>()
        }
        Ok(Decision::Later(due)) => {
            said = "later";
            Ok(vec![cause.later(due)])
        }
        Ok(Decision::Pass) => return Ok(Again::Decided("pass", Vec::new())),
        Err(failure) => Err(failure),
    };
    let effects = decided.unwrap_or_else(|failure| {
        said = "could not decide";
        vec![cause.violation("error", &failure, now.day())]
    });
    let mut drafts: Vec<Draft> = Vec::with_capacity(effects.len());
    for effect in effects {
        let id = effect.draft.columns().id;
        let there = Query::new().tenant(tenant).id(id).versions(Versions::All).limit(1);
        if drafts.iter().all(|draft| draft.columns().id != id) && context.runtime.scan(&there, None).await?.rows.is_empty() {
            drafts.push(effect.draft);
        }
    }
    Ok(Again::Decided(said, drafts))
}

//! `policy_agent` as a kernel: looks at a span again, at the time that a policy named.

use async_trait::async_trait;
use logline_core::kernel::{Context, Effects, Kernel, KernelError};
use logline_core::ledger::{Query, Versions};
use logline_core::request::{self, CAUSE, POLICY_DUE};
use logline_core::roles::Role;
use logline_core::sandbox::Failure;
use logline_core::{VerifiedSpan, Verifier};
use serde_json::{Value, json};

use super::effects::Cause;
use super::{Decision, Facts, Policy};

/// The kernel `policy_agent`, version 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyDue;

pub(super) const NAME: &str = "policy_agent";
pub(super) const VERSION: u32 = 1;

#[async_trait]
impl Kernel for PolicyDue {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        if request.entity_type != "request" || request.this != POLICY_DUE {
            let reason = format!("it is a {} of `{}`, not a request of `{POLICY_DUE}`", request.entity_type, request.this);
            return Err(KernelError::Subject { key: request.key(), reason });
        }
        let (result, mut drafts) = match look(request, context).await? {
            Ok((decided, drafts)) => (Ok(json!({"decided": decided})), drafts),
            Err(failure) => (Err(failure), Vec::new()),
        };
        let attempt = context.attempt;
        let duration = context.clock.now().since(context.began).as_millis();
        let execution = request::execution(request, attempt.number)
            .at(context.clock.now())
            .who("kernel:policy_agent")
            .this(POLICY_DUE)
            .duration_ms(u32::try_from(duration).unwrap_or(u32::MAX).min(logline_core::MAX_INTEGER))
            .metadata(json!({"attempt": attempt.number, "worker": attempt.worker.to_string()}));
        let execution = match request.meta(CAUSE) {
            Some(cause) => execution.meta(CAUSE, cause.clone()),
            None => execution,
        };
        let execution = match &result {
            Ok(output) => execution.status("complete").output(output.clone()),
            Err(failure) => execution.status("error").error(failure.to_value()),
        };
        drafts.insert(0, execution);
        Ok(Effects { result, drafts })
    }
}

type Looked = Result<(&'static str, Vec<logline_core::Draft>), Failure>;

async fn look(request: &VerifiedSpan, context: &Context<'_>) -> Result<Looked, KernelError> {
    let refuse = |code: &str, message: &str| Ok(Err(Failure::new(code, message)));
    let (tenant, authorities) = (&request.tenant_id, &context.trusted.authorities);
    // Members may write requests; only a host may ask for this.
    let first = Query::new().tenant(tenant).id(request.id).versions(Versions::All).limit(1);
    let first = context.runtime.scan(&first, None).await?.into_spans()?.into_iter().next();
    let first = first.and_then(|first| first.verify(&mut Verifier::new()).ok());
    if !first.is_some_and(|first| authorities.has(&first.seal.public_key, Role::Runtime, tenant, first.at)) {
        return refuse("not_permitted", "only a host may ask a policy to look at a span");
    }
    let known = context.function.filter(|span| span.entity_type == "policy").cloned();
    let found = match (known, request.parent_id) {
        (Some(known), _) => Some(known),
        // It has a new version since the request was taken.
        (None, Some(id)) => context.runtime.find(tenant, id).await?.and_then(|span| span.verify(&mut Verifier::new()).ok()),
        (None, None) => None,
    };
    let Some(policy_span) = found.filter(|span| span.entity_type == "policy") else {
        return refuse("policy_not_found", "the policy is gone, or its last version does not verify");
    };
    if policy_span.status.as_deref() != Some("active") {
        return Ok(Ok(("the policy is not active", Vec::new())));
    }
    if let Err(error) = authorities.check(&policy_span) {
        return Ok(Err(Failure::new("policy_not_authorised", error.to_string())));
    }
    let policy = match Policy::of(&policy_span) {
        Ok(policy) => policy,
        Err(failure) => return Ok(Err(failure)),
    };
    let subject = request.related_to.first().copied();
    let span = match subject {
        Some(id) => context.runtime.find(tenant, id).await?,
        None => None,
    };
    let Some(span) = span.and_then(|span| span.verify(&mut Verifier::new()).ok()) else {
        return Ok(Ok(("the span is gone", Vec::new())));
    };
    if !policy.concerns(&span.entity_type) {
        return Ok(Ok(("the policy is not about such spans", Vec::new())));
    }
    let now = context.attempt.started;
    // What the request says of its depth was written by a host, as its first version shows.
    let depth = request.meta(CAUSE).and_then(|cause| cause.get("depth")).and_then(Value::as_u64).unwrap_or(0);
    let cause = Cause { policy: &policy_span, span: &span, depth: depth.saturating_sub(1), now };
    let mut said = "act";
    let decided = match policy.decide_cel(&span, Facts::default(), now) {
        Ok(Decision::Act(actions)) => {
            let effects = actions.into_iter().enumerate().map(|(index, action)| cause.effect(action, index, &context.rules));
            effects
                .map(|effect| effect?.map_err(|_| Failure::new("invalid_action", "`count` and content.due do not go together")))
                .collect::<Result<Vec<_>, _>>()
        }
        Ok(Decision::Later(due)) => {
            said = "later";
            Ok(vec![cause.later(due)])
        }
        Ok(Decision::Pass) => return Ok(Ok(("pass", Vec::new()))),
        Err(failure) => Err(failure),
    };
    let effects = decided.unwrap_or_else(|failure| {
        said = "could not decide";
        vec![cause.violation("error", &failure, now.day())]
    });
    let mut drafts: Vec<logline_core::Draft> = Vec::with_capacity(effects.len());
    for effect in effects {
        let id = effect.draft.columns().id;
        let there = Query::new().tenant(tenant).id(id).versions(Versions::All).limit(1);
        if drafts.iter().all(|draft| draft.columns().id != id) && context.runtime.scan(&there, None).await?.rows.is_empty() {
            drafts.push(effect.draft);
        }
    }
    Ok(Ok((said, drafts)))
}

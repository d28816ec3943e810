//! Gates: what exactly one version has passed, written down by the host that has seen it.

use async_trait::async_trait;
use logline_core::contract::{Context, Effects, KernelError, Publishing};
use logline_core::request::reference;
use logline_core::trust::governance::{Gate, Version};
use logline_core::{Draft, Failure, KernelSet, SignedSpan, VerifiedSpan, Verifier, Visibility, ids};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Governor;

/// What a request for a test asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    gate: Gate,
    /// The version to test.
    seq: u32,
    /// The span that shows that it has passed: the `prompt_eval_run` of the gate `eval`, the `execution` of the gate `smoke`.
    evidence: Option<Uuid>,
    /// What a test of the application expects. The gate `smoke` takes it from the version.
    expect: Option<Value>,
}

/// A test for a gate, as a crate of its subject has it.
#[async_trait]
pub trait GateTest: Send + Sync {
    /// The gate.
    fn gate(&self) -> Gate;

    /// Tests a version, whose hash, signature and signer have been checked. `expect` is what the request expects. The inner error says
    /// why the version has not passed.
    ///
    /// # Errors
    /// If the ledger fails. The request is then tried again.
    async fn test(
        &self,
        subject: &VerifiedSpan,
        expect: Option<&Value>,
        context: &Context<'_>,
    ) -> Result<Result<(), String>, KernelError>;
}

/// Tests one version. The result is a `test_result`, whether it has passed or not.
pub(super) async fn test(governor: &Governor, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
    let failed = |code: &str, message: String| Ok(Effects::new(Err(Failure::new(code, message))));
    let input = request.input.clone().unwrap_or_default();
    let asked: Asked = match serde_json::from_value(input) {
        Ok(asked) => asked,
        Err(error) => return failed("invalid_test", format!("the input must be `gate`, `seq` and what it needs: {error}")),
    };
    let Some(id) = request.parent_id else {
        return failed("invalid_test", "the request names no span: set its parent_id".to_owned());
    };
    let tenant = &request.tenant_id;
    let Some(subject) = context.owner.version(tenant, id, asked.seq).await? else {
        return failed("invalid_test", format!("no version {} of {id} that the request's owner can see", asked.seq));
    };
    let subject = match subject.verify(&mut Verifier::new()) {
        Ok(subject) => subject,
        Err(error) => return failed("invalid_test", format!("the version is not what was signed: {error}")),
    };
    if let Err(error) = context.trusted.authorities.check(&subject) {
        return failed("invalid_test", error.to_string());
    }
    let of_others = governor.tests.iter().find(|test| test.gate() == asked.gate);
    let outcome = match (of_others, asked.gate) {
        (Some(test), _) => test.test(&subject, asked.expect.as_ref(), context).await?,
        (None, Gate::Check) => check(&governor.behaviours, &subject, context).await?,
        (None, Gate::Eval) => evidence(&asked, &subject, context, eval).await?,
        (None, Gate::Smoke) if asked.expect.is_some() => {
            Err("anybody may ask for a test, so what is expected stands in the version: `metadata.smoke.expect`".to_owned())
        }
        (None, Gate::Smoke) => match expected(&subject) {
            Ok(expected) => {
                evidence(&asked, &subject, context, |version, record| execution(&expected, version, record)).await?
            }
            Err(reason) => Err(reason),
        },
        (None, other) => Err(format!("this host knows no test for the gate `{other}`")),
    };
    let version = Version::of(&subject);
    let (passed, reason) = match &outcome {
        Ok(()) => (true, None),
        Err(reason) => (false, Some(reason.clone())),
    };
    let evidence = asked.evidence.map(|id| id.to_string());
    let draft = Draft::new("test_result")
        .id(ids::derive("test_result", &[&context.attempt.execution_id.to_string()]))
        .tenant(tenant)
        .owner(&subject.owner_id)
        .visibility(Visibility::Tenant)
        .at(context.attempt.started)
        .who("kernel:governance")
        .did("tested")
        .this(format!("gate.{}", asked.gate))
        .parent(id)
        .related([id])
        .status(if passed { "passed" } else { "failed" })
        .meta(
            "gate",
            json!({"gate": asked.gate, "subject": version, "passed": passed, "evidence": evidence, "reason": reason}),
        );
    let result = draft.columns().id;
    let output =
        json!({"result": result, "gate": asked.gate, "subject": reference(&subject), "passed": passed, "reason": reason});
    Ok(Effects::new(Ok(output)).emitted(vec![draft]))
}

/// Whether the validators and kernels of this host accept the version, as they do before it is published.
async fn check(
    behaviours: &KernelSet,
    subject: &VerifiedSpan,
    context: &Context<'_>,
) -> Result<Result<(), String>, KernelError> {
    for validator in behaviours.validators() {
        if let Err(failure) = validator.validate(subject) {
            return Ok(Err(failure.to_string()));
        }
    }
    for kernel in behaviours.kernels() {
        let reader = context.runtime.clone();
        let manifest = &context.trusted.manifest;
        match kernel.check(subject, &Publishing { reader, manifest, sandboxes: context.sandboxes }).await {
            Err(KernelError::Refused(failure)) => return Ok(Err(failure.to_string())),
            checked => checked?,
        }
    }
    Ok(Ok(()))
}

/// Reads the evidence that a request names, and whether it shows that the version has passed.
async fn evidence(
    asked: &Asked,
    subject: &VerifiedSpan,
    context: &Context<'_>,
    shows: impl Fn(&Version, &SignedSpan) -> Result<(), String> + Send,
) -> Result<Result<(), String>, KernelError> {
    let Some(id) = asked.evidence else {
        return Ok(Err("the test names no `evidence`".to_owned()));
    };
    // Only the first version of a record counts.
    let Some(span) = context.runtime.version(&subject.tenant_id, id, 0).await? else {
        return Ok(Err(format!("there is no span {id}")));
    };
    let span = match span.verify(&mut Verifier::new()) {
        Ok(span) => span,
        Err(error) => return Ok(Err(format!("{id} is not what was signed: {error}"))),
    };
    if let Err(error) = context.trusted.authorities.check(&span) {
        return Ok(Err(error.to_string()));
    }
    Ok(shows(&Version::of(subject), &span))
}

/// Whether a reference in a record's metadata names exactly this version.
fn names(record: &SignedSpan, member: &str, version: &Version) -> bool {
    let named = record.meta(member);
    let text = |name: &str| named.and_then(|named| named.get(name)).and_then(Value::as_str);
    text("id") == Some(&version.id.to_string()) && text("curr_hash") == Some(&version.curr_hash.to_string())
}

/// Whether a run of an evaluation was of this version, and reached its gate.
fn eval(version: &Version, run: &SignedSpan) -> Result<(), String> {
    if run.entity_type != "prompt_eval_run" || !names(run, "variant", version) {
        return Err(format!("{} is no evaluation of this version", run.id));
    }
    let reached = run.meta("gate");
    match reached.and_then(|gate| gate.get("passed")).and_then(Value::as_bool) {
        Some(true) => Ok(()),
        _ => Err(format!("evaluation {} did not reach its gate", run.id)),
    }
}

/// What a version says of its own smoke test, in `metadata.smoke`: the input, if it matters, and the output. Its publisher has signed it, and the
/// approvers see it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    input: Option<Value>,
    expect: Value,
}

fn expected(subject: &SignedSpan) -> Result<Expected, String> {
    let said = subject.meta("smoke").ok_or("the version says nothing of a smoke test: `metadata.smoke`, with `expect`")?;
    serde_json::from_value(said.clone()).map_err(|error| format!("`metadata.smoke` of the version: {error}"))
}

/// Whether an execution was of this version, and ended as expected.
fn execution(expected: &Expected, version: &Version, execution: &SignedSpan) -> Result<(), String> {
    if execution.entity_type != "execution" || !names(execution, "function", version) {
        return Err(format!("{} is no execution of this version", execution.id));
    }
    if execution.status.as_deref() != Some("complete") {
        return Err(format!("execution {} has failed", execution.id));
    }
    if expected.input.is_some() && execution.input != expected.input {
        return Err(format!("execution {} had another input than that of the smoke test", execution.id));
    }
    if execution.output.as_ref() != Some(&expected.expect) {
        return Err(format!("execution {} has another output than expected", execution.id));
    }
    Ok(())
}

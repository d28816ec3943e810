//! The kernel `prompt_eval`: asks the fixtures of a suite, and records how the answers were.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::request::reference;
use logline_core::{Draft, Failure, SignedSpan, Span, VerifiedSpan, ids};
use logline_kernels::provider::Providers;
use serde_json::{Value, json};
use uuid::Uuid;

use super::judge::Bench;
use super::suite::{MAX_FIXTURES, Suite};
use super::tally::{About, EvalRun, tally};
use super::trials::{Candidate, Evaluation};
use crate::contract::Contract;
use crate::ids::prompt_eval;
use crate::load::{LoadError, Versions, find, load};
use crate::record::about;
use crate::tools::Toolbox;

/// The `this` of a request that evaluates variants. Its parent is the suite, its input `{"variants": [ID, …]}`. The others are compared
/// with the first.
pub const PROMPT_EVALUATE: &str = "prompt.evaluate";

/// The entity type of suites.
const SUITE: &str = "prompt_eval";

/// The most variants of a request.
const MAX_VARIANTS: usize = 8;

/// The most trials of a variant: so many fit into its record.
const MAX_TRIALS: usize = 2 * MAX_FIXTURES;

/// The most calls of a request: an attempt can make no more.
const MAX_CALLS: usize = 1_000;

/// The kernel `prompt_eval`, version 1.
#[derive(Debug, Clone)]
pub struct EvalPrompt {
    providers: Providers,
}

impl EvalPrompt {
    /// A kernel that asks through these providers.
    #[must_use]
    pub fn new(providers: &Providers) -> Self {
        Self { providers: providers.clone() }
    }
}

#[async_trait]
impl Kernel for EvalPrompt {
    fn id(&self) -> Uuid {
        prompt_eval()
    }

    fn name(&self) -> &'static str {
        "prompt_eval"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        &[RequestKind { this: PROMPT_EVALUATE, asked_by: AskedBy::Anybody, meters: METERS }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    /// A suite that makes no sense, or whose judge's provider is not there, is not published.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type != SUITE || span.is_deleted {
            return Ok(());
        }
        let refused = |reason: String| KernelError::Refused(Failure::new("prompt_invalid", reason));
        let suite = Suite::read(span).map_err(refused)?;
        let Some(judge) = suite.judge else { return Ok(()) };
        let found = publishing.reader.find(&span.tenant_id, judge.provider).await?;
        match found {
            Some(found) if found.entity_type == "provider" => Ok(()),
            _ => Err(refused(format!("metadata.judge.provider: there is no provider {}: publish it first", judge.provider))),
        }
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        match self.evaluate(request, context).await? {
            Ok(effects) => Ok(effects),
            Err(failure) => Ok(Effects::new(Err(failure))),
        }
    }
}

impl EvalPrompt {
    async fn evaluate(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Result<Effects, Failure>, KernelError> {
        let invalid = |reason: String| Ok(Err(Failure::new("prompt_invalid", reason)));
        let Some(id) = request.parent_id else {
            return invalid("the request names no suite: set its parent_id".to_owned());
        };
        let tenant = request.tenant_id.as_str();
        let span = match find(&context.owner, Versions::of(context), tenant, (SUITE, id)).await {
            Ok(span) => span,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return invalid(error.to_string()),
        };
        let (suite, variants) = match (Suite::read(&span), variants(request.input.as_ref())) {
            (Ok(suite), Ok(variants)) => (suite, variants),
            (Err(reason), _) => return invalid(format!("prompt_eval {id}: {reason}")),
            (_, Err(reason)) => return invalid(reason),
        };
        let trials = suite.fixtures.len().saturating_mul(usize::try_from(suite.repeats).unwrap_or(usize::MAX));
        if trials > MAX_TRIALS {
            return invalid(format!("{trials} trials of a variant are too many, {MAX_TRIALS} is the most: repeat less often"));
        }
        let mut candidates = Vec::new();
        for variant in variants {
            match candidate(context, tenant, &suite, variant).await? {
                Ok(candidate) => candidates.push(candidate),
                Err(reason) => return invalid(reason),
            }
        }
        let per_trial = |one: &Candidate| {
            let rounds = if one.tools.is_empty() { 0 } else { usize::try_from(one.tools.rounds).unwrap_or(usize::MAX) };
            if one.contract.is_some() { rounds.saturating_add(2) } else { rounds.saturating_add(1) }
        };
        let criteria: usize = suite.fixtures.iter().map(|fixture| fixture.criteria().count()).sum();
        let rulings = criteria.saturating_mul(usize::try_from(suite.repeats).unwrap_or(usize::MAX)).saturating_mul(2);
        let each = candidates.iter().map(|one| trials.saturating_mul(per_trial(one)).saturating_add(rulings));
        let examples = suite.judge.as_ref().map_or(0, |judge| judge.examples.len().saturating_mul(2));
        let calls = each.fold(examples, usize::saturating_add);
        if calls > MAX_CALLS {
            return invalid(format!(
                "it could take {calls} calls, {MAX_CALLS} is the most: name fewer variants, or repeat less often"
            ));
        }
        if let Some(baseline) = suite.gate.baseline
            && candidates.first().is_some_and(|first| first.loaded.variant_span.id != baseline)
        {
            return invalid(format!("the suite compares with {baseline} (metadata.gate.baseline): name it first"));
        }
        let bench = match suite.judge.as_ref().map(|judge| Bench::new(&self.providers, judge)).transpose() {
            Ok(bench) => bench,
            Err(reason) => return invalid(format!("the judge: {reason}")),
        };
        let evaluation = Evaluation { providers: &self.providers, request, context, suite: &suite, bench };
        let agreement = match evaluation.agreement().await? {
            Ok(agreement) => agreement,
            Err(failure) => return Ok(Err(failure)),
        };
        let (mut runs, mut drafts): (Vec<EvalRun>, Vec<Draft>) = (Vec::new(), Vec::new());
        for candidate in &candidates {
            let (trials, rulings) = evaluation.trials(candidate).await?;
            let judge = evaluation.reported(rulings, agreement);
            let about = About {
                name: candidate.loaded.variant.name.clone(),
                suite: reference(&span),
                variant: reference(&candidate.loaded.variant_span),
                blocks: candidate.blocks.clone(),
                judge,
                // A single variant is compared with nothing, so a gate that asks for a comparison stays closed.
                is_baseline: runs.is_empty() && candidates.len() > 1,
            };
            let baseline = runs.first().map(|first| (&first.variant, first.trials.as_slice()));
            let run = tally(about, trials, baseline, &suite.gate);
            drafts.push(record(&evaluation, &span, candidate, &run));
            runs.push(run);
        }
        let told: Vec<Value> = runs
            .iter()
            .zip(&drafts)
            .map(|(run, draft)| {
                let id = draft.columns().id;
                json!({"run": id, "variant": run.name, "counts": run.counts, "rate": run.rate, "difference": run.difference, "gate": run.gate})
            })
            .collect();
        let passed = runs.iter().all(|run| run.gate.passed);
        Ok(Ok(Effects::new(Ok(json!({"passed": passed, "runs": told}))).emitted(drafts)))
    }
}

/// A variant of the family that can be run: its last version, because an evaluation comes before a promotion.
async fn candidate(
    context: &Context<'_>,
    tenant: &str,
    suite: &Suite,
    id: Uuid,
) -> Result<Result<Candidate, String>, KernelError> {
    let loaded = match load(&context.owner, Versions::last(context.trusted), tenant, id).await {
        Ok(loaded) => loaded,
        Err(LoadError::Ledger(error)) => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let name = &loaded.variant.name;
    if loaded.variant.family != suite.family {
        return Ok(Err(format!("`{name}` is not of the family `{}`, for which the suite is", suite.family)));
    }
    let Some(ran) = &loaded.variant.run else {
        return Ok(Err(format!("`{name}` has no `run`: it says which provider is asked")));
    };
    let contract = match ran.schema().as_ref().map(Contract::read).transpose() {
        Ok(contract) => contract,
        Err(reason) => return Ok(Err(format!("`{name}`: metadata.run.contract: {reason}"))),
    };
    let tools = match Toolbox::find(context, tenant, &ran.tools, ran.rounds()).await? {
        Ok(tools) => tools,
        Err(failure) => return Ok(Err(format!("`{name}`: {}", failure.message))),
    };
    let blocks = loaded.block_spans.iter().map(|span| reference(span)).collect::<Vec<_>>().into();
    Ok(Ok(Candidate { loaded, contract, blocks, tools }))
}

/// Drafts the `prompt_eval_run`.
fn record(evaluation: &Evaluation<'_>, suite: &VerifiedSpan, candidate: &Candidate, run: &EvalRun) -> Draft {
    let execution = evaluation.context.attempt.execution_id;
    let variant = candidate.loaded.variant_span.id;
    let mut metadata = serde_json::to_value(run).unwrap_or_default();
    let trials = metadata.as_object_mut().and_then(|members| {
        members.remove("name");
        members.remove("trials")
    });
    let draft = Draft::new("prompt_eval_run")
        .id(ids::derive("prompt_eval_run", &[&execution.to_string(), &variant.to_string()]))
        .did("evaluated")
        .this(format!("prompt.{}", evaluation.suite.family))
        .name(run.name.as_str())
        .parent(variant)
        .related([evaluation.request.id, execution, suite.id])
        .status("complete")
        .content(json!({"trials": trials}))
        .metadata(metadata);
    about(draft, evaluation.request, "kernel:prompt_eval").at(evaluation.context.attempt.started)
}

/// Reads the input of a request.
fn variants(input: Option<&Value>) -> Result<Vec<Uuid>, String> {
    let members = logline_core::json::members(input, "the input", &["variants"])?;
    let named = members.get("variants").and_then(Value::as_array).filter(|named| (1..=MAX_VARIANTS).contains(&named.len()));
    let named = named.ok_or_else(|| format!("`variants` must be a list of 1 to {MAX_VARIANTS} ids"))?;
    let mut ids: Vec<Uuid> = Vec::new();
    for id in named {
        let id = id.as_str().and_then(|id| id.parse().ok()).ok_or("`variants` must be a list of ids")?;
        if ids.contains(&id) {
            return Err(format!("`variants`: {id} stands there twice"));
        }
        ids.push(id);
    }
    Ok(ids)
}

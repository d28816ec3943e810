//! Renews the shares of a family from what the ledger says.

use std::time::Duration;

use logline_core::contract::{Context, KernelError};
use logline_core::request::reference;
use logline_core::{Draft, Failure, Hash, Timestamp, VerifiedSpan, canonical, ids};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bandit::{Counts, DRAWS, shares, since_change};
use crate::family::Family;
use crate::load::{LoadError, VARIANT, Versions, find};
use crate::record::about;
use crate::results::{Newest, Run, exceeded};

/// What is known of a version of a variant, as a `prompt_posterior` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// The version, with its hash.
    pub(crate) variant: Value,
    /// Its name.
    pub(crate) name: String,
    /// The runs in the window.
    pub(crate) seen: u64,
    /// The runs that count: those after the last change of its success rate.
    pub(crate) runs: Counts,
    /// What its last evaluation adds.
    pub(crate) evals: Counts,
    /// In how many of the draws it is the best.
    pub(crate) share: u32,
    /// The guard that it exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) veto: Option<String>,
}

impl Known {
    /// All that counts.
    pub(crate) fn counts(&self) -> Counts {
        Counts { good: self.runs.good.saturating_add(self.evals.good), bad: self.runs.bad.saturating_add(self.evals.bad) }
    }

    pub(crate) fn hash(&self) -> Option<&str> {
        self.variant.get("curr_hash").and_then(Value::as_str)
    }
}

/// The posterior that a span records.
pub(crate) fn known(posterior: &VerifiedSpan) -> Option<Vec<Known>> {
    serde_json::from_value(posterior.meta("variants")?.clone()).ok()
}

/// The seed of the draws that give the shares.
pub(crate) fn seed(family: &Hash, execution: Uuid) -> Hash {
    Hash::of(&canonical::to_vec(&json!({"for": "prompt_posterior", "family": family, "execution": execution})))
}

/// What was learnt: the record, or that there is too little new.
pub(crate) enum Learnt {
    Renewed(Box<Draft>, Vec<Known>),
    TooLittle(u64),
}

/// Counts the results of each active variant, and computes their shares.
pub(crate) async fn learn(
    request: &VerifiedSpan,
    context: &Context<'_>,
    span: &VerifiedSpan,
    family: &Family,
) -> Result<Result<Learnt, Failure>, KernelError> {
    let tenant = request.tenant_id.as_str();
    let authorities = &context.trusted.authorities;
    let newest = Newest { reader: &context.runtime, authorities, tenant };
    let now = context.attempt.started;
    let from = now.saturating_sub(Duration::from_secs(u64::from(family.window_days) * 86_400));
    let last = newest.one("prompt_posterior", span.id, |_| true).await?;
    let counted = last.as_ref().and_then(|last| last.meta("newest")?.as_str()?.parse::<Timestamp>().ok());
    let (mut all, mut new, mut until) = (Vec::new(), 0_u64, counted);
    for id in &family.variants {
        let variant = match find(&context.runtime, Versions::of(context), tenant, (VARIANT, *id)).await {
            Ok(variant) => variant,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "a variant is not in use");
                continue;
            }
        };
        let runs = newest.runs(family, span.id, &variant, from).await?;
        let is_new = |run: &&Run| counted.is_none_or(|counted| run.at > counted);
        new = new.saturating_add(u64::try_from(runs.iter().filter(is_new).count()).unwrap_or(u64::MAX));
        until = until.max(runs.last().map(|run| run.at));
        let results: Vec<bool> = runs.iter().map(|run| run.is_good).collect();
        let begin = since_change(&results);
        let mut counts = Counts::default();
        results.iter().skip(begin).for_each(|&is_good| counts.add(is_good));
        // After a change, an evaluation from before it says nothing either.
        let evals = if begin == 0 { newest.evaluated(family, &variant).await? } else { Counts::default() };
        let enough = counts.total() >= family.min_samples;
        let veto = exceeded(&family.guards, runs.get(begin..).unwrap_or_default()).filter(|_| enough);
        all.push(Known {
            variant: reference(&variant),
            name: variant.name.clone().unwrap_or_default(),
            seen: u64::try_from(runs.len()).unwrap_or(u64::MAX),
            runs: counts,
            evals,
            share: 0,
            veto,
        });
    }
    if all.is_empty() {
        return Ok(Err(Failure::new("prompt_invalid", "no variant of the family is active: publish one that is")));
    }
    if last.as_ref().and_then(known).is_some_and(|last| is_alike(&last, &all)) && new < family.batch {
        return Ok(Ok(Learnt::TooLittle(new)));
    }
    let execution = context.attempt.execution_id;
    let seed = seed(&span.seal.curr_hash, execution);
    let counts: Vec<Counts> = all.iter().map(Known::counts).collect();
    for (known, share) in all.iter_mut().zip(shares(&counts, &seed, DRAWS)) {
        known.share = share;
    }
    let draft = Draft::new("prompt_posterior")
        .id(ids::derive("prompt_posterior", &[&execution.to_string()]))
        .did("learnt")
        .this(format!("prompt.{}", family.name))
        .name(family.name.as_str())
        .parent(span.id)
        .related([request.id, execution])
        .status("complete")
        .meta("family", reference(span))
        .meta("execution", execution.to_string())
        .meta("from", from.to_string())
        .meta("newest", until.map_or(Value::Null, |until| until.to_string().into()))
        .meta("seed", seed.to_string())
        .meta("draws", DRAWS)
        .meta("variants", serde_json::to_value(&all).unwrap_or_default());
    // Whoever may see the family may check its choices.
    let draft = about(draft, request, "kernel:prompt_bandit").owner(&span.owner_id).visibility(span.visibility);
    Ok(Ok(Learnt::Renewed(Box::new(draft.at(now)), all)))
}

/// Whether the same versions are in use, with the same evaluations and guards.
fn is_alike(last: &[Known], now: &[Known]) -> bool {
    let is_same = |(a, b): (&Known, &Known)| a.variant == b.variant && a.veto == b.veto && a.evals == b.evals;
    last.len() == now.len() && last.iter().zip(now).all(is_same)
}

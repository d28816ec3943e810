//! From verdicts to rates, and to whether a variant is good enough.

use std::collections::BTreeMap;

use logline_core::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fixture::FixtureKind;
use super::suite::Gate;
use crate::rates::{Cluster, Difference, Interval, compare, rate};

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was expected is true of the answer.
    Passed,
    /// Something that was expected is not.
    Failed,
    /// It cannot be said: there is no answer, or no verdict.
    Error,
}

/// A fixture that was asked once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Trial {
    /// The id of the fixture.
    pub fixture: String,
    /// What the fixture tries.
    pub kind: FixtureKind,
    /// Trials of one cluster are alike: the source of the fixture, or its id.
    pub cluster: String,
    /// Which repetition it is, from 1.
    pub repeat: u32,
    /// How it ended.
    pub verdict: Verdict,
    /// What is wrong, or why nothing can be said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The hash of the prompt's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled_hash: Option<String>,
    /// The records of the calls that led to the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// How long the answer took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// What the answer cost, in nanos of the provider's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_nanos: Option<u64>,
}

/// How many trials ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Neither.
    pub errors: u64,
}

impl Counts {
    fn of<'a>(trials: impl Iterator<Item = &'a Trial>) -> Self {
        trials.fold(Self::default(), |mut counts, trial| {
            match trial.verdict {
                Verdict::Passed => counts.passed += 1,
                Verdict::Failed => counts.failed += 1,
                Verdict::Error => counts.errors += 1,
            }
            counts
        })
    }
}

/// The trials of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KindRate {
    /// How many ended how.
    pub counts: Counts,
    /// The rate of those that passed among those that passed or failed.
    pub rate: Option<Interval>,
}

/// How often a judge agreed with people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// How often.
    pub agreed: u64,
    /// Of so many.
    pub of: u64,
}

/// What is recorded of the judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JudgeReport {
    /// The provider span that was asked.
    pub provider: String,
    /// The model, if it is not the default.
    pub model: Option<String>,
    /// The hash of what the judge was told.
    pub prompt_hash: String,
    /// How often it was asked, for this variant.
    pub rulings: u64,
    /// What that cost, in nanos, as far as it is known.
    pub cost_nanos: u64,
    /// How often it agreed with people; `None` if it has no examples.
    pub agreement: Option<Agreement>,
}

/// Whether a variant is good enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GateResult {
    /// Whether it is.
    pub passed: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

/// The evaluation of a variant, as a `prompt_eval_run` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalRun {
    /// The name of the variant.
    #[serde(default)]
    pub name: String,
    /// The version of the suite.
    pub suite: Value,
    /// The version of the variant.
    pub variant: Value,
    /// The versions of its blocks.
    pub blocks: Value,
    /// How many trials ended how.
    pub counts: Counts,
    /// The rate of those that passed among those that passed or failed.
    pub rate: Option<Interval>,
    /// The same by kind.
    pub kinds: BTreeMap<FixtureKind, KindRate>,
    /// Fixtures that passed in some repetitions and failed in others.
    pub flaky: Vec<String>,
    /// The latency that half of the answers did not exceed.
    pub latency_p50_ms: Option<u64>,
    /// The latency that 95 of 100 answers did not exceed.
    pub latency_p95_ms: Option<u64>,
    /// What all answers cost, in nanos, as far as it is known.
    pub cost_nanos: u64,
    /// What is recorded of the judge.
    pub judge: Option<JudgeReport>,
    /// The version of the variant that it was compared with.
    pub baseline: Option<Value>,
    /// What the comparison says.
    pub difference: Option<Difference>,
    /// Whether it is good enough.
    pub gate: GateResult,
    /// The trials.
    #[serde(default)]
    pub trials: Vec<Trial>,
}

impl EvalRun {
    /// Reads a `prompt_eval_run`. The signature is not checked.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let mut run: Self = serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        let trials = span.content.as_ref().and_then(|content| content.get("trials")).cloned().unwrap_or_default();
        run.trials = serde_json::from_value(trials).map_err(|error| format!("content.trials: {error}"))?;
        run.name = span.name.clone().unwrap_or_default();
        Ok(run)
    }
}

/// The trials by cluster. Errors are left out.
fn clusters<'a>(trials: impl Iterator<Item = &'a Trial>) -> BTreeMap<&'a str, Cluster> {
    let mut clusters: BTreeMap<&str, Cluster> = BTreeMap::new();
    for trial in trials.filter(|trial| trial.verdict != Verdict::Error) {
        let cluster = clusters.entry(&trial.cluster).or_default();
        cluster.of += 1;
        cluster.good += u32::from(trial.verdict == Verdict::Passed);
    }
    clusters
}

fn rate_of<'a>(trials: impl Iterator<Item = &'a Trial>) -> Option<Interval> {
    rate(&clusters(trials).into_values().collect::<Vec<_>>())
}

fn quantile(mut values: Vec<u64>, percent: usize) -> Option<u64> {
    values.sort_unstable();
    values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

/// The versions that an evaluation is about.
pub(super) struct About {
    pub(super) name: String,
    pub(super) suite: Value,
    pub(super) variant: Value,
    pub(super) blocks: Value,
    pub(super) judge: Option<JudgeReport>,
    /// Whether others are compared with it.
    pub(super) is_baseline: bool,
}

/// Counts trials, compares them with those of the `baseline`, and holds them to the gate.
pub(super) fn tally(about: About, trials: Vec<Trial>, baseline: Option<(&Value, &[Trial])>, gate: &Gate) -> EvalRun {
    let counts = Counts::of(trials.iter());
    let rate = rate_of(trials.iter());
    let mut kinds = BTreeMap::new();
    for kind in trials.iter().map(|trial| trial.kind) {
        let of = || trials.iter().filter(|trial| trial.kind == kind);
        kinds.entry(kind).or_insert_with(|| KindRate { counts: Counts::of(of()), rate: rate_of(of()) });
    }
    let mut fixtures: BTreeMap<&str, Cluster> = BTreeMap::new();
    for trial in trials.iter().filter(|trial| trial.verdict != Verdict::Error) {
        let fixture = fixtures.entry(&trial.fixture).or_default();
        fixture.of += 1;
        fixture.good += u32::from(trial.verdict == Verdict::Passed);
    }
    let flaky = fixtures.into_iter().filter(|(_, f)| f.good > 0 && f.good < f.of).map(|(id, _)| id.to_owned()).collect();
    let difference = baseline.and_then(|(_, theirs)| {
        let (theirs, ours) = (clusters(theirs.iter()), clusters(trials.iter()));
        let pairs: Vec<_> = ours.iter().filter_map(|(name, ours)| Some((*theirs.get(name)?, *ours))).collect();
        compare(&pairs)
    });
    let latencies: Vec<u64> = trials.iter().filter_map(|trial| trial.latency_ms).collect();
    let is_compared = baseline.is_some() || !about.is_baseline;
    let held = held(gate, counts, rate, is_compared, difference.as_ref(), about.judge.as_ref());
    EvalRun {
        name: about.name,
        suite: about.suite,
        variant: about.variant,
        blocks: about.blocks,
        counts,
        rate,
        kinds,
        flaky,
        latency_p50_ms: quantile(latencies.clone(), 50),
        latency_p95_ms: quantile(latencies, 95),
        cost_nanos: trials.iter().filter_map(|trial| trial.cost_nanos).fold(0, u64::saturating_add),
        judge: about.judge,
        baseline: baseline.map(|(version, _)| version.clone()),
        difference,
        gate: held,
        trials,
    }
}

/// Whether the gate lets a variant through. What cannot be said does not let it through.
fn held(
    gate: &Gate,
    counts: Counts,
    rate: Option<Interval>,
    is_compared: bool,
    difference: Option<&Difference>,
    judge: Option<&JudgeReport>,
) -> GateResult {
    let mut reasons = Vec::new();
    if counts.errors > gate.max_errors {
        reasons.push(format!("{} trials ended in an error, {} may", counts.errors, gate.max_errors));
    }
    if gate.min_rate.is_none() && gate.max_drop.is_none() && counts.failed > 0 {
        reasons.push(format!("{} trials failed, and the gate names no rate that is enough", counts.failed));
    }
    match (rate, gate.min_rate) {
        (None, _) => reasons.push("no trial passed or failed".to_owned()),
        (Some(rate), Some(least)) if rate.low < least => {
            reasons.push(format!("the rate may be as low as {:.3}, and must be at least {least}", rate.low));
        }
        _ => {}
    }
    match (difference, gate.max_drop) {
        (Some(found), Some(most)) if found.difference.low < -most => {
            reasons.push(format!(
                "it may be worse than the first variant by {:.3}, and {most} is allowed ({} pairs show a difference of {:.3})",
                -found.difference.low, found.pairs, found.detectable
            ));
        }
        (None, Some(_)) if is_compared => reasons.push("it cannot be compared with a first variant".to_owned()),
        _ => {}
    }
    if let Some(least) = gate.min_agreement {
        let agreement = judge.and_then(|judge| judge.agreement).filter(|agreement| agreement.of > 0);
        #[expect(clippy::cast_precision_loss, reason = "there are at most 50 examples")]
        let share = agreement.map(|agreement| agreement.agreed as f64 / agreement.of as f64);
        if share.is_none_or(|share| share < least) {
            let said = agreement.map_or("none".to_owned(), |agreement| format!("{} of {}", agreement.agreed, agreement.of));
            reasons.push(format!("the judge agrees with people in {said} examples, and must in {least} of them"));
        }
    }
    GateResult { passed: reasons.is_empty(), reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(fixture: &str, repeat: u32, verdict: Verdict) -> Trial {
        Trial {
            fixture: fixture.to_owned(),
            kind: FixtureKind::Happy,
            cluster: fixture.to_owned(),
            repeat,
            verdict,
            faults: Vec::new(),
            compiled_hash: None,
            answers: Vec::new(),
            latency_ms: Some(u64::from(repeat)),
            cost_nanos: Some(2),
        }
    }

    fn of(trials: Vec<Trial>, gate: &Gate) -> EvalRun {
        let about = || About {
            name: "a@v1".into(),
            suite: Value::Null,
            variant: Value::Null,
            blocks: Value::Null,
            judge: None,
            is_baseline: true,
        };
        tally(about(), trials, None, gate)
    }

    fn many(passed: usize, failed: usize, errors: usize) -> Vec<Trial> {
        let verdicts = [(Verdict::Passed, passed), (Verdict::Failed, failed), (Verdict::Error, errors)];
        let all = verdicts.into_iter().flat_map(|(verdict, n)| std::iter::repeat_n(verdict, n));
        all.enumerate().map(|(n, verdict)| trial(&format!("f{n}"), 1, verdict)).collect()
    }

    /// Elsewhere, errors became passes.
    #[test]
    fn an_error_is_no_pass_and_the_gate_closes() {
        let run = of(many(50, 0, 1), &Gate::default());
        assert_eq!(run.counts, Counts { passed: 50, failed: 0, errors: 1 });
        assert!(!run.gate.passed && run.gate.reasons[0].contains("1 trials ended in an error"));
        assert!(of(many(50, 0, 0), &Gate::default()).gate.passed);
        assert!(!of(many(0, 0, 0), &Gate::default()).gate.passed, "nothing was shown");
        assert!(!of(many(50, 1, 0), &Gate::default()).gate.passed, "no rate is enough if none is named");
        let lenient = Gate { max_errors: 5, ..Gate::default() };
        assert!(!of(many(0, 0, 3), &lenient).gate.passed, "nothing was shown");
        assert!(of(many(50, 0, 3), &lenient).gate.passed);
    }

    #[test]
    fn a_few_passes_are_no_proof_of_a_rate() {
        let gate = Gate { min_rate: Some(0.9), ..Gate::default() };
        assert!(!of(many(10, 0, 0), &gate).gate.passed, "10 of 10 may be 72 in 100");
        assert!(of(many(100, 1, 0), &gate).gate.passed);
        let repeated = (1..=10).map(|n| trial("same", n, Verdict::Passed)).collect();
        assert!(!of(repeated, &gate).gate.passed, "one fixture ten times is one fixture");
    }

    #[test]
    fn flaky_fixtures_are_named_and_times_counted() {
        let mut trials = vec![trial("a", 1, Verdict::Passed), trial("a", 2, Verdict::Failed), trial("b", 1, Verdict::Failed)];
        trials.push(trial("b", 2, Verdict::Error));
        let run = of(trials, &Gate::default());
        assert_eq!((run.flaky, run.latency_p50_ms, run.latency_p95_ms), (vec!["a".to_owned()], Some(1), Some(2)));
        assert_eq!(run.cost_nanos, 8);
    }

    #[test]
    fn a_variant_that_may_be_worse_is_not_let_through() {
        let gate = Gate { max_drop: Some(0.1), ..Gate::default() };
        let theirs = many(30, 0, 0);
        let compared = |ours: Vec<Trial>| {
            let about = About {
                name: String::new(),
                suite: Value::Null,
                variant: Value::Null,
                blocks: Value::Null,
                judge: None,
                is_baseline: true,
            };
            tally(about, ours, Some((&Value::Null, &theirs)), &gate).gate
        };
        assert!(!compared(many(20, 10, 0)).passed);
        assert!(compared(many(30, 0, 0)).reasons.len() <= 1);
        let unlike: Vec<_> = (0..30).map(|n| trial(&format!("g{n}"), 1, Verdict::Passed)).collect();
        assert!(compared(unlike).reasons[0].contains("cannot be compared"));
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let run = of(many(3, 1, 1), &Gate::default());
        let mut metadata = serde_json::to_value(&run).unwrap();
        let trials = metadata.as_object_mut().unwrap().remove("trials").unwrap();
        let draft = logline_core::Draft::new("prompt_eval_run").name("a@v1").metadata(metadata);
        let draft = draft.content(serde_json::json!({"trials": trials}));
        assert_eq!(EvalRun::read(draft.columns()).unwrap(), run);
    }
}

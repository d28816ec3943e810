//! What the ledger says about how well a variant does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::contract::provider::ErrorKind;
use logline_core::ledger::{LedgerError, Query};
use logline_core::trust::Authorities;
use logline_core::{SignedSpan, Timestamp, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bandit::Counts;
use crate::family::{Family, Guard, Metric};
use crate::rates::lower;

/// The most results of a variant that are read, the newest.
pub(crate) const MAX_RESULTS: usize = 2_000;

/// The member of a `prompt_run`'s metadata that names the choice that led to it, and of that of an execution that failed.
pub(crate) const SELECTION: &str = "selection";

/// The member of a `prompt_run`'s metadata with the confidence that the answer states, from 0 to 1.
pub(crate) const CONFIDENCE: &str = "confidence";

/// The member of a `prompt_run`'s metadata that says that the answer is none.
pub(crate) const INSUFFICIENT: &str = "insufficient";

/// The member of a `prompt_run`'s metadata that says why the model stopped, if it is one of the known reasons.
pub(crate) const STOP: &str = "stop";

/// How far the clocks of hosts may be apart.
const CLOCKS: Duration = Duration::from_secs(86_400);

/// The member of an execution's metadata that names the variant of a run that failed.
pub(crate) const VARIANT_OF: &str = "prompt_variant";

/// The member of an execution's metadata that says how long the input of a run was that failed, in bytes of canonical JSON.
pub(crate) const INPUT_BYTES: &str = "input_bytes";

/// With a longer input, in bytes, the asker may be the cause of `provider:invalid`: otherwise anybody could make the variant of their choice
/// lose.
const MAX_INPUT: u64 = 4096;

/// The most runs of one choice that count, the newest. A session keeps its variant, so whoever asks often in one would decide how well that
/// variant does.
const MAX_OF_CHOICE: usize = 8;

/// One run of a variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) at: Timestamp,
    /// The choice that led to it.
    choice: Option<Uuid>,
    pub(crate) is_good: bool,
    is_error: bool,
    is_broken: bool,
    latency_ms: Option<u64>,
    cost_nanos: Option<u64>,
}

/// Reads rows of a tenant, the newest first, as far as a host of the tenant has signed them.
pub(crate) struct Newest<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) authorities: &'a Authorities,
    pub(crate) tenant: &'a str,
}

impl Newest<'_> {
    /// Rows of a type with this parent, until `take` returns `false` or `most` rows were read.
    pub(crate) async fn rows(
        &self,
        entity_type: &str,
        parent: Uuid,
        most: usize,
        take: impl FnMut(VerifiedSpan) -> bool,
    ) -> Result<(), LedgerError> {
        let query = Query::new().tenant(self.tenant).entity_type(entity_type).parent_id(parent);
        self.reader.newest_that_count(self.authorities, query, most, take).await
    }

    /// The newest row of a type with this parent that is `wanted`.
    pub(crate) async fn one(
        &self,
        entity_type: &str,
        parent: Uuid,
        wanted: impl Fn(&SignedSpan) -> bool,
    ) -> Result<Option<VerifiedSpan>, LedgerError> {
        let mut found = None;
        let take = |span: VerifiedSpan| {
            let is_wanted = wanted(&span);
            if is_wanted {
                found = Some(span);
            }
            !is_wanted
        };
        self.rows(entity_type, parent, MAX_RESULTS, take).await?;
        Ok(found)
    }

    /// The runs of a version of a variant since `from`, oldest first.
    pub(crate) async fn runs(
        &self,
        family: &Family,
        family_id: Uuid,
        variant: &SignedSpan,
        from: Timestamp,
    ) -> Result<Vec<Run>, LedgerError> {
        let hash = json!(variant.seal.curr_hash);
        // A host whose clock is wrong must not hide what is older.
        let oldest = from.saturating_sub(CLOCKS);
        let mut runs = Vec::new();
        let take = |span: VerifiedSpan| {
            let is_of = span.meta("variant").and_then(|named| named.get("curr_hash")) == Some(&hash);
            // Whoever asks for a variant by its name would decide how often it is asked, and with what.
            if is_of && span.at >= from && span.meta(SELECTION).is_some() {
                runs.push(ended(&span, family));
            }
            span.at >= oldest
        };
        self.rows("prompt_run", variant.id, MAX_RESULTS, take).await?;
        let (mut failed, mut requests) = (Vec::new(), BTreeSet::new());
        let take = |span: VerifiedSpan| {
            let is_of = span.meta(VARIANT_OF).and_then(|named| named.get("curr_hash")) == Some(&hash);
            // However often a request is tried again, it is one result.
            if is_of && span.at >= from && is_by_the_prompt(&span) && requests.insert(span.related_to.first().copied()) {
                let (at, choice) = (span.at, choice(&span));
                failed.push(Run {
                    at,
                    choice,
                    is_good: false,
                    is_error: true,
                    is_broken: false,
                    latency_ms: None,
                    cost_nanos: None,
                });
            }
            span.at >= oldest
        };
        let errors = Query::new().tenant(self.tenant).entity_type("execution").parent_id(family_id).status("error");
        self.reader.newest_that_count(self.authorities, errors, MAX_RESULTS, take).await?;
        runs.append(&mut failed);
        Ok(counted(runs))
    }

    /// What the last evaluation of a version of a variant with the family's suite says.
    pub(crate) async fn evaluated(&self, family: &Family, variant: &SignedSpan) -> Result<Counts, LedgerError> {
        let (Some(suite), most) = (family.suite, family.evals) else { return Ok(Counts::default()) };
        let (hash, suite) = (json!(variant.seal.curr_hash), json!(suite));
        let is_of = |span: &SignedSpan| {
            let member = |name: &str, of: &str| span.meta(name).and_then(|named| named.get(of)).cloned();
            member("variant", "curr_hash").as_ref() == Some(&hash) && member("suite", "id").as_ref() == Some(&suite)
        };
        let Some(last) = self.one("prompt_eval_run", variant.id, is_of).await? else { return Ok(Counts::default()) };
        let count = |name: &str| last.meta("counts").and_then(|counts| counts.get(name)).and_then(Value::as_u64).unwrap_or(0);
        let (good, bad) = (count("passed"), count("failed"));
        let total = good.saturating_add(bad);
        if total <= most {
            return Ok(Counts { good, bad });
        }
        let good = u64::try_from(u128::from(good) * u128::from(most) / u128::from(total)).unwrap_or(most);
        Ok(Counts { good, bad: most - good })
    }
}

/// Those of the runs that count, oldest first.
fn counted(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|run| Reverse(run.at));
    let mut of_choices: BTreeMap<Uuid, usize> = BTreeMap::new();
    runs.retain(|run| {
        let Some(choice) = run.choice else { return true };
        let count = of_choices.entry(choice).or_default();
        *count += 1;
        *count <= MAX_OF_CHOICE
    });
    runs.truncate(MAX_RESULTS);
    runs.reverse();
    runs
}

/// The choice that a record names.
fn choice(span: &SignedSpan) -> Option<Uuid> {
    span.meta(SELECTION).and_then(Value::as_str)?.parse().ok()
}

/// Whether the prompt can be the cause of a failure. A provider that is away says nothing about the prompt, nor does a request that gives no
/// value for a variable.
fn is_by_the_prompt(execution: &SignedSpan) -> bool {
    let code = execution.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str);
    match code.and_then(ErrorKind::from_code) {
        Some(ErrorKind::ContentFiltered) => true,
        Some(ErrorKind::Invalid) => execution.meta(INPUT_BYTES).and_then(Value::as_u64).is_none_or(|bytes| bytes <= MAX_INPUT),
        _ => false,
    }
}

/// A run that ended with an answer.
fn ended(span: &SignedSpan, family: &Family) -> Run {
    let is_broken = span.meta("contract").and_then(Value::as_str) == Some("broken");
    let has_none = span.meta(INSUFFICIENT) == Some(&Value::Bool(true));
    let confidence = span.meta(CONFIDENCE).and_then(Value::as_f64);
    let is_sure = confidence.is_none_or(|confidence| confidence >= family.min_confidence);
    Run {
        at: span.at,
        choice: choice(span),
        is_good: !is_broken && !has_none && is_sure,
        is_error: false,
        is_broken,
        latency_ms: span.meta("latency_ms").and_then(Value::as_u64),
        cost_nanos: span.meta("cost").and_then(|cost| cost.get("nanos")).and_then(Value::as_u64),
    }
}

/// The first guard that the runs exceed, as a text for people.
pub(crate) fn exceeded(guards: &[Guard], runs: &[Run]) -> Option<String> {
    guards.iter().find_map(|guard| {
        let value = measure(guard.metric, runs)?;
        let name = json!(guard.metric);
        (value > guard.max).then(|| format!("{}: {value} is over {}", name.as_str().unwrap_or_default(), guard.max))
    })
}

fn measure(metric: Metric, runs: &[Run]) -> Option<f64> {
    let count = |is: fn(&Run) -> bool| u64::try_from(runs.iter().filter(|run| is(run)).count()).unwrap_or(u64::MAX);
    let all = count(|_| true);
    match metric {
        Metric::Errors => Some(lower(count(|run| run.is_error), all)),
        Metric::Broken => Some(lower(count(|run| run.is_broken), all)),
        Metric::LatencyP95Ms => {
            let mut times: Vec<u64> = runs.iter().filter_map(|run| run.latency_ms).collect();
            times.sort_unstable();
            // The smallest time that at least 95 of 100 do not exceed.
            times.get((times.len() * 95).div_ceil(100).checked_sub(1)?).map(|ms| float(*ms))
        }
        Metric::CostMeanNanos => {
            let costs: Vec<u64> = runs.iter().filter_map(|run| run.cost_nanos).collect();
            let n = u64::try_from(costs.len()).ok().filter(|n| *n > 0)?;
            Some(float(costs.iter().fold(0_u64, |sum, cost| sum.saturating_add(*cost))) / float(n))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "measures are far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(is_error: bool, is_broken: bool, latency_ms: u64) -> Run {
        let at = Timestamp::from_unix_micros(0).unwrap();
        Run {
            at,
            choice: None,
            is_good: !is_error,
            is_error,
            is_broken,
            latency_ms: Some(latency_ms),
            cost_nanos: Some(latency_ms * 10),
        }
    }

    #[test]
    fn a_session_that_asks_often_counts_a_few_times() {
        let session = Uuid::from_u128(1);
        let at = |second: i64| Timestamp::from_unix_micros(second * 1_000_000).unwrap();
        let of = |choice, second| Run { at: at(second), choice: Some(choice), ..run(true, false, 1) };
        let many = (0..100).map(|n| of(session, n));
        let others = (2..12).map(|n| of(Uuid::from_u128(n), 200 + i64::try_from(n).unwrap()));
        let runs = counted(others.chain(many).collect());
        assert_eq!(runs.len(), MAX_OF_CHOICE + 10);
        assert_eq!(runs[0].at, at(92), "the newest of them, oldest first");
        assert!(runs.is_sorted_by_key(|run| run.at));
    }

    #[test]
    fn measures_are_what_their_names_say() {
        let runs: Vec<_> = (1..=100).map(|ms| run(ms <= 20, ms > 90, ms)).collect();
        assert_eq!(measure(Metric::LatencyP95Ms, &runs), Some(95.0));
        assert_eq!(measure(Metric::CostMeanNanos, &runs), Some(505.0));
        assert!((measure(Metric::Errors, &runs).unwrap() - 0.1334).abs() < 1e-3, "the lower end of 20 of 100");
        assert_eq!((measure(Metric::LatencyP95Ms, &[]), measure(Metric::CostMeanNanos, &[])), (None, None));
        assert_eq!(measure(Metric::LatencyP95Ms, &runs[..1]), Some(1.0));
        let guard = |metric, max| [Guard { metric, max }];
        assert_eq!(exceeded(&guard(Metric::Errors, 0.15), &runs), None, "20 of 100 may well be 15");
        assert!(exceeded(&guard(Metric::Broken, 0.01), &runs).unwrap().starts_with("broken: "));
        assert_eq!(exceeded(&guard(Metric::Errors, 0.0), &[]), None);
    }
}

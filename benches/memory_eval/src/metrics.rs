//! Metrics of retrieval, and the interval of a paired difference.

use std::fmt::Write as _;

use crate::corpus::Chance;

/// For each question, at which place (from 0 on) the first right answer was found.
pub(crate) type Outcomes = Vec<Option<usize>>;

/// The share of questions whose answer is among the first `k`.
pub(crate) fn any_at(outcomes: &Outcomes, k: usize) -> f64 {
    outcomes.iter().filter(|place| place.is_some_and(|place| place < k)).count() as f64 / outcomes.len().max(1) as f64
}

/// The mean of the places' reciprocals.
pub(crate) fn mrr(outcomes: &Outcomes) -> f64 {
    outcomes.iter().flatten().map(|place| 1.0 / (*place as f64 + 1.0)).sum::<f64>() / outcomes.len().max(1) as f64
}

pub(crate) fn table(systems: &[(&str, &Outcomes)]) -> String {
    let mut text = "| system | any@5 | any@10 | MRR |\n|---|---|---|---|\n".to_owned();
    for (name, outcomes) in systems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {:.3} | {:.3} | {:.3} |", any_at(outcomes, 5), any_at(outcomes, 10), mrr(outcomes));
    }
    text
}

/// How much more often `one` has the answer among the first ten than `other`, and the bounds between which 95 % of 10,000 resamples of the
/// questions have this difference. Both must have been asked the same questions.
pub(crate) fn paired(one: &Outcomes, other: &Outcomes) -> (f64, f64, f64) {
    paired_by(one, other, |place| within(place, 10))
}

/// What a question is worth, from the place of its answer.
pub(crate) type Value = fn(Option<usize>) -> f64;

/// The values whose means are reported.
pub(crate) const VALUES: [(&str, Value); 3] = [
    ("any@5", |place| within(place, 5)),
    ("any@10", |place| within(place, 10)),
    ("MRR", |place| place.map_or(0.0, |place| 1.0 / (place as f64 + 1.0))),
];

fn within(place: Option<usize>, most: usize) -> f64 {
    f64::from(u8::from(place.is_some_and(|place| place < most)))
}

/// As [`paired`], for another value.
pub(crate) fn paired_by(one: &Outcomes, other: &Outcomes, value: Value) -> (f64, f64, f64) {
    let differences: Vec<f64> = one.iter().zip(other).map(|(one, other)| value(*one) - value(*other)).collect();
    let mean = |sum: f64| sum / differences.len().max(1) as f64;
    let mut chance = Chance::new(11);
    let mut resamples: Vec<f64> =
        (0..10_000).map(|_| mean((0..differences.len()).map(|_| differences[chance.below(differences.len())]).sum())).collect();
    resamples.sort_by(f64::total_cmp);
    (mean(differences.iter().sum()), resamples[250], resamples[9749])
}

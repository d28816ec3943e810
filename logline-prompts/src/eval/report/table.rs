//! Evaluations as a table for a terminal.

use std::fmt::Write as _;

use super::super::tally::{EvalRun, Verdict};
use super::{kind, percent, verdict};

/// The most trials that are shown of a variant.
const MAX_SHOWN: usize = 20;

/// What a person wants to know first: rates, whether each variant is let through, and what went wrong.
#[must_use]
pub fn table(runs: &[EvalRun]) -> String {
    let mut out = String::new();
    for run in runs {
        one(&mut out, run);
    }
    out.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn one(out: &mut String, run: &EvalRun) {
    let counts = run.counts;
    let gate = if run.gate.passed { "let through" } else { "not let through" };
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!("{}: {}", run.name, gate));
    for reason in &run.gate.reasons {
        line(format!("  because {reason}"));
    }
    line(format!("  {:<18} {:>6} {:>6} {:>6}  rate, with its 95 % interval", "", "passed", "failed", "errors"));
    let row = |name: &str, counts: super::super::tally::Counts, rate: String| {
        format!("  {name:<18} {:>6} {:>6} {:>6}  {rate}", counts.passed, counts.failed, counts.errors)
    };
    line(row("all", counts, percent(run.rate.as_ref())));
    for (name, of) in &run.kinds {
        line(row(&kind(*name), of.counts, percent(of.rate.as_ref())));
    }
    if let Some(found) = &run.difference {
        let of = &found.difference;
        line(format!(
            "  compared with the first: {:+.1} % ({:+.1} to {:+.1}) in {} pairs; a difference of {:.1} % would have been seen",
            of.value * 100.0,
            of.low * 100.0,
            of.high * 100.0,
            found.pairs,
            found.detectable * 100.0
        ));
    }
    if let (Some(half), Some(most)) = (run.latency_p50_ms, run.latency_p95_ms) {
        let unknown = run.trials.iter().filter(|trial| !trial.answers.is_empty() && trial.cost_nanos.is_none()).count();
        let cost = match unknown {
            0 => format!("{} nanos", run.cost_nanos),
            unknown => format!("{} nanos, and not known for {unknown} answers", run.cost_nanos),
        };
        line(format!("  latency: {half} ms (half of the answers), {most} ms (95 of 100); cost: {cost}"));
    }
    if let Some(judge) = &run.judge {
        let agreed =
            judge.agreement.map_or("no examples".to_owned(), |of| format!("agrees with people in {} of {}", of.agreed, of.of));
        line(format!("  judge: {} rulings, {agreed}; cost: {} nanos", judge.rulings, judge.cost_nanos));
    }
    if !run.flaky.is_empty() {
        line(format!("  passed once and failed once: {}", run.flaky.join(", ")));
    }
    let bad: Vec<_> = run.trials.iter().filter(|trial| trial.verdict != Verdict::Passed).collect();
    for trial in bad.iter().take(MAX_SHOWN) {
        let faults = trial.faults.join("; ").replace('\n', " ");
        line(format!("  {} {}/{}: {faults}", verdict(trial.verdict), trial.fixture, trial.repeat));
    }
    if bad.len() > MAX_SHOWN {
        line(format!("  and {} more", bad.len() - MAX_SHOWN));
    }
}

//! Evaluations as JUnit XML, which build servers show.

use std::fmt::Write as _;

use super::super::tally::{EvalRun, Verdict};
use super::{escaped, kind};

/// One test suite for each variant, one test case for each trial. Failures and errors are kept apart.
#[must_use]
pub fn junit(runs: &[EvalRun]) -> String {
    let sum = |of: fn(&EvalRun) -> u64| runs.iter().map(of).sum::<u64>();
    let (failures, errors) = (sum(|run| run.counts.failed), sum(|run| run.counts.errors));
    let tests = sum(|run| run.counts.passed) + failures + errors;
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, "<testsuites tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">");
    for run in runs {
        let name = escaped(&run.name);
        let (failed, errors) = (run.counts.failed, run.counts.errors);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\">",
            run.trials.len()
        );
        for trial in &run.trials {
            let case = format!("{}/{}", trial.fixture, trial.repeat);
            let ms = trial.latency_ms.unwrap_or(0);
            let time = format!("{}.{:03}", ms / 1_000, ms % 1_000);
            let head =
                format!("<testcase classname=\"{}\" name=\"{}\" time=\"{time}\"", escaped(&kind(trial.kind)), escaped(&case));
            let faults = escaped(&trial.faults.join("; "));
            let _ = match trial.verdict {
                Verdict::Passed => writeln!(out, "    {head}/>"),
                Verdict::Failed => writeln!(out, "    {head}><failure message=\"{faults}\"/></testcase>"),
                Verdict::Error => writeln!(out, "    {head}><error message=\"{faults}\"/></testcase>"),
            };
        }
        let _ = writeln!(out, "  </testsuite>");
    }
    out.push_str("</testsuites>\n");
    out
}

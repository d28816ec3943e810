//! Evaluations as CSV (RFC 4180), one line for each trial.

use super::super::tally::EvalRun;
use super::{kind, verdict};

/// One line for each trial. A text that a spreadsheet would take for a formula begins with an apostrophe.
#[must_use]
pub fn csv(runs: &[EvalRun]) -> String {
    let mut out = String::from("variant,fixture,kind,repeat,verdict,latency_ms,cost_nanos,faults\r\n");
    for run in runs {
        for trial in &run.trials {
            let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
            let cells = [
                cell(&run.name),
                cell(&trial.fixture),
                kind(trial.kind),
                trial.repeat.to_string(),
                verdict(trial.verdict).to_owned(),
                number(trial.latency_ms),
                number(trial.cost_nanos),
                cell(&trial.faults.join("; ")),
            ];
            out.push_str(&cells.join(","));
            out.push_str("\r\n");
        }
    }
    out
}

fn cell(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
    let text = text.as_str();
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', ';', '"', '\n', '\'']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

//! Evaluations as one HTML file without anything from elsewhere.

use std::fmt::Write as _;

use super::super::tally::{EvalRun, Verdict};
use super::{escaped, kind, percent, verdict};
use crate::rates::Interval;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<title>Evaluation of prompts</title>\n\
<style>\n:root { color-scheme: light dark; font-family: system-ui, sans-serif; }\n\
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }\n\
table { border-collapse: collapse; width: 100%; }\n\
th, td { border-bottom: 1px solid #8885; padding: .3rem .5rem; text-align: left; vertical-align: top; }\n\
td.number, th.number { text-align: right; }\n\
.failed, .error { font-weight: bold; }\n\
svg { width: 100%; height: auto; }\nsvg text { fill: currentColor; font-size: 12px; }\n</style>\n";

/// Rates with their intervals as a plot, a table for each variant, and every trial that did not pass.
#[must_use]
pub fn html(runs: &[EvalRun]) -> String {
    let mut out = String::from(HEAD);
    out.push_str("<h1>Evaluation of prompts</h1>\n");
    out.push_str(&plot(runs));
    for run in runs {
        section(&mut out, run);
    }
    out.push_str("</html>\n");
    out
}

/// The height of a row of the plot, where the line of a rate begins, and how long it is.
const ROW: usize = 26;
const LEFT: f64 = 200.0;
const WIDTH: f64 = 560.0;

/// The rates of all variants and kinds, with their intervals.
fn plot(runs: &[EvalRun]) -> String {
    let mut rows: Vec<(String, Option<Interval>)> = Vec::new();
    for run in runs {
        rows.push((run.name.clone(), run.rate));
        rows.extend(run.kinds.iter().map(|(name, of)| (format!("\u{2003}{}", kind(*name)), of.rate)));
    }
    let height = (rows.len() + 1) * ROW;
    let mut out = String::new();
    let _ = writeln!(out, "<svg viewBox=\"0 0 800 {height}\" role=\"img\" aria-label=\"Rates with their 95 % intervals\">");
    for tenth in 0..=4_u8 {
        let x = LEFT + WIDTH * f64::from(tenth) / 4.0;
        let bottom = height - ROW + 4;
        let _ = writeln!(out, "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#8886\"/>");
        let _ =
            writeln!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{} %</text>", height - 6, u32::from(tenth) * 25);
    }
    for (at, (name, rate)) in rows.iter().enumerate() {
        let y = at * ROW + ROW / 2;
        let _ = writeln!(out, "<text x=\"0\" y=\"{}\">{}</text>", y + 4, escaped(name));
        let Some(rate) = rate else { continue };
        let x = |share: f64| LEFT + WIDTH * share;
        let (low, value, high) = (x(rate.low), x(rate.value), x(rate.high));
        let _ =
            writeln!(out, "<line x1=\"{low:.1}\" y1=\"{y}\" x2=\"{high:.1}\" y2=\"{y}\" stroke=\"#47a\" stroke-width=\"3\"/>");
        let _ = writeln!(out, "<circle cx=\"{value:.1}\" cy=\"{y}\" r=\"5\" fill=\"#47a\"/>");
    }
    out.push_str("</svg>\n");
    out
}

fn section(out: &mut String, run: &EvalRun) {
    let gate = if run.gate.passed { "let through" } else { "not let through" };
    let _ = writeln!(out, "<h2>{}: {gate}</h2>", escaped(&run.name));
    if !run.gate.reasons.is_empty() {
        out.push_str("<ul>\n");
        for reason in &run.gate.reasons {
            let _ = writeln!(out, "<li>{}</li>", escaped(reason));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<table>\n<tr><th></th><th class=\"number\">passed</th><th class=\"number\">failed</th><th class=\"number\">errors</th><th>rate, with its 95 % interval</th></tr>\n");
    let all = std::iter::once(("all".to_owned(), run.counts, run.rate));
    for (name, counts, rate) in all.chain(run.kinds.iter().map(|(name, of)| (kind(*name), of.counts, of.rate))) {
        let _ = writeln!(
            out,
            "<tr><th>{name}</th><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
            counts.passed,
            counts.failed,
            counts.errors,
            percent(rate.as_ref())
        );
    }
    out.push_str("</table>\n");
    if let Some(found) = &run.difference {
        let of = &found.difference;
        let _ = writeln!(
            out,
            "<p>Compared with the first variant: {:+.1} % ({:+.1} to {:+.1}) in {} pairs. A difference of {:.1} % would have been seen.</p>",
            of.value * 100.0,
            of.low * 100.0,
            of.high * 100.0,
            found.pairs,
            found.detectable * 100.0
        );
    }
    let bad: Vec<_> = run.trials.iter().filter(|trial| trial.verdict != Verdict::Passed).collect();
    if bad.is_empty() {
        return;
    }
    out.push_str("<table>\n<tr><th>fixture</th><th>ended</th><th>why</th></tr>\n");
    for trial in bad {
        let (ended, faults) = (verdict(trial.verdict), escaped(&trial.faults.join("; ")));
        let fixture = escaped(&trial.fixture);
        let _ =
            writeln!(out, "<tr><td>{fixture}/{}</td><td class=\"{ended}\">{ended}</td><td>{faults}</td></tr>", trial.repeat);
    }
    out.push_str("</table>\n");
}

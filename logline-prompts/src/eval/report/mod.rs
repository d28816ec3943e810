//! Evaluations for people and for other tools.

mod csv;
mod html;
mod junit;
mod table;

pub use csv::csv;
pub use html::html;
pub use junit::junit;
pub use table::table;

use serde_json::Value;

use super::fixture::FixtureKind;
use super::tally::Verdict;
use crate::rates::Interval;

/// The name of a kind, as suites write it.
fn kind(kind: FixtureKind) -> String {
    match serde_json::to_value(kind) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Error => "error",
    }
}

/// A rate with its interval, in per cent.
fn percent(rate: Option<&Interval>) -> String {
    match rate {
        Some(rate) => format!("{:.1} % ({:.1} to {:.1})", rate.value * 100.0, rate.low * 100.0, rate.high * 100.0),
        None => "not known".to_owned(),
    }
}

/// A text with everything escaped that means something in XML and HTML. Characters that XML cannot have become `?`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::suite::Gate;
    use super::super::tally::{About, EvalRun, Trial, tally};
    use super::*;

    /// Two variants, with texts that try to become markup, a formula, or a second line.
    fn runs() -> Vec<EvalRun> {
        let trial = |fixture: &str, verdict: Verdict, fault: &str| Trial {
            fixture: fixture.to_owned(),
            kind: FixtureKind::Ambiguous,
            cluster: fixture.to_owned(),
            repeat: 1,
            verdict,
            faults: if fault.is_empty() { Vec::new() } else { vec![fault.to_owned()] },
            compiled_hash: None,
            answers: Vec::new(),
            latency_ms: Some(7),
            cost_nanos: Some(11),
        };
        let of = |name: &str, trials: Vec<Trial>, baseline: Option<(&Value, &[Trial])>| {
            let about = About {
                name: name.to_owned(),
                suite: json!({}),
                variant: json!({}),
                blocks: json!([]),
                judge: None,
                is_baseline: true,
            };
            tally(about, trials, baseline, &Gate::default())
        };
        let first = of("a@v1", vec![trial("f1", Verdict::Passed, ""), trial("f2", Verdict::Failed, "<b>\u{1} & \"x\"")], None);
        let baseline = json!({});
        let trials = vec![trial("f1", Verdict::Passed, ""), trial("f2", Verdict::Error, "=cmd|' /C calc'!A0\nnext")];
        let second = of("a@<v2>", trials, Some((&baseline, &first.trials)));
        vec![first, second]
    }

    #[test]
    fn a_table_names_rates_and_what_stops_a_variant() {
        let text = table(&runs());
        for part in ["a@v1", "50.0 %", "ambiguous", "not let through", "1 trials ended in an error", "f2"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1}'), "control characters do not reach a terminal");
    }

    #[test]
    fn junit_keeps_failures_and_errors_apart_and_is_xml() {
        let text = junit(&runs());
        assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
        assert!(text.contains("<testsuites tests=\"4\" failures=\"1\" errors=\"1\">"), "{text}");
        assert!(text.contains("<testsuite name=\"a@&lt;v2&gt;\" tests=\"2\" failures=\"0\" errors=\"1\""), "{text}");
        assert!(text.contains("&lt;b&gt;? &amp; &quot;x&quot;"), "{text}");
        assert!(!text.contains('\u{1}'));
    }

    #[test]
    fn csv_quotes_and_no_cell_is_a_formula() {
        let text = csv(&runs());
        let mut lines = text.split("\r\n");
        assert_eq!(lines.next(), Some("variant,fixture,kind,repeat,verdict,latency_ms,cost_nanos,faults"));
        assert!(text.contains("\"'=cmd|' /C calc'!A0\nnext\""), "{text}");
        assert!(text.contains("a@v1,f1,ambiguous,1,passed,7,11,\r\n"), "{text}");
    }

    #[test]
    fn html_is_one_file_whose_texts_are_texts() {
        let text = html(&runs());
        assert!(text.starts_with("<!doctype html>") && text.contains("<svg"), "{text}");
        assert!(!text.contains("<b>") && !text.contains("://") && !text.contains("<script"), "{text}");
        assert!(text.contains("Content-Security-Policy"));
    }
}

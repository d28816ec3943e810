//! Whether an answer is what a fixture expects, as far as no model is needed to say so.

use serde_json::Value;

use super::fixture::{Expectation, pattern};
use crate::contract::Contract;

/// An answer, as it is checked.
pub(super) struct Answered<'a> {
    pub(super) output: &'a Value,
    pub(super) cost_nanos: Option<u64>,
    pub(super) latency_ms: Option<u64>,
    /// Whether the variant has no contract, so that the answer is what stands in its text.
    pub(super) is_text: bool,
    /// Whether the fixture expects that there is no answer.
    pub(super) may_error: bool,
}

impl Answered<'_> {
    /// The answer as a value; `None` if it is no JSON.
    fn value(&self) -> Option<Value> {
        if !self.is_text {
            return Some(self.output.clone());
        }
        logline_core::json::parse(text(self.output).trim().as_bytes()).ok()
    }
}

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    Holds,
    /// What is wrong with the answer.
    Fails(String),
    /// It cannot be said.
    Unknown(String),
    /// A judge has to decide.
    ForJudge,
}

/// The text of an answer: its member `text`, or the answer as JSON.
pub(super) fn text(output: &Value) -> String {
    match output.get("text").or(output.get("error")) {
        Some(Value::String(text)) => text.clone(),
        _ => String::from_utf8_lossy(&logline_core::canonical::to_vec(output)).into_owned(),
    }
}

pub(super) fn check(expectation: &Expectation, answered: &Answered<'_>) -> Checked {
    let output = answered.output;
    let holds = |holds: bool, reason: String| if holds { Checked::Holds } else { Checked::Fails(reason) };
    let at_most = |value: Option<u64>, most: u64, what: &str| match value {
        Some(value) => holds(value <= most, format!("{what} is {value}, at most {most} is allowed")),
        None => Checked::Unknown(format!("{what} is not known")),
    };
    match expectation {
        // A text that says why there is no answer is none.
        Expectation::MustContain(_) | Expectation::MustContainAnyCase(_) | Expectation::MustMatch(_)
            if output.get("error").is_some() && !answered.may_error =>
        {
            Checked::Fails("it says that there is no answer".to_owned())
        }
        Expectation::MustContain(part) => holds(text(output).contains(part), format!("it does not contain `{part}`")),
        Expectation::MustContainAnyCase(part) => {
            let has = text(output).to_lowercase().contains(&part.to_lowercase());
            holds(has, format!("it does not contain `{part}`, in capitals or not"))
        }
        Expectation::MustNotContain(part) => holds(!text(output).contains(part), format!("it contains `{part}`")),
        Expectation::MustMatch(expression) => match pattern(expression) {
            Ok(found) => holds(found.is_match(&text(output)), format!("it does not match `{expression}`")),
            Err(reason) => Checked::Unknown(reason),
        },
        Expectation::MustEqual(wanted) => {
            let is_text = wanted.as_str().is_some_and(|wanted| wanted.trim() == text(output).trim());
            holds(is_text || answered.value().as_ref() == Some(wanted), "it is another value".to_owned())
        }
        Expectation::MustHold(schema) => match Contract::read(schema) {
            Ok(contract) => match answered.value().map(|value| contract.value(&value)) {
                Some(Ok(())) => Checked::Holds,
                Some(Err(faults)) => Checked::Fails(faults.join("; ")),
                None => Checked::Fails("it is not JSON".to_owned()),
            },
            Err(reason) => Checked::Unknown(reason),
        },
        Expectation::MustError(wanted) => {
            let is_error = output.get("error").is_some();
            let reason =
                if *wanted { "it is an answer, and should say that there is none" } else { "it says that there is none" };
            holds(is_error == *wanted, reason.to_owned())
        }
        Expectation::MaxCostNanos(most) => at_most(answered.cost_nanos, *most, "the cost in nanos"),
        Expectation::MaxLatencyMs(most) => at_most(answered.latency_ms, *most, "the latency in milliseconds"),
        Expectation::Judge(_) => Checked::ForJudge,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(expectation: Value, output: &Value) -> Checked {
        let answered = Answered { output, cost_nanos: Some(10), latency_ms: None, is_text: false, may_error: false };
        check(&serde_json::from_value(expectation).unwrap(), &answered)
    }

    #[test]
    fn each_expectation_holds_and_fails() {
        let output = json!({"text": "Paris, of course.", "confidence": 0.9});
        let schema = |max: f64| json!({"must_hold": {"properties": {"confidence": {"maximum": max}}}});
        for (good, bad) in [
            (json!({"must_contain": "Paris"}), json!({"must_contain": "paris"})),
            (json!({"must_contain_any_case": "PARIS"}), json!({"must_contain_any_case": "Rome"})),
            (json!({"must_not_contain": "Rome"}), json!({"must_not_contain": "course"})),
            (json!({"must_match": "^P[a-z]+,"}), json!({"must_match": "^\\d"})),
            (json!({"must_equal": "Paris, of course."}), json!({"must_equal": {"text": "Paris, of course."}})),
            (schema(1.0), schema(0.5)),
            (json!({"must_error": false}), json!({"must_error": true})),
            (json!({"max_cost_nanos": 10}), json!({"max_cost_nanos": 9})),
        ] {
            assert_eq!(of(good.clone(), &output), Checked::Holds, "{good}");
            assert!(matches!(of(bad.clone(), &output), Checked::Fails(_)), "{bad}");
        }
        assert_eq!(of(json!({"must_error": true}), &json!({"error": "no"})), Checked::Holds);
        let none = json!({"error": "I cannot say whether it is Paris"});
        assert!(matches!(of(json!({"must_contain": "Paris"}), &none), Checked::Fails(_)));
        assert_eq!(of(json!({"judge": "it is polite"}), &output), Checked::ForJudge);
    }

    #[test]
    fn without_a_contract_the_text_is_the_answer() {
        let of = |expectation: Value, text: &str| {
            let output = json!({"text": text});
            let answered = Answered { output: &output, cost_nanos: None, latency_ms: None, is_text: true, may_error: false };
            check(&serde_json::from_value(expectation).unwrap(), &answered)
        };
        assert!(matches!(of(json!({"must_hold": {}}), "this is no json"), Checked::Fails(_)));
        assert_eq!(of(json!({"must_hold": {"required": ["n"]}}), "{\"n\": 1}"), Checked::Holds);
        assert_eq!(of(json!({"must_equal": {"n": 1}}), " {\"n\": 1}\n"), Checked::Holds);
        assert!(matches!(of(json!({"must_equal": {"n": 1}}), "{\"n\": 2}"), Checked::Fails(_)));
    }

    /// What cannot be measured is no pass.
    #[test]
    fn what_is_not_known_is_neither_passed_nor_failed() {
        let output = json!({"text": ""});
        assert!(matches!(of(json!({"max_latency_ms": 1_000_000}), &output), Checked::Unknown(_)));
        assert!(matches!(of(json!({"must_match": "("}), &output), Checked::Unknown(_)));
    }

    #[test]
    fn a_pattern_that_could_run_for_ever_does_not() {
        let output = json!({"text": format!("{}!", "a".repeat(100_000))});
        assert!(matches!(of(json!({"must_match": "^(a+)+$"}), &output), Checked::Fails(_)));
    }
}

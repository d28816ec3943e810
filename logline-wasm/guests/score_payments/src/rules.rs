//! The rule table.

use crate::condition::{Condition, only};
use crate::found::found;
use logline_guest::Failure;
use serde_json::Value;

/// Bounds one rule's weight, so that the total of any table that fits in a span stays far from overflow.
const MAX_SCORE: i64 = 1000;

/// A rule table that was checked completely: a mistake in a rule that would not have been reached is an error too,
/// or it would wait for the one payment that needs it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) version: String,
    pub(crate) review: i64,
    pub(crate) block: i64,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    /// Added to the total when the rule hits; negative for what speaks in the payment's favour.
    pub(crate) score: i64,
    pub(crate) reason: String,
    pub(crate) when: Condition,
}

impl Table {
    pub(crate) fn parse(config: Option<&Value>) -> Result<Self, Failure> {
        let Some(Value::Object(table)) = config else {
            return Err(invalid("config", "a rule table as an object", config));
        };
        only(table, &["version", "thresholds", "rules"], "config")?;
        let version = text(table.get("version"), "version")?;

        let Some(Value::Object(thresholds)) = table.get("thresholds") else {
            return Err(invalid("thresholds", "an object with `review` and `block`", table.get("thresholds")));
        };
        only(thresholds, &["review", "block"], "thresholds")?;
        let review = integer(thresholds.get("review"), "thresholds.review")?;
        let block = integer(thresholds.get("block"), "thresholds.block")?;
        if review > block {
            let message = format!("`thresholds`: expected `review` at or below `block`, found {review} and {block}");
            return Err(Failure::new("invalid_config", message));
        }

        let Some(Value::Array(items)) = table.get("rules") else {
            return Err(invalid("rules", "an array of rules", table.get("rules")));
        };
        let mut rules: Vec<Rule> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let rule = Rule::parse(item, &format!("rules[{index}]"))?;
            if rules.iter().any(|earlier| earlier.id == rule.id) {
                let message = format!("`rules[{index}].id`: expected a unique id, found `{}` again", rule.id);
                return Err(Failure::new("invalid_config", message));
            }
            rules.push(rule);
        }
        Ok(Self { version, review, block, rules })
    }
}

impl Rule {
    fn parse(value: &Value, at: &str) -> Result<Self, Failure> {
        let Value::Object(rule) = value else {
            return Err(invalid(at, "a rule as an object", Some(value)));
        };
        only(rule, &["id", "score", "when", "reason"], at)?;
        let score_at = format!("{at}.score");
        let score = integer(rule.get("score"), &score_at)?;
        if !(-MAX_SCORE..=MAX_SCORE).contains(&score) {
            let message = format!("`{score_at}`: expected -{MAX_SCORE} to {MAX_SCORE}, found {score}");
            return Err(Failure::new("invalid_config", message));
        }
        Ok(Self {
            id: text(rule.get("id"), &format!("{at}.id"))?,
            score,
            reason: text(rule.get("reason"), &format!("{at}.reason"))?,
            when: Condition::parse(rule.get("when"), &format!("{at}.when"))?,
        })
    }
}

pub(crate) fn invalid(at: &str, expected: &str, value: Option<&Value>) -> Failure {
    Failure::new("invalid_config", format!("`{at}`: expected {expected}, found {}", found(value)))
}

fn text(value: Option<&Value>, at: &str) -> Result<String, Failure> {
    match value.and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(invalid(at, "a non-empty string", value)),
    }
}

fn integer(value: Option<&Value>, at: &str) -> Result<i64, Failure> {
    value.and_then(Value::as_i64).ok_or_else(|| invalid(at, "an integer", value))
}

//! Fixtures: questions with what is expected of the answers.

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::Contract;

/// What a fixture tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FixtureKind {
    /// A question as it should be.
    Happy,
    /// A question with more than one meaning.
    Ambiguous,
    /// More context than fits.
    OverlongContext,
    /// Context that contradicts itself.
    Conflicting,
    /// A question that needs a tool that is not there.
    ToolUnavailable,
}

/// What is expected of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Expectation {
    /// The text has this part.
    MustContain(String),
    /// The text has this part, in capitals or not.
    MustContainAnyCase(String),
    /// The text does not have this part.
    MustNotContain(String),
    /// The text matches this regular expression somewhere.
    MustMatch(String),
    /// The answer is this value, or its text is this text.
    MustEqual(Value),
    /// The answer holds to this JSON schema.
    MustHold(Value),
    /// `true`: the answer says that there is none (`{"error": …}`). `false`: it does not.
    MustError(bool),
    /// The answer costs no more, in nanos of the provider's currency. A cost that is not known is an error.
    MaxCostNanos(u64),
    /// The answer takes no longer.
    MaxLatencyMs(u64),
    /// A model finds that this is true of the answer.
    Judge(String),
}

/// A question with what is expected of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Fixture {
    /// Its name in the suite: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// What it tries.
    pub kind: FixtureKind,
    /// Where it comes from. Fixtures of one source are alike, and count as less than so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the user asks.
    pub question: String,
    /// Values of variables.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub vars: Value,
    /// Texts that stand before the question as context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// What must be true of the answer. All of it.
    pub expect: Vec<Expectation>,
}

/// The most expectations of a fixture.
const MAX_EXPECTATIONS: usize = 20;

/// The most bytes of a pattern, and of the machine that it becomes.
const MAX_PATTERN: (usize, usize) = (1 << 10, 1 << 20);

/// The most bytes of the texts of a fixture.
const MAX_TEXTS: usize = 64 << 10;

/// A regular expression that takes time in proportion to the text.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, String> {
    if text.len() > MAX_PATTERN.0 {
        return Err(format!("the pattern has more than {} bytes", MAX_PATTERN.0));
    }
    RegexBuilder::new(text).size_limit(MAX_PATTERN.1).build().map_err(|error| format!("it is no regular expression: {error}"))
}

impl Fixture {
    /// A fixture that expects nothing yet.
    #[must_use]
    pub fn new(id: &str, kind: FixtureKind, question: &str) -> Self {
        let (id, question) = (id.to_owned(), question.to_owned());
        Self { id, kind, source: None, question, vars: Value::Null, context: Vec::new(), expect: Vec::new() }
    }

    /// Checks that the fixture makes sense.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(is_name) {
            return Err("id must be 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        if self.source.as_ref().is_some_and(|source| source.is_empty() || source.len() > 64) {
            return Err("source must have 1 to 64 bytes".to_owned());
        }
        if self.question.trim().is_empty() {
            return Err("question must not be empty".to_owned());
        }
        let bytes = self.context.iter().map(String::len).fold(self.question.len(), usize::saturating_add);
        if bytes > MAX_TEXTS {
            return Err(format!("question and context have more than {MAX_TEXTS} bytes"));
        }
        if self.expect.is_empty() || self.expect.len() > MAX_EXPECTATIONS {
            return Err(format!("expect must name 1 to {MAX_EXPECTATIONS} things: without any, every answer would pass"));
        }
        self.expect.iter().try_for_each(|expectation| match expectation {
            Expectation::MustMatch(text) => pattern(text).map(drop).map_err(|reason| format!("must_match: {reason}")),
            Expectation::MustHold(schema) => Contract::read(schema).map(drop).map_err(|reason| format!("must_hold: {reason}")),
            Expectation::MustContain(text)
            | Expectation::MustContainAnyCase(text)
            | Expectation::MustNotContain(text)
            | Expectation::Judge(text)
                if text.is_empty() =>
            {
                Err("an expectation has an empty text".to_owned())
            }
            _ => Ok(()),
        })
    }

    /// What a judge is to decide.
    pub(super) fn criteria(&self) -> impl Iterator<Item = &str> {
        self.expect.iter().filter_map(|expectation| match expectation {
            Expectation::Judge(criterion) => Some(criterion.as_str()),
            _ => None,
        })
    }
}

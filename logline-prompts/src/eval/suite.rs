//! Suites: the fixtures of a family, and when a variant is good enough.

use std::collections::BTreeSet;

use logline_core::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::fixture::Fixture;

/// The most fixtures of a suite.
pub const MAX_FIXTURES: usize = 300;

/// The fixtures of a family, as a `prompt_eval` has them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Suite {
    /// The family whose variants are evaluated.
    pub family: String,
    /// The fixtures.
    pub fixtures: Vec<Fixture>,
    /// Who decides what only a reader can decide.
    pub judge: Option<Judge>,
    /// When a variant is good enough.
    pub gate: Gate,
    /// How often each fixture is asked. 1 to 10, default 1.
    pub repeats: u32,
    /// How many fixtures are asked at the same time. 1 to 16, default 4.
    pub parallel: usize,
}

/// A model that decides whether something is true of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Judge {
    /// The provider span that is asked.
    pub provider: Uuid,
    /// The model; `None`: the provider's default model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it should know of the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Answers that people have judged. The judge is asked about them too, to see how often it agrees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Labelled>,
}

/// An answer that a person has judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// What was asked.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// What should be true of it.
    pub criterion: String,
    /// Whether the person found that it is.
    pub pass: bool,
}

/// When a variant is good enough. A trial that ended in an error never counts as passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Gate {
    /// The lower end of the interval of its rate must be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<f64>,
    /// Compared with the first variant of the evaluation, the lower end of the interval of the difference may be this much below 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// The variant with which others are compared; it must be the first of an evaluation. `None`: whoever asks decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Uuid>,
    /// The judge must agree with people in this share of the examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_agreement: Option<f64>,
    /// So many trials may end in an error. Default 0.
    #[serde(default)]
    pub max_errors: u64,
}

impl Default for Gate {
    /// No trial may fail or end in an error.
    fn default() -> Self {
        Self { min_rate: None, max_drop: None, baseline: None, min_agreement: None, max_errors: 0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    family: String,
    #[serde(default)]
    judge: Option<Judge>,
    #[serde(default)]
    gate: Gate,
    #[serde(default = "one")]
    repeats: u32,
    #[serde(default = "four")]
    parallel: usize,
    #[serde(default)]
    #[expect(dead_code, reason = "what the operator wants to remember")]
    labels: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    fixtures: Vec<Value>,
}

fn one() -> u32 {
    1
}

fn four() -> usize {
    4
}

/// The most examples for a judge.
const MAX_EXAMPLES: usize = 50;

impl Suite {
    /// Reads a `prompt_eval`: `content` is `{"fixtures": […]}`, the rest is metadata.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let Metadata { family, judge, gate, repeats, parallel, .. } =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        let content = span.content.clone().unwrap_or_default();
        let Content { fixtures } = serde_json::from_value(content).map_err(|error| format!("content: {error}"))?;
        if fixtures.is_empty() || fixtures.len() > MAX_FIXTURES {
            return Err(format!("content.fixtures: there must be 1 to {MAX_FIXTURES} fixtures"));
        }
        let mut read = Vec::new();
        let mut seen = BTreeSet::new();
        for (at, fixture) in fixtures.into_iter().enumerate() {
            let fixture: Fixture =
                serde_json::from_value(fixture).map_err(|error| format!("content.fixtures[{at}]: {error}"))?;
            fixture.check().map_err(|reason| format!("content.fixtures[{at}]: {reason}"))?;
            if !seen.insert(fixture.id.clone()) {
                return Err(format!("content.fixtures[{at}]: the id `{}` stands there twice", fixture.id));
            }
            read.push(fixture);
        }
        if !(1..=10).contains(&repeats) || !(1..=16).contains(&parallel) {
            return Err("metadata: repeats must be 1 to 10, parallel 1 to 16".to_owned());
        }
        let needs_judge = read.iter().any(|fixture| fixture.criteria().next().is_some());
        match &judge {
            None if needs_judge => return Err("metadata.judge is missing: a fixture asks for one".to_owned()),
            Some(judge) if judge.examples.len() > MAX_EXAMPLES => {
                return Err(format!("metadata.judge.examples: {MAX_EXAMPLES} is the most"));
            }
            None if gate.min_agreement.is_some() => {
                return Err("metadata.gate.min_agreement: there is no judge".to_owned());
            }
            Some(judge) if gate.min_agreement.is_some() && judge.examples.is_empty() => {
                return Err("metadata.gate.min_agreement: the judge has no examples to agree with".to_owned());
            }
            _ => {}
        }
        let bounds = [("min_rate", gate.min_rate), ("max_drop", gate.max_drop), ("min_agreement", gate.min_agreement)];
        if let Some((name, _)) = bounds.iter().find(|(_, bound)| bound.is_some_and(|bound| !(0.0..=1.0).contains(&bound))) {
            return Err(format!("metadata.gate.{name} must be from 0 to 1"));
        }
        Ok(Self { family, fixtures: read, judge, gate, repeats, parallel })
    }
}

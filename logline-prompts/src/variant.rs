//! Variants: which blocks make a prompt.

use std::collections::{BTreeMap, BTreeSet};

use logline_core::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::block::MAX_BLOCKS;
use crate::contract::answer_contract;
use crate::tools::{MAX_TOOL_ROUNDS, MAX_TOOLS};

/// A way to build the prompts of a family.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Variant {
    /// Its name, such as `support@v2`.
    pub name: String,
    /// The family, such as `support`: variants of a family are for the same purpose.
    pub family: String,
    /// One sentence that stands before all blocks.
    pub prior: Option<String>,
    /// The ids of its blocks.
    pub blocks: Vec<Uuid>,
    /// Values of variables, if the caller gives none.
    pub vars: BTreeMap<String, Value>,
    /// Examples of questions and answers.
    pub shots: Vec<Shot>,
    /// How it is run; `None`: it can only be built.
    pub run: Option<Ran>,
}

/// How a variant is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ran {
    /// The provider span that is asked.
    pub provider: Uuid,
    /// The model; `None`: the provider's default model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The most tokens of an answer; `None`: the provider span's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The temperature; `None`: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The schema of answers, or `"answer"` for [`answer_contract`]; `None`: any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Value>,
    /// Whether the provider is asked to hold the model to the schema.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
    /// The most tokens of context, about. Default 8,000.
    #[serde(default = "usual_context")]
    pub context_tokens: usize,
    /// The functions that the model may use as tools, by id or name, at most [`MAX_TOOLS`](crate::MAX_TOOLS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// The most rounds of tools, 1 to [`MAX_TOOL_ROUNDS`](crate::MAX_TOOL_ROUNDS); `None`: so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_rounds: Option<u32>,
}

fn usual_context() -> usize {
    8_000
}

impl Ran {
    /// The most rounds of tools.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.tool_rounds.unwrap_or(MAX_TOOL_ROUNDS)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=MAX_TOOL_ROUNDS).contains(&self.rounds()) {
            return Err(format!("metadata.run.tool_rounds must be from 1 to {MAX_TOOL_ROUNDS}"));
        }
        if self.tools.len() > MAX_TOOLS {
            return Err(format!("metadata.run.tools: {MAX_TOOLS} is the most"));
        }
        Ok(())
    }

    /// The schema of answers.
    #[must_use]
    pub fn schema(&self) -> Option<Value> {
        match &self.contract {
            Some(Value::String(name)) if name == "answer" => Some(answer_contract()),
            other => other.clone(),
        }
    }
}

/// An example of a question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shot {
    /// What the user says.
    pub user: String,
    /// What the model should say.
    pub assistant: String,
}

/// The metadata of a `prompt_variant`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    family: String,
    #[serde(default)]
    prior: Option<String>,
    block_ids: Vec<Uuid>,
    #[serde(default)]
    vars: BTreeMap<String, Value>,
    #[serde(default)]
    few_shots: Vec<Shot>,
    #[serde(default)]
    run: Option<Ran>,
    #[serde(default)]
    #[expect(dead_code, reason = "what the operator wants to remember")]
    labels: Value,
}

/// The most examples of a variant.
const MAX_SHOTS: usize = 32;

impl Variant {
    /// A variant without blocks. Its family is what stands before `@` in its name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let family = name.split('@').next().unwrap_or_default().to_owned();
        Self {
            name: name.to_owned(),
            family,
            prior: None,
            blocks: Vec::new(),
            vars: BTreeMap::new(),
            shots: Vec::new(),
            run: None,
        }
    }

    /// Sets the sentence before all blocks.
    #[must_use]
    pub fn prior(mut self, sentence: &str) -> Self {
        self.prior = Some(sentence.to_owned());
        self
    }

    /// Sets the value of a variable.
    #[must_use]
    pub fn var(mut self, name: &str, value: Value) -> Self {
        self.vars.insert(name.to_owned(), value);
        self
    }

    /// Reads a `prompt_variant` from its metadata.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let Metadata { family, prior, block_ids, vars, few_shots, run, .. } =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        let name = span.name.clone().ok_or("the name is missing: it is FAMILY@VERSION")?;
        if name.split_once('@').is_none_or(|(of, version)| of != family || version.is_empty()) {
            return Err(format!("the name `{}` is not FAMILY@VERSION of the family `{family}`", name.escape_debug()));
        }
        if name.chars().any(char::is_control) {
            return Err("the name has control characters".to_owned());
        }
        if block_ids.is_empty() || block_ids.len() > MAX_BLOCKS {
            return Err(format!("metadata.block_ids: there must be 1 to {MAX_BLOCKS} blocks"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = block_ids.iter().find(|id| !seen.insert(**id)) {
            return Err(format!("metadata.block_ids: {twice} stands there twice"));
        }
        if few_shots.len() > MAX_SHOTS {
            return Err(format!("metadata.few_shots: {MAX_SHOTS} is the most"));
        }
        if let Some(run) = &run {
            run.check()?;
        }
        Ok(Self { name, family, prior, blocks: block_ids, vars, shots: few_shots, run })
    }
}

//! Blocks: the signed pieces of prompts.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use logline_core::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::variable::{Kind, Variable};

/// How much a block outranks others. Blocks of a higher rank stand before those of a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// What always holds.
    Doctrine,
    /// What holds for the product.
    Product,
    /// What holds for the application.
    App,
    /// What is to be done now.
    Task,
}

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// The id of its span.
    pub id: Uuid,
    /// Its name, for messages.
    pub name: String,
    /// Its rank.
    pub rank: Rank,
    /// Its place among blocks of the same rank: higher ones first.
    pub priority: i64,
    /// The template of its text.
    pub template: String,
    /// Its variables by name.
    pub variables: BTreeMap<String, Variable>,
}

/// The metadata of a `prompt_block`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    rank: Rank,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    vars: BTreeMap<String, Variable>,
    #[serde(default)]
    #[expect(dead_code, reason = "what the operator wants to remember")]
    labels: Value,
}

/// The most blocks of a prompt.
pub const MAX_BLOCKS: usize = 64;

/// The most bytes of a template.
const MAX_TEMPLATE: usize = 64 << 10;

impl Block {
    /// A block without variables. Its id follows from its name.
    #[must_use]
    pub fn new(name: &str, rank: Rank, template: &str) -> Self {
        let id = logline_core::ids::derive("prompt_block", &[name]);
        Self { id, name: name.to_owned(), rank, priority: 0, template: template.to_owned(), variables: BTreeMap::new() }
    }

    /// Adds a variable that is a text.
    #[must_use]
    pub fn text(self, name: &str) -> Self {
        self.variable(name, Variable::new(Kind::Text))
    }

    /// Adds a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, variable: Variable) -> Self {
        self.variables.insert(name.to_owned(), variable);
        self
    }

    /// Reads a `prompt_block`: the template is its `content`, a text; rank, priority and variables are its metadata.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let Some(Value::String(template)) = &span.content else {
            return Err("content must be a text: the template of the block".to_owned());
        };
        if template.len() > MAX_TEMPLATE {
            return Err(format!("content has {} bytes, the most are {MAX_TEMPLATE}", template.len()));
        }
        let metadata = span.metadata.clone().unwrap_or_default();
        let Metadata { rank, priority, vars, .. } =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        for (name, variable) in &vars {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !begins || !name.chars().all(is_name) || name.len() > 64 {
                return Err(format!("metadata.vars: `{}` is no name: letters, digits and `_`", name.escape_debug()));
            }
            if let Some(default) = &variable.default {
                variable.check(default).map_err(|reason| format!("metadata.vars.{name}.default {reason}"))?;
            }
        }
        let name = span.name.clone().unwrap_or_else(|| span.id.to_string());
        Ok(Self { id: span.id, name, rank, priority, template: template.clone(), variables: vars })
    }

    /// The place of the block: by rank, then priority, then id. No two blocks have the same.
    pub(crate) fn place(&self) -> (Rank, Reverse<i64>, Uuid) {
        (self.rank, Reverse(self.priority), self.id)
    }
}

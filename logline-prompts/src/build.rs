//! Builds a prompt: a pure function of variant, blocks and variables.

use std::collections::{BTreeMap, BTreeSet};

use logline_core::{Hash, canonical};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::block::{Block, MAX_BLOCKS};
use crate::language::Fault;
use crate::templates;
use crate::variable::Variable;
use crate::variant::Variant;

/// The most bytes of a prompt.
pub const MAX_TEXT_BYTES: usize = 256 << 10;

/// A prompt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Built {
    /// The text: the sentence before all blocks, and the blocks in their order, with an empty line between them.
    pub text: String,
    /// BLAKE3 of the text.
    pub compiled_hash: Hash,
    /// The value of every variable that a block has.
    pub values: Map<String, Value>,
    /// The values that the caller gave.
    pub given: Map<String, Value>,
    /// A personal variable that the caller gave; `None` if there is none.
    pub personal: Option<String>,
    /// BLAKE3 of the templates in their order, and of the values that the caller did not give.
    pub template_hash: Hash,
}

impl Built {
    /// The hash of a prompt whose variables are encrypted: BLAKE3 of the canonical `{"template_hash", "vars"}`, where `vars` has the
    /// keyed hash of each value that the caller gave.
    pub(crate) fn keyed_hash(&self, vars: &BTreeMap<String, Hash>) -> Hash {
        let vars: Map<_, _> = vars.iter().map(|(name, hash)| (name.clone(), hash.to_string().into())).collect();
        Hash::of(&canonical::to_vec(&json!({"template_hash": self.template_hash.to_string(), "vars": vars})))
    }
}

/// Why a prompt cannot be built. Messages contain no values of variables.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The template of a block is wrong.
    #[error("block `{block}`, line {line}: {reason}")]
    Template {
        /// The name of the block.
        block: String,
        /// The line of the template, counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A block uses a name that is not among its variables.
    #[error("block `{block}` uses `{name}`, which is not among its variables: add it to metadata.vars")]
    Undeclared {
        /// The name of the block.
        block: String,
        /// The name that it uses.
        name: String,
    },
    /// A block has a variable that its template does not use.
    #[error("block `{block}` has the variable `{name}` and does not use it: remove it, or a value would be lost unnoticed")]
    Unused {
        /// The name of the block.
        block: String,
        /// The name of the variable.
        name: String,
    },
    /// Nobody gives a value for a variable.
    #[error("block `{block}` needs a value for `{name}`: give it, or set a default in the variant or the block")]
    Missing {
        /// The name of the block.
        block: String,
        /// The name of the variable.
        name: String,
    },
    /// A value has the wrong type, or is too large.
    #[error("the value of `{name}` {reason} (block `{block}`)")]
    Value {
        /// The name of the block.
        block: String,
        /// The name of the variable.
        name: String,
        /// What it must be.
        reason: String,
    },
    /// A value is given for a variable that no block has.
    #[error("{given_by} gives a value for `{name}`, which no block has: correct the name, or leave it out")]
    Unknown {
        /// `the variant` or `the caller`.
        given_by: &'static str,
        /// The name.
        name: String,
    },
    /// The caller's variables are no object.
    #[error("the variables must be an object")]
    NoObject,
    /// There are too many blocks, or the text is too long.
    #[error("the prompt has more than {most} {what}")]
    TooLarge {
        /// `blocks` or `bytes`.
        what: &'static str,
        /// The most.
        most: usize,
    },
    /// No block has any text.
    #[error("the prompt is empty: no block has any text with these values")]
    Empty,
}

/// Builds a prompt. Blocks stand in the order of rank, priority and id, whatever the order in which they are given. A value is the
/// caller's, or the variant's, or the block's default.
///
/// # Errors
/// See [`BuildError`]; the first fault in the order of the blocks.
pub fn build(variant: &Variant, blocks: &[Block], vars: &Value) -> Result<Built, BuildError> {
    if blocks.len() > MAX_BLOCKS {
        return Err(BuildError::TooLarge { what: "blocks", most: MAX_BLOCKS });
    }
    let mut blocks: Vec<&Block> = blocks.iter().collect();
    blocks.sort_by_key(|block| block.place());
    let none = Map::new();
    let given = match vars {
        Value::Object(given) => given,
        Value::Null => &none,
        _ => return Err(BuildError::NoObject),
    };
    let known: BTreeSet<&str> = blocks.iter().flat_map(|block| block.variables.keys()).map(String::as_str).collect();
    let unknown = |name: &&String| !known.contains(name.as_str());
    for (given_by, found) in [("the caller", given.keys().find(unknown)), ("the variant", variant.vars.keys().find(unknown))] {
        if let Some(name) = found {
            return Err(BuildError::Unknown { given_by, name: name.clone() });
        }
    }
    let mut parts = Vec::new();
    let mut left = MAX_TEXT_BYTES;
    if let Some(prior) = &variant.prior {
        push(&mut parts, prior, &mut left)?;
    }
    let (mut all, mut personal, mut sources) = (Map::new(), None, Vec::new());
    for block in blocks {
        let fault = |Fault { line, reason }| BuildError::Template { block: block.name.clone(), line, reason };
        let template = templates::compiled(&block.template).map_err(fault)?;
        let values = values(block, template.names(), given, &variant.vars)?;
        let text = template.render(&values, left).map_err(fault)?;
        push(&mut parts, &text, &mut left)?;
        all.extend(values);
        sources.push(block.template.as_str());
        let is_personal = |(name, variable): &(&String, &Variable)| variable.personal && given.contains_key(*name);
        personal = personal.or_else(|| block.variables.iter().find(is_personal).map(|(name, _)| name.clone()));
    }
    let text = parts.join("\n\n");
    if text.is_empty() {
        return Err(BuildError::Empty);
    }
    let usual: BTreeMap<_, _> = all.iter().filter(|(name, _)| !given.contains_key(*name)).collect();
    let template = json!({"prior": variant.prior, "templates": sources, "vars": usual});
    Ok(Built {
        compiled_hash: Hash::of(text.as_bytes()),
        text,
        values: all,
        given: given.clone(),
        personal,
        template_hash: Hash::of(&canonical::to_vec(&template)),
    })
}

fn push(parts: &mut Vec<String>, text: &str, left: &mut usize) -> Result<(), BuildError> {
    let text = text.trim_end();
    if text.trim().is_empty() {
        return Ok(());
    }
    let too_large = BuildError::TooLarge { what: "bytes", most: MAX_TEXT_BYTES };
    *left = left.checked_sub(text.len() + 2).ok_or(too_large)?;
    parts.push(text.to_owned());
    Ok(())
}

/// The values of a block's variables.
fn values(
    block: &Block,
    used: &BTreeSet<String>,
    given: &Map<String, Value>,
    usual: &BTreeMap<String, Value>,
) -> Result<Map<String, Value>, BuildError> {
    let name_of = || block.name.clone();
    if let Some(name) = used.iter().find(|name| !block.variables.contains_key(*name)) {
        return Err(BuildError::Undeclared { block: name_of(), name: name.clone() });
    }
    let mut values = Map::new();
    for (name, variable) in &block.variables {
        if !used.contains(name) {
            return Err(BuildError::Unused { block: name_of(), name: name.clone() });
        }
        let value = given.get(name).or_else(|| usual.get(name)).or(variable.default.as_ref());
        let Some(value) = value else {
            return Err(BuildError::Missing { block: name_of(), name: name.clone() });
        };
        variable.check(value).map_err(|reason| BuildError::Value { block: name_of(), name: name.clone(), reason })?;
        values.insert(name.clone(), value.clone());
    }
    Ok(values)
}

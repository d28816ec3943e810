//! What is governed: the classes of spans, and the environments in which one version of each is in force.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A class of things that a quorum decides about. Each has its own threshold in the manifest's `governance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Class {
    /// The next manifest. Root keys decide about it, not approvers.
    Manifest,
    /// Functions, kernels among them, and schedules, which are functions with `metadata.schedule`.
    Function,
    /// Policies.
    Policy,
    /// Providers of models, and their prices.
    Provider,
    /// Blocks and variants of prompts, and their families.
    Prompt,
    /// Memories that shall be kept or shared.
    Memory,
    /// Bundles and their templates.
    Bundle,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 7] =
        [Self::Manifest, Self::Function, Self::Policy, Self::Provider, Self::Prompt, Self::Memory, Self::Bundle];

    /// The name of the class in a manifest and in statements.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Function => "function",
            Self::Policy => "policy",
            Self::Provider => "provider",
            Self::Prompt => "prompt",
            Self::Memory => "memory",
            Self::Bundle => "bundle",
        }
    }

    /// The class of spans of this type; `None` if no quorum decides about them.
    #[must_use]
    pub fn of_entity_type(entity_type: &str) -> Option<Self> {
        Some(match entity_type {
            "manifest" => Self::Manifest,
            "function" => Self::Function,
            "policy" => Self::Policy,
            "price_table" | "provider" => Self::Provider,
            "prompt_block" | "prompt_family" | "prompt_variant" => Self::Prompt,
            "memory" => Self::Memory,
            "app_bundle" | "bundle_template" => Self::Bundle,
            _ => return None,
        })
    }
}

/// Where a host works. Each environment has its own promoted versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Environment {
    /// Where versions are tried.
    Staging,
    /// Where they serve. The default, so that a host whose environment nobody has set obeys the stricter rules.
    #[default]
    Production,
}

impl Environment {
    /// Every environment.
    pub const ALL: [Self; 2] = [Self::Staging, Self::Production];

    /// The name of the environment in a manifest and in statements.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not a class: use {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl FromStr for Environment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|environment| environment.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not an environment: use staging or production"))
    }
}

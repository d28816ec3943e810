//! The shapes of questions and explanations.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// A question to a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The `prompt_variant`, or the `prompt_family` of which one is chosen.
    pub(crate) prompt: Uuid,
    pub(crate) question: String,
    /// The variables of the prompt.
    pub(crate) vars: Option<Value>,
    /// The spans that are offered as context.
    pub(crate) context: Option<Value>,
    /// Calls of one session get the same variant.
    pub(crate) session: Option<String>,
}

/// How an answer came about. `docs/prompts.md` explains the members.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    pub(crate) run: Uuid,
    pub(crate) answer: Value,
    pub(crate) contract: Value,
    pub(crate) variant: Value,
    pub(crate) build: Uuid,
    pub(crate) compiled_hash: String,
    pub(crate) text: String,
    pub(crate) blocks: Value,
    pub(crate) context: Value,
    pub(crate) selection: Option<Value>,
    pub(crate) tries: Vec<Value>,
}

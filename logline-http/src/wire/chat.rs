//! The shapes of questions and explanations.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What a question says of memories and of itself.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct Headers {
    /// Which memories the model is told: `off` (default), `session-only` or `on`
    #[param(required = false, rename = "X-LogLine-Memory", pattern = "^(off|session-only|on)$")]
    memory: String,
    /// The session of the memories, of 1 to 128 visible ASCII characters
    #[param(required = false, rename = "X-LogLine-Session", pattern = "^[!-~]{1,128}$")]
    session: String,
    /// `public` (default); with `internal`, `secret` or `pii` nothing of the call is recorded in the clear
    #[param(required = false, rename = "X-LogLine-Sensitivity", pattern = "^(public|internal|secret|pii)$")]
    sensitivity: String,
}

/// A question to a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The `prompt_variant`, or the `prompt_family` of which one is chosen: its id, or the name under which it was published.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) prompt: String,
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
    pub(crate) directives: Option<Value>,
    pub(crate) selection: Option<Value>,
    pub(crate) tries: Vec<Value>,
    pub(crate) tools: Option<Value>,
    pub(crate) tool_calls: Option<Value>,
}

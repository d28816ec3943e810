//! What a provider answers.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::provider::Block;

/// The answer of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelAnswer {
    /// What the model said. It can be given back as the content of the next assistant message.
    pub content: Vec<Block>,
    /// Why the model stopped.
    pub stop: StopReason,
    /// What the call used.
    pub usage: Usage,
    /// The model, as the provider says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's own id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ModelAnswer {
    /// An answer without ids.
    #[must_use]
    pub fn new(content: Vec<Block>, stop: StopReason, usage: Usage) -> Self {
        Self { content, stop, usage, model: None, request_id: None }
    }

    /// Sets [`ModelAnswer::model`].
    #[must_use]
    pub fn model(mut self, model: Option<String>) -> Self {
        self.model = model;
        self
    }

    /// Sets [`ModelAnswer::request_id`].
    #[must_use]
    pub fn request_id(mut self, id: Option<String>) -> Self {
        self.request_id = id;
        self
    }

    /// Reads a recorded answer.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn deserialize_from(recorded: &Value) -> Result<Self, String> {
        Self::deserialize(recorded).map_err(|error| error.to_string())
    }

    /// All texts of the answer, joined.
    #[must_use]
    pub fn text(&self) -> String {
        let mut joined = String::new();
        for block in &self.content {
            if let Block::Text { text } = block {
                joined.push_str(text);
            }
        }
        joined
    }

    /// The tools that the model wants called: id, name and input.
    pub fn tool_uses(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.content.iter().filter_map(|block| match block {
            Block::ToolUse { id, name, input } => Some((id.as_str(), name.as_str(), input)),
            _ => None,
        })
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It had said everything.
    EndTurn,
    /// It waits for the results of tools. Every answer that contains tool uses has this reason.
    ToolUse,
    /// It reached `max_tokens`: the answer is cut.
    MaxTokens,
    /// It came to one of the request's stop texts.
    StopSequence,
    /// A filter or guardrail of the provider stopped it: the answer is not the model's.
    ContentFiltered,
    /// It refused to answer.
    Refusal,
    /// Another reason, as the provider names it.
    Other(String),
}

/// What a call used, in tokens. The classes do not overlap: their sum is what the provider counts. `None` means that the provider did not
/// say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// Input that was neither read from a cache nor written to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Input that was read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Input that was written to a cache for 5 minutes, or for the provider's only time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Input that was written to a cache for 1 hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
    /// Output, including reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// The part of `output` that was reasoning. It is not added to the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// What the provider said, unchanged.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub raw: Value,
}

impl Usage {
    /// Input and output, and nothing else.
    #[must_use]
    pub fn of(input: u64, output: u64) -> Self {
        Self { input: Some(input), output: Some(output), ..Self::default() }
    }

    /// The sum of the classes; `None` if input or output is not known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let cached = [self.cache_read, self.cache_write, self.cache_write_1h].into_iter().flatten();
        Some(cached.fold(self.input?.saturating_add(self.output?), u64::saturating_add))
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Chunk {
    /// More of a text.
    Text(String),
    /// More of the model's reasoning.
    Reasoning(String),
    /// The model begins to use a tool.
    ToolUse {
        /// The id of the use.
        id: String,
        /// The name of the tool.
        name: String,
    },
    /// More of the input of the last tool, as a piece of JSON text.
    ToolInput(String),
}

impl Chunk {
    /// The pieces of a whole answer.
    pub(crate) fn of(answer: &ModelAnswer) -> impl Iterator<Item = Self> {
        answer.content.iter().flat_map(|block| match block {
            Block::Text { text } => vec![Self::Text(text.clone())],
            Block::Reasoning { text, .. } => vec![Self::Reasoning(text.clone())],
            Block::ToolUse { id, name, input } => {
                vec![Self::ToolUse { id: id.clone(), name: name.clone() }, Self::ToolInput(input.to_string())]
            }
            _ => Vec::new(),
        })
    }
}

/// Takes the pieces of an answer as they come. A slow taker slows the call down, which may then reach its deadlines.
#[async_trait]
pub trait Chunks: Send {
    /// Takes the next piece.
    async fn deliver(&mut self, chunk: Chunk);
}

/// Vectors of texts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embeddings {
    /// One vector for each text, in the order of the texts. All have the same length.
    pub vectors: Vec<Vec<f32>>,
    /// What the call used.
    pub usage: Usage,
    /// The provider's own id of the call.
    pub request_id: Option<String>,
}

impl Embeddings {
    /// Vectors, and what they used.
    #[must_use]
    pub fn new(vectors: Vec<Vec<f32>>, usage: Usage) -> Self {
        Self { vectors, usage, request_id: None }
    }

    /// Sets [`Embeddings::request_id`].
    #[must_use]
    pub fn request_id(mut self, id: Option<String>) -> Self {
        self.request_id = id;
        self
    }
}

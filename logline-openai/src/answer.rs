//! What the provider answers.

use logline_core::contract::provider::{Block, Embeddings, ErrorKind, ModelAnswer, ProviderError, StopReason, Usage};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error;

#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// Some servers tell the reasoning here, under one of two names.
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: String,
}

fn bad(reason: impl std::fmt::Display) -> ProviderError {
    error(ErrorKind::BadAnswer, format!("the answer cannot be understood: {reason}"))
}

/// What is wrong with JSON, and where, without what stands there.
pub(crate) fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "it has another form",
        serde_json::error::Category::Eof => "it ends too early",
        _ => "it is not JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Reads a whole answer.
pub(crate) fn chat(text: &str, request_id: Option<String>) -> Result<ModelAnswer, ProviderError> {
    let chat: Chat = serde_json::from_str(text).map_err(|reason| bad(place(&reason)).request_id(request_id.clone()))?;
    let usage = usage(&chat.usage);
    let failed = |error: ProviderError| error.request_id(request_id.clone()).usage(Some(usage.clone()));
    let Some(Choice { message, finish_reason }) = chat.choices.into_iter().next() else {
        return Err(failed(bad("it has no choices")));
    };
    let calls = message.tool_calls.unwrap_or_default();
    let mut parts = Parts { text: message.content.unwrap_or_default(), ..Parts::default() };
    parts.reasoning = message.reasoning_content.unwrap_or_default();
    parts.refusal = message.refusal.unwrap_or_default();
    parts.calls = calls.into_iter().map(|call| (call.id, call.function.name, call.function.arguments)).collect();
    parts.finish_reason = finish_reason;
    let (content, stop) = parts.done().map_err(failed)?;
    Ok(ModelAnswer::new(content, stop, usage).model(chat.model).request_id(request_id))
}

/// The parts of an answer, whole or put together from a stream.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) refusal: String,
    /// Id, name and arguments.
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) finish_reason: Option<String>,
}

impl Parts {
    /// The content, and why the model stopped. An answer that does not say why is not whole.
    pub(crate) fn done(self) -> Result<(Vec<Block>, StopReason), ProviderError> {
        let reason = self.finish_reason.ok_or_else(|| bad("it does not say why the model stopped (finish_reason)"))?;
        let mut content = Vec::new();
        if !self.reasoning.is_empty() {
            content.push(Block::Reasoning { text: self.reasoning, signature: None });
        }
        let is_refused = !self.refusal.is_empty();
        for text in [self.text, self.refusal] {
            if !text.is_empty() {
                content.push(Block::Text { text });
            }
        }
        let uses_tools = !self.calls.is_empty();
        for (id, name, arguments) in self.calls {
            content.extend(Block::tool_use(id, name, arguments, reason == "length"));
        }
        let stop = match reason.as_str() {
            "content_filter" => StopReason::ContentFiltered,
            "length" => StopReason::MaxTokens,
            _ if is_refused => StopReason::Refusal,
            _ if uses_tools => StopReason::ToolUse,
            "stop" | "tool_calls" | "function_call" => StopReason::EndTurn,
            _ => StopReason::Other(reason),
        };
        Ok((content, stop))
    }
}

/// The usage as the provider states it. The prompt's tokens include those that were read from a cache; ours do not overlap.
pub(crate) fn usage(raw: &Value) -> Usage {
    let number = |path: &str| raw.pointer(path).and_then(Value::as_u64);
    let mut usage = Usage::default();
    usage.cache_read = number("/prompt_tokens_details/cached_tokens").filter(|cached| *cached > 0);
    usage.input = number("/prompt_tokens").map(|all| all.saturating_sub(usage.cache_read.unwrap_or(0)));
    usage.output = number("/completion_tokens");
    usage.reasoning = number("/completion_tokens_details/reasoning_tokens").filter(|tokens| *tokens > 0);
    usage.raw = raw.clone();
    usage
}

#[derive(Deserialize)]
struct Vectors {
    data: Vec<Vector>,
    #[serde(default)]
    usage: Map<String, Value>,
}

#[derive(Deserialize)]
struct Vector {
    index: usize,
    embedding: Vec<f32>,
}

/// Reads vectors, and puts them in the order of the texts.
pub(crate) fn embeddings(text: &str, texts: usize, request_id: Option<String>) -> Result<Embeddings, ProviderError> {
    let Vectors { mut data, usage: raw } =
        serde_json::from_str(text).map_err(|reason| bad(place(&reason)).request_id(request_id.clone()))?;
    data.sort_by_key(|vector| vector.index);
    let is_complete = data.len() == texts && data.iter().enumerate().all(|(n, vector)| vector.index == n);
    if !is_complete {
        return Err(bad(format!("{} vectors for {texts} texts", data.len())).request_id(request_id));
    }
    let raw = Value::Object(raw);
    let mut used = usage(&raw);
    // Vectors have no output.
    used.output = used.input.map(|_| 0);
    Ok(Embeddings::new(data.into_iter().map(|vector| vector.embedding).collect(), used).request_id(request_id))
}

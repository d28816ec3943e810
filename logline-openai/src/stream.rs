//! An answer that comes in events.

use logline_core::contract::provider::{Chunk, ErrorKind, ModelAnswer, ProviderError};
use serde::Deserialize;
use serde_json::Value;

use crate::answer::{self, Parts};
use crate::error;
use crate::error::in_body;

/// The most tool uses of one answer.
const MAX_CALLS: usize = 128;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    model: Option<String>,
    /// Some servers fail in the middle of a stream, with status 200.
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Function,
}

#[derive(Deserialize, Default)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// What has been read of an answer.
pub(crate) struct Reading {
    parts: Parts,
    usage: Value,
    model: Option<String>,
    request_id: Option<String>,
    is_done: bool,
}

impl Reading {
    pub(crate) fn new(request_id: Option<String>) -> Self {
        Self { parts: Parts::default(), usage: Value::Null, model: None, request_id, is_done: false }
    }

    /// Whether the provider has said that nothing follows.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes the data of an event; the pieces that it brought.
    pub(crate) fn take(&mut self, data: &str) -> Result<Vec<Chunk>, ProviderError> {
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Ok(Vec::new());
        }
        let event: Event = serde_json::from_str(data).map_err(|reason| {
            let message = format!("an event of the stream cannot be understood: {}", answer::place(&reason));
            error(ErrorKind::BadAnswer, message).request_id(self.request_id.clone())
        })?;
        if !event.error.is_null() {
            return Err(in_body(&event.error).request_id(self.request_id.clone()));
        }
        if !event.usage.is_null() {
            self.usage = event.usage;
        }
        if event.model.is_some() {
            self.model = event.model;
        }
        let mut chunks = Vec::new();
        let Some(Choice { delta, finish_reason }) = event.choices.into_iter().next() else { return Ok(chunks) };
        if let Some(text) = delta.reasoning_content.filter(|text| !text.is_empty()) {
            self.parts.reasoning.push_str(&text);
            chunks.push(Chunk::Reasoning(text));
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.parts.text.push_str(&text);
            chunks.push(Chunk::Text(text));
        }
        if let Some(text) = delta.refusal.filter(|text| !text.is_empty()) {
            self.parts.refusal.push_str(&text);
            chunks.push(Chunk::Text(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            self.tool_call(call, &mut chunks)?;
        }
        if finish_reason.is_some() {
            self.parts.finish_reason = finish_reason;
        }
        Ok(chunks)
    }

    /// A piece of a tool use. The first one has id and name.
    fn tool_call(&mut self, piece: ToolCall, chunks: &mut Vec<Chunk>) -> Result<(), ProviderError> {
        let Function { name, arguments } = piece.function;
        if piece.index >= MAX_CALLS || piece.index > self.parts.calls.len() {
            let message = format!("the stream has a tool use number {} out of order", piece.index);
            return Err(error(ErrorKind::BadAnswer, message));
        }
        if piece.index == self.parts.calls.len() {
            let (id, name) = (piece.id.unwrap_or_default(), name.unwrap_or_default());
            chunks.push(Chunk::ToolUse { id: id.clone(), name: name.clone() });
            self.parts.calls.push((id, name, String::new()));
        }
        if let (Some(call), Some(more)) = (self.parts.calls.get_mut(piece.index), arguments.filter(|text| !text.is_empty())) {
            call.2.push_str(&more);
            chunks.push(Chunk::ToolInput(more));
        }
        Ok(())
    }

    /// The whole answer.
    pub(crate) fn finish(self) -> Result<ModelAnswer, ProviderError> {
        let Self { parts, usage, model, request_id, is_done } = self;
        // Not every server says `[DONE]`, but all say why the model stopped.
        if parts.finish_reason.is_none() && !is_done {
            return Err(error(ErrorKind::StreamBroken, "the stream ended before the answer did").request_id(request_id));
        }
        let usage = answer::usage(&usage);
        let (content, stop) = parts.done().map_err(|error| error.request_id(request_id.clone()).usage(Some(usage.clone())))?;
        Ok(ModelAnswer::new(content, stop, usage).model(model).request_id(request_id))
    }
}

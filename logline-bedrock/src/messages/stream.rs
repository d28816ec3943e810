//! An answer that comes in events, each a JSON text in a chunk of Bedrock's stream.

use std::collections::BTreeMap;

use aws_sdk_bedrockruntime::types::ResponseStream;
use aws_sdk_bedrockruntime::types::error::ResponseStreamError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::event_stream::RawMessage;
use logline_core::contract::provider::{Block, Chunk, ErrorKind, ModelAnswer, ProviderError};
use serde_json::{Map, Value};

use super::answer::{stop, text, usage, was_stopped};
use crate::answer::text_block;
use crate::error::{bad, error, of_chunks, of_event};
use crate::pieces::Pieces;

/// The most blocks of one answer.
const MAX_BLOCKS: usize = 1024;

/// A block, as far as it has been read.
enum Part {
    Text(String),
    Reasoning {
        text: String,
        signature: String,
    },
    Redacted(String),
    Tool {
        id: String,
        name: String,
        input: String,
    },
    /// Of a kind that is not known here.
    Unknown,
}

/// What has been read of an answer.
#[derive(Default)]
pub(crate) struct Reading {
    parts: BTreeMap<u64, Part>,
    reason: Option<String>,
    was_stopped: bool,
    /// What the events say of the usage; later numbers replace earlier ones.
    usage: Map<String, Value>,
    model: Option<String>,
    request_id: Option<String>,
    is_done: bool,
}

impl Pieces for Reading {
    type Event = ResponseStream;
    type Failed = ResponseStreamError;

    fn named(self, request_id: Option<String>) -> Self {
        Self { request_id, ..self }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn is_whole(&self) -> bool {
        self.reason.is_some()
    }

    fn broken(failed: &SdkError<ResponseStreamError, RawMessage>, delivered: u32) -> ProviderError {
        of_chunks(failed, delivered)
    }

    fn take(&mut self, event: ResponseStream, delivered: u32) -> Result<Option<Chunk>, ProviderError> {
        let ResponseStream::Chunk(part) = event else { return Ok(None) };
        let event = part.bytes().map(AsRef::as_ref).unwrap_or_default();
        let event: Value = serde_json::from_slice(event).map_err(|_| bad("an event of the stream is not JSON"))?;
        self.was_stopped |= was_stopped(&event);
        let index = event.get("index").and_then(Value::as_u64);
        match text(&event, "type").unwrap_or_default() {
            "message_start" => {
                let message = event.get("message").unwrap_or(&Value::Null);
                self.model = text(message, "model").map(str::to_owned);
                self.note_usage(message);
                Ok(None)
            }
            "content_block_start" => self.begin(index, event.get("content_block").unwrap_or(&Value::Null)),
            "content_block_delta" => self.more(index, event.get("delta").unwrap_or(&Value::Null)),
            "message_delta" => {
                let reason = event.get("delta").and_then(|delta| text(delta, "stop_reason"));
                self.reason = reason.map(str::to_owned).or(self.reason.take());
                self.note_usage(&event);
                Ok(None)
            }
            "message_stop" => {
                self.is_done = true;
                Ok(None)
            }
            "error" => {
                let said = event.get("error").unwrap_or(&Value::Null);
                let (kind, message) = (text(said, "type").unwrap_or_default(), text(said, "message").unwrap_or_default());
                Err(of_event(kind, message, delivered))
            }
            // The end of a block, a sign of life, and events that are not known here.
            _ => Ok(None),
        }
    }

    fn finish(self) -> Result<ModelAnswer, ProviderError> {
        let Self { parts, reason, was_stopped, usage: said, model, request_id, .. } = self;
        if reason.is_none() && !was_stopped {
            let message = "the stream ended before the answer did (no stop_reason)";
            return Err(error(ErrorKind::StreamBroken, message).request_id(request_id));
        }
        let used = usage(&Value::Object(said));
        let is_cut = reason.as_deref() == Some("max_tokens");
        let content: Vec<_> = parts.into_values().filter_map(|part| block(part, is_cut)).collect();
        let stop = stop(reason.as_deref(), was_stopped, &content)
            .map_err(|error| error.request_id(request_id.clone()).usage(Some(used.clone())))?;
        Ok(ModelAnswer::new(content, stop, used).model(model).request_id(request_id))
    }
}

impl Reading {
    fn note_usage(&mut self, said: &Value) {
        let said = said.get("usage").and_then(Value::as_object).into_iter().flatten();
        self.usage.extend(said.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())));
    }

    fn begin(&mut self, index: Option<u64>, said: &Value) -> Result<Option<Chunk>, ProviderError> {
        let index = index.ok_or_else(|| bad("a block of the stream has no index"))?;
        if self.parts.len() >= MAX_BLOCKS {
            return Err(bad(format!("it has more than {MAX_BLOCKS} blocks")));
        }
        let owned = |member: &str| text(said, member).unwrap_or_default().to_owned();
        let (part, chunk) = match text(said, "type") {
            Some("text") => {
                let said = owned("text");
                (Part::Text(said.clone()), (!said.is_empty()).then_some(Chunk::Text(said)))
            }
            Some("thinking") => {
                let said = owned("thinking");
                let chunk = (!said.is_empty()).then(|| Chunk::Reasoning(said.clone()));
                (Part::Reasoning { text: said, signature: owned("signature") }, chunk)
            }
            Some("redacted_thinking") => (Part::Redacted(owned("data")), None),
            Some("tool_use") => {
                let (id, name) = (owned("id"), owned("name"));
                let chunk = Chunk::ToolUse { id: id.clone(), name: name.clone() };
                // The input comes in pieces; what stands here is an empty object.
                (Part::Tool { id, name, input: String::new() }, Some(chunk))
            }
            _ => {
                tracing::warn!("an answer of Bedrock has a block of a kind that is not known here; it is left out");
                (Part::Unknown, None)
            }
        };
        match self.parts.insert(index, part) {
            None => Ok(chunk),
            Some(_) => Err(bad(format!("its block {index} begins twice"))),
        }
    }

    fn more(&mut self, index: Option<u64>, delta: &Value) -> Result<Option<Chunk>, ProviderError> {
        let part = index.and_then(|index| self.parts.get_mut(&index));
        let part = part.ok_or_else(|| bad("a piece of the stream belongs to no block"))?;
        let more = |member: &str| text(delta, member).unwrap_or_default().to_owned();
        let kind = text(delta, "type").unwrap_or_default();
        match (part, kind) {
            (Part::Text(said), "text_delta") => {
                let more = more("text");
                said.push_str(&more);
                Ok((!more.is_empty()).then_some(Chunk::Text(more)))
            }
            (Part::Reasoning { text, .. }, "thinking_delta") => {
                let more = more("thinking");
                text.push_str(&more);
                Ok((!more.is_empty()).then_some(Chunk::Reasoning(more)))
            }
            (Part::Reasoning { signature, .. }, "signature_delta") => {
                signature.push_str(&more("signature"));
                Ok(None)
            }
            (Part::Tool { input, .. }, "input_json_delta") => {
                let more = more("partial_json");
                input.push_str(&more);
                Ok((!more.is_empty()).then_some(Chunk::ToolInput(more)))
            }
            (_, "text_delta" | "thinking_delta" | "signature_delta" | "input_json_delta") => {
                Err(bad(format!("a block of the stream goes on as `{kind}`, and is of another kind")))
            }
            // Sources of a text, and what is not known here.
            _ => Ok(None),
        }
    }
}

fn block(part: Part, is_cut: bool) -> Option<Block> {
    match part {
        Part::Text(text) => text_block(text),
        Part::Reasoning { text, signature } => {
            Some(Block::Reasoning { text, signature: Some(signature).filter(|signed| !signed.is_empty()) })
        }
        Part::Redacted(data) => Some(Block::RedactedReasoning { data }),
        Part::Tool { id, name, input } => Block::tool_use(id, name, input, is_cut),
        Part::Unknown => None,
    }
}

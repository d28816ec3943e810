//! An answer that comes in events.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aws_sdk_bedrockruntime::types as sdk;
use aws_sdk_bedrockruntime::types::error::ConverseStreamOutputError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::event_stream::RawMessage;
use logline_core::contract::provider::{Block, Chunk, ErrorKind, ModelAnswer, ProviderError};

use crate::answer;
use crate::error::{bad, error, of_stream};
use crate::pieces::Pieces;

/// The most blocks of one answer.
const MAX_BLOCKS: usize = 1024;

/// A block, as far as it has been read.
enum Part {
    Text(String),
    Reasoning { text: String, signature: Option<String> },
    Redacted(Vec<u8>),
    Tool { id: String, name: String, input: String },
}

impl Part {
    fn named(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Reasoning { .. } => "reasoning",
            Self::Redacted(_) => "redacted reasoning",
            Self::Tool { .. } => "tool use",
        }
    }
}

/// What has been read of an answer.
#[derive(Default)]
pub(crate) struct Reading {
    parts: BTreeMap<i32, Part>,
    stop: Option<sdk::StopReason>,
    usage: Option<sdk::TokenUsage>,
    model: Option<String>,
    request_id: Option<String>,
    is_done: bool,
}

impl Pieces for Reading {
    type Event = sdk::ConverseStreamOutput;
    type Failed = ConverseStreamOutputError;

    fn named(self, request_id: Option<String>) -> Self {
        Self { request_id, ..self }
    }

    /// Usage comes after the end of the message, so that is not the end of the answer.
    fn is_done(&self) -> bool {
        self.is_done
    }

    fn is_whole(&self) -> bool {
        self.stop.is_some()
    }

    fn broken(failed: &SdkError<ConverseStreamOutputError, RawMessage>, delivered: u32) -> ProviderError {
        of_stream(failed, delivered)
    }

    fn take(&mut self, event: sdk::ConverseStreamOutput, _: u32) -> Result<Option<Chunk>, ProviderError> {
        use sdk::ConverseStreamOutput as Event;
        match event {
            Event::ContentBlockStart(event) => match event.start {
                Some(sdk::ContentBlockStart::ToolUse(start)) => {
                    let (id, name) = (start.tool_use_id, start.name);
                    let began = Chunk::ToolUse { id: id.clone(), name: name.clone() };
                    self.begin(event.content_block_index, Part::Tool { id, name, input: String::new() })?;
                    Ok(Some(began))
                }
                _ => Ok(None),
            },
            Event::ContentBlockDelta(event) => match event.delta {
                Some(delta) => self.more(event.content_block_index, delta),
                None => Ok(None),
            },
            Event::MessageStop(event) => {
                self.stop = Some(event.stop_reason);
                Ok(None)
            }
            Event::Metadata(event) => {
                self.usage = event.usage;
                let router = event.trace.and_then(|trace| trace.prompt_router);
                self.model = router.and_then(|router| router.invoked_model_id);
                self.is_done = true;
                Ok(None)
            }
            // The beginning of the message, the end of a block, and events that are not known here.
            _ => Ok(None),
        }
    }

    fn finish(self) -> Result<ModelAnswer, ProviderError> {
        let Self { parts, stop, usage, model, request_id, .. } = self;
        let Some(reason) = stop else {
            let message = "the stream ended before the answer did (no messageStop)";
            return Err(error(ErrorKind::StreamBroken, message).request_id(request_id));
        };
        let used = answer::usage(usage.as_ref(), &reason);
        let is_cut = reason.as_str() == "max_tokens";
        let content: Vec<Block> = parts.into_values().filter_map(|part| block(part, is_cut)).collect();
        let stop =
            answer::stop(&reason, &content).map_err(|error| error.request_id(request_id.clone()).usage(Some(used.clone())))?;
        Ok(ModelAnswer::new(content, stop, used).model(model).request_id(request_id))
    }
}

impl Reading {
    fn begin(&mut self, index: i32, part: Part) -> Result<(), ProviderError> {
        self.check_room(index)?;
        match self.parts.entry(index) {
            Entry::Vacant(free) => {
                free.insert(part);
                Ok(())
            }
            Entry::Occupied(_) => Err(bad(format!("its block {index} begins twice"))),
        }
    }

    fn check_room(&self, index: i32) -> Result<(), ProviderError> {
        if self.parts.len() >= MAX_BLOCKS && !self.parts.contains_key(&index) {
            return Err(bad(format!("it has more than {MAX_BLOCKS} blocks")));
        }
        Ok(())
    }

    /// More of a block. Texts and reasoning have no event at their beginning.
    fn more(&mut self, index: i32, delta: sdk::ContentBlockDelta) -> Result<Option<Chunk>, ProviderError> {
        use sdk::{ContentBlockDelta as Delta, ReasoningContentBlockDelta as Thought};
        self.check_room(index)?;
        let entry = self.parts.entry(index);
        let odd = |part: &Part, more: &str| bad(format!("its block {index} is {} and goes on as {more}", part.named()));
        match delta {
            Delta::Text(more) => match entry.or_insert_with(|| Part::Text(String::new())) {
                Part::Text(text) => {
                    text.push_str(&more);
                    Ok((!more.is_empty()).then_some(Chunk::Text(more)))
                }
                other => Err(odd(other, "text")),
            },
            Delta::ReasoningContent(Thought::Text(more)) => {
                match entry.or_insert_with(|| Part::Reasoning { text: String::new(), signature: None }) {
                    Part::Reasoning { text, .. } => {
                        text.push_str(&more);
                        Ok((!more.is_empty()).then_some(Chunk::Reasoning(more)))
                    }
                    other => Err(odd(other, "reasoning")),
                }
            }
            Delta::ReasoningContent(Thought::Signature(more)) => {
                match entry.or_insert_with(|| Part::Reasoning { text: String::new(), signature: None }) {
                    Part::Reasoning { signature, .. } => {
                        signature.get_or_insert_default().push_str(&more);
                        Ok(None)
                    }
                    other => Err(odd(other, "a signature")),
                }
            }
            Delta::ReasoningContent(Thought::RedactedContent(more)) => {
                match entry.or_insert_with(|| Part::Redacted(Vec::new())) {
                    // Bytes are joined: pieces in base64 joined are not the base64 of the whole.
                    Part::Redacted(bytes) => {
                        bytes.extend_from_slice(more.as_ref());
                        Ok(None)
                    }
                    other => Err(odd(other, "redacted reasoning")),
                }
            }
            Delta::ToolUse(more) => match entry {
                Entry::Occupied(mut found) => match found.get_mut() {
                    Part::Tool { input, .. } => {
                        input.push_str(&more.input);
                        Ok((!more.input.is_empty()).then_some(Chunk::ToolInput(more.input)))
                    }
                    other => Err(odd(other, "the input of a tool")),
                },
                Entry::Vacant(_) => Err(bad(format!("its block {index} has the input of a tool that it did not name"))),
            },
            _ => Ok(None),
        }
    }
}

fn block(part: Part, is_cut: bool) -> Option<Block> {
    match part {
        Part::Text(text) => answer::text_block(text),
        Part::Reasoning { text, signature } => Some(Block::Reasoning { text, signature }),
        Part::Redacted(bytes) => Some(answer::redacted(&bytes)),
        Part::Tool { id, name, input } => Block::tool_use(id, name, input, is_cut),
    }
}

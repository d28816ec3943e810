//! What Converse answers.

use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_sdk_bedrockruntime::operation::converse::ConverseOutput;
use aws_sdk_bedrockruntime::types as sdk;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::contract::provider::{Block, ModelAnswer, ProviderError, StopReason, Usage};
use serde_json::{Map, Value, json};

use crate::error::bad;
use crate::value::from_document;

/// A whole answer.
pub(crate) fn whole(output: &ConverseOutput) -> Result<ModelAnswer, ProviderError> {
    let id = output.request_id().map(str::to_owned);
    let mut content = Vec::new();
    if let Some(sdk::ConverseOutput::Message(message)) = output.output() {
        content.extend(message.content().iter().filter_map(block));
    }
    let read = usage(output.usage(), output.stop_reason());
    let stop = stop(output.stop_reason(), &content).map_err(|error| error.request_id(id.clone()).usage(Some(read.clone())))?;
    let router = output.trace().and_then(|trace| trace.prompt_router());
    let model = router.and_then(|router| router.invoked_model_id()).map(str::to_owned);
    Ok(ModelAnswer::new(content, stop, read).model(model).request_id(id))
}

/// A block of an answer. What the contract has no block for is left out.
fn block(block: &sdk::ContentBlock) -> Option<Block> {
    match block {
        sdk::ContentBlock::Text(text) => text_block(text.clone()),
        sdk::ContentBlock::ToolUse(used) => Some(Block::ToolUse {
            id: used.tool_use_id().to_owned(),
            name: used.name().to_owned(),
            input: from_document(used.input()),
        }),
        sdk::ContentBlock::ReasoningContent(sdk::ReasoningContentBlock::ReasoningText(said)) => {
            Some(Block::Reasoning { text: said.text().to_owned(), signature: said.signature().map(str::to_owned) })
        }
        sdk::ContentBlock::ReasoningContent(sdk::ReasoningContentBlock::RedactedContent(bytes)) => {
            Some(redacted(bytes.as_ref()))
        }
        sdk::ContentBlock::CitationsContent(cited) => {
            let text = |part: &sdk::CitationGeneratedContent| part.as_text().ok().cloned().unwrap_or_default();
            text_block(cited.content().iter().map(text).collect())
        }
        sdk::ContentBlock::Image(image) => match image.source() {
            Some(sdk::ImageSource::Bytes(bytes)) => Some(Block::Image {
                media_type: format!("image/{}", image.format().as_str()),
                data: STANDARD.encode(bytes.as_ref()),
            }),
            _ => None,
        },
        _ => {
            tracing::warn!("an answer of Bedrock has a block of a kind that is not known here; it is left out");
            None
        }
    }
}

pub(crate) fn text_block(text: String) -> Option<Block> {
    (!text.is_empty()).then_some(Block::Text { text })
}

pub(crate) fn redacted(bytes: &[u8]) -> Block {
    Block::RedactedReasoning { data: STANDARD.encode(bytes) }
}

/// What the SDK puts where the answer gives no reason.
const NO_REASON: &str = "no value was set";

/// Why the model stopped. An answer that does not say is not whole.
pub(crate) fn stop(reason: &sdk::StopReason, content: &[Block]) -> Result<StopReason, ProviderError> {
    let uses_tools = content.iter().any(|block| matches!(block, Block::ToolUse { .. }));
    Ok(match reason.as_str() {
        NO_REASON | "" => return Err(bad("it does not say why the model stopped (stopReason)")),
        "guardrail_intervened" | "content_filtered" => StopReason::ContentFiltered,
        "max_tokens" => StopReason::MaxTokens,
        "refusal" => StopReason::Refusal,
        "end_turn" | "tool_use" | "stop_sequence" if uses_tools => StopReason::ToolUse,
        "end_turn" | "tool_use" => StopReason::EndTurn,
        "stop_sequence" => StopReason::StopSequence,
        other => StopReason::Other(other.to_owned()),
    })
}

/// The usage by class. Bedrock's classes do not overlap, and `totalTokens` is their sum.
///
/// The SDK makes 0 of a number that the answer does not have. So a 0 is believed only if the sum is right, and nothing but zeros only if a
/// guardrail stopped the call before the model.
pub(crate) fn usage(stated: Option<&sdk::TokenUsage>, reason: &sdk::StopReason) -> Usage {
    let mut usage = Usage::default();
    let Some(stated) = stated else { return usage };
    let number = |number: i32| u64::try_from(number).ok();
    let (input, output, total) = (number(stated.input_tokens()), number(stated.output_tokens()), number(stated.total_tokens()));
    let read = stated.cache_read_input_tokens().and_then(number);
    let written = stated.cache_write_input_tokens().and_then(number);
    let sum = [input, output, read, written].into_iter().flatten().fold(0, u64::saturating_add);
    let was_stopped = matches!(reason.as_str(), "guardrail_intervened" | "content_filtered");
    let is_whole = total == Some(sum) && (sum > 0 || was_stopped);
    let known = |class: Option<u64>| class.filter(|tokens| is_whole || *tokens > 0);
    let for_an_hour = stated.cache_details().iter().filter(|detail| detail.ttl().as_str() == "1h");
    let for_an_hour = for_an_hour.filter_map(|detail| number(detail.input_tokens())).fold(0, u64::saturating_add);
    let for_an_hour = for_an_hour.min(written.unwrap_or(0));
    usage.input = known(input);
    usage.output = known(output);
    usage.cache_read = read.filter(|tokens| *tokens > 0);
    usage.cache_write = written.map(|tokens| tokens - for_an_hour).filter(|tokens| *tokens > 0);
    usage.cache_write_1h = Some(for_an_hour).filter(|tokens| *tokens > 0);
    usage.raw = raw(stated, usage.input, usage.output);
    usage
}

/// What the provider said, as far as the SDK tells it.
fn raw(stated: &sdk::TokenUsage, input: Option<u64>, output: Option<u64>) -> Value {
    let details: Vec<_> = stated
        .cache_details()
        .iter()
        .map(|detail| json!({"ttl": detail.ttl().as_str(), "inputTokens": detail.input_tokens()}))
        .collect();
    let members = [
        ("inputTokens", input.map(Value::from)),
        ("outputTokens", output.map(Value::from)),
        ("totalTokens", Some(stated.total_tokens()).filter(|total| *total != 0).map(Value::from)),
        ("cacheReadInputTokens", stated.cache_read_input_tokens().map(Value::from)),
        ("cacheWriteInputTokens", stated.cache_write_input_tokens().map(Value::from)),
        ("cacheDetails", (!details.is_empty()).then(|| Value::from(details))),
    ];
    let members: Map<_, _> = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if members.is_empty() { Value::Null } else { members.into() }
}

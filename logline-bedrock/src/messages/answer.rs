//! What is answered.

use logline_core::contract::provider::{Block, ModelAnswer, ProviderError, StopReason, Usage};
use serde_json::{Value, json};

use crate::answer::text_block;
use crate::error::bad;

/// The member in which Bedrock says that a guardrail has stopped the model, and its value then.
const GUARDRAIL: (&str, &str) = ("amazon-bedrock-guardrailAction", "INTERVENED");

/// Whether a guardrail has stopped the model.
pub(super) fn was_stopped(said: &Value) -> bool {
    said.get(GUARDRAIL.0).and_then(Value::as_str) == Some(GUARDRAIL.1)
}

/// A whole answer.
pub(crate) fn whole(body: &[u8], request_id: Option<String>) -> Result<ModelAnswer, ProviderError> {
    let named = |error: ProviderError| error.request_id(request_id.clone());
    let said: Value = serde_json::from_slice(body).map_err(|_| named(bad("it is not JSON")))?;
    let content = said.get("content").and_then(Value::as_array).ok_or_else(|| named(bad("it has no `content`")))?;
    let content: Vec<_> = content.iter().filter_map(block).collect();
    let used = usage(said.get("usage").unwrap_or(&Value::Null));
    let reason = said.get("stop_reason").and_then(Value::as_str);
    let stop = stop(reason, was_stopped(&said), &content).map_err(|error| named(error).usage(Some(used.clone())))?;
    let model = said.get("model").and_then(Value::as_str).map(str::to_owned);
    Ok(ModelAnswer::new(content, stop, used).model(model).request_id(request_id))
}

pub(super) fn text<'a>(said: &'a Value, member: &str) -> Option<&'a str> {
    said.get(member).and_then(Value::as_str)
}

/// A block of an answer. What the contract has no block for is left out.
fn block(said: &Value) -> Option<Block> {
    let owned = |member: &str| text(said, member).map(str::to_owned).unwrap_or_default();
    match text(said, "type") {
        Some("text") => text_block(owned("text")),
        Some("tool_use") => Some(Block::ToolUse {
            id: owned("id"),
            name: owned("name"),
            input: said.get("input").cloned().unwrap_or_else(|| json!({})),
        }),
        Some("thinking") => Some(Block::Reasoning {
            text: owned("thinking"),
            signature: text(said, "signature").filter(|signed| !signed.is_empty()).map(str::to_owned),
        }),
        Some("redacted_thinking") => Some(Block::RedactedReasoning { data: owned("data") }),
        _ => {
            tracing::warn!("an answer of Bedrock has a block of a kind that is not known here; it is left out");
            None
        }
    }
}

/// Why the model stopped. An answer that does not say is not whole.
pub(super) fn stop(reason: Option<&str>, was_stopped: bool, content: &[Block]) -> Result<StopReason, ProviderError> {
    let uses_tools = content.iter().any(|block| matches!(block, Block::ToolUse { .. }));
    Ok(match reason {
        _ if was_stopped => StopReason::ContentFiltered,
        None | Some("") => return Err(bad("it does not say why the model stopped (stop_reason)")),
        Some("max_tokens" | "model_context_window_exceeded") => StopReason::MaxTokens,
        Some("refusal") => StopReason::Refusal,
        Some("end_turn" | "tool_use" | "stop_sequence") if uses_tools => StopReason::ToolUse,
        Some("end_turn" | "tool_use") => StopReason::EndTurn,
        Some("stop_sequence") => StopReason::StopSequence,
        Some(other) => StopReason::Other(other.to_owned()),
    })
}

/// The usage by class. The classes do not overlap: `input_tokens` has neither what was read from a cache nor what was written to one.
pub(super) fn usage(said: &Value) -> Usage {
    let number = |value: &Value, member: &str| value.get(member).and_then(Value::as_u64);
    let written = number(said, "cache_creation_input_tokens");
    let by_time = said.get("cache_creation").unwrap_or(&Value::Null);
    let for_an_hour = number(by_time, "ephemeral_1h_input_tokens").unwrap_or(0).min(written.unwrap_or(u64::MAX));
    let written = written.or_else(|| Some(number(by_time, "ephemeral_5m_input_tokens")?.saturating_add(for_an_hour)));
    let mut usage = Usage::default();
    usage.input = number(said, "input_tokens");
    usage.output = number(said, "output_tokens");
    usage.cache_read = number(said, "cache_read_input_tokens").filter(|tokens| *tokens > 0);
    usage.cache_write = written.map(|tokens| tokens.saturating_sub(for_an_hour)).filter(|tokens| *tokens > 0);
    usage.cache_write_1h = Some(for_an_hour).filter(|tokens| *tokens > 0);
    usage.raw = if said.as_object().is_some_and(|members| !members.is_empty()) { said.clone() } else { Value::Null };
    usage
}

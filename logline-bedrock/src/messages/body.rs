//! What is sent.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::contract::provider::{
    Block, CacheTtl, ErrorKind, Message, ModelRequest, ProviderError, Role, Tool, ToolChoice,
};
use serde_json::{Map, Value, json};

use crate::error::error;

/// The version of the messages that Bedrock takes.
const VERSION: &str = "bedrock-2023-05-31";

/// The most tokens of an answer, if the request does not say: these messages must.
const MAX_TOKENS: u32 = 4096;

fn invalid(reason: impl Into<String>) -> ProviderError {
    error(ErrorKind::Invalid, reason)
}

/// The body of a request. `fields` are members that the adapter adds to each.
///
/// # Errors
/// What these messages have no form for, and its place.
pub(crate) fn body(request: &ModelRequest, fields: Option<&Value>) -> Result<Value, ProviderError> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("anthropic_version", Some(VERSION.into()));
    set("max_tokens", Some(request.max_tokens.unwrap_or(MAX_TOKENS).into()));
    let system = blocks(&request.system, "system")?;
    set("system", (!system.is_empty()).then(|| system.into()));
    set("messages", Some(messages(&request.messages)?.into()));
    // Only what is asked for is sent: some models take no temperature, or not together with top_p.
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    set("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop)));
    let tools = tools(request);
    set("tool_choice", choice(request.tool_choice.as_ref()).filter(|_| !request.tools.is_empty()));
    set("tools", (!tools.is_empty()).then(|| tools.into()));
    let format = |schema: &Value| json!({"format": {"type": "json_schema", "schema": schema}});
    set("output_config", request.output_schema.as_ref().map(|output| format(&output.schema)));
    body.extend(fields.and_then(Value::as_object).cloned().unwrap_or_default());
    Ok(body.into())
}

/// Speakers take turns, so messages of one speaker that follow each other become one. Results of tools stand first in theirs.
fn messages(messages: &[Message]) -> Result<Vec<Value>, ProviderError> {
    let mut turns: Vec<(Role, Vec<Value>)> = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        let mut content = blocks(&message.content, &format!("messages[{n}].content"))?;
        match turns.last_mut() {
            Some((role, turn)) if *role == message.role => turn.append(&mut content),
            _ if content.is_empty() => {}
            _ => turns.push((message.role, content)),
        }
    }
    let turn = |(role, mut content): (Role, Vec<Value>)| {
        content.sort_by_key(|block| block.get("type").and_then(Value::as_str) != Some("tool_result"));
        let role = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        json!({"role": role, "content": content})
    };
    Ok(turns.into_iter().map(turn).collect())
}

/// Blocks as these messages have them. A cache point is a member of the block before it.
fn blocks(given: &[Block], place: &str) -> Result<Vec<Value>, ProviderError> {
    let mut made: Vec<Value> = Vec::new();
    for (n, block) in given.iter().enumerate() {
        let placed = |reason: String| invalid(format!("{place}[{n}]: {reason}"));
        let Block::CachePoint { ttl } = block else {
            made.extend(content_block(block).map_err(placed)?);
            continue;
        };
        let Some(before) = made.last_mut().and_then(Value::as_object_mut) else {
            return Err(placed("a cache point must stand behind a block".to_owned()));
        };
        if before.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("thinking")) {
            return Err(placed("a cache point cannot stand behind reasoning: put it behind another block".to_owned()));
        }
        let mut control = json!({"type": "ephemeral"});
        if let Some(ttl) = ttl {
            let ttl = match ttl {
                CacheTtl::FiveMinutes => "5m",
                CacheTtl::OneHour => "1h",
            };
            control.as_object_mut().map(|members| members.insert("ttl".to_owned(), ttl.into()));
        }
        before.insert("cache_control".to_owned(), control);
    }
    Ok(made)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn content_block(block: &Block) -> Result<Option<Value>, String> {
    Ok(Some(match block {
        Block::Text { text } if is_blank(text) => return Ok(None),
        Block::Text { text } => json!({"type": "text", "text": text}),
        Block::Image { media_type, data } => image(media_type, data)?,
        Block::Document { name, media_type, data } => document(name, media_type, data)?,
        Block::ToolUse { id, name, input } => {
            // The input of a tool is an object. What a model once said instead is shown to it as a member.
            let input = if input.is_object() { input.clone() } else { json!({"input": input}) };
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
        Block::ToolResult { id, content, is_error } => {
            let part = |block: &Block| match block {
                Block::Text { .. } | Block::Image { .. } | Block::Document { .. } => content_block(block),
                _ => Err("the result of a tool has texts, pictures and documents".to_owned()),
            };
            let parts = content.iter().filter_map(|block| part(block).transpose()).collect::<Result<Vec<_>, _>>()?;
            let mut result = json!({"type": "tool_result", "tool_use_id": id, "content": parts});
            if *is_error {
                result.as_object_mut().map(|members| members.insert("is_error".to_owned(), true.into()));
            }
            result
        }
        Block::Reasoning { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature.as_deref().unwrap_or_default()})
        }
        Block::RedactedReasoning { data } => json!({"type": "redacted_thinking", "data": data}),
        other => return Err(format!("the messages of Anthropic have no form for it: {other:?}")),
    }))
}

fn image(media_type: &str, data: &str) -> Result<Value, String> {
    if !["image/png", "image/jpeg", "image/gif", "image/webp"].contains(&media_type) {
        return Err(format!("a picture is png, jpeg, gif or webp, not `{media_type}`"));
    }
    STANDARD.decode(data).map_err(|_| "`data` is not base64")?;
    Ok(json!({"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}))
}

fn document(name: &str, media_type: &str, data: &str) -> Result<Value, String> {
    let bytes = STANDARD.decode(data).map_err(|_| "`data` is not base64")?;
    let source = match media_type {
        "application/pdf" => json!({"type": "base64", "media_type": media_type, "data": data}),
        "text/plain" => {
            let text = String::from_utf8(bytes).map_err(|_| "a plain text must be UTF-8")?;
            json!({"type": "text", "media_type": media_type, "data": text})
        }
        other => return Err(format!("a document is pdf or plain text, not `{other}`: Converse takes more")),
    };
    Ok(json!({"type": "document", "source": source, "title": name}))
}

/// The tools, whenever any are offered or the conversation has some: tool blocks are refused without them.
fn tools(request: &ModelRequest) -> Vec<Value> {
    if !request.tools.is_empty() || !request.has_tool_blocks() {
        return request.tools.iter().map(offered).collect();
    }
    let blocks = request.messages.iter().flat_map(|message| &message.content);
    let names: BTreeSet<&str> =
        blocks.filter_map(|block| if let Block::ToolUse { name, .. } = block { Some(name.as_str()) } else { None }).collect();
    names.into_iter().map(|name| json!({"name": name, "input_schema": {"type": "object"}})).collect()
}

fn offered(tool: &Tool) -> Value {
    let mut offered = json!({"name": tool.name, "input_schema": tool.input_schema});
    if let Some(members) = offered.as_object_mut() {
        if !is_blank(&tool.description) {
            members.insert("description".to_owned(), tool.description.as_str().into());
        }
        if tool.strict {
            members.insert("strict".to_owned(), true.into());
        }
    }
    offered
}

fn choice(choice: Option<&ToolChoice>) -> Option<Value> {
    Some(match choice? {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::Any => json!({"type": "any"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Tool(name) => json!({"type": "tool", "name": name}),
    })
}

//! The bodies of requests.

use logline_core::contract::provider::{Block, EmbedRequest, Message, ModelRequest, OutputSchema, Role, Tool, ToolChoice};
use serde_json::{Map, Value, json};

/// The member of a chat request in which the limit of tokens stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MaxTokens {
    /// `max_completion_tokens`, which includes reasoning. OpenAI's newer models take nothing else.
    #[default]
    Completion,
    /// `max_tokens`, for servers that know nothing else.
    Plain,
}

/// An object of those members that are present.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

/// A chat request.
pub(crate) fn chat(model: &str, request: &ModelRequest, max_tokens: MaxTokens, streams: bool) -> Value {
    let mut messages = Vec::new();
    let system = texts(&request.system);
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system.join("\n\n")}));
    }
    for message in &request.messages {
        match message.role {
            Role::User => user(message, &mut messages),
            Role::Assistant => messages.push(assistant(message)),
        }
    }
    // Without tools, a choice is refused.
    let choice = request.tool_choice.as_ref().filter(|_| !request.tools.is_empty());
    let limit = match max_tokens {
        MaxTokens::Completion => "max_completion_tokens",
        MaxTokens::Plain => "max_tokens",
    };
    object([
        ("model", Some(model.into())),
        ("messages", Some(messages.into())),
        ("tools", some(&request.tools, |tools| tools.iter().map(tool).collect())),
        ("tool_choice", choice.map(tool_choice)),
        ("response_format", request.output_schema.as_ref().map(response_format)),
        (limit, request.max_tokens.map(Value::from)),
        ("temperature", request.temperature.map(Value::from)),
        ("top_p", request.top_p.map(Value::from)),
        ("stop", some(&request.stop, |stop| json!(stop))),
        ("metadata", Some(&request.metadata).filter(|labels| !labels.is_empty()).map(|labels| json!(labels))),
        ("stream", streams.then_some(Value::Bool(true))),
        ("stream_options", streams.then(|| json!({"include_usage": true}))),
    ])
}

/// A list as a value, unless it is empty.
fn some<T>(list: &[T], value: impl FnOnce(&[T]) -> Value) -> Option<Value> {
    (!list.is_empty()).then(|| value(list))
}

fn tool(tool: &Tool) -> Value {
    let function = object([
        ("name", Some(tool.name.as_str().into())),
        ("description", Some(tool.description.as_str()).filter(|text| !text.is_empty()).map(Value::from)),
        ("parameters", Some(tool.input_schema.clone())),
        ("strict", tool.strict.then_some(Value::Bool(true))),
    ]);
    json!({"type": "function", "function": function})
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Any => json!("required"),
        ToolChoice::None => json!("none"),
        ToolChoice::Tool(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn response_format(output: &OutputSchema) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": output.name, "schema": output.schema, "strict": true}})
}

fn texts(blocks: &[Block]) -> Vec<&str> {
    blocks.iter().filter_map(|block| if let Block::Text { text } = block { Some(text.as_str()) } else { None }).collect()
}

/// A user message: the results of tools are messages of their own and come first, as the protocol wants them directly behind the uses.
fn user(message: &Message, messages: &mut Vec<Value>) {
    let mut parts = Vec::new();
    for block in &message.content {
        match block {
            Block::ToolResult { id, content, is_error } => {
                let text = texts(content).join("\n");
                let text = if *is_error { format!("error: {text}") } else { text };
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
                // A tool message has texts only. Pictures and documents follow as the user's.
                parts.extend(content.iter().filter(|block| !matches!(block, Block::Text { .. })).filter_map(part));
            }
            block => parts.extend(part(block)),
        }
    }
    let only_text = match parts.as_slice() {
        [] => return,
        [one] => one.get("text").cloned(),
        _ => None,
    };
    messages.push(json!({"role": "user", "content": only_text.unwrap_or_else(|| parts.into())}));
}

fn part(block: &Block) -> Option<Value> {
    match block {
        Block::Text { text } => Some(json!({"type": "text", "text": text})),
        Block::Image { media_type, data } => {
            Some(json!({"type": "image_url", "image_url": {"url": format!("data:{media_type};base64,{data}")}}))
        }
        Block::Document { name, media_type, data } => {
            let file = json!({"filename": name, "file_data": format!("data:{media_type};base64,{data}")});
            Some(json!({"type": "file", "file": file}))
        }
        // The protocol caches by itself.
        _ => None,
    }
}

/// An assistant message. The protocol has no place for reasoning.
fn assistant(message: &Message) -> Value {
    let text = texts(&message.content).concat();
    let call = |block: &Block| match block {
        Block::ToolUse { id, name, input } => {
            let function = json!({"name": name, "arguments": input.to_string()});
            Some(json!({"id": id, "type": "function", "function": function}))
        }
        _ => None,
    };
    let calls: Vec<_> = message.content.iter().filter_map(call).collect();
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    object([("role", Some("assistant".into())), ("content", Some(content)), ("tool_calls", some(&calls, |calls| json!(calls)))])
}

/// A request for vectors. The protocol does not know purposes.
pub(crate) fn embeddings(model: &str, request: &EmbedRequest) -> Value {
    object([
        ("model", Some(model.into())),
        ("input", Some(json!(request.texts))),
        ("encoding_format", Some("float".into())),
        ("dimensions", request.dimensions.map(Value::from)),
    ])
}

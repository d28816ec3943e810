//! What a model is asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::json::{self, JsonErrorKind};

/// What a model is asked. The model itself, credentials and limits of time are not part of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelRequest {
    /// Instructions that stand before the conversation: texts and cache points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block>,
    /// The conversation. It begins with a user message.
    pub messages: Vec<Message>,
    /// The tools that the model may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether the model must use a tool. Default: it decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// The schema that the answer must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<OutputSchema>,
    /// The most tokens of the answer. Default: the limit of the provider span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// From 0 to 2. Some models take none, or not together with `top_p`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// From 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Texts at which the model stops.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Labels that are sent to the provider, for its own records.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The user, or a tool that answers.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Vec<Block>,
}

impl Message {
    /// A text of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, content: vec![Block::text(text)] }
    }

    /// A text of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: vec![Block::text(text)] }
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Block {
    /// A text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// The bytes in base64.
        data: String,
    },
    /// A document.
    Document {
        /// A name that is unique in the conversation.
        name: String,
        /// Such as `application/pdf`.
        media_type: String,
        /// The bytes in base64.
        data: String,
    },
    /// The model uses a tool.
    ToolUse {
        /// The id of the use, to which the result refers.
        id: String,
        /// The name of the tool.
        name: String,
        /// The input of the tool.
        input: Value,
    },
    /// The result of a tool.
    ToolResult {
        /// The id of the use.
        id: String,
        /// Texts, pictures and documents.
        content: Vec<Block>,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    /// The reasoning of the model. It is given back unchanged; its text may be empty.
    Reasoning {
        /// What the model thought.
        text: String,
        /// Proves to the provider that the text is the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// Reasoning that only the provider can read. It is given back unchanged.
    RedactedReasoning {
        /// The bytes in base64.
        data: String,
    },
    /// Everything before it may be kept in the provider's cache.
    CachePoint {
        /// How long. Default 5 minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<CacheTtl>,
    },
}

impl Block {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// A use of a tool with the JSON text of its input, of which an empty one stands for `{}`. A text that is no JSON, or has a key twice,
    /// becomes the input as it is: the model has said it, and whoever runs the tool tells the model. `None` if the answer is cut in the
    /// middle of the text.
    #[must_use]
    pub fn tool_use(id: String, name: String, input: String, is_cut: bool) -> Option<Self> {
        let text = if input.trim().is_empty() { "{}" } else { input.as_str() };
        let has_key_twice =
            || matches!(json::parse(text.as_bytes()), Err(e) if matches!(e.kind, JsonErrorKind::DuplicateKey { .. }));
        let input = match serde_json::from_str(text) {
            Ok(_) if has_key_twice() => Value::String(input),
            Ok(read) => read,
            Err(_) if is_cut => return None,
            Err(_) => Value::String(input),
        };
        Some(Self::ToolUse { id, name, input })
    }
}

/// How long a provider keeps a cached part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CacheTtl {
    /// 5 minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// 1 hour.
    #[serde(rename = "1h")]
    OneHour,
}

/// A tool that a model may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The JSON schema of its input.
    pub input_schema: Value,
    /// Whether the provider must hold the model to the schema.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// Whether a model must use a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// It decides.
    Auto,
    /// It must use one.
    Any,
    /// It must use none.
    None,
    /// It must use this one.
    Tool(String),
}

/// The schema of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSchema {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// The JSON schema.
    pub schema: Value,
}

/// For which purpose a text becomes a vector. Some models make different vectors for a question and for what may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The text is a question.
    Query,
    /// The text may answer questions.
    Document,
}

/// Texts that are to become vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// 1 to 96 texts.
    pub texts: Vec<String>,
    /// For which purpose.
    pub purpose: Purpose,
    /// The length of the vectors; `None`: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
}

impl EmbedRequest {
    /// The most texts of one request.
    pub const MAX_TEXTS: usize = 96;

    /// Vectors of `texts`, as long as the model makes them.
    #[must_use]
    pub fn new(texts: Vec<String>, purpose: Purpose) -> Self {
        Self { texts, purpose, dimensions: None }
    }

    /// Checks what no provider accepts.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn check(&self) -> Result<(), RequestFault> {
        if self.texts.is_empty() || self.texts.len() > Self::MAX_TEXTS {
            return fault("texts", format!("there must be 1 to {} texts", Self::MAX_TEXTS));
        }
        match self.texts.iter().position(|text| text.trim().is_empty()) {
            Some(n) => fault(format!("texts[{n}]"), "a text must not be empty"),
            None if self.dimensions == Some(0) => fault("dimensions", "a vector has at least 1 number"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {reason}")]
pub struct RequestFault {
    /// Such as `messages[2].content[0]`.
    pub place: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

fn fault<T>(place: impl Into<String>, reason: impl Into<String>) -> Result<T, RequestFault> {
    Err(RequestFault { place: place.into(), reason: reason.into() })
}

impl ModelRequest {
    /// Asks with one user message.
    pub fn ask(text: impl Into<String>) -> Self {
        Self { messages: vec![Message::user(text)], ..Self::default() }
    }

    /// Sets instructions that stand before the conversation.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = vec![Block::text(text)];
        self
    }

    /// Sets [`ModelRequest::max_tokens`].
    #[must_use]
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// The request without what providers refuse and nobody misses: texts of white space only, and messages that have nothing left.
    #[must_use]
    pub fn without_blanks(mut self) -> Self {
        let has_words = |block: &Block| !matches!(block, Block::Text { text } if text.trim().is_empty());
        self.system.retain(has_words);
        for message in &mut self.messages {
            message.content.retain(has_words);
        }
        self.messages.retain(|message| !message.content.is_empty());
        self
    }

    /// Checks what every provider would refuse, so that no call is spent on it.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn check(&self) -> Result<(), RequestFault> {
        self.check_system()?;
        self.check_messages()?;
        self.check_tools()?;
        self.check_cache_points()?;
        if self.max_tokens == Some(0) {
            return fault("max_tokens", "must be at least 1");
        }
        for (place, value, most) in [("temperature", self.temperature, 2.0), ("top_p", self.top_p, 1.0)] {
            if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
                return fault(place, format!("must be from 0 to {most}"));
            }
        }
        match self.stop.iter().position(String::is_empty) {
            Some(n) => fault(format!("stop[{n}]"), "must not be empty"),
            None => Ok(()),
        }
    }

    fn check_system(&self) -> Result<(), RequestFault> {
        let is_bad = |block: &Block| !matches!(block, Block::Text { .. } | Block::CachePoint { .. });
        match self.system.iter().position(is_bad) {
            Some(n) => fault(format!("system[{n}]"), "must be a text or a cache point"),
            None => Ok(()),
        }
    }

    /// Tool uses and their results: each use is answered, all at once, in the next message.
    fn check_messages(&self) -> Result<(), RequestFault> {
        if self.messages.first().is_none_or(|message| message.role != Role::User) {
            return fault("messages", "must begin with a user message");
        }
        let mut open: BTreeSet<&str> = BTreeSet::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for (n, message) in self.messages.iter().enumerate() {
            if message.content.is_empty() {
                return fault(format!("messages[{n}].content"), "must not be empty");
            }
            let mut uses = BTreeSet::new();
            for (m, block) in message.content.iter().enumerate() {
                let here = || format!("messages[{n}].content[{m}]");
                match (block, message.role) {
                    (Block::ToolUse { id, .. }, Role::Assistant) if !uses.insert(id.as_str()) => {
                        return fault(here(), format!("the tool use `{id}` stands here twice"));
                    }
                    (Block::ToolUse { .. } | Block::Reasoning { .. } | Block::RedactedReasoning { .. }, Role::User) => {
                        return fault(here(), "only an assistant message may have it");
                    }
                    (Block::ToolResult { id, .. }, Role::User) if !open.remove(id.as_str()) => {
                        return fault(here(), format!("the message before has no open tool use `{id}`"));
                    }
                    (Block::ToolResult { .. }, Role::Assistant) => return fault(here(), "only a user message may have it"),
                    _ => {}
                }
                let shown = match block {
                    Block::ToolResult { content, .. } => content.as_slice(),
                    other => std::slice::from_ref(other),
                };
                for document in shown {
                    if let Block::Document { name, .. } = document {
                        check_document_name(name, &mut names).or_else(|reason| fault(here(), reason))?;
                    }
                }
            }
            if let Some(id) = open.first() {
                return fault(
                    format!("messages[{n}]"),
                    format!(
                        "the tool use `{id}` of the message before has no result here: give all results of a turn in one message"
                    ),
                );
            }
            open = uses;
        }
        match open.first() {
            Some(id) => {
                fault("messages", format!("the tool use `{id}` of the last message has no result: add a user message with it"))
            }
            None => Ok(()),
        }
    }

    fn check_tools(&self) -> Result<(), RequestFault> {
        let mut names = BTreeSet::new();
        for (n, tool) in self.tools.iter().enumerate() {
            if !is_name(&tool.name) {
                return fault(format!("tools[{n}].name"), "must have 1 to 64 letters, digits, `_` and `-`");
            }
            if !names.insert(tool.name.as_str()) {
                return fault(format!("tools[{n}].name"), format!("there are two tools `{}`", tool.name));
            }
            if !tool.input_schema.is_object() {
                return fault(format!("tools[{n}].input_schema"), "must be an object");
            }
        }
        match &self.tool_choice {
            Some(ToolChoice::Tool(name)) if !names.contains(name.as_str()) => {
                return fault("tool_choice", format!("there is no tool `{name}`"));
            }
            Some(ToolChoice::Any) if names.is_empty() => return fault("tool_choice", "there are no tools"),
            _ => {}
        }
        match &self.output_schema {
            Some(schema) if !is_name(&schema.name) => {
                fault("output_schema.name", "must have 1 to 64 letters, digits, `_` and `-`")
            }
            Some(schema) if !schema.schema.is_object() => fault("output_schema.schema", "must be an object"),
            _ => Ok(()),
        }
    }

    /// A later cache point may not last longer than an earlier one.
    fn check_cache_points(&self) -> Result<(), RequestFault> {
        let ttl = |block: &Block| match block {
            Block::CachePoint { ttl } => Some(ttl.unwrap_or(CacheTtl::FiveMinutes)),
            _ => None,
        };
        let system = self.system.iter().enumerate().map(|(n, block)| (format!("system[{n}]"), block));
        let messages = self.messages.iter().enumerate().flat_map(|(n, message)| {
            message.content.iter().enumerate().map(move |(m, block)| (format!("messages[{n}].content[{m}]"), block))
        });
        let mut longest = CacheTtl::OneHour;
        for (place, block) in system.chain(messages) {
            let Some(ttl) = ttl(block) else { continue };
            if ttl > longest {
                return fault(place, "a cache point must not last longer than those before it");
            }
            longest = ttl;
        }
        Ok(())
    }

    /// Whether the conversation has tool uses or results: then a provider must be told of tools, even if none may be used now.
    #[must_use]
    pub fn has_tool_blocks(&self) -> bool {
        let is_tool = |block: &Block| matches!(block, Block::ToolUse { .. } | Block::ToolResult { .. });
        self.messages.iter().any(|message| message.content.iter().any(is_tool))
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn check_document_name<'a>(name: &'a str, names: &mut BTreeSet<&'a str>) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || " -()[]".contains(c);
    if !(1..=200).contains(&name.len()) || !name.chars().all(is_allowed) || name.contains("  ") {
        return Err("the name of a document has 1 to 200 letters, digits, single spaces, and `-()[]`".to_owned());
    }
    if names.insert(name) { Ok(()) } else { Err(format!("there are two documents `{name}`: give each a name of its own")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(text: &str, is_cut: bool) -> Option<Value> {
        match Block::tool_use("1".to_owned(), "pay".to_owned(), text.to_owned(), is_cut)? {
            Block::ToolUse { input, .. } => Some(input),
            _ => None,
        }
    }

    /// Of two amounts the last would be paid, and the first may be the one that a check has read.
    #[test]
    fn a_key_twice_in_a_tools_input_is_a_text_and_no_object() {
        for text in [r#"{"amount":1,"amount":1000}"#, r#"{"to":{"iban":"a","\u0069ban":"b"}}"#] {
            assert_eq!(input(text, false), Some(json!(text)));
            assert_eq!(input(text, true), Some(json!(text)), "it is whole");
        }
        assert_eq!(input(r#"{"amount":1}"#, false), Some(json!({"amount": 1})));
        assert_eq!((input("", true), input(" ", false)), (Some(json!({})), Some(json!({}))));
        assert_eq!((input(r#"{"amount":"#, true), input(r#"{"amount":"#, false)), (None, Some(json!(r#"{"amount":"#))));
    }
}

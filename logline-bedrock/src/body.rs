//! What is sent to Converse.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_bedrockruntime::operation::converse::builders::ConverseFluentBuilder;
use aws_sdk_bedrockruntime::operation::converse_stream::builders::ConverseStreamFluentBuilder;
use aws_sdk_bedrockruntime::types as sdk;
use aws_smithy_types::{Blob, Document};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::contract::provider::{
    Block, CacheTtl, ErrorKind, Message, ModelRequest, OutputSchema, ProviderError, Role, Tool, ToolChoice,
};
use serde_json::{Value, json};

use crate::error::error;
use crate::value::to_document;

/// The parts of a request that Converse and ConverseStream share.
pub(crate) struct Body {
    messages: Vec<sdk::Message>,
    system: Vec<sdk::SystemContentBlock>,
    inference: Option<sdk::InferenceConfiguration>,
    tools: Option<sdk::ToolConfiguration>,
    output: Option<sdk::OutputConfig>,
    metadata: Option<HashMap<String, String>>,
}

fn invalid(reason: impl std::fmt::Display) -> ProviderError {
    error(ErrorKind::Invalid, reason.to_string())
}

impl Body {
    /// # Errors
    /// What Converse has no form for, and its place.
    pub(crate) fn of(request: &ModelRequest) -> Result<Self, ProviderError> {
        Ok(Self {
            messages: messages(&request.messages)?,
            system: request.system.iter().filter_map(|block| system(block).transpose()).collect::<Result<_, _>>()?,
            inference: inference(request)?,
            tools: tools(request)?,
            output: request.output_schema.as_ref().map(output).transpose()?,
            metadata: Some(&request.metadata)
                .filter(|labels| !labels.is_empty())
                .map(|labels| labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        })
    }

    pub(crate) fn converse(self, to: ConverseFluentBuilder) -> ConverseFluentBuilder {
        to.set_messages(Some(self.messages))
            .set_system(Some(self.system).filter(|blocks| !blocks.is_empty()))
            .set_inference_config(self.inference)
            .set_tool_config(self.tools)
            .set_output_config(self.output)
            .set_request_metadata(self.metadata)
    }

    pub(crate) fn converse_stream(self, to: ConverseStreamFluentBuilder) -> ConverseStreamFluentBuilder {
        to.set_messages(Some(self.messages))
            .set_system(Some(self.system).filter(|blocks| !blocks.is_empty()))
            .set_inference_config(self.inference)
            .set_tool_config(self.tools)
            .set_output_config(self.output)
            .set_request_metadata(self.metadata)
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn system(block: &Block) -> Result<Option<sdk::SystemContentBlock>, ProviderError> {
    match block {
        Block::Text { text } if is_blank(text) => Ok(None),
        Block::Text { text } => Ok(Some(sdk::SystemContentBlock::Text(text.clone()))),
        Block::CachePoint { ttl } => Ok(Some(sdk::SystemContentBlock::CachePoint(cache_point(*ttl)?))),
        _ => Err(invalid("system: only texts and cache points are taken")),
    }
}

/// Converse wants the speakers to take turns, so messages of one speaker that follow each other become one.
fn messages(messages: &[Message]) -> Result<Vec<sdk::Message>, ProviderError> {
    let mut turns: Vec<(Role, Vec<sdk::ContentBlock>)> = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        let mut content = Vec::new();
        for (m, block) in message.content.iter().enumerate() {
            let placed = |mut error: ProviderError| {
                error.message = format!("messages[{n}].content[{m}]: {}", error.message);
                error
            };
            content.extend(content_block(block).map_err(placed)?);
        }
        match turns.last_mut() {
            Some((role, turn)) if *role == message.role => turn.append(&mut content),
            // Bedrock refuses blank texts, and messages that have nothing else.
            _ if content.is_empty() => {}
            _ => turns.push((message.role, content)),
        }
    }
    let message = |(role, content)| {
        let role = match role {
            Role::User => sdk::ConversationRole::User,
            Role::Assistant => sdk::ConversationRole::Assistant,
        };
        sdk::Message::builder().role(role).set_content(Some(content)).build().map_err(invalid)
    };
    turns.into_iter().map(message).collect()
}

fn content_block(block: &Block) -> Result<Option<sdk::ContentBlock>, ProviderError> {
    Ok(Some(match block {
        Block::Text { text } if is_blank(text) => return Ok(None),
        Block::Text { text } => sdk::ContentBlock::Text(text.clone()),
        Block::Image { media_type, data } => sdk::ContentBlock::Image(image(media_type, data)?),
        Block::Document { name, media_type, data } => sdk::ContentBlock::Document(document(name, media_type, data)?),
        Block::ToolUse { id, name, input } => {
            // The input of a tool is an object. What a model once said instead is shown to it as a member.
            let input = if input.is_object() { to_document(input) } else { to_document(&json!({"input": input})) };
            let used = sdk::ToolUseBlock::builder().tool_use_id(id).name(name).input(input).build();
            sdk::ContentBlock::ToolUse(used.map_err(invalid)?)
        }
        Block::ToolResult { id, content, is_error } => sdk::ContentBlock::ToolResult(tool_result(id, content, *is_error)?),
        Block::Reasoning { text, signature } => {
            let said = sdk::ReasoningTextBlock::builder().text(text).set_signature(signature.clone()).build();
            sdk::ContentBlock::ReasoningContent(sdk::ReasoningContentBlock::ReasoningText(said.map_err(invalid)?))
        }
        Block::RedactedReasoning { data } => {
            sdk::ContentBlock::ReasoningContent(sdk::ReasoningContentBlock::RedactedContent(bytes(data)?))
        }
        Block::CachePoint { ttl } => sdk::ContentBlock::CachePoint(cache_point(*ttl)?),
        other => return Err(invalid(format!("Converse has no form for it: {other:?}"))),
    }))
}

fn tool_result(id: &str, content: &[Block], is_error: bool) -> Result<sdk::ToolResultBlock, ProviderError> {
    let part = |block: &Block| match block {
        Block::Text { text } if is_blank(text) => Ok(None),
        Block::Text { text } => Ok(Some(sdk::ToolResultContentBlock::Text(text.clone()))),
        Block::Image { media_type, data } => Ok(Some(sdk::ToolResultContentBlock::Image(image(media_type, data)?))),
        Block::Document { name, media_type, data } => {
            Ok(Some(sdk::ToolResultContentBlock::Document(document(name, media_type, data)?)))
        }
        _ => Err(invalid("the result of a tool has texts, pictures and documents")),
    };
    let parts = content.iter().filter_map(|block| part(block).transpose()).collect::<Result<Vec<_>, _>>()?;
    let status = if is_error { sdk::ToolResultStatus::Error } else { sdk::ToolResultStatus::Success };
    sdk::ToolResultBlock::builder().tool_use_id(id).set_content(Some(parts)).status(status).build().map_err(invalid)
}

fn bytes(data: &str) -> Result<Blob, ProviderError> {
    STANDARD.decode(data).map(Blob::new).map_err(|_| invalid("`data` is not base64"))
}

fn image(media_type: &str, data: &str) -> Result<sdk::ImageBlock, ProviderError> {
    let format = match media_type {
        "image/png" => sdk::ImageFormat::Png,
        "image/jpeg" => sdk::ImageFormat::Jpeg,
        "image/gif" => sdk::ImageFormat::Gif,
        "image/webp" => sdk::ImageFormat::Webp,
        other => return Err(invalid(format!("a picture is png, jpeg, gif or webp, not `{other}`"))),
    };
    sdk::ImageBlock::builder().format(format).source(sdk::ImageSource::Bytes(bytes(data)?)).build().map_err(invalid)
}

/// The media types of documents that Converse takes.
const DOCUMENTS: [(&str, sdk::DocumentFormat); 9] = [
    ("application/pdf", sdk::DocumentFormat::Pdf),
    ("text/csv", sdk::DocumentFormat::Csv),
    ("application/msword", sdk::DocumentFormat::Doc),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", sdk::DocumentFormat::Docx),
    ("application/vnd.ms-excel", sdk::DocumentFormat::Xls),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", sdk::DocumentFormat::Xlsx),
    ("text/html", sdk::DocumentFormat::Html),
    ("text/plain", sdk::DocumentFormat::Txt),
    ("text/markdown", sdk::DocumentFormat::Md),
];

fn document(name: &str, media_type: &str, data: &str) -> Result<sdk::DocumentBlock, ProviderError> {
    let format = DOCUMENTS.into_iter().find(|(known, _)| *known == media_type).map(|(_, format)| format);
    let format = format.ok_or_else(|| {
        invalid(format!("a document is pdf, csv, doc, docx, xls, xlsx, html, plain text or markdown, not `{media_type}`"))
    })?;
    let source = sdk::DocumentSource::Bytes(bytes(data)?);
    sdk::DocumentBlock::builder().format(format).name(name).source(source).build().map_err(invalid)
}

fn cache_point(ttl: Option<CacheTtl>) -> Result<sdk::CachePointBlock, ProviderError> {
    let ttl = ttl.map(|ttl| match ttl {
        CacheTtl::FiveMinutes => sdk::CacheTtl::FiveMinutes,
        CacheTtl::OneHour => sdk::CacheTtl::OneHour,
    });
    sdk::CachePointBlock::builder().r#type(sdk::CachePointType::Default).set_ttl(ttl).build().map_err(invalid)
}

fn inference(request: &ModelRequest) -> Result<Option<sdk::InferenceConfiguration>, ProviderError> {
    let max_tokens = request.max_tokens.map(i32::try_from).transpose();
    let max_tokens = max_tokens.map_err(|_| invalid(format!("max_tokens: {} is the most", i32::MAX)))?;
    // Only what is asked for is sent: some models take no temperature, or not together with top_p.
    let nothing = max_tokens.is_none() && request.temperature.is_none() && request.top_p.is_none() && request.stop.is_empty();
    let config = sdk::InferenceConfiguration::builder()
        .set_max_tokens(max_tokens)
        .set_temperature(request.temperature.map(narrow))
        .set_top_p(request.top_p.map(narrow))
        .set_stop_sequences(Some(request.stop.clone()).filter(|stop| !stop.is_empty()));
    Ok((!nothing).then(|| config.build()))
}

#[allow(clippy::cast_possible_truncation, reason = "the service takes numbers of 4 bytes")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// The tools, whenever any are offered or the conversation has some: Bedrock refuses tool blocks without them.
fn tools(request: &ModelRequest) -> Result<Option<sdk::ToolConfiguration>, ProviderError> {
    let offered = request.tools.iter().map(offered).collect::<Result<Vec<_>, _>>()?;
    // Converse knows no choice of none. Tools that are not offered cannot be chosen.
    let is_forbidden = request.tool_choice == Some(ToolChoice::None);
    let tools = match (offered.is_empty() || is_forbidden, request.has_tool_blocks()) {
        (false, _) => offered,
        (true, false) => return Ok(None),
        (true, true) if offered.is_empty() => used(request)?,
        (true, true) => offered,
    };
    let choice = match request.tool_choice.as_ref().filter(|_| !request.tools.is_empty()) {
        None | Some(ToolChoice::None) => None,
        Some(ToolChoice::Auto) => Some(sdk::ToolChoice::Auto(sdk::AutoToolChoice::builder().build())),
        Some(ToolChoice::Any) => Some(sdk::ToolChoice::Any(sdk::AnyToolChoice::builder().build())),
        Some(ToolChoice::Tool(name)) => {
            let chosen = sdk::SpecificToolChoice::builder().name(name).build().map_err(invalid)?;
            Some(sdk::ToolChoice::Tool(chosen))
        }
    };
    sdk::ToolConfiguration::builder().set_tools(Some(tools)).set_tool_choice(choice).build().map(Some).map_err(invalid)
}

fn offered(tool: &Tool) -> Result<sdk::Tool, ProviderError> {
    let specification = sdk::ToolSpecification::builder()
        .name(&tool.name)
        .set_description(Some(tool.description.clone()).filter(|text| !is_blank(text)))
        .input_schema(sdk::ToolInputSchema::Json(to_document(&tool.input_schema)))
        .set_strict(tool.strict.then_some(true));
    specification.build().map(sdk::Tool::ToolSpec).map_err(invalid)
}

/// The tools that the conversation has used, for a request that offers none.
fn used(request: &ModelRequest) -> Result<Vec<sdk::Tool>, ProviderError> {
    let blocks = request.messages.iter().flat_map(|message| &message.content);
    let names: BTreeSet<&str> =
        blocks.filter_map(|block| if let Block::ToolUse { name, .. } = block { Some(name.as_str()) } else { None }).collect();
    let tool = |name: &str| {
        let schema = Document::Object(HashMap::from([("type".to_owned(), Document::String("object".to_owned()))]));
        let known = sdk::ToolSpecification::builder().name(name).input_schema(sdk::ToolInputSchema::Json(schema));
        known.build().map(sdk::Tool::ToolSpec).map_err(invalid)
    };
    names.into_iter().map(tool).collect()
}

fn output(output: &OutputSchema) -> Result<sdk::OutputConfig, ProviderError> {
    let schema = Value::to_string(&output.schema);
    let definition = sdk::JsonSchemaDefinition::builder().name(&output.name).schema(schema).build().map_err(invalid)?;
    let format = sdk::OutputFormat::builder()
        .r#type(sdk::OutputFormatType::JsonSchema)
        .structure(sdk::OutputFormatStructure::JsonSchema(definition))
        .build()
        .map_err(invalid)?;
    Ok(sdk::OutputConfig::builder().text_format(format).build())
}

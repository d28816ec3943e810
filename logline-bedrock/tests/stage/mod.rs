//! A server on this machine that answers as Bedrock does.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

pub(crate) mod frames;
pub(crate) mod messages;

use async_trait::async_trait;
use logline_bedrock::{Bedrock, BedrockBuilder, Credentials};
use logline_core::conformance::providing::{Scene, TRIAL_SECRET};
use logline_core::contract::provider::{ErrorKind, Usage};
use logline_loopback::{Dialect, Line, Seen, pieces};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use frames::{delta, event, tool_start};

pub(crate) use logline_loopback::{Act, block_on};

pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const ACCESS_KEY: &str = "AKIDTRIALTRIALTRIAL0";
pub(crate) const SECRET_KEY: &str = "trial/secret+key0123456789abcdefghijklmn";
pub(crate) const SESSION_TOKEN: &str = "trial-session-token/+==";

pub(crate) type Server = logline_loopback::Server<Bedrock>;

/// A server, and the task that serves.
pub(crate) async fn open() -> (JoinHandle<()>, Server) {
    opened(false, |builder| builder).await
}

/// A server that sends every byte by itself.
pub(crate) async fn dripping() -> (JoinHandle<()>, Server) {
    opened(true, |builder| builder).await
}

/// A server whose adapter is set up otherwise.
pub(crate) async fn open_with(more: impl FnOnce(BedrockBuilder) -> BedrockBuilder) -> (JoinHandle<()>, Server) {
    opened(false, more).await
}

/// A server whose adapter speaks Anthropic's messages.
pub(crate) async fn open_messages() -> (JoinHandle<()>, Server) {
    open_messages_with(|builder| builder).await
}

/// As [`open_messages`], set up otherwise.
pub(crate) async fn open_messages_with(more: impl FnOnce(BedrockBuilder) -> BedrockBuilder) -> (JoinHandle<()>, Server) {
    opened_as(messages::Messages, false, |builder| more(builder.messages())).await
}

/// As [`open_messages`], and every byte is sent by itself.
pub(crate) async fn dripping_messages() -> (JoinHandle<()>, Server) {
    opened_as(messages::Messages, true, BedrockBuilder::messages).await
}

async fn opened(drips: bool, more: impl FnOnce(BedrockBuilder) -> BedrockBuilder) -> (JoinHandle<()>, Server) {
    opened_as(Service, drips, more).await
}

async fn opened_as(
    service: impl Dialect,
    drips: bool,
    more: impl FnOnce(BedrockBuilder) -> BedrockBuilder,
) -> (JoinHandle<()>, Server) {
    let adapter = async |address: String| {
        let url = format!("http://{address}");
        let keys = Credentials::new(ACCESS_KEY, SECRET_KEY, Some(SESSION_TOKEN.to_owned()), None, "trial");
        let builder = Bedrock::builder().region(REGION).credentials(keys).endpoint_url(&url);
        (more(builder).load().await.unwrap(), url)
    };
    logline_loopback::open(service, drips, adapter).await
}

struct Service;

#[async_trait]
impl Dialect for Service {
    fn record(&self) -> &'static str {
        "LOGLINE_RECORD_BEDROCK"
    }

    fn id_header(&self) -> &'static str {
        "x-amzn-requestid"
    }

    fn streams(&self, seen: &Seen) -> bool {
        seen.path().ends_with("/converse-stream")
    }

    async fn play(&self, line: Line, scene: Scene, streams: bool) {
        play(line, scene, streams).await;
    }
}

fn usage(usage: Option<&Usage>) -> Value {
    match usage {
        Some(usage) => json!({"inputTokens": usage.input, "outputTokens": usage.output, "totalTokens": usage.total()}),
        None => json!({}),
    }
}

async fn play(mut line: Line, scene: Scene, streams: bool) {
    let (text, reason, used) = match &scene {
        Scene::Says(text, used) => (text.clone(), "end_turn", usage(used.as_ref())),
        Scene::IsCut(text) => (text.clone(), "max_tokens", usage(Some(&Usage::of(5, 50)))),
        Scene::UsesTool(id, name, input) => return tool(line, (id, name, input), streams).await,
        Scene::Fails(kind, pause) => return refuse(&mut line, *kind, *pause).await,
        Scene::Breaks(text) => {
            line.begin(EVENTS).await;
            for piece in pieces(text) {
                frame(&mut line, &delta(0, &json!({"text": piece}))).await;
            }
            return;
        }
        Scene::Stalls(text) => {
            line.begin(EVENTS).await;
            frame(&mut line, &delta(0, &json!({"text": text}))).await;
            return line.hang().await;
        }
        _ => return line.hang().await,
    };
    if streams {
        line.begin(EVENTS).await;
        frame(&mut line, &event("messageStart", &json!({"role": "assistant"}))).await;
        for piece in pieces(&text) {
            frame(&mut line, &delta(0, &json!({"text": piece}))).await;
        }
        frame(&mut line, &event("contentBlockStop", &json!({"contentBlockIndex": 0}))).await;
        finish(&mut line, reason, &used).await;
    } else {
        whole(&mut line, json!([{"text": text}]), reason, used).await;
    }
}

/// Answers with an error, as every operation does.
async fn refuse(line: &mut Line, kind: ErrorKind, pause: Option<std::time::Duration>) {
    let (status, code, said) = match kind {
        ErrorKind::Throttled => ("429 Too Many Requests", "ThrottlingException", "Too many requests"),
        ErrorKind::NotReady => ("429 Too Many Requests", "ModelNotReadyException", "Model is being loaded"),
        ErrorKind::Quota => ("400 Bad Request", "ServiceQuotaExceededException", "Quota exceeded"),
        ErrorKind::Invalid => ("400 Bad Request", "ValidationException", "Malformed input request"),
        ErrorKind::Denied => ("403 Forbidden", "AccessDeniedException", "You don't have access"),
        ErrorKind::ContentFiltered => ("400 Bad Request", "ValidationException", "Blocked by our content filters"),
        _ => ("424 Failed Dependency", "ModelErrorException", "The model failed"),
    };
    let body = json!({"message": format!("{said}, not with {TRIAL_SECRET}")}).to_string();
    let pause = pause.map_or(String::new(), |pause| format!("\r\nretry-after: {}", pause.as_secs()));
    let head = format!(
        "{status}{pause}\r\nx-amzn-errortype: {code}:http://internal.amazon.com/\r\nx-amzn-requestid: req-7\r\n\
         content-type: application/json\r\ncontent-length: {}",
        body.len()
    );
    line.raw(&head, body.as_bytes()).await;
}

async fn tool(mut line: Line, (id, name, input): (&str, &str, &Value), streams: bool) {
    let used = usage(Some(&Usage::of(20, 9)));
    if !streams {
        // Some models say `end_turn` here.
        let content = json!([{"toolUse": {"toolUseId": id, "name": name, "input": input}}]);
        return whole(&mut line, content, "end_turn", used).await;
    }
    line.begin(EVENTS).await;
    frame(&mut line, &event("messageStart", &json!({"role": "assistant"}))).await;
    frame(&mut line, &tool_start(0, id, name)).await;
    for piece in pieces(&input.to_string()) {
        frame(&mut line, &delta(0, &json!({"toolUse": {"input": piece}}))).await;
    }
    finish(&mut line, "tool_use", &used).await;
}

pub(crate) const EVENTS: &str = "application/vnd.amazon.eventstream";

async fn finish(line: &mut Line, reason: &str, used: &Value) {
    frame(line, &event("messageStop", &json!({"stopReason": reason}))).await;
    let mut metadata = json!({"metrics": {"latencyMs": 7}});
    if used != &json!({}) {
        metadata["usage"] = used.clone();
    }
    frame(line, &event("metadata", &metadata)).await;
    line.end().await;
}

async fn frame(line: &mut Line, bytes: &[u8]) {
    line.keep("frame", bytes);
    line.send(bytes).await;
}

async fn whole(line: &mut Line, content: Value, reason: &str, used: Value) {
    line.whole(&converse(&content, reason, &used).to_string()).await;
}

/// The body of a whole answer.
pub(crate) fn converse(content: &Value, reason: &str, used: &Value) -> Value {
    let message = json!({"message": {"role": "assistant", "content": content}});
    json!({"output": message, "stopReason": reason, "usage": used, "metrics": {"latencyMs": 7}})
}

/// Takes pieces, and forgets them.
pub(crate) struct Ignored;

#[async_trait]
impl logline_core::contract::provider::Chunks for Ignored {
    async fn deliver(&mut self, _: logline_core::contract::provider::Chunk) {}
}

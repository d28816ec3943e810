//! A server on this machine that speaks the protocol.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

use async_trait::async_trait;
use logline_core::conformance::providing::{Scene, TRIAL_SECRET};
use logline_core::contract::provider::{ErrorKind, Usage};
use logline_loopback::{Dialect, Line, Seen, pieces};
use logline_openai::OpenAi;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(crate) use logline_loopback::{Act, block_on};

pub(crate) type Server = logline_loopback::Server<OpenAi>;

/// A server, and the task that serves.
pub(crate) async fn open() -> (JoinHandle<()>, Server) {
    logline_loopback::open(Protocol, false, adapter).await
}

/// A server that sends every byte by itself.
pub(crate) async fn dripping() -> (JoinHandle<()>, Server) {
    logline_loopback::open(Protocol, true, adapter).await
}

async fn adapter(address: String) -> (OpenAi, String) {
    (OpenAi::new().unwrap(), format!("http://{address}/v1"))
}

struct Protocol;

#[async_trait]
impl Dialect for Protocol {
    fn record(&self) -> &'static str {
        "LOGLINE_RECORD_OPENAI"
    }

    fn id_header(&self) -> &'static str {
        "x-request-id"
    }

    fn streams(&self, seen: &Seen) -> bool {
        seen.body["stream"] == true
    }

    async fn play(&self, mut line: Line, scene: Scene, streams: bool) {
        let (text, reason, used) = match &scene {
            Scene::Says(text, used) => (text.clone(), "stop", usage(used.as_ref())),
            Scene::IsCut(text) => (text.clone(), "length", usage(Some(&Usage::of(5, 50)))),
            Scene::UsesTool(id, name, input) => return tool(line, (id, name, input), streams).await,
            Scene::Fails(kind, pause) => {
                let (status, code) = match kind {
                    ErrorKind::Throttled => ("429 Too Many Requests", "rate_limit_exceeded"),
                    ErrorKind::NotReady => ("503 Service Unavailable", "overloaded"),
                    ErrorKind::Quota => ("429 Too Many Requests", "insufficient_quota"),
                    ErrorKind::Invalid => ("400 Bad Request", "invalid_value"),
                    ErrorKind::Denied => ("401 Unauthorized", "invalid_api_key"),
                    ErrorKind::ContentFiltered => ("400 Bad Request", "content_filter"),
                    _ => ("500 Internal Server Error", "server_error"),
                };
                let body = json!({"error": {"code": code, "message": format!("not with {TRIAL_SECRET}")}}).to_string();
                let pause = pause.map_or(String::new(), |pause| format!("\r\nretry-after: {}", pause.as_secs()));
                let head = format!("{status}{pause}\r\ncontent-length: {}", body.len());
                return line.raw(&head, body.as_bytes()).await;
            }
            Scene::Breaks(text) => {
                line.begin(EVENTS).await;
                for piece in pieces(text) {
                    event(&mut line, &delta(&json!({"content": piece}), None)).await;
                }
                return;
            }
            Scene::Stalls(text) => {
                line.begin(EVENTS).await;
                event(&mut line, &delta(&json!({"content": text}), None)).await;
                return line.hang().await;
            }
            _ => return line.hang().await,
        };
        if streams {
            line.begin(EVENTS).await;
            event(&mut line, &delta(&json!({"role": "assistant", "content": ""}), None)).await;
            for piece in pieces(&text) {
                event(&mut line, &delta(&json!({"content": piece}), None)).await;
            }
            finish(&mut line, reason, &used).await;
        } else {
            whole(&mut line, json!({"role": "assistant", "content": text}), reason, used).await;
        }
    }
}

const EVENTS: &str = "text/event-stream";

fn usage(usage: Option<&Usage>) -> Value {
    match usage {
        Some(usage) => json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total()}),
        None => json!({}),
    }
}

async fn tool(mut line: Line, (id, name, input): (&str, &str, &Value), streams: bool) {
    let used = usage(Some(&Usage::of(20, 9)));
    let arguments = input.to_string();
    if !streams {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        // Some servers say `stop` here.
        return whole(&mut line, message, "stop", used).await;
    }
    line.begin(EVENTS).await;
    let first =
        json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]});
    event(&mut line, &delta(&first, None)).await;
    for piece in pieces(&arguments) {
        let more = json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
        event(&mut line, &delta(&more, None)).await;
    }
    finish(&mut line, "tool_calls", &used).await;
}

pub(crate) fn delta(delta: &Value, reason: Option<&str>) -> String {
    chunk(&json!([{"index": 0, "delta": delta, "finish_reason": reason}]), &Value::Null)
}

fn chunk(choices: &Value, used: &Value) -> String {
    let kind = "chat.completion.chunk";
    json!({"id": "c1", "object": kind, "created": 1_700_000_000, "model": "trial-model", "choices": choices, "usage": used})
        .to_string()
}

async fn finish(line: &mut Line, reason: &str, used: &Value) {
    event(line, &delta(&json!({}), Some(reason))).await;
    event(line, &chunk(&json!([]), used)).await;
    event(line, "[DONE]").await;
    line.end().await;
}

async fn event(line: &mut Line, data: &str) {
    line.keep("event", data.as_bytes());
    line.send(format!(": keep-alive\n\ndata: {data}\n\n").as_bytes()).await;
}

async fn whole(line: &mut Line, message: Value, reason: &str, used: Value) {
    let choice = json!({"index": 0, "message": message, "finish_reason": reason});
    let (kind, created) = ("chat.completion", 1_700_000_000);
    let body =
        json!({"id": "c1", "object": kind, "created": created, "model": "trial-model", "choices": [choice], "usage": used});
    line.whole(&body.to_string()).await;
}

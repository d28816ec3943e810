//! As Bedrock answers InvokeModel with Anthropic's messages.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::conformance::providing::Scene;
use logline_core::contract::provider::Usage;
use logline_loopback::{Dialect, Line, Seen, pieces};
use serde_json::{Value, json};

use super::{EVENTS, frames, refuse};

pub(crate) struct Messages;

#[async_trait]
impl Dialect for Messages {
    fn record(&self) -> &'static str {
        "LOGLINE_RECORD_BEDROCK"
    }

    fn id_header(&self) -> &'static str {
        "x-amzn-requestid"
    }

    fn streams(&self, seen: &Seen) -> bool {
        seen.path().ends_with("/invoke-with-response-stream")
    }

    async fn play(&self, line: Line, scene: Scene, streams: bool) {
        play(line, scene, streams).await;
    }
}

/// An event of the messages, in a chunk of the stream.
pub(crate) fn chunk(event: &Value) -> Vec<u8> {
    frames::event("chunk", &json!({"bytes": STANDARD.encode(event.to_string())}))
}

pub(crate) fn start() -> Value {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-trial", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1}});
    json!({"type": "message_start", "message": message})
}

pub(crate) fn begin(index: u64, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

pub(crate) fn delta(index: u64, delta: &Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

pub(crate) fn end(reason: &str, usage: &Value) -> [Value; 2] {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    [json!({"type": "message_delta", "delta": delta, "usage": usage}), json!({"type": "message_stop"})]
}

/// The body of a whole answer.
pub(crate) fn message(content: &Value, reason: &str, used: &Value) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-trial", "content": content,
        "stop_reason": reason, "stop_sequence": null, "usage": used})
}

fn usage(usage: Option<&Usage>) -> Value {
    match usage {
        Some(usage) => json!({"input_tokens": usage.input, "output_tokens": usage.output}),
        None => json!({}),
    }
}

async fn send(line: &mut Line, event: &Value) {
    let bytes = chunk(event);
    line.keep("chunk", &bytes);
    line.send(&bytes).await;
}

async fn whole(line: &mut Line, content: Value, reason: &str, used: &Value) {
    let body = message(&content, reason, used).to_string();
    line.keep("message", body.as_bytes());
    line.begin("application/json").await;
    line.send(body.as_bytes()).await;
    line.end().await;
}

/// An answer of one block, which comes in `deltas`.
async fn answer(mut line: Line, block: Value, deltas: Vec<Value>, (reason, used): (&str, Value)) {
    line.begin(EVENTS).await;
    let mut first = start();
    if used == json!({}) {
        first["message"]["usage"] = json!({});
    }
    send(&mut line, &first).await;
    send(&mut line, &json!({"type": "ping"})).await;
    send(&mut line, &begin(0, &block)).await;
    for piece in deltas {
        send(&mut line, &delta(0, &piece)).await;
    }
    send(&mut line, &json!({"type": "content_block_stop", "index": 0})).await;
    for event in end(reason, &used) {
        send(&mut line, &event).await;
    }
    line.end().await;
}

async fn play(mut line: Line, scene: Scene, streams: bool) {
    let empty = json!({"type": "text", "text": ""});
    let texts = |text: &str| pieces(text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect();
    let (text, reason, used) = match &scene {
        Scene::Says(text, used) => (text.clone(), "end_turn", usage(used.as_ref())),
        Scene::IsCut(text) => (text.clone(), "max_tokens", usage(Some(&Usage::of(5, 50)))),
        Scene::UsesTool(id, name, input) => {
            let used = usage(Some(&Usage::of(20, 9)));
            if !streams {
                let content = json!([{"type": "tool_use", "id": id, "name": name, "input": input}]);
                return whole(&mut line, content, "tool_use", &used).await;
            }
            let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
            let piece = |piece| json!({"type": "input_json_delta", "partial_json": piece});
            let pieces = pieces(&input.to_string()).into_iter().map(piece).collect();
            return answer(line, block, pieces, ("tool_use", used)).await;
        }
        Scene::Fails(kind, pause) => return refuse(&mut line, *kind, *pause).await,
        Scene::Breaks(text) | Scene::Stalls(text) => {
            line.begin(EVENTS).await;
            send(&mut line, &start()).await;
            send(&mut line, &begin(0, &empty)).await;
            let pieces: Vec<Value> = texts(text);
            for piece in &pieces {
                send(&mut line, &delta(0, piece)).await;
            }
            if matches!(scene, Scene::Stalls(_)) {
                line.hang().await;
            }
            return;
        }
        _ => return line.hang().await,
    };
    if streams {
        answer(line, empty, texts(&text), (reason, used)).await;
    } else {
        whole(&mut line, json!([{"type": "text", "text": text}]), reason, &used).await;
    }
}

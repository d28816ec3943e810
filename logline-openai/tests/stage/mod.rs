//! A server on this machine that speaks the protocol, byte by byte if it must.
#![allow(dead_code, reason = "each test file uses its own part")]

mod record;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logline_core::conformance::providing::{Scene, Stage, TRIAL_SECRET};
use logline_core::contract::provider::{ErrorKind, Provider, Usage};
use logline_openai::OpenAi;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What the server does at the next call.
#[derive(Clone)]
pub(crate) enum Act {
    /// What a trial asks for.
    Scene(Scene),
    /// Sends these bytes after the head of the answer, and closes.
    Raw(String, Vec<u8>),
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

#[derive(Default)]
pub(crate) struct Shared {
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    /// Told when a client has closed its connection before it was answered.
    pub(crate) left: Notify,
    drips: bool,
}

pub(crate) struct Server {
    adapter: OpenAi,
    url: String,
    pub(crate) shared: Arc<Shared>,
}

/// A server, and the task that serves.
pub(crate) async fn open() -> (tokio::task::JoinHandle<()>, Server) {
    opened(false).await
}

/// A server that sends every byte by itself.
pub(crate) async fn dripping() -> (tokio::task::JoinHandle<()>, Server) {
    opened(true).await
}

async fn opened(drips: bool) -> (tokio::task::JoinHandle<()>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let shared = Arc::new(Shared { drips, ..Shared::default() });
    let served = Arc::clone(&shared);
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, Arc::clone(&served)));
        }
    });
    (task, Server { adapter: OpenAi::new().unwrap(), url, shared })
}

impl Server {
    pub(crate) fn act(&self, act: Act) {
        self.shared.acts.lock().unwrap().push_back(act);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn base(&self) -> &str {
        &self.url
    }
}

#[async_trait]
impl Stage for Server {
    fn provider(&self) -> &dyn Provider {
        &self.adapter
    }

    fn url(&self) -> Option<String> {
        Some(self.url.clone())
    }

    async fn next(&self, scene: Scene) {
        self.act(Act::Scene(scene));
    }

    async fn calls(&self) -> usize {
        self.seen().len()
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
    while bytes.len() < end + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    record::keep("request", &head, std::str::from_utf8(&bytes[end..]).unwrap());
    Some(Seen { head, body: serde_json::from_slice(&bytes[end..]).unwrap() })
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    let Some(seen) = read_request(&mut socket).await else { return };
    let streams = seen.body["stream"] == true;
    shared.seen.lock().unwrap().push(seen);
    let act = shared.acts.lock().unwrap().pop_front();
    match act {
        None => hang(socket, &shared).await,
        Some(Act::Raw(head, body)) => {
            let _ = socket.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes()).await;
            let _ = socket.write_all(&body).await;
        }
        Some(Act::Scene(scene)) => play(socket, scene, streams, &shared).await,
    }
}

/// Waits until the client has gone.
async fn hang(mut socket: TcpStream, shared: &Shared) {
    let _ = socket.read(&mut [0]).await;
    shared.left.notify_one();
}

fn usage(usage: Option<&Usage>) -> Value {
    match usage {
        Some(usage) => json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total()}),
        None => json!({}),
    }
}

async fn play(mut socket: TcpStream, scene: Scene, streams: bool, shared: &Shared) {
    let (text, reason, used) = match &scene {
        Scene::Says(text, used) => (text.clone(), "stop", usage(used.as_ref())),
        Scene::IsCut(text) => (text.clone(), "length", usage(Some(&Usage::of(5, 50)))),
        Scene::UsesTool(id, name, input) => return tool(socket, (id, name, input), streams, shared).await,
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
            let pause = pause.map_or(String::new(), |pause| format!("retry-after: {}\r\n", pause.as_secs()));
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{pause}content-length: {}\r\n\r\n", body.len());
            let _ = socket.write_all((head + &body).as_bytes()).await;
            return;
        }
        Scene::Breaks(text) => {
            begin(&mut socket, "text/event-stream").await;
            for piece in pieces(text) {
                event(&mut socket, &delta(&json!({"content": piece}), None), shared.drips).await;
            }
            return;
        }
        Scene::Stalls(text) => {
            begin(&mut socket, "text/event-stream").await;
            event(&mut socket, &delta(&json!({"content": text}), None), shared.drips).await;
            return hang(socket, shared).await;
        }
        _ => return hang(socket, shared).await,
    };
    if streams {
        begin(&mut socket, "text/event-stream").await;
        event(&mut socket, &delta(&json!({"role": "assistant", "content": ""}), None), shared.drips).await;
        for piece in pieces(&text) {
            event(&mut socket, &delta(&json!({"content": piece}), None), shared.drips).await;
        }
        finish(&mut socket, reason, &used, shared.drips).await;
    } else {
        whole(socket, json!({"role": "assistant", "content": text}), reason, used, shared.drips).await;
    }
}

async fn tool(mut socket: TcpStream, (id, name, input): (&str, &str, &Value), streams: bool, shared: &Shared) {
    let used = usage(Some(&Usage::of(20, 9)));
    let arguments = input.to_string();
    if !streams {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        // Some servers say `stop` here.
        return whole(socket, message, "stop", used, shared.drips).await;
    }
    begin(&mut socket, "text/event-stream").await;
    let first =
        json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]});
    event(&mut socket, &delta(&first, None), shared.drips).await;
    for piece in pieces(&arguments) {
        let more = json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
        event(&mut socket, &delta(&more, None), shared.drips).await;
    }
    finish(&mut socket, "tool_calls", &used, shared.drips).await;
}

fn pieces(text: &str) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(4).map(|piece| piece.iter().collect()).collect()
}

pub(crate) fn delta(delta: &Value, reason: Option<&str>) -> String {
    chunk(&json!([{"index": 0, "delta": delta, "finish_reason": reason}]), &Value::Null)
}

fn chunk(choices: &Value, used: &Value) -> String {
    let kind = "chat.completion.chunk";
    json!({"id": "c1", "object": kind, "created": 1_700_000_000, "model": "trial-model", "choices": choices, "usage": used})
        .to_string()
}

async fn finish(socket: &mut TcpStream, reason: &str, used: &Value, drips: bool) {
    event(socket, &delta(&json!({}), Some(reason)), drips).await;
    event(socket, &chunk(&json!([]), used), drips).await;
    event(socket, "[DONE]", drips).await;
    let _ = socket.write_all(b"0\r\n\r\n").await;
}

async fn begin(socket: &mut TcpStream, media: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\nx-request-id: req-7\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let _ = socket.write_all(head.as_bytes()).await;
}

async fn send(socket: &mut TcpStream, bytes: &[u8], drips: bool) {
    for piece in bytes.chunks(if drips { 1 } else { bytes.len() }) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        let _ = socket.write_all(&chunk).await;
        let _ = socket.flush().await;
    }
}

async fn event(socket: &mut TcpStream, data: &str, drips: bool) {
    record::keep("event", "", data);
    send(socket, format!(": keep-alive\n\ndata: {data}\n\n").as_bytes(), drips).await;
}

async fn whole(mut socket: TcpStream, message: Value, reason: &str, used: Value, drips: bool) {
    let choice = json!({"index": 0, "message": message, "finish_reason": reason});
    let (kind, created) = ("chat.completion", 1_700_000_000);
    let body =
        json!({"id": "c1", "object": kind, "created": created, "model": "trial-model", "choices": [choice], "usage": used});
    let body = body.to_string();
    record::keep("answer", "", &body);
    begin(&mut socket, "application/json").await;
    send(&mut socket, body.as_bytes(), drips).await;
    let _ = socket.write_all(b"0\r\n\r\n").await;
}

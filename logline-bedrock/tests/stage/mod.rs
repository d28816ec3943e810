//! A server on this machine that answers as Bedrock does, byte by byte if it must.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod frames;
mod record;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logline_bedrock::{Bedrock, BedrockBuilder, Credentials};
use logline_core::conformance::providing::{Scene, Stage, TRIAL_SECRET};
use logline_core::contract::provider::{ErrorKind, Provider, Usage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use frames::{delta, event, tool_start};

pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const ACCESS_KEY: &str = "AKIDTRIALTRIALTRIAL0";
pub(crate) const SECRET_KEY: &str = "trial/secret+key0123456789abcdefghijklmn";
pub(crate) const SESSION_TOKEN: &str = "trial-session-token/+==";

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
    /// Sends these bytes after the head of the answer, closes its side only, and waits for the client to go.
    HalfClosed(String, Vec<u8>),
    /// Sends these bytes after the head of the answer, and nothing more.
    Silent(String, Vec<u8>),
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
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
    pub(crate) adapter: Bedrock,
    url: String,
    pub(crate) shared: Arc<Shared>,
}

/// A server, and the task that serves.
pub(crate) async fn open() -> (tokio::task::JoinHandle<()>, Server) {
    opened(false, |builder| builder).await
}

/// A server that sends every byte by itself.
pub(crate) async fn dripping() -> (tokio::task::JoinHandle<()>, Server) {
    opened(true, |builder| builder).await
}

/// A server whose adapter is set up otherwise.
pub(crate) async fn open_with(more: impl FnOnce(BedrockBuilder) -> BedrockBuilder) -> (tokio::task::JoinHandle<()>, Server) {
    opened(false, more).await
}

async fn opened(drips: bool, more: impl FnOnce(BedrockBuilder) -> BedrockBuilder) -> (tokio::task::JoinHandle<()>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Shared { drips, ..Shared::default() });
    let served = Arc::clone(&shared);
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, Arc::clone(&served)));
        }
    });
    let keys = Credentials::new(ACCESS_KEY, SECRET_KEY, Some(SESSION_TOKEN.to_owned()), None, "trial");
    let builder = Bedrock::builder().region(REGION).credentials(keys).endpoint_url(&url);
    (task, Server { adapter: more(builder).load().await.unwrap(), url, shared })
}

impl Server {
    pub(crate) fn act(&self, act: Act) {
        self.shared.acts.lock().unwrap().push_back(act);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
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
    record::keep("request", &head, &bytes[end..]);
    // What is not JSON is for another service than Bedrock.
    Some(Seen { head, body: serde_json::from_slice(&bytes[end..]).unwrap_or_default() })
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    let Some(seen) = read_request(&mut socket).await else { return };
    let streams = seen.path().ends_with("/converse-stream");
    shared.seen.lock().unwrap().push(seen);
    let act = shared.acts.lock().unwrap().pop_front();
    match act {
        None => hang(socket, &shared).await,
        Some(Act::Raw(head, body)) => raw(&mut socket, &head, &body).await,
        Some(Act::HalfClosed(head, body)) => {
            raw(&mut socket, &head, &body).await;
            let _ = socket.shutdown().await;
            hang(socket, &shared).await;
        }
        Some(Act::Silent(head, body)) => {
            raw(&mut socket, &head, &body).await;
            hang(socket, &shared).await;
        }
        Some(Act::Scene(scene)) => play(socket, scene, streams, &shared).await,
    }
}

async fn raw(socket: &mut TcpStream, head: &str, body: &[u8]) {
    let _ = socket.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes()).await;
    let _ = socket.write_all(body).await;
}

/// Waits until the client has gone.
async fn hang(mut socket: TcpStream, shared: &Shared) {
    let _ = socket.read(&mut [0]).await;
    shared.left.notify_one();
}

fn usage(usage: Option<&Usage>) -> Value {
    match usage {
        Some(usage) => json!({"inputTokens": usage.input, "outputTokens": usage.output, "totalTokens": usage.total()}),
        None => json!({}),
    }
}

async fn play(mut socket: TcpStream, scene: Scene, streams: bool, shared: &Shared) {
    let (text, reason, used) = match &scene {
        Scene::Says(text, used) => (text.clone(), "end_turn", usage(used.as_ref())),
        Scene::IsCut(text) => (text.clone(), "max_tokens", usage(Some(&Usage::of(5, 50)))),
        Scene::UsesTool(id, name, input) => return tool(socket, (id, name, input), streams, shared).await,
        Scene::Fails(kind, pause) => {
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
            let pause = pause.map_or(String::new(), |pause| format!("retry-after: {}\r\n", pause.as_secs()));
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\n{pause}x-amzn-errortype: {code}:http://internal.amazon.com/\r\n\
                 x-amzn-requestid: req-7\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = socket.write_all((head + &body).as_bytes()).await;
            return;
        }
        Scene::Breaks(text) => {
            begin(&mut socket, EVENTS).await;
            for piece in pieces(text) {
                send(&mut socket, &delta(0, &json!({"text": piece})), shared.drips).await;
            }
            return;
        }
        Scene::Stalls(text) => {
            begin(&mut socket, EVENTS).await;
            send(&mut socket, &delta(0, &json!({"text": text})), shared.drips).await;
            return hang(socket, shared).await;
        }
        _ => return hang(socket, shared).await,
    };
    if streams {
        begin(&mut socket, EVENTS).await;
        send(&mut socket, &event("messageStart", &json!({"role": "assistant"})), shared.drips).await;
        for piece in pieces(&text) {
            send(&mut socket, &delta(0, &json!({"text": piece})), shared.drips).await;
        }
        send(&mut socket, &event("contentBlockStop", &json!({"contentBlockIndex": 0})), shared.drips).await;
        finish(&mut socket, reason, &used, shared.drips).await;
    } else {
        whole(socket, json!([{"text": text}]), reason, used, shared.drips).await;
    }
}

async fn tool(mut socket: TcpStream, (id, name, input): (&str, &str, &Value), streams: bool, shared: &Shared) {
    let used = usage(Some(&Usage::of(20, 9)));
    if !streams {
        // Some models say `end_turn` here.
        let content = json!([{"toolUse": {"toolUseId": id, "name": name, "input": input}}]);
        return whole(socket, content, "end_turn", used, shared.drips).await;
    }
    begin(&mut socket, EVENTS).await;
    send(&mut socket, &event("messageStart", &json!({"role": "assistant"})), shared.drips).await;
    send(&mut socket, &tool_start(0, id, name), shared.drips).await;
    for piece in pieces(&input.to_string()) {
        send(&mut socket, &delta(0, &json!({"toolUse": {"input": piece}})), shared.drips).await;
    }
    finish(&mut socket, "tool_use", &used, shared.drips).await;
}

fn pieces(text: &str) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(4).map(|piece| piece.iter().collect()).collect()
}

pub(crate) const EVENTS: &str = "application/vnd.amazon.eventstream";

async fn finish(socket: &mut TcpStream, reason: &str, used: &Value, drips: bool) {
    send(socket, &event("messageStop", &json!({"stopReason": reason})), drips).await;
    let mut metadata = json!({"metrics": {"latencyMs": 7}});
    if used != &json!({}) {
        metadata["usage"] = used.clone();
    }
    send(socket, &event("metadata", &metadata), drips).await;
    let _ = socket.write_all(b"0\r\n\r\n").await;
}

async fn begin(socket: &mut TcpStream, media: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\nx-amzn-requestid: req-7\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let _ = socket.write_all(head.as_bytes()).await;
}

async fn send(socket: &mut TcpStream, bytes: &[u8], drips: bool) {
    record::keep(if bytes.starts_with(b"{") { "answer" } else { "frame" }, "", bytes);
    for piece in bytes.chunks(if drips { 1 } else { bytes.len() }) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        let _ = socket.write_all(&chunk).await;
        let _ = socket.flush().await;
    }
}

async fn whole(mut socket: TcpStream, content: Value, reason: &str, used: Value, drips: bool) {
    let body = converse(&content, reason, &used).to_string();
    begin(&mut socket, "application/json").await;
    send(&mut socket, body.as_bytes(), drips).await;
    let _ = socket.write_all(b"0\r\n\r\n").await;
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

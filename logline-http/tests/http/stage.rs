//! A service on a loopback port, with a worker, and a client that sends bytes as a test wants them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use logline::behaviours;
use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::WorkQueue;
use logline_core::{Draft, Host, HostBuilder, KernelSet, KeyPair, SystemClock, VerifiedSpan};
use logline_http::{ApiKeys, Authenticator, Drain, NewKey, Options, Permission, ServeOptions, ServiceKey, router, serve};
use logline_kernels::{Loops, Run as _};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The longest wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The fee of a payment, in hundredths of a percent of its amount.
pub(crate) const FEE: &[u8] = include_bytes!("../../../logline/examples/fee.wasm");

pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) keys: ApiKeys,
    pub(crate) address: SocketAddr,
    pub(crate) publisher: KeyPair,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) drain: Drain,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

pub(crate) fn options() -> Options {
    Options::new(ServiceKey::derive(&[7; 32]))
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(options(), ServeOptions::default()).await
    }

    pub(crate) async fn with(options: Options, serve_options: ServeOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
        Self::on(Arc::new(ledger), folder, options, serve_options, |keys| keys).await
    }

    /// A service on this ledger whose tokens `auth` checks.
    pub(crate) async fn on<A: Authenticator>(
        ledger: Arc<dyn WorkQueue>,
        folder: impl Into<Arc<TempDir>>,
        options: Options,
        serve_options: ServeOptions,
        auth: impl FnOnce(ApiKeys) -> A,
    ) -> Self {
        Self::of(ledger, folder, options, serve_options, auth, behaviours()).await
    }

    /// A service whose host has these behaviours.
    pub(crate) async fn of<A: Authenticator>(
        ledger: Arc<dyn WorkQueue>,
        folder: impl Into<Arc<TempDir>>,
        options: Options,
        serve_options: ServeOptions,
        auth: impl FnOnce(ApiKeys) -> A,
        set: KernelSet,
    ) -> Self {
        Self::built(ledger, folder, options, serve_options, auth, set, |host| host).await
    }

    /// A service whose host has what `more` gives it.
    pub(crate) async fn built<A: Authenticator>(
        ledger: Arc<dyn WorkQueue>,
        folder: impl Into<Arc<TempDir>>,
        mut options: Options,
        serve_options: ServeOptions,
        auth: impl FnOnce(ApiKeys) -> A,
        set: KernelSet,
        more: impl FnOnce(HostBuilder) -> HostBuilder,
    ) -> Self {
        let folder = folder.into();
        let home = Home::folder(folder.path());
        let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &set, &SystemClock).await.unwrap();
        let host = Host::builder()
            .ledger(ledger)
            .trust(ready.trust)
            .key(home.key(KeyOf::Host).unwrap())
            .install(set)
            .sandbox(WasmSandbox::new().unwrap());
        let host = more(host).build().await.unwrap();
        let publisher = home.key(KeyOf::Publisher).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let keys = ApiKeys::new(host.clone());
        options.keys = Some(keys.clone());
        let drain = options.drain.clone();
        let app = router(host.clone(), auth(keys.clone()), options);
        let ended = async { stopped.await.unwrap_or_default() };
        let serving = tokio::spawn(serve(listener, app, serve_options, drain.clone(), ended));
        Self { host, keys, address, publisher, folder, drain, stop: Some(stop), serving }
    }

    /// Carries out requests until the test ends.
    pub(crate) fn work(&self) {
        let host = self.host.clone();
        tokio::spawn(async move { host.run(Loops::installed(&host), std::future::pending()).await.map(drop) });
    }

    /// Shuts down, and waits until the server has returned.
    pub(crate) async fn shut_down(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        within(&mut self.serving).await.unwrap();
    }

    /// Publishes the function `fee` of `tenant`.
    pub(crate) async fn fee(&self, tenant: &str) -> VerifiedSpan {
        let function: Draft = logline_wasm::function(tenant, "fee").input(serde_json::json!({"rate": 25}));
        logline_kernels::publish_module(&self.host, function, FEE, &self.publisher).await.unwrap()
    }

    /// A token of `user` in `tenant` with these permissions.
    pub(crate) async fn token_for(&self, tenant: &str, user: &str, permissions: &[Permission]) -> String {
        let new = NewKey::new(tenant, user, "test", permissions.iter().copied());
        self.keys.issue(new, "operator").await.unwrap().token.to_string()
    }

    pub(crate) async fn token(&self, tenant: &str, user: &str) -> String {
        let all = [Permission::Read, Permission::Write, Permission::Execute, Permission::Manage];
        self.token_for(tenant, user, &all).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call("GET", path, &[("authorization", &format!("Bearer {token}"))], None).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let all = [&[("authorization", bearer.as_str()), ("content-type", "application/json")], headers].concat();
        self.call("POST", path, &all, Some(body.to_string().as_bytes())).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        let bytes = [head.as_bytes(), b"\r\n", body.unwrap_or_default()].concat();
        self.raw(&bytes).await
    }

    /// Sends these bytes and reads one answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        within(Answer::read(&mut BufReader::new(stream))).await
    }

    /// Opens a stream, and reads the head of its answer.
    pub(crate) async fn open(&self, token: &str, path: &str, headers: &[(&str, &str)]) -> Live {
        Self::open_at(self.address, token, path, headers).await.expect("an answer")
    }

    /// The same at any address; `None` if nobody answers there.
    pub(crate) async fn open_at(address: SocketAddr, token: &str, path: &str, headers: &[(&str, &str)]) -> Option<Live> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = within(read_head(&mut reader)).await?;
        Some(Live { status, headers, reader, chunk: Vec::new(), id: None })
    }
}

/// Waits for what must come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes within the test's patience")
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Sends these bytes to an address and reads one answer; `None` if nobody listens there.
    pub(crate) async fn of(address: SocketAddr, bytes: &[u8]) -> Option<Self> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let _ = stream.write_all(bytes).await;
        Some(within(Self::read(&mut BufReader::new(stream))).await)
    }

    async fn read(reader: &mut BufReader<TcpStream>) -> Self {
        let Some((status, headers)) = read_head(reader).await else {
            // The connection was closed without an answer.
            return Self { status: 0, headers: BTreeMap::new(), body: Vec::new() };
        };
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            while let Some(chunk) = read_chunk(reader).await {
                body.extend(chunk);
            }
        } else if let Some(length) = headers.get("content-length") {
            body.resize(length.parse().unwrap(), 0);
            reader.read_exact(&mut body).await.unwrap();
        } else {
            let _ = reader.read_to_end(&mut body).await;
        }
        Self { status, headers, body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is a problem with this code, and its shape.
    pub(crate) fn is(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{body}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(body["status"], status);
        assert!(body["type"].as_str().unwrap().ends_with(&format!("docs/http.md#{code}")));
        assert_eq!(body["request_id"].as_str(), self.headers.get("x-request-id").map(String::as_str));
    }

    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

async fn read_line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(String::from_utf8(line).unwrap().trim_end_matches(['\r', '\n']).to_owned()),
    }
}

async fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(u16, BTreeMap<String, String>)> {
    let status = read_line(reader).await?;
    let status = status.split(' ').nth(1)?.parse().ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let line = read_line(reader).await?;
        let Some((name, value)) = line.split_once(':') else { return Some((status, headers)) };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// One chunk; `None` at the end.
async fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let length = usize::from_str_radix(read_line(reader).await?.split(';').next()?, 16).ok()?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// An open stream.
pub(crate) struct Live {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
    chunk: Vec<u8>,
    /// The last id, as a browser keeps it.
    pub(crate) id: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Live {
    /// The text up to the next empty line; `None` at the end.
    pub(crate) async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.chunk.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.chunk.split_off(at + 2);
                let block = std::mem::replace(&mut self.chunk, rest);
                return Some(String::from_utf8(block).unwrap());
            }
            self.chunk.extend(read_chunk(&mut self.reader).await?);
        }
    }

    /// The next event, as a browser reads it; `None` at the end.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            let block = within(self.block()).await?;
            let (mut name, mut data) = ("message".to_owned(), None);
            for line in block.lines() {
                match line.split_once(':') {
                    Some(("id", id)) => self.id = Some(id.trim_start().to_owned()),
                    Some(("event", event)) => name = event.trim_start().to_owned(),
                    Some(("data", text)) => data = Some(text.trim_start().to_owned()),
                    Some(("", _)) | None => {}
                    other => panic!("a field that no event has: {other:?}"),
                }
            }
            if let Some(data) = data {
                return Some(Event { name, data: serde_json::from_str(&data).unwrap() });
            }
        }
    }

    /// The next row.
    pub(crate) async fn row(&mut self) -> Value {
        let event = self.event().await.expect("a row");
        assert_eq!(event.name, "span", "{event:?}");
        event.data
    }

    /// Waits for the first id, which tells where the stream begins.
    pub(crate) async fn begun(&mut self) {
        let block = within(self.block()).await.unwrap();
        self.id = block.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
    }

    /// The next line of a stream of lines.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let rest = self.chunk.split_off(at + 1);
                let line = std::mem::replace(&mut self.chunk, rest);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.chunk.extend(within(read_chunk(&mut self.reader)).await?);
        }
    }
}

//! A recorded, signed call to a provider beside the bare client, to the same server on this machine, in turns within one run.
//!
//! `cargo bench -p logline-benches --bench provider [-- CALLS ROUNDS]`: with 1, 32 and 256 calls in flight, on durable SQLite and PostgreSQL,
//! the median and the 99th percentile of a bare call, of a call within an attempt (an intent before it, an outcome after it: two
//! commits), of one durable append, and of a whole request with its one call.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that fails may panic, and prints to its user"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use logline_core::contract::provider::{Endpoint, ModelRequest, Provider};
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, RequestKind, Sandbox};
use logline_core::ledger::{LedgerExt as _, WorkQueue};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Host, KernelSet, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, SystemIds, VerifiedSpan,
    Visibility,
};
use logline_kernels::provider::{Ask, Asked, HostSecrets, PROVIDER_INVOKE, ProviderExec, Providers};
use logline_openai::OpenAi;
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::{Uuid, uuid};

const CALLER: Uuid = uuid!("00000000-0000-4000-8000-00000000be7c");
const TENANT: &str = "acme";
const IN_FLIGHT: [usize; 3] = [1, 32, 256];

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// Answers every question with the same text, as OpenAI would, over connections that stay open.
async fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let message = json!({"role": "assistant", "content": "Lisbon is sunny, twenty-four degrees, and there is no wind."});
    let answer = json!({
        "id": "chat-1", "object": "chat.completion", "created": 1, "model": "small-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 15, "total_tokens": 34},
    });
    let body = answer.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    url
}

fn question(n: usize) -> ModelRequest {
    ModelRequest::ask(format!("Question {n}: what is the weather in Lisbon?")).max_tokens(50)
}

/// Makes calls within one attempt, and notes how long each took.
struct Caller {
    providers: Providers,
    took: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl Kernel for Caller {
    fn id(&self) -> Uuid {
        CALLER
    }

    fn name(&self) -> &'static str {
        "caller"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: "caller.calls", asked_by: AskedBy::Anybody, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let input = request.input.clone().unwrap();
        let provider: Uuid = input["provider"].as_str().unwrap().parse().unwrap();
        let number = |name: &str| usize::try_from(input[name].as_u64().unwrap()).unwrap();
        let calls = stream::iter(0..number("calls")).map(|n| async move {
            let (ask, key) = (Ask::Invoke(question(n)), format!("call/{n}"));
            let began = Instant::now();
            self.providers.call(context, request, &Asked::new(provider, &ask, &key), None).await.unwrap().unwrap();
            began.elapsed()
        });
        let took: Vec<_> = calls.buffer_unordered(number("in_flight")).collect().await;
        self.took.lock().unwrap().extend(took);
        Ok(Effects::new(Ok(Value::Null)))
    }
}

struct Site {
    name: &'static str,
    ledger: Arc<dyn WorkQueue>,
    host: Host,
    provider: Uuid,
    bare: OpenAi,
    url: String,
    took: Arc<Mutex<Vec<Duration>>>,
}

impl Site {
    async fn new(name: &'static str, ledger: Arc<dyn WorkQueue>, url: &str) -> Self {
        let adapters: [Arc<dyn Provider>; 1] = [Arc::new(OpenAi::new().unwrap())];
        let exec = ProviderExec::new(adapters, HostSecrets::new());
        let took = Arc::<Mutex<Vec<Duration>>>::default();
        let seed = Draft::new("function")
            .id(CALLER)
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .visibility(Visibility::Public)
            .who("logline")
            .this("function.caller")
            .runtime("native@1")
            .code("caller@1")
            .metadata(json!({"requests": ["caller.calls"]}));
        let caller = Caller { providers: exec.providers().clone(), took: Arc::clone(&took) };
        let set = exec.behaviours().and(KernelSet::new().kernel(caller).seeds([seed]));
        let trust = TrustRoot::new([key(1).public_key()], 1);
        let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
            .allow_all(&set)
            .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
            .grant(key(3).public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
        trust.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &set, &key(2), &SystemClock).await.unwrap();
        let host = Host::builder().ledger(Arc::clone(&ledger)).trust(trust).key(key(3)).install(set).build().await.unwrap();
        let prices = json!({"input": 150_000_000, "output": 600_000_000});
        let provider = Draft::new("provider")
            .tenant(TENANT)
            .owner("platform")
            .who("publisher")
            .this("provider.main")
            .name("main")
            .visibility(Visibility::Tenant)
            .status("active")
            .metadata(json!({
                "adapter": "openai", "url": url, "currency": "USD", "limits": {"concurrent": 1000},
                "models": {"small-1": {"max_tokens": 50, "prices": prices}},
            }));
        let provider = host.publish(provider, &key(2)).await.unwrap().id;
        Self { name, ledger, host, provider, bare: OpenAi::new().unwrap(), url: url.to_owned(), took }
    }

    async fn bare(&self, calls: usize, in_flight: usize) -> Vec<Duration> {
        let made = stream::iter(0..calls).map(|n| async move {
            let endpoint = Endpoint::new("small-1", "key").url(Some(&self.url));
            let began = Instant::now();
            self.bare.invoke(&endpoint, &question(n)).await.unwrap();
            began.elapsed()
        });
        made.buffer_unordered(in_flight).collect().await
    }

    async fn recorded(&self, calls: usize, in_flight: usize) -> Vec<Duration> {
        let input = json!({"provider": self.provider, "calls": calls, "in_flight": in_flight});
        let request = Request::new(TENANT, "user", self.provider, input).this("caller.calls");
        self.host.execute(request).await.unwrap().result.unwrap();
        std::mem::take(&mut self.took.lock().unwrap())
    }

    async fn appends(&self, calls: usize, in_flight: usize) -> Vec<Duration> {
        let made = stream::iter(0..calls).map(|_| async move {
            let note = Draft::new("note").tenant(TENANT).owner("user").who("user").this("note").content(json!("x".repeat(600)));
            let span = note.stamp(&SystemClock, &SystemIds).seal_local(&key(3)).unwrap();
            let began = Instant::now();
            self.ledger.append_one(&Scope::runtime(TENANT), span).await.unwrap();
            began.elapsed()
        });
        made.buffer_unordered(in_flight).collect().await
    }

    async fn requests(&self, calls: usize, in_flight: usize) -> Vec<Duration> {
        let made = stream::iter(0..calls).map(|n| async move {
            let request = Request::new(TENANT, "user", self.provider, json!({"request": question(n)})).this(PROVIDER_INVOKE);
            let began = Instant::now();
            self.host.execute(request).await.unwrap().result.unwrap();
            began.elapsed()
        });
        made.buffer_unordered(in_flight).collect().await
    }

    async fn measure(&self, calls: usize, rounds: usize, in_flight: usize) {
        let (mut bare, mut recorded, mut appends, mut requests) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        self.bare(in_flight, in_flight).await;
        for _ in 0..rounds {
            bare.extend(self.bare(calls, in_flight).await);
            recorded.extend(self.recorded(calls, in_flight).await);
            appends.extend(self.appends(calls, in_flight).await);
            requests.extend(self.requests(calls, in_flight).await);
        }
        let of = |mut took: Vec<Duration>| {
            took.sort_unstable();
            let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
            (at(50), at(99))
        };
        let (bare, recorded, appends, requests) = (of(bare), of(recorded), of(appends), of(requests));
        println!(
            "| {}, {in_flight} in flight | {:.2} / {:.2} | {:.2} / {:.2} | {:.1} | {:.2} / {:.2} | {:.2} / {:.2} |",
            self.name,
            bare.0,
            bare.1,
            recorded.0,
            recorded.1,
            recorded.0 / bare.0,
            appends.0,
            appends.1,
            requests.0,
            requests.1
        );
    }
}

async fn run(calls: usize, rounds: usize) {
    let url = server().await;
    println!("milliseconds, median / 99th percentile, {calls} calls in each of {rounds} rounds\n");
    println!(
        "| | bare client | recorded call | ratio of medians | one durable append | whole request |\n|---|---|---|---|---|---|"
    );
    let folder = tempfile::tempdir().unwrap();
    let sqlite: Arc<dyn WorkQueue> = Arc::new(SqliteLedger::open(folder.path().join("bench.ledger")).unwrap());
    let server = PrivateServer::start(&ServerOptions {
        durable: true,
        settings: vec!["track_commit_timestamp = on".to_owned()],
        ..ServerOptions::default()
    })
    .unwrap();
    let options = PgOptions::new(&server.url("postgres", "postgres")).unwrap();
    migrate(&options).await.unwrap();
    let postgres: Arc<dyn WorkQueue> = Arc::new(PgLedger::connect(options).await.unwrap());
    for (name, ledger) in [("SQLite", sqlite), ("PostgreSQL", postgres)] {
        let site = Site::new(name, ledger, &url).await;
        for in_flight in IN_FLIGHT {
            site.measure(calls, rounds, in_flight).await;
        }
    }
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (calls, rounds) = if is_test { (8, 1) } else { (900, 5) };
    // An attempt makes at most 1,000 calls.
    let calls = numbers.first().copied().unwrap_or(calls).clamp(1, 1_000);
    let rounds = numbers.get(1).copied().unwrap_or(rounds).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(calls, rounds));
}

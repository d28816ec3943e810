//! A process that asks a model is killed (`kill -9`) again and again. Every call that the model's server saw has its intent, and every
//! intent one outcome, `unknown` if the process died before it was told.
//!
//! The test starts itself as the process to be killed: with `LOGLINE_KILLED_CALLS`, `worker` works until it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use logline::home::{Home, KeyOf, Setup};
use logline_core::contract::provider::Provider;
use logline_core::ledger::{LedgerExt as _, Query, Watch, WatchFrom, WorkQueue};
use logline_core::request::{OnUnknown, Request};
use logline_core::{Draft, Host, Scope, SignedSpan, SystemClock, Visibility, ids};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec};
use logline_kernels::{Loops, Run as _, Worker, WorkerOptions};
use logline_openai::OpenAi;
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PROCESS: &str = "LOGLINE_KILLED_CALLS";
const TENANT: &str = "acme";
const REQUESTS: usize = 60;
const KILLS: u64 = 12;

/// How long after its last heartbeat a killed worker counts as lost.
const LEASE: Duration = Duration::from_millis(1000);

async fn open(url: &str) -> Arc<dyn WorkQueue> {
    match url.strip_prefix("sqlite:") {
        Some(file) => Arc::new(SqliteLedger::open(file).unwrap()),
        None => Arc::new(PgLedger::connect(PgOptions::new(url).unwrap()).await.unwrap()),
    }
}

async fn host(url: &str, folder: &Path) -> Host {
    let (ledger, home) = (open(url).await, Home::folder(folder));
    let openai: Arc<dyn Provider> = Arc::new(OpenAi::new().unwrap());
    let set = logline_kernels::all().and(ProviderExec::new([openai], HostSecrets::new()).behaviours());
    let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &set, &SystemClock).await.unwrap();
    let host = Host::builder().ledger(ledger).trust(ready.trust).key(home.key(KeyOf::Host).unwrap()).install(set);
    host.build().await.unwrap()
}

#[test]
#[ignore = "started by the tests below as a process to be killed"]
fn worker() {
    let Ok(text) = std::env::var(PROCESS) else { return };
    let (url, folder) = text.split_once('\n').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let host = host(url, Path::new(folder)).await;
        let poll = Duration::from_millis(50);
        let worker = Worker::new(WorkerOptions::default().lease(LEASE).poll(poll).open_calls(poll).concurrency(8));
        host.run(Loops::none().with(worker), std::future::pending()).await.unwrap();
    });
}

/// A server that answers after a while, and counts what it was asked.
#[derive(Clone, Default)]
struct Model(Arc<Mutex<BTreeMap<String, usize>>>);

impl Model {
    async fn serve(self, listener: TcpListener) {
        for number in 0_u64.. {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().connection(socket, Duration::from_millis(number * 7 % 41)));
        }
    }

    async fn connection(self, mut socket: TcpStream, pause: Duration) {
        let mut read = Vec::new();
        loop {
            // A killed client goes in the middle of whatever it does.
            let Some(question) = Self::question(&mut socket, &mut read).await else { return };
            *self.0.lock().unwrap().entry(question).or_default() += 1;
            tokio::time::sleep(pause).await;
            let answer = json!({
                "id": "c", "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
            });
            let body = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            if socket.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// The text of the next request's last message.
    async fn question(socket: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
        loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
                let length: usize = head.split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
                if read.len() >= end + 4 + length {
                    let rest = read.split_off(end + 4 + length);
                    let body: Value = serde_json::from_slice(&read[end + 4..]).ok()?;
                    *read = rest;
                    return Some(body["messages"].as_array()?.last()?["content"].as_str()?.to_owned());
                }
            }
            let mut more = [0; 4096];
            match socket.read(&mut more).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => read.extend_from_slice(&more[..count]),
            }
        }
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }
}

fn start(url: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "worker", "--nocapture", "--test-threads=1"]);
    command.env(PROCESS, format!("{url}\n{}", folder.display()));
    command.stdout(Stdio::null()).spawn().unwrap()
}

async fn every_call_has_its_intent_and_every_intent_its_outcome(url: &str, folder: &Path) {
    let host = host(url, folder).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = Model::default();
    let at = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(model.clone().serve(listener));
    let provider = Draft::new("provider")
        .id(ids::published(TENANT, "provider", "model"))
        .tenant(TENANT)
        .owner("platform")
        .who("publisher")
        .this("provider.model")
        .name("model")
        .visibility(Visibility::Tenant)
        .status("active")
        .metadata(json!({"adapter": "openai", "url": at, "models": {"m": {"max_tokens": 10}}}));
    let publisher = Home::folder(folder).key(KeyOf::Publisher).unwrap();
    let provider = host.publish(provider, &publisher).await.unwrap().id;
    let mut requests = BTreeMap::new();
    for number in 0..REQUESTS {
        let question = format!("question {number}");
        let request = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": question}]}]});
        let request = Request::new(TENANT, "alice", provider, json!({"request": request})).this(PROVIDER_INVOKE);
        let request = request.on_unknown(OnUnknown::Retry).max_attempts(50).backoff(Duration::from_millis(20));
        requests.insert(host.submit(request).await.unwrap().id, question);
    }
    let mut rows_to_come = host.ledger().watch(&Scope::Operator, WatchFrom::Now).await.unwrap();
    // Killed in the middle of its calls, and in whatever step before and after them.
    for round in 0..KILLS {
        let before = model.calls();
        let mut child = start(url, folder);
        // Each call is followed by its outcome, and so by a row.
        while model.calls() == before && is_open(&host).await {
            next(&mut rows_to_come).await;
        }
        // Whatever it does after so long.
        tokio::time::sleep(Duration::from_millis(round * 13 % 60)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut last = start(url, folder);
    while is_open(&host).await || !without_outcome(&host).await.is_empty() {
        next(&mut rows_to_come).await;
    }
    last.kill().unwrap();
    last.wait().unwrap();

    let (intents, outcomes) = (rows(&host, "provider_request").await, rows(&host, "provider_execution").await);
    let mut unknown = 0;
    for intent in &intents {
        let of: Vec<_> = outcomes.iter().filter(|outcome| outcome.related_to.contains(&intent.id)).collect();
        assert_eq!(of.len(), 1, "the intent {} has one outcome", intent.id);
        assert_eq!(of[0].seq, 0, "and it was recorded once");
        unknown += usize::from(of[0].status.as_deref() == Some("unknown"));
    }
    assert_eq!(outcomes.len(), intents.len());
    let mut answered_calls = 0;
    for (id, question) in &requests {
        let state = host.ledger().head(&Scope::Operator, TENANT, *id).await.unwrap().unwrap();
        assert_eq!(state.status.as_deref(), Some("complete"), "{question}");
        let tried = intents.iter().filter(|intent| intent.parent_id == Some(*id)).count();
        let seen = model.0.lock().unwrap().get(question).copied().unwrap_or_default();
        assert!((1..=tried).contains(&seen), "{question}: the server saw {seen} calls, and {tried} have an intent");
        let answers =
            outcomes.iter().filter(|outcome| outcome.related_to.contains(id) && outcome.status.as_deref() == Some("complete"));
        answered_calls += answers.count();
    }
    assert_eq!(answered_calls, REQUESTS, "a recorded answer is never paid for again");
    assert!(unknown > 0, "no process was killed in a call");
}

/// Waits for the next row.
async fn next(rows: &mut Watch) {
    let row = tokio::time::timeout(Duration::from_secs(60), rows.next()).await;
    row.expect("nothing happens any more").unwrap().unwrap();
}

async fn rows(host: &Host, entity_type: &str) -> Vec<SignedSpan> {
    host.ledger().collect(&Scope::Operator, &Query::timeline().entity_type(entity_type), usize::MAX).await.unwrap()
}

async fn is_open(host: &Host) -> bool {
    // One may go back from running to scheduled between two looks.
    for status in ["scheduled", "running", "scheduled"] {
        let query = Query::new().tenant(TENANT).entity_type("request").status(status).limit(1);
        if !host.ledger().scan(&Scope::Operator, &query, None).await.unwrap().rows.is_empty() {
            return true;
        }
    }
    false
}

async fn without_outcome(host: &Host) -> Vec<uuid::Uuid> {
    let outcomes = rows(host, "provider_execution").await;
    let intents = rows(host, "provider_request").await.into_iter().map(|intent| intent.id);
    intents.filter(|intent| !outcomes.iter().any(|outcome| outcome.related_to.contains(intent))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_process_that_is_killed_are_in_the_ledger_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("calls.ledger").display());
    every_call_has_its_intent_and_every_intent_its_outcome(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_process_that_is_killed_are_in_the_ledger_on_postgresql() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let url = server.url("postgres", "postgres");
    migrate(&PgOptions::new(&url).unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    every_call_has_its_intent_and_every_intent_its_outcome(&url, folder.path()).await;
}

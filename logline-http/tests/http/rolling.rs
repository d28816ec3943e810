//! Instances that are replaced under load, on both ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use logline::behaviours;
use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::{LedgerExt as _, Query, WorkQueue};
use logline_core::{Draft, Host, Scope, SystemClock};
use logline_http::{ApiKeys, NewKey, Options, Permission, ServeOptions, ServiceKey, router, serve};
use logline_kernels::{Loops, Run as _};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::stage::{Answer, FEE, Stage, within};

/// One instance of a service: a host, and a server for it.
struct Instance {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    host: Host,
    stop_work: oneshot::Sender<()>,
    working: JoinHandle<()>,
    keys: ApiKeys,
}

impl Instance {
    async fn start(site: &Site, listener: TcpListener) -> Self {
        let (ledger, folder) = (site.open().await, site.folder.path());
        let home = Home::folder(folder);
        let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &behaviours(), &SystemClock).await.unwrap();
        let host = Host::builder()
            .ledger(ledger)
            .trust(ready.trust)
            .key(home.key(KeyOf::Host).unwrap())
            .install(behaviours())
            .sandbox(WasmSandbox::new().unwrap())
            .build()
            .await
            .unwrap();
        let keys = ApiKeys::new(host.clone());
        let mut options = Options::new(ServiceKey::derive(&[7; 32]));
        (options.key_rate, options.tenant_rate) =
            (logline_http::Rate::new(10_000, 10_000), logline_http::Rate::new(10_000, 10_000));
        let drain = options.drain.clone();
        let app = router(host.clone(), keys.clone(), options);
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = async { stopped.await.unwrap_or_default() };
        let serving = tokio::spawn(serve(listener, app, ServeOptions::default(), drain, ended));
        let (stop_work, stopped) = oneshot::channel::<()>();
        let worker = host.clone();
        let working = tokio::spawn(async move {
            let ended = async { stopped.await.unwrap_or_default() };
            worker.run(Loops::installed(&worker), ended).await.unwrap();
        });
        Self { stop, serving, host, stop_work, working, keys }
    }

    /// As a service that is told to end: it takes no more calls, answers those it has, and ends its attempts.
    async fn end(self) {
        self.stop.send(()).unwrap();
        within(self.serving).await.unwrap();
        self.stop_work.send(()).unwrap();
        within(self.working).await.unwrap();
    }
}

/// Where the ledger is, and the keys.
struct Site {
    folder: TempDir,
    /// `None`: the ledger is a file of the folder.
    server: Option<PrivateServer>,
}

impl Site {
    fn url(&self) -> String {
        self.server.as_ref().unwrap().url("postgres", "postgres")
    }

    /// Each instance has connections of its own.
    async fn open(&self) -> Arc<dyn WorkQueue> {
        match &self.server {
            None => Arc::new(SqliteLedger::open(self.folder.path().join("service.ledger")).unwrap()),
            Some(_) => Arc::new(PgLedger::connect(PgOptions::new(&self.url()).unwrap()).await.unwrap()),
        }
    }
}

/// A call that writes a note with this number.
fn note(token: &str, number: u64, headers: &str) -> String {
    call("/api/spans", &json!({"entity_type": "note", "content": number}), token, headers)
}

/// A call that asks for the fee of a payment, and does not wait for it.
fn fee(token: &str, number: u64, headers: &str) -> String {
    call(
        "/api/execute",
        &json!({"function": "fee", "input": {"payment": number.to_string(), "amount_minor": 10_000}}),
        token,
        headers,
    )
}

fn call(path: &str, body: &Value, token: &str, headers: &str) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a client with two addresses does: a call that an instance does not take goes to the other one, with its idempotency key.
async fn post(addresses: &[std::net::SocketAddr], head: &str) {
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    for address in addresses.iter().cycle() {
        assert!(tokio::time::Instant::now() < until, "no instance takes the call");
        let Some(Answer { status, .. }) = Answer::of(*address, head.as_bytes()).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match status {
            200..=202 => return,
            // A lost call may still run: it is asked for again.
            0 | 409 | 429 | 503 => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("status {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_instances_under_load_loses_no_call_and_no_event() {
    roll(&Site { folder: tempfile::tempdir().unwrap(), server: None }, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_instances_on_postgresql_loses_no_call_and_no_event() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap();
    let site = Site { folder: tempfile::tempdir().unwrap(), server: Some(server) };
    migrate(&PgOptions::new(&site.url()).unwrap()).await.unwrap();
    roll(&site, 200).await;
}

/// Replaces both instances, one after the other, while so many calls are made.
async fn roll(site: &Site, calls: u64) {
    let bind = async |address: &str| loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (first, second) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
    let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let mut instances = [Instance::start(site, first).await, Instance::start(site, second).await];
    let function: Draft = logline_wasm::function("acme", "fee").input(json!({"rate": 25}));
    let publisher = Home::folder(site.folder.path()).key(KeyOf::Publisher).unwrap();
    logline_kernels::publish_module(&instances[0].host, function, FEE, &publisher).await.unwrap();
    let new = NewKey::new("acme", "alice", "test", [Permission::Read, Permission::Write, Permission::Execute]);
    let token = instances[0].keys.issue(new, "operator").await.unwrap().token.to_string();

    // A subscriber that goes to the other instance when its stream ends, with the last id.
    let seen = Arc::new(Mutex::new(Vec::<u64>::new()));
    let (begun, has_begun) = oneshot::channel();
    let subscriber = tokio::spawn({
        let (seen, token) = (Arc::clone(&seen), token.clone());
        async move {
            let (mut last, mut begun) = (None::<String>, Some(begun));
            for address in addresses.iter().cycle() {
                let headers: Vec<_> = last.iter().map(|id| ("last-event-id", id.as_str())).collect();
                let Some(mut live) = Stage::open_at(*address, &token, "/api/timeline/stream?type=note", &headers).await else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                if live.status != 200 {
                    continue;
                }
                live.id.clone_from(&last);
                live.begun().await;
                begun.take().map(|begun: oneshot::Sender<()>| begun.send(()));
                while let Some(event) = live.event().await {
                    if event.name == "span" {
                        seen.lock().await.push(event.data["content"].as_u64().unwrap());
                    }
                }
                last = live.id;
            }
        }
    });
    within(has_begun).await.unwrap();

    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let token = token.clone();
            tokio::spawn(async move {
                for number in (writer..calls).step_by(4) {
                    let key = format!("idempotency-key: n{number}\r\n");
                    post(&addresses, &note(&token, number, &key)).await;
                    if number % 4 == 0 {
                        post(&addresses, &fee(&token, number, &key)).await;
                    }
                }
            })
        })
        .collect();
    for index in [0, 1] {
        let rows = async || seen.lock().await.len();
        let from = rows().await;
        within(async {
            while rows().await < (from + 20).min(usize::try_from(calls).unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let listener = async { bind(&addresses[index].to_string()).await };
        let [a, b] = instances;
        let (old, other) = if index == 0 { (a, b) } else { (b, a) };
        old.end().await;
        let new = Instance::start(site, within(listener).await).await;
        instances = if index == 0 { [new, other] } else { [other, new] };
    }
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(120), writer).await.unwrap().unwrap();
    }
    within(async {
        while (seen.lock().await.len() as u64) < calls {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    subscriber.abort();
    let seen = seen.lock().await;
    let distinct: BTreeSet<_> = seen.iter().copied().collect();
    assert_eq!((seen.len() as u64, distinct), (calls, (0..calls).collect()), "no event is lost, and none comes twice");
    drop(seen);
    // Every request was carried out, once, by whichever instance was there.
    let ledger = site.open().await;
    let all = async |entity_type: &str| {
        ledger.collect(&Scope::Operator, &Query::timeline().tenant("acme").entity_type(entity_type), usize::MAX).await.unwrap()
    };
    let states = async || -> BTreeMap<Uuid, Option<String>> {
        all("request").await.into_iter().map(|row| (row.id, row.span.status.clone())).collect()
    };
    within(async {
        while states().await.values().any(|status| status.as_deref() != Some("complete")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(states().await.len() as u64, calls.div_ceil(4), "no call is lost, and none is made twice");
    assert_eq!(all("execution").await.len() as u64, calls.div_ceil(4), "no request runs twice");
    let [a, b] = instances;
    a.end().await;
    b.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_restarts_under_load_loses_no_acknowledged_span() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap();
    let site = Site { folder: tempfile::tempdir().unwrap(), server: Some(server) };
    migrate(&PgOptions::new(&site.url()).unwrap()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let instance = Instance::start(&site, listener).await;
    let new = NewKey::new("acme", "alice", "test", [Permission::Read, Permission::Write]);
    let token = instance.keys.issue(new, "operator").await.unwrap().token.to_string();
    // Calls without idempotency keys: what is not acknowledged is given up.
    let acknowledged = Arc::new(Mutex::new(BTreeSet::<u64>::new()));
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (token, acknowledged) = (token.clone(), Arc::clone(&acknowledged));
            let (next, stop) = (Arc::clone(&next), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let answer = Answer::of(address, note(&token, number, "").as_bytes()).await.unwrap();
                    match answer.status {
                        201 => drop(acknowledged.lock().await.insert(number)),
                        _ => answer.is(503, "unavailable"),
                    }
                }
            })
        })
        .collect();
    let more = async || {
        let from = acknowledged.lock().await.len();
        within(async {
            while acknowledged.lock().await.len() < from + 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    for _ in 0..2 {
        more().await;
        tokio::task::block_in_place(|| site.server.as_ref().unwrap().crash_and_restart()).unwrap();
    }
    more().await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        within(writer).await.unwrap();
    }
    let acknowledged = acknowledged.lock().await;
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let head = format!(
            "GET /api/spans?type=note&limit=500{after} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let page = Answer::of(address, head.as_bytes()).await.unwrap().ok(200);
        rows.extend(page["spans"].as_array().unwrap().iter().map(|row| row["content"].as_u64().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let distinct: BTreeSet<_> = rows.iter().copied().collect();
    assert_eq!(rows.len(), distinct.len(), "none is there twice");
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    instance.end().await;
}

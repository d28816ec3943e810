//! Many streams, and instances that are replaced under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logline::behaviours;
use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::WorkQueue;
use logline_core::{Host, SystemClock};
use logline_http::{ApiKeys, NewKey, Options, Permission, ServeOptions, ServiceKey, router, serve};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use crate::stage::{Answer, Stage, options, within};

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribers_share_one_tail_and_get_every_row() {
    const SUBSCRIBERS: usize = 1000;
    const ROWS: u64 = 25;
    let stage = Stage::with(
        {
            let mut options = options();
            options.max_streams_per_tenant = SUBSCRIBERS;
            (options.key_rate, options.tenant_rate) =
                (logline_http::Rate::new(10_000, 10_000), logline_http::Rate::new(10_000, 10_000));
            options
        },
        ServeOptions::default(),
    )
    .await;
    let token = stage.token("acme", "alice").await;
    let before = resident();
    let mut lives = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut live = stage.open(&token, "/api/timeline/stream?type=note", &[]).await;
        assert_eq!(live.status, 200);
        live.begun().await;
        lives.push(live);
    }
    stage.get(&token, "/api/timeline/stream").await.is(429, "too_many_streams");
    for number in 0..ROWS {
        let note = json!({"entity_type": "note", "content": number, "description": "x".repeat(8_000)});
        stage.post(&token, "/api/spans", &[], &note).await.ok(201);
    }
    let mut readers = tokio::task::JoinSet::new();
    for mut live in lives {
        readers.spawn(async move {
            for number in 0..ROWS {
                assert_eq!(live.row().await["content"], number);
            }
            live
        });
    }
    let lives = tokio::time::timeout(Duration::from_secs(120), readers.join_all()).await.unwrap();
    assert_eq!(lives.len(), SUBSCRIBERS);
    // All of them together got 200 MB. Sockets and tasks of both sides of this test are within the bound.
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB more", grown >> 20);
}

/// One instance of a service: a host, and a server for it.
struct Instance {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    keys: ApiKeys,
}

impl Instance {
    async fn start(folder: &std::path::Path, listener: TcpListener) -> Self {
        let ledger: Arc<dyn WorkQueue> = Arc::new(SqliteLedger::open(folder.join("service.ledger")).unwrap());
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
        let app = router(host, keys.clone(), options);
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = async { stopped.await.unwrap_or_default() };
        let serving = tokio::spawn(serve(listener, app, ServeOptions::default(), drain, ended));
        Self { stop, serving, keys }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        within(self.serving).await.unwrap();
    }
}

/// What a client with two addresses does: a call that an instance does not take goes to the other one, with its idempotency key.
async fn post(addresses: &[std::net::SocketAddr], token: &str, number: u64) {
    let body = json!({"entity_type": "note", "content": number}).to_string();
    let head = format!(
        "POST /api/spans HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\nidempotency-key: n{number}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    for address in addresses.iter().cycle() {
        assert!(tokio::time::Instant::now() < until, "no instance takes the call");
        let Some(Answer { status, .. }) = Answer::of(*address, head.as_bytes()).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match status {
            201 => return,
            // A lost call may still run: it is asked for again.
            0 | 409 | 429 | 503 => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("status {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_instances_under_load_loses_no_call_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let bind = async |address: &str| loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (first, second) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
    let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let mut instances = [Instance::start(folder.path(), first).await, Instance::start(folder.path(), second).await];
    let new = NewKey::new("acme", "alice", "test", [Permission::Read, Permission::Write]);
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

    const CALLS: u64 = 400;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let token = token.clone();
            tokio::spawn(async move {
                for number in (writer..CALLS).step_by(4) {
                    post(&addresses, &token, number).await;
                }
            })
        })
        .collect();
    for index in [0, 1] {
        let rows = async || seen.lock().await.len();
        let from = rows().await;
        within(async {
            while rows().await < from + 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let listener = async { bind(&addresses[index].to_string()).await };
        let [a, b] = instances;
        let (old, other) = if index == 0 { (a, b) } else { (b, a) };
        old.end().await;
        let new = Instance::start(folder.path(), listener.await).await;
        instances = if index == 0 { [new, other] } else { [other, new] };
    }
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(120), writer).await.unwrap().unwrap();
    }
    within(async {
        while (seen.lock().await.len() as u64) < CALLS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    subscriber.abort();
    let seen = seen.lock().await;
    let distinct: BTreeSet<_> = seen.iter().copied().collect();
    assert_eq!((seen.len() as u64, distinct), (CALLS, (0..CALLS).collect()), "no event is lost, and none comes twice");
    let [a, b] = instances;
    a.end().await;
    b.end().await;
}

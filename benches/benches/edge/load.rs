//! How much the edge takes, and how long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use logline_benches::plain::DDL;
use logline_pg::{PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::client::{Connection, Server};
use crate::median;

/// A database with the ledger's schema and the plain table, whose commits wait for the disk.
async fn database() -> (PrivateServer, String) {
    let server = PrivateServer::start(&ServerOptions { durable: true, ..Default::default() }).unwrap();
    let url = server.url("postgres", "postgres");
    migrate(&PgOptions::new(&url).unwrap()).await.unwrap();
    PgConnection::connect(&url).await.unwrap().execute(DDL).await.unwrap();
    (server, url)
}

/// A span of about 500 bytes, as a client writes it.
fn note(number: u64) -> String {
    json!({
        "entity_type": "note",
        "this": "note.payment",
        "name": "payment",
        "description": "x".repeat(200),
        "content": {"number": number, "lines": [{"sku": "A-1", "qty": 2, "price": 1299}], "currency": "EUR"},
    })
    .to_string()
}

/// Spans per second that `clients` write in this time, each over a connection of its own.
async fn write(server: &Server, seconds: usize, clients: usize) -> f64 {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    let began = Instant::now();
    for _ in 0..clients {
        let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), server.address);
        let headers = format!("authorization: Bearer {}\r\n", server.tokens[0]);
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = connection.call("POST", "/api/spans", &headers, &note(1)).await;
                assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn report(what: &str, bare: Vec<f64>, ours: Vec<f64>) {
    let (bare, ours) = (median(bare), median(ours));
    println!("| {what} | {bare:.0} | {ours:.0} | {:.2} |", ours / bare);
}

pub(crate) async fn rate(seconds: usize, rounds: usize, clients: usize) {
    let (_database, url) = database().await;
    let (bare, ours) = (Server::start("bare", Some(&url)), Server::start("ours", Some(&url)));
    let (mut of_bare, mut of_ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_bare.push(write(&bare, seconds, clients).await);
        of_ours.push(write(&ours, seconds, clients).await);
    }
    println!("| | bare axum + sqlx /s | ours /s | ratio |\n|---|---|---|---|");
    report(&format!("spans, one in a call, {clients} clients, PostgreSQL"), of_bare, of_ours);
}

/// Events per second that `streams` get while four clients write.
async fn follow(server: &Server, seconds: usize, streams: usize) -> f64 {
    let got = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for _ in 0..streams {
        let mut stream = Connection::subscribe(server.address, "/api/timeline/stream?type=note", &server.tokens[0]).await;
        let got = Arc::clone(&got);
        readers.push(tokio::spawn(async move {
            while stream.row().await {
                got.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let began = Instant::now();
    let written = write(server, seconds, 4).await;
    let written = (written * began.elapsed().as_secs_f64()).round() as u64;
    // Every stream gets everything that was acknowledged.
    while got.load(Ordering::Relaxed) < written.saturating_mul(streams as u64) {
        assert!(began.elapsed() < Duration::from_secs(600), "{} of {written} × {streams}", got.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let rate = got.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    rate
}

pub(crate) async fn fanout(seconds: usize, rounds: usize, streams: usize) {
    let (_database, url) = database().await;
    let (bare, ours) = (Server::start("bare", Some(&url)), Server::start("ours", Some(&url)));
    let (mut of_bare, mut of_ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_bare.push(follow(&bare, seconds, streams).await);
        of_ours.push(follow(&ours, seconds, streams).await);
    }
    println!("| | bare axum + sqlx /s | ours /s | ratio |\n|---|---|---|---|");
    report(&format!("events to {streams} streams, 4 writers, PostgreSQL"), of_bare, of_ours);
}

/// Executes the function `fee` and waits for its output.
async fn execute(connection: &mut Connection, headers: &str) {
    let body = json!({"function": "fee", "input": {"payment": "p", "amount_minor": 10_000}}).to_string();
    let (status, body) = connection.call("POST", "/api/execute", headers, &body).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, answer["output"]["fee_minor"].as_u64()), (200, Some(25)), "{answer}");
}

pub(crate) async fn latency(seconds: usize, clients: usize) {
    let server = Server::start("ours", None);
    let headers = format!("authorization: Bearer {}\r\nprefer: wait=30\r\n", server.tokens[0]);
    // The highest load: each client asks again as soon as it is answered.
    let (until, done) = (Instant::now() + Duration::from_secs(seconds as u64), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (done, headers, address) = (Arc::clone(&done), headers.clone(), server.address);
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                while Instant::now() < until {
                    execute(&mut connection, &headers).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let highest = done.load(Ordering::Relaxed) as f64 / seconds as f64;
    // At half of it calls come at fixed times, whether others are answered or not, and their time counts from then.
    let pause = Duration::from_secs_f64(2.0 / highest.max(1.0));
    let count = (seconds as f64 / pause.as_secs_f64()) as u32;
    let began = Instant::now();
    let calls: Vec<_> = (0..count)
        .map(|number| {
            let (headers, address, due) = (headers.clone(), server.address, began + pause * number);
            tokio::spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                let mut connection = Connection::open(address).await;
                execute(&mut connection, &headers).await;
                due.elapsed().as_secs_f64() * 1000.0
            })
        })
        .collect();
    let mut times = Vec::new();
    for call in calls {
        times.push(call.await.unwrap());
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!(
        "executions on SQLite: {highest:.0}/s at most ({clients} clients); at {:.0}/s: median {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        highest / 2.0,
        at(0.5),
        at(0.99),
        times.last().copied().unwrap_or_default()
    );
}

//! What the edge holds, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Connection, Server};

/// Opens idle streams, measures the server's memory, and shows that each of them is alive.
pub(crate) async fn idle(streams: usize, limit: usize) {
    let server = Arc::new(Server::start("ours", None));
    let before = server.resident();
    let mut opened = JoinSet::new();
    let mut open = Vec::new();
    for number in 0..streams {
        let server = Arc::clone(&server);
        opened.spawn(async move {
            let token = &server.tokens[number % server.tokens.len()];
            Connection::subscribe(server.address, "/api/timeline/stream?type=note", token).await
        });
        // A listener's queue is short.
        if opened.len() >= 100 {
            open.push(opened.join_next().await.unwrap().unwrap());
        }
    }
    open.extend(opened.join_all().await);
    let after = server.resident();
    println!(
        "{} idle streams: {after:.0} MiB resident, {:.1} KiB for each",
        open.len(),
        (after - before) * 1024.0 / open.len() as f64
    );
    // A row of each tenant reaches every stream of it.
    for token in &server.tokens {
        let headers = format!("authorization: Bearer {token}\r\n");
        let note = json!({"entity_type": "note", "content": 1}).to_string();
        let (status, _) = Connection::open(server.address).await.call("POST", "/api/spans", &headers, &note).await;
        assert_eq!(status, 201);
    }
    let began = Instant::now();
    for stream in &mut open {
        assert!(stream.row().await);
    }
    println!("a row reached all of them within {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    assert!(server.resident() < limit as f64, "{:.0} MiB, the limit is {limit}", server.resident());
}

/// The first part of a run, in which caches fill.
const WARM: f64 = 0.4;

/// How much the memory may differ after that, MiB: what the allocator keeps varies.
const NOISE: f64 = 24.0;

/// Good calls, bad calls and streams that come and go, while the server's memory is measured.
pub(crate) async fn flat(seconds: usize) {
    let server = Arc::new(Server::start("ours", None));
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for client in 0..8_usize {
        let (server, stop, calls) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&calls));
        tasks.spawn(async move {
            let token = server.tokens[client % server.tokens.len()].clone();
            let good = format!("authorization: Bearer {token}\r\n");
            let mut connection = Connection::open(server.address).await;
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let fee = json!({"function": "fee", "input": {"payment": number, "amount_minor": 10_000}}).to_string();
                let keyed = format!("{good}idempotency-key: c{client}-{number}\r\n");
                let wrong = format!("authorization: Bearer ll_tenant-0_{number}_x\r\n");
                let note = json!({"entity_type": "note", "content": "x".repeat(2000)}).to_string();
                let (method, path, headers, body) = match number % 8 {
                    0 => ("POST", "/api/execute", keyed.as_str(), fee.as_str()),
                    1 | 2 => ("POST", "/api/spans", good.as_str(), note.as_str()),
                    3 => ("GET", "/api/timeline?limit=20", good.as_str(), ""),
                    4 => ("GET", "/api/requests?limit=5", good.as_str(), ""),
                    5 if number % 64 == 5 => ("GET", "/api/identity", wrong.as_str(), ""),
                    6 => ("POST", "/api/spans", good.as_str(), "{\"entity_type\":"),
                    _ => ("GET", "/api/nothing", good.as_str(), ""),
                };
                let (status, _) = connection.call(method, path, headers, body).await;
                assert!(status < 500, "{path}: {status}");
                calls.fetch_add(1, Ordering::Relaxed);
                if number.is_multiple_of(200) {
                    let path = "/api/timeline/stream?type=note";
                    let mut stream = Connection::subscribe(server.address, path, &token).await;
                    connection.call("POST", "/api/spans", &good, &note).await;
                    assert!(stream.row().await);
                }
            }
        });
    }
    let (began, mut seen) = (Instant::now(), Vec::new());
    let every = Duration::from_secs_f64((seconds as f64 / 40.0).clamp(0.2, 15.0));
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        tokio::time::sleep(every).await;
        seen.push(server.resident());
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let after = seen.split_off((seen.len() as f64 * WARM) as usize);
    // The higher half of each half, so that what the allocator gives back for a moment does not count.
    let high = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (early, late) = after.split_at(after.len() / 2);
    println!(
        "{} calls in {seconds} s: {:.0} MiB at the start, at most {:.0} MiB in the middle, {:.0} MiB at the end",
        calls.load(Ordering::Relaxed),
        seen.first().copied().unwrap_or_default(),
        high(early),
        high(late)
    );
    assert!(high(late) < high(early) * 1.1 + NOISE, "it goes on growing: {after:.0?}");
}

//! Many streams.

use std::time::Duration;

use logline_http::ServeOptions;
use serde_json::json;

use crate::stage::{Stage, options};

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// In a process of its own, whose memory no other test uses.
#[test]
fn a_thousand_subscribers_share_one_tail_and_get_every_row() {
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", "crowd::alone", "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it alone"]
async fn alone() {
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
        {
            let mut serve_options = ServeOptions::default();
            serve_options.max_connections_per_address = Some(serve_options.max_connections);
            serve_options
        },
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

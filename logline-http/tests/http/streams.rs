//! Streams: nothing is missed, nothing comes twice, and nobody is kept waiting.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use logline_http::{Code, NewKey, Permission, ServeOptions};
use logline_pg::{PgLedger, PgOptions, migrate, migrate_to_new_epoch};
use logline_pg_testing::{PrivateServer, ServerOptions};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::stage::{Live, Stage, options, within};

const STREAM: &str = "/api/timeline/stream";

async fn note(stage: &Stage, token: &str, text: &str) {
    let note = json!({"entity_type": "note", "content": text, "visibility": "tenant"});
    stage.post(token, "/api/spans", &[], &note).await.ok(201);
}

fn texts(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["content"].as_str().unwrap()).collect()
}

async fn rows(live: &mut Live, count: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(live.row().await);
    }
    rows
}

/// Opens a stream as soon as there is a place.
async fn opened(stage: &Stage, token: &str, path: &str) -> Live {
    within(async {
        loop {
            let live = stage.open(token, path, &[]).await;
            if live.status == 200 {
                return live;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_every_id_without_gap_or_repeat() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let mut live = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    assert_eq!((live.status, live.headers["content-type"].as_str()), (200, "text/event-stream"));
    assert_eq!(live.headers["x-accel-buffering"], "no");
    live.begun().await;
    let mut ids = vec![live.id.clone().expect("a stream says where it begins")];
    for text in ["a", "b", "c", "d"] {
        note(&stage, &token, text).await;
        assert_eq!(live.row().await["content"], text);
        ids.push(live.id.clone().unwrap());
    }
    drop(live);
    note(&stage, &token, "e").await;
    for (at, id) in ids.iter().enumerate() {
        let expected = &["a", "b", "c", "d", "e"][at..];
        let mut by_header = stage.open(&token, &format!("{STREAM}?type=note&after={}", ids[0]), &[("last-event-id", id)]).await;
        let mut by_query = stage.open(&token, &format!("{STREAM}?type=note&after={id}"), &[]).await;
        assert_eq!(texts(&rows(&mut by_header, expected.len()).await), expected, "the header counts more than `after`");
        assert_eq!(texts(&rows(&mut by_query, expected.len()).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_come_and_go_while_rows_are_written_miss_none() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let mut live = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    live.begun().await;
    let mut id = live.id.clone().unwrap();
    drop(live);
    let write = async {
        for n in 0..60 {
            note(&stage, &token, &n.to_string()).await;
        }
    };
    let read = async {
        let mut found = Vec::new();
        while found.len() < 60 {
            let mut live = stage.open(&token, &format!("{STREAM}?type=note&after={id}"), &[]).await;
            for _ in 0..(found.len() % 5) + 1 {
                if found.len() < 60 {
                    found.push(live.row().await["content"].as_str().unwrap().to_owned());
                }
            }
            id = live.id.clone().unwrap();
        }
        found
    };
    let ((), found) = tokio::join!(write, read);
    assert_eq!(found, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_another_host_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared.ledger");
    let home = tempfile::tempdir().unwrap();
    let open = || std::sync::Arc::new(logline_sqlite::SqliteLedger::open(&path).unwrap());
    let first = Stage::on(open(), home, options(), ServeOptions::default(), |keys| keys).await;
    let token = first.token("acme", "alice").await;
    let mut live = first.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    live.begun().await;
    note(&first, &token, "before").await;
    assert_eq!(live.row().await["content"], "before");
    let id = live.id.clone().unwrap();
    note(&first, &token, "between").await;
    let home = tempfile::tempdir().unwrap();
    for entry in ["trust.json", "keys"] {
        let (from, to) = (first.folder.path().join(entry), home.path().join(entry));
        std::fs::rename(from, to).unwrap();
    }
    first.shut_down().await;
    let second = Stage::on(open(), home, options(), ServeOptions::default(), |keys| keys).await;
    let mut live = second.open(&token, &format!("{STREAM}?type=note"), &[("last-event-id", &id)]).await;
    assert_eq!(live.row().await["content"], "between");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_subscribers_share_one_tail_and_see_only_their_own() {
    let stage = Stage::with(options(), ServeOptions::default()).await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let mut streams = Vec::new();
    for n in 0..200 {
        let mut live = stage.open(if n % 2 == 0 { &alice } else { &bob }, &format!("{STREAM}?type=note"), &[]).await;
        live.begun().await;
        streams.push(live);
    }
    stage.post(&alice, "/api/spans", &[], &json!({"entity_type": "note", "content": "of alice"})).await.ok(201);
    note(&stage, &bob, "for all").await;
    for (n, live) in streams.iter_mut().enumerate() {
        if n % 2 == 0 {
            assert_eq!(live.row().await["content"], "of alice");
        }
        assert_eq!(live.row().await["content"], "for all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_resume_as_events_do() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let accept = [("accept", "application/x-ndjson")];
    let mut live = stage.open(&token, &format!("{STREAM}?type=note"), &accept).await;
    assert_eq!(live.headers["content-type"], "application/x-ndjson");
    let begin = live.line().await.unwrap()["id"].as_str().unwrap().to_owned();
    note(&stage, &token, "a").await;
    let row = live.line().await.unwrap();
    assert_eq!(row["span"]["content"], "a");
    note(&stage, &token, "b").await;
    for (id, expected) in [(begin.as_str(), "a"), (row["id"].as_str().unwrap(), "b")] {
        let mut again = stage.open(&token, &format!("{STREAM}?type=note&after={id}"), &accept).await;
        again.line().await.unwrap();
        assert_eq!(again.line().await.unwrap()["span"]["content"], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_timeline_hands_over_to_a_stream() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    note(&stage, &token, "a").await;
    let page = stage.get(&token, "/api/timeline?type=note&order=oldest").await.ok(200);
    assert_eq!(texts(page["spans"].as_array().unwrap()), ["a"]);
    note(&stage, &token, "b").await;
    let mut live = stage.open(&token, &format!("{STREAM}?type=note&after={}", page["reached"].as_str().unwrap()), &[]).await;
    assert_eq!(live.row().await["content"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_in_filters_and_content_make_no_events() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let mut live =
        stage.open(&token, &format!("{STREAM}?type=note&status=x%0d%0a%0d%0aevent:%20span%0adata:%20forged"), &[]).await;
    assert_eq!(live.status, 200);
    live.begun().await;
    let mut other = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    other.begun().await;
    let text = "x\r\n\r\nevent: end\ndata: {}\u{2028}\n\n";
    note(&stage, &token, text).await;
    assert_eq!(other.row().await["content"], text);
    let span = json!({"entity_type": "note", "content": 1, "status": "x\r\n\r\nevent: span\ndata: forged"});
    stage.post(&token, "/api/spans", &[], &span).await.is(422, "invalid_span");
    // The filter is a value like any other: it matches nothing, and the next thing in the stream is its end.
    stage.drain.begin();
    assert_eq!(live.event().await.unwrap().data["code"], "draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_says_that_it_is_there_and_where() {
    let mut options = options();
    options.heartbeat = Duration::from_millis(20);
    let stage = Stage::with(options, ServeOptions::default()).await;
    let token = stage.token("acme", "alice").await;
    let mut live = stage.open(&token, &format!("{STREAM}?type=nothing"), &[]).await;
    live.begun().await;
    let begin = live.id.clone().unwrap();
    note(&stage, &token, "not for this filter").await;
    while live.id.as_ref() == Some(&begin) {
        live.begun().await;
    }
    let mut again = stage.open(&token, &format!("{STREAM}?type=note&after={}", live.id.as_ref().unwrap()), &[]).await;
    note(&stage, &token, "next").await;
    assert_eq!(again.row().await["content"], "next", "the position of a heartbeat is after the row that was filtered out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_does_not_outlive_its_token() {
    let stage = Stage::start().await;
    let new = NewKey::new("acme", "alice", "short", [Permission::Read]).lifetime(Duration::from_secs(3));
    let token = stage.keys.issue(new, "operator").await.unwrap().token;
    let mut live = stage.open(&token, STREAM, &[]).await;
    assert_eq!(live.status, 200);
    let end = loop {
        match live.event().await.expect("an end") {
            event if event.name == "end" => break event,
            _ => {}
        }
    };
    assert_eq!(end.data["code"], Code::InvalidToken.as_str());
    assert!(live.id.is_some() && live.event().await.is_none());
    stage.get(&token, "/api/spans").await.is(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_key_is_revoked() {
    let mut options = options();
    options.recheck = Duration::from_millis(50);
    let stage = Stage::with(options, ServeOptions::default()).await;
    let issued = stage.keys.issue(NewKey::new("acme", "alice", "k", [Permission::Read]), "operator").await.unwrap();
    let mut live = stage.open(&issued.token, &format!("{STREAM}?type=nothing"), &[]).await;
    live.begun().await;
    stage.keys.revoke("acme", issued.id, "operator").await.unwrap();
    assert_eq!(live.event().await.unwrap().data["code"], "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_and_waits_do_not_hold_up_a_shutdown() {
    let serve_options = {
        let mut options = ServeOptions::default();
        // The test would not wait for it.
        options.drain_timeout = Duration::from_secs(3600);
        options
    };
    let stage = Stage::with(options(), serve_options).await;
    stage.fee("acme").await;
    let token = stage.token("acme", "alice").await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut live = stage.open(&token, &format!("{STREAM}?type=nothing"), &[]).await;
        live.begun().await;
        streams.push(live);
    }
    let later = json!({"function": "fee", "due_at": "2100-01-01T00:00:00Z"});
    let accepted = stage.post(&token, "/api/execute", &[], &later).await;
    let mut wait = stage.open(&token, STREAM, &[]).await;
    wait.begun().await;
    let waits = tokio::net::TcpStream::connect(stage.address).await.unwrap();
    let mut waits = waits;
    let head = format!(
        "GET {}/wait HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n",
        accepted.headers["location"]
    );
    waits.write_all(head.as_bytes()).await.unwrap();
    let mut idle = tokio::net::TcpStream::connect(stage.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let drain = stage.drain.clone();
    drain.begin();
    stage.call("GET", "/readyz", &[], None).await.is(503, "draining");
    stage.get(&token, STREAM).await.is(503, "draining");
    drop(idle);
    stage.shut_down().await;
    for live in &mut streams {
        assert_eq!(live.event().await.unwrap().data["code"], "draining");
        assert!(live.id.is_some(), "a client knows where to go on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_does_not_take_all_streams() {
    let mut options = options();
    (options.max_streams, options.max_streams_per_tenant) = (3, 2);
    let stage = Stage::with(options, ServeOptions::default()).await;
    let (acme, beta) = (stage.token("acme", "alice").await, stage.token("beta", "alice").await);
    let first = stage.open(&acme, STREAM, &[]).await;
    let _second = stage.open(&acme, STREAM, &[]).await;
    let full = stage.get(&acme, STREAM).await;
    full.is(429, "too_many_streams");
    assert_eq!(full.headers["retry-after"], "1");
    assert_eq!(stage.open(&beta, STREAM, &[]).await.status, 200);
    drop(first);
    // The place is free as soon as the server sees that the client is gone.
    opened(&stage, &acme, STREAM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_and_others_are_served() {
    let serve_options = {
        let mut options = ServeOptions::default();
        options.write_timeout = Duration::from_secs(1);
        options
    };
    let mut options = options();
    options.max_streams_per_tenant = 2;
    let stage = Stage::with(options, serve_options).await;
    let token = stage.token("acme", "alice").await;
    let mut slow = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    slow.begun().await;
    let mut quick = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    quick.begun().await;
    // More than the buffers of both sides hold.
    let text = "x".repeat(500_000);
    let count = 40;
    let read = tokio::spawn(async move {
        let mut found = HashSet::new();
        for _ in 0..count {
            found.insert(quick.row().await["content"].as_str().unwrap().split(' ').next().unwrap().to_owned());
        }
        (quick, found)
    });
    for n in 0..count {
        note(&stage, &token, &format!("{n} {text}")).await;
    }
    let (quick, found) = within(read).await.unwrap();
    assert_eq!(found.len(), count);
    // The slow client is cut when its place is free.
    drop(opened(&stage, &token, STREAM).await);
    // What was sent before the cut is read; then the connection ends, and the last whole event has the id to resume from.
    let mut seen = 0;
    while let Some(event) = slow.event().await {
        assert_eq!(event.data["content"].as_str().unwrap().split(' ').next().unwrap(), seen.to_string());
        seen += 1;
    }
    assert!(seen < count, "the slow client was cut");
    let id = slow.id.clone().unwrap();
    drop(quick);
    let mut again = opened(&stage, &token, &format!("{STREAM}?type=note&after={id}")).await;
    for n in seen..count {
        assert_eq!(again.row().await["content"].as_str().unwrap().split(' ').next().unwrap(), n.to_string());
    }
}

/// A new epoch of a PostgreSQL ledger, as after a restore into another cluster: ids from before it go on after it.
#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_over_a_new_epoch_without_gap_or_repeat() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap();
    let options_of = || PgOptions::new(&server.url("postgres", "postgres")).unwrap();
    migrate(&options_of()).await.unwrap();
    let ledger = PgLedger::connect(options_of()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::on(Arc::new(ledger), folder, options(), ServeOptions::default(), |keys| keys).await;
    let token = stage.token("acme", "alice").await;
    let mut open = stage.open(&token, &format!("{STREAM}?type=note"), &[]).await;
    open.begun().await;
    let mut ids = vec![open.id.clone().unwrap()];
    for text in ["a", "b"] {
        note(&stage, &token, text).await;
        open.row().await;
        ids.push(open.id.clone().unwrap());
    }
    for text in ["c", "d"] {
        migrate_to_new_epoch(&options_of()).await.unwrap();
        note(&stage, &token, text).await;
        assert_eq!(open.row().await["content"], text, "an open stream goes on");
        ids.push(open.id.clone().unwrap());
    }
    note(&stage, &token, "e").await;
    for (at, id) in ids.iter().enumerate() {
        let expected = &["a", "b", "c", "d", "e"][at..];
        let mut resumed = stage.open(&token, &format!("{STREAM}?type=note"), &[("last-event-id", id)]).await;
        assert_eq!(texts(&rows(&mut resumed, expected.len()).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_can_read_gzip_gets_each_row_at_once_and_as_it_is() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let mut live =
            stage.open(&token, &format!("{STREAM}?type=note"), &[("accept-encoding", "gzip, br"), ("accept", accept)]).await;
        assert!(!live.headers.contains_key("content-encoding"), "{accept}");
        if accept == "text/event-stream" {
            live.begun().await;
            note(&stage, &token, "now").await;
            assert_eq!(live.row().await["content"], "now");
        }
    }
}

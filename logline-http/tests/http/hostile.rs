//! Clients that mean harm, or speak no HTTP.

use std::time::Duration;

use logline_http::ServeOptions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{Stage, options, within};

/// Reads until the server closes the connection.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_loris_is_cut_in_the_head_and_in_the_body() {
    let serve_options = {
        let mut options = ServeOptions::default();
        options.header_timeout = Duration::from_secs(2);
        options
    };
    let mut options = options();
    options.body_timeout = Duration::from_secs(1);
    let stage = Stage::with(options, serve_options).await;
    let token = stage.token("acme", "alice").await;
    let mut heads = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(b"GET /api/spans HTTP/1.1\r\nx-slow: ").await.unwrap();
        heads.push(stream);
    }
    let mut silent = TcpStream::connect(stage.address).await.unwrap();
    let mut body = TcpStream::connect(stage.address).await.unwrap();
    let head = format!(
        "POST /api/spans HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    body.write_all(head.as_bytes()).await.unwrap();
    let text = String::from_utf8(closed(&mut body).await).unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("\"code\":\"timeout\""), "{text}");
    for stream in &mut heads {
        let text = String::from_utf8(closed(stream).await).unwrap();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    closed(&mut silent).await;
    assert_eq!(stage.get(&token, "/api/spans").await.status, 200, "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_endless_bodies_are_refused() {
    let mut options = options();
    options.max_body = 10_000;
    let stage = Stage::with(options, ServeOptions::default()).await;
    let token = stage.token("acme", "alice").await;
    let head = |length: &str| {
        format!(
            "POST /api/spans HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
        )
    };
    for length in ["content-length: 10001", "content-length: 99999999999"] {
        stage.raw(head(length).as_bytes()).await.is(413, "too_large");
    }
    let mut endless = TcpStream::connect(stage.address).await.unwrap();
    endless.write_all(head("transfer-encoding: chunked").as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "a".repeat(1024));
    let mut sent = 0;
    // The server stops reading, and then closes.
    while sent < 100_000 && endless.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
        let mut byte = [0];
        if tokio::time::timeout(Duration::from_millis(1), endless.peek(&mut byte)).await.is_ok() {
            break;
        }
    }
    assert!(sent < 100_000);
    let text = String::from_utf8(closed(&mut endless).await).unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    let big = json!({"entity_type": "note", "content": "x".repeat(9_000)});
    assert_eq!(stage.post(&token, "/api/spans", &[], &big).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_headers_is_not_read() {
    let stage = Stage::start().await;
    let one = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(1 << 20));
    let many: String = (0..10_000).map(|n| format!("x-{n}: {}\r\n", "a".repeat(100))).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let few: String = (0..100).map(|n| format!("x-{n}: a\r\n")).collect();
    let few = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{few}\r\n");
    let address = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20));
    for bytes in [one, many, few, address] {
        // The connection may be reset before the answer is read.
        let status = stage.raw(bytes.as_bytes()).await.status;
        assert!([0, 414, 431].contains(&status), "{status}");
    }
    assert_eq!(stage.call("GET", "/healthz", &[], None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_not_injected() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let evil = "x\r\nset-cookie: a=b";
    for path in ["/api/spans?status=x%0d%0aset-cookie:%20a=b", "/api/spans/x%0d%0aset-cookie:%20a=b", "/x%0d%0aset-cookie:a"] {
        let answer = stage.get(&token, path).await;
        assert!(!answer.headers.contains_key("set-cookie"), "{path}");
    }
    for name in ["x-request-id", "traceparent", "idempotency-key", "last-event-id"] {
        let bearer = format!("Bearer {token}");
        let answer = stage.call("GET", "/api/spans", &[("authorization", &bearer), (name, evil)], None).await;
        assert!(!answer.headers.contains_key("set-cookie"), "{name}");
    }
    let bearer = format!("Bearer {token}");
    let given = stage.call("GET", "/api/spans", &[("authorization", &bearer), ("x-request-id", "abc-1.2_3")], None).await;
    assert_eq!(given.headers["x-request-id"], "abc-1.2_3");
    for id in ["a b", "<script>", &"a".repeat(65), "\u{e9}"] {
        let answer = stage.call("GET", "/api/spans", &[("authorization", &bearer), ("x-request-id", id)], None).await;
        assert_eq!(answer.headers["x-request-id"].len(), 32, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_encoding_and_json_get_a_code() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    for path in [
        "/api/spans?status=%ff",
        "/api/spans?%ff=a",
        "/api/spans/%ff",
        "/api/spans/not-a-uuid",
        "/api/spans/%00",
        "/api/spans?limit=0",
    ] {
        stage.get(&token, path).await.is(400, "invalid_parameter");
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for body in [
        &b"\xff\xfe"[..],
        b"{\"entity_type\":\"\xc3\x28\"}",
        b"",
        b"[]",
        b"null",
        b"{\"spans\":{}}",
        b"{\"spans\":[]}",
        b"{\"entity_type\":\"note\",\"entity_type\":\"note\"}",
        b"{\"entity_type\":\"note\",\"content\":1e999}",
        b"{\"entity_type\":\"note\",\"content\":9007199254740993}",
        b"{\"entity_type\":\"note\",\"content\":\"\\ud800\"}",
        b"{\"entity_type\":\"note\"} {}",
    ] {
        stage.call("POST", "/api/spans", &headers, Some(body)).await.is(400, "invalid_body");
    }
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    stage.call("POST", "/api/spans", &headers, Some(&deep)).await.is(400, "invalid_body");
    for body in [&b"{}"[..], b"{\"function\":1}", b"{\"function\":\"fee\",\"owner\":\"bob\"}"] {
        stage.call("POST", "/api/execute", &headers, Some(body)).await.is(400, "invalid_body");
    }
    for body in [
        json!({"entity_type": "note", "nonsense": 1}),
        json!({"this": "x"}),
        json!({"entity_type": "note", "content": "\u{0}"}),
    ] {
        let status = stage.post(&token, "/api/spans", &[], &body).await.status;
        assert!([400, 422].contains(&status), "{body}: {status}");
    }
    let form = [("authorization", bearer.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    stage.call("POST", "/api/spans", &form, Some(b"a=b")).await.is(415, "unsupported_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_as_well() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    for path in ["/api/nothing", "/nothing", "/page", "/api/spans/", "/API/spans", "/metrics"] {
        stage.get(&token, path).await.is(404, "not_found");
    }
    let bearer = format!("Bearer {token}");
    for (method, path, allow) in
        [("DELETE", "/api/spans", "GET,HEAD,POST"), ("PUT", "/healthz", "GET,HEAD"), ("GET", "/api/execute", "POST")]
    {
        let answer = stage.call(method, path, &[("authorization", &bearer)], None).await;
        answer.is(405, "method_not_allowed");
        assert_eq!(answer.headers["allow"], allow);
    }
    let answer = stage.get(&token, "/api/spans").await;
    for name in ["access-control-allow-origin", "set-cookie", "server"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(
        (answer.headers["cache-control"].as_str(), answer.headers["x-content-type-options"].as_str()),
        ("no-store", "nosniff")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_and_streams_are_not() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let bearer = format!("Bearer {token}");
    let gzip = [("authorization", bearer.as_str()), ("accept-encoding", "gzip")];
    stage.post(&token, "/api/spans", &[], &json!({"entity_type": "note", "content": "x".repeat(1000)})).await.ok(201);
    assert_eq!(stage.call("GET", "/api/spans", &gzip, None).await.headers["content-encoding"], "gzip");
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let live = stage.open(&token, "/api/timeline/stream", &[("accept-encoding", "gzip"), ("accept", accept)]).await;
        assert!(!live.headers.contains_key("content-encoding"), "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_of_one_address_shut_nobody_else_out() {
    let mut serve_options = ServeOptions::default();
    (serve_options.max_connections, serve_options.max_connections_per_address) = (12, Some(4));
    let stage = Stage::with(options(), serve_options).await;
    let from = |host: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(std::net::SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
        socket.connect(stage.address)
    };
    let mut held = Vec::new();
    for _ in 0..12 {
        let mut stream = from("127.0.0.1").await.unwrap();
        // The server may have closed it already.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await.ok();
        held.push(stream);
    }
    for stream in held.iter_mut().skip(4) {
        assert!(closed(stream).await.is_empty(), "they are more than its share");
    }
    let whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut other = from("127.0.0.2").await.unwrap();
    other.write_all(whole).await.unwrap();
    assert!(String::from_utf8(closed(&mut other).await).unwrap().starts_with("HTTP/1.1 200 "));
    // What it gives back it may take again.
    let mut first = held.swap_remove(0);
    first.write_all(b"x\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(String::from_utf8(closed(&mut first).await).unwrap().starts_with("HTTP/1.1 200 "));
    drop(first);
    let again = async {
        loop {
            let mut stream = from("127.0.0.1").await.unwrap();
            if stream.write_all(whole).await.is_ok() && !closed(&mut stream).await.is_empty() {
                break;
            }
        }
    };
    within(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_a_body() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let long = "é".repeat(1_700_000);
    let spans = [
        json!({"entity_type": "note", "visibility": long}),
        json!({"entity_type": "note", "id": long}),
        json!({"entity_type": "note", "at": long}),
        json!({"entity_type": "note", (long.as_str()): 1}),
        json!({"entity_type": "note", "related_to": [long]}),
    ];
    let mut refused = 0;
    for (path, body) in spans.iter().map(|span| ("/api/spans", span)).chain([
        ("/api/execute", &json!({"function": "fee", (long.as_str()): 1})),
        ("/api/execute", &json!({"function": {(long.as_str()): 1}, "input": 1})),
        ("/api/execute", &json!({"function": "fee", "input": 1, "priority": long})),
        ("/api/keys", &json!({"name": "x", "permissions": [long], "days": long})),
        ("/api/approvals", &json!({"entity_type": "approval", (long.as_str()): 1})),
    ]) {
        let answer = stage.post(&token, path, &[], body).await;
        assert!(answer.status < 500 && answer.body.len() < 4_000, "{path}: {} {} bytes", answer.status, answer.body.len());
        refused += usize::from(answer.status >= 400);
    }
    assert!(refused >= 8, "{refused}");
    // The names of members and the digits of numbers as JSON faults quote them.
    let name = "é".repeat(800_000);
    let doubled = format!("{{\"{name}\":1,\"{name}\":2}}");
    let number = format!("{{\"entity_type\":{}}}", "9".repeat(3_000_000));
    for body in [doubled, number] {
        let head = format!(
            "POST /api/spans HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = stage.raw(head.as_bytes()).await;
        assert!(answer.status == 400 && answer.body.len() < 4_000, "{} {} bytes", answer.status, answer.body.len());
    }
}

//! A collector on loopback gets one connected trace of each call, from the caller's span to the ledger, and no content.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::{Ready, json, run_line, start};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that speaks OTLP over HTTP, and keeps what it gets.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || while take(stream.as_ref().unwrap(), &kept).is_some() {});
            }
        });
        Self { url, bodies }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.bodies().into_iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

/// Takes one request of a connection; `None` at its end.
fn take(stream: &TcpStream, kept: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
    assert!(head.starts_with("POST /v1/traces "), "{head}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(("content-type", value)) => assert_eq!(value, "application/x-protobuf"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    kept.lock().unwrap().push(body);
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_call_is_one_connected_trace_from_its_caller_to_the_ledger_and_content_is_not_in_it() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let mut command = start(folder.path(), &["--provider", "scripted"]);
    let ready = Ready::start(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).env("OTEL_SERVICE_NAME", "edge"));
    let call = |headers: &str, path: &str, body: &str| {
        let line = format!(
            "curl -sS --fail-with-body -H \"Authorization: Bearer $TOKEN\" -H 'Prefer: wait=30' {headers} --json '{body}' \"$URL{path}\""
        );
        run_line(&line, &ready.url, &ready.token)
    };
    let traced = format!("-H 'traceparent: 00-{TRACE}-{CALLER}-01'");
    let fee = r#"{"function":"fee","input":{"payment":"pay_secret","amount_minor":10000}}"#;
    let done = json(&call(&format!("{traced} -H 'Idempotency-Key: k1'"), "/api/execute", fee));
    assert_eq!(done["status"], "complete", "{done}");
    let asked = call(&traced, "/api/chat", r#"{"prompt":"chat@v1","question":"What about the secret plan?"}"#);
    assert!(asked.contains("event: done"), "{asked}");
    // A call without a trace begins one.
    let own = json(&call("", "/api/execute", fee));

    // The ledger has the same trace: its 32 digits, with the caller's span beside it.
    let rows = format!("curl -sS --fail -H \"Authorization: Bearer $TOKEN\" \"$URL/api/timeline?limit=500&trace_id={TRACE}\"");
    let rows = json(&run_line(&rows, &ready.url, &ready.token));
    let types: BTreeSet<_> = rows["spans"].as_array().unwrap().iter().map(|row| row["entity_type"].as_str().unwrap()).collect();
    for needed in ["request", "execution", "provider_request", "provider_execution", "prompt_run"] {
        assert!(types.contains(needed), "{needed}: {types:?}");
    }
    let requests: Vec<_> = rows["spans"].as_array().unwrap().iter().filter(|row| row["entity_type"] == "request").collect();
    assert!(requests.iter().all(|row| row["metadata"]["parent_span"] == CALLER), "{requests:?}");
    let tenant_and_user = ["acme", "demo"];
    ready.end();

    let spans = collector.spans();
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (hex(&span.span_id), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own");
    let of_trace: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let parent = |span: &Span| hex(&span.parent_span_id);
    for span in &of_trace {
        let is_connected =
            parent(span) == CALLER || by_id.get(&parent(span)).is_some_and(|above| above.trace_id == span.trace_id);
        assert!(is_connected, "{} hangs on nothing", span.name);
    }
    // The names on the way from a span to the caller.
    let way = |span: &Span| {
        let (mut names, mut at) = (vec![span.name.clone()], parent(span));
        while let Some(above) = by_id.get(&at) {
            names.push(above.name.clone());
            at = parent(above);
        }
        names.push(at);
        names.join(" < ")
    };
    let ways: BTreeSet<_> = of_trace.iter().map(|span| way(span)).collect();
    for needed in [
        format!("sandbox < attempt < request < POST /api/execute < {CALLER}"),
        format!("append < attempt < request < POST /api/execute < {CALLER}"),
        format!("chat scripted < attempt < request < POST /api/chat < {CALLER}"),
        format!("model_try < chat scripted < attempt < request < POST /api/chat < {CALLER}"),
    ] {
        assert!(ways.contains(&needed), "{needed}: {ways:#?}");
    }
    let started = own["request"]["trace_id"].as_str().unwrap();
    let roots: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == started && span.parent_span_id.is_empty()).collect();
    assert_eq!(roots.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["POST /api/execute"]);

    let sent = collector.bodies().concat();
    let has = |text: &str| sent.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("edge"), "the service's name");
    for text in ["secret", "pay_", "script, not a model", "amount_minor"].into_iter().chain(tenant_and_user) {
        assert!(!has(text), "`{text}` left the process");
    }
}

#[test]
fn a_collector_that_is_away_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there any more.
    let gone = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let ready = Ready::start(start(folder.path(), &[]).env("OTEL_EXPORTER_OTLP_ENDPOINT", gone));
    let line =
        "curl -sS --fail-with-body -H \"Authorization: Bearer $TOKEN\" --json '{\"entity_type\":\"note\"}' \"$URL/api/spans\"";
    assert_eq!(json(&run_line(line, &ready.url, &ready.token))["sealed_by"], "host");
    ready.end();
}

//! The example `server`, and the lines of the pages that call it, as they are written there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod disk;
mod traces;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

const README: &str = include_str!("../../../README.md");
const HTTP: &str = include_str!("../../../docs/http.md");

/// What curl returns if `--max-time` ended a stream.
const MAX_TIME: i32 = 28;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, which `cargo test` builds beside its tests.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/server");
    assert!(program.exists(), "build it first: cargo build --example server");
    program
}

/// The lines of a page that call a path of `$URL` in its first block with one.
fn lines(page: &'static str, path: &str) -> Vec<&'static str> {
    let block = page.split("```sh\n").find(|block| block.contains(path)).unwrap();
    block.split("```").next().unwrap().lines().filter(|line| line.starts_with("curl ")).collect()
}

/// Runs a line of a page, and returns what it prints.
fn run_line(line: &str, url: &str, token: &str) -> String {
    let ran = Command::new("sh").args(["-c", line]).env("URL", url).env("TOKEN", token).output().unwrap();
    let is_cut = line.contains("--max-time") && ran.status.code() == Some(MAX_TIME);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() || is_cut, "{line}\n{text}\n{}", String::from_utf8_lossy(&ran.stderr));
    text
}

/// A server that is ready, and what it has printed.
struct Ready {
    server: Server,
    output: BufReader<ChildStdout>,
    url: String,
    token: String,
}

impl Ready {
    fn start(command: &mut Command) -> Self {
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let server = Server(server);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["tenant"], "acme");
        let member = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { server, output, url: member("url"), token: member("token") }
    }

    /// Tells it to end, and waits until it has.
    fn end(self) {
        let Self { mut server, mut output, .. } = self;
        let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
        assert!(told.success());
        // Its output ends with it.
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(output.read_to_end(&mut Vec::new())));
        end.recv_timeout(Duration::from_secs(120)).expect("it does not end").unwrap();
        let status = server.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn the_lines_of_the_readme_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::start(&mut start(folder.path(), &[]));
    let lines = lines(README, "$URL/api/");
    assert_eq!(lines.len(), 4);
    let outputs: Vec<_> = lines.iter().map(|line| run_line(line, &ready.url, &ready.token)).collect();
    assert_eq!(json(&outputs[0])["output"]["fee_minor"], 25);
    assert_eq!(json(&outputs[1])["sealed_by"], "host");
    let newest = &json(&outputs[2])["spans"][0];
    assert_eq!(newest["content"]["text"], "budget approved");
    assert!(outputs[3].contains("id: "), "{}", outputs[3]);

    let metrics = run_line("curl -sS --fail \"$URL/metrics\"", &ready.url, "");
    assert!(metrics.contains("logline_http_requests_total{") && !metrics.contains("acme"), "{metrics}");
    ready.end();
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_lines_about_chat_and_memory_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::start(&mut start(folder.path(), &["--provider", "scripted"]));
    let lines = lines(HTTP, "$URL/api/chat");
    assert_eq!(lines.len(), 4);
    let outputs: Vec<_> = lines.iter().map(|line| run_line(line, &ready.url, &ready.token)).collect();
    let done = |text: &str| json(text.split("event: done\ndata: ").nth(1).unwrap_or_else(|| panic!("{text}")).trim());
    assert!(outputs[0].starts_with("event: delta\ndata: "), "{}", outputs[0]);
    let answer = done(&outputs[0]);
    assert!(answer["answer"]["text"].as_str().unwrap().ends_with("When do you ship?"), "{answer}");
    assert!(answer["run"].is_string() && answer["request"].is_string(), "{answer}");
    assert_eq!(json(&outputs[1])["decision"], "grant");
    assert!(json(&outputs[2])["id"].is_string());
    let run = done(&outputs[3])["run"].as_str().unwrap().to_owned();
    // The model was told, its owner may read of it, and the ledger has nothing of it in the clear.
    let get = |path: &str| {
        let line = format!("curl -sS --fail-with-body -H \"Authorization: Bearer $TOKEN\" \"$URL{path}\"");
        run_line(&line, &ready.url, &ready.token)
    };
    let explained = get(&format!("/api/prompts/runs/{run}/explain"));
    assert!(explained.contains("Prefers mail at night"), "{explained}");
    let rows = get("/api/timeline?limit=500");
    assert!(rows.contains(&run) && !rows.contains("at night"), "{rows}");
    assert!(folder.path().join("demo.ledger.keys/tenants").exists(), "the tenants' keys are with the others");
    ready.end();
    // A second start publishes nothing anew.
    let again = Ready::start(&mut start(folder.path(), &["--provider", "scripted"]));
    let line = "curl -sS --fail-with-body -H \"Authorization: Bearer $TOKEN\" \"$URL/api/spans?type=prompt_variant\"";
    let variants = json(&run_line(line, &again.url, &again.token));
    assert_eq!((variants["spans"][0]["name"].as_str(), &variants["spans"][0]["seq"]), (Some("chat@v1"), &Value::from(0)));
    assert_eq!(variants["spans"].as_array().unwrap().len(), 1);
    again.end();
}

#[test]
fn without_a_provider_nothing_is_asked_and_the_answer_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::start(&mut start(folder.path(), &[]));
    let line =
        "curl -sS -H \"Authorization: Bearer $TOKEN\" --json '{\"prompt\":\"chat@v1\",\"question\":\"?\"}' \"$URL/api/chat\"";
    let refused = json(&run_line(line, &ready.url, &ready.token));
    assert_eq!(refused["code"], "not_found", "{refused}");
    ready.end();
}

fn start(folder: &Path, more: &[&str]) -> Command {
    let mut server = Command::new(example());
    server.args(["--listen", "127.0.0.1:0", "--db"]).arg(folder.join("demo.ledger")).args(more);
    server
}

#[test]
fn all_faults_of_a_configuration_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let checked = |text: &str, variables: &[(&str, &str)]| {
        std::fs::write(&file, text).unwrap();
        let mut server = Command::new(example());
        server.arg("--check").arg("--config").arg(&file).envs(variables.iter().copied());
        let output = server.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let given = include_str!("../../server/config.toml");
    let (status, said) = checked(given, &[]);
    assert_eq!(status, Some(0), "{said}");
    // What is commented out is known as well.
    let all: String = given
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|line| line.contains(" = ") || line.starts_with('[')).unwrap_or(line).to_owned()
                + "\n"
        })
        .collect();
    assert!(!checked(&all, &[]).1.contains("is not known"));
    let wrong = "listen = \"nowhere\"\nledger = \"mysql://x\"\nlissten = 1\nmemory = 3\n[tls]\ncert = \"/nothing.pem\"\n[log]\nfolder = \"x\"\n";
    let (status, said) = checked(wrong, &[("LOGLINE_SERVER_TENNANT", "acme")]);
    assert_eq!(status, Some(2), "{said}");
    for fault in [
        "`listen`",
        "`ledger`",
        "`lissten`",
        "`memory`",
        "`tls.cert`",
        "tls.key is missing",
        "`log.folder`",
        "LOGLINE_SERVER_TENNANT",
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    let chat = |lines: &str| checked(&format!("ledger = \"sqlite:x.ledger\"\n[chat]\n{lines}"), &[]);
    for (lines, fault) in [
        ("provider = \"gpt\"", "`chat.provider` must be `openai`"),
        ("provider = \"openai\"", "`chat.url` must be set"),
        ("provider = \"openai\"", "`chat.model` must be set"),
        ("provider = \"openai\"\nmodel = \"m\"\nurl = \"file:///x\"", "`chat.url` must be an address"),
        ("url = \"https://api.example/v1\"", "`chat.provider` must be set with chat.url"),
        ("provider = \"scripted\"\nmodel = \"m\"", "takes no chat.model"),
        ("provider = \"openai\"\nsecret_env = \"NO_SUCH_VARIABLE\"", "the environment has no variable NO_SUCH_VARIABLE"),
        ("provider = \"openai\"\nsecret_file = \"/no/such/file\"", "`chat.secret_file`: /no/such/file"),
        ("provider = \"openai\"\nsecret_env = \"HOME\"\nsecret_file = \"/dev/null\"", "are both set"),
        ("provider = \"openai\"\nsecret = \"sk-1\"", "`chat.secret` is not known"),
        ("provider = \"openai\"\nmax_tokens = 0", "`chat.max_tokens` must be a whole number"),
        ("[otlp]\nendpoint = \"collector:4317\"", "`otlp.endpoint` must be an address"),
    ] {
        let (status, said) = chat(lines);
        assert!(status == Some(2) && said.contains(fault) && !said.contains("sk-1"), "{lines}: {said}");
    }
    let (status, said) = chat("provider = \"openai\"\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\nsecret_env = \"PATH\"");
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = checked("ledger = \"sqlite:x\"", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere")]);
    assert!(status == Some(2) && said.contains("`OTEL_EXPORTER_OTLP_ENDPOINT` must be an address"), "{said}");
    let (status, said) = checked("this is no TOML", &[]);
    assert!(status == Some(2) && said.contains("config.toml"), "{said}");
    let (status, _) = checked("ledger = \"mysql://x\"\n", &[("LOGLINE_SERVER_LEDGER", "sqlite:x.ledger")]);
    assert_eq!(status, Some(0), "the environment counts more than the file");
}

#[test]
fn a_server_whose_loops_fail_ends_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let mut error = server.stderr.take().unwrap();
    let mut server = Server(server);
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    assert!(ready.contains("\"url\""));
    // The file is not a database any more.
    let file = folder.path().join("demo.ledger");
    let other = rusqlite::Connection::open(&file).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(other);
    let length = std::fs::metadata(&file).unwrap().len();
    let mut damaged = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    damaged.write_all(&vec![0x55; usize::try_from(length).unwrap()]).unwrap();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        let _ = error.read_to_string(&mut said);
        ended.send(said)
    });
    let said = end.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("it does not end"));
    assert_eq!(server.0.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("server: the loops failed: "), "{said}");
}

#[test]
fn the_server_speaks_tls_with_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let mut server = start(folder.path(), &[])
        .env("LOGLINE_SERVER_TLS_CERT", &cert)
        .env("LOGLINE_SERVER_TLS_KEY", &key)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let _server = Server(server);
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let url = ready["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"));
    let port = url.rsplit(':').next().unwrap();
    let ran = Command::new("curl")
        .args(["-sS", "--fail", "--resolve", &format!("localhost:{port}:127.0.0.1"), "--cacert"])
        .arg(&cert)
        .arg(format!("{url}/readyz"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

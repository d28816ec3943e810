//! Prompts from the shell: published, built, evaluated against a server on loopback, explained and verified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Answers every question with the same text, as OpenAI would. Returns the base URL.
fn model() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let said =
                    json!({"text": "You have 30 days, until Tuesday or Friday; which order, 17 or 18?", "confidence": 0.9})
                        .to_string();
                let message = json!({"role": "assistant", "content": said});
                let answer = json!({
                    "id": "chat-1", "object": "chat.completion", "created": 1, "model": "small-1",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
                });
                let answer = answer.to_string();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                let _ = write!(stream, "{head}content-length: {}\r\n\r\n{answer}", answer.len());
            });
        }
    });
    url
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.expect(0, &["init", "--tenant", "acme"]);
        folder
    }

    fn command(&self, arguments: &[&str]) -> Command {
        shell::command(&self.0, arguments)
    }

    /// Runs, expects this exit status, and returns standard output and standard error.
    fn both(&self, status: i32, arguments: &[&str]) -> (String, String) {
        shell::ended(status, arguments, &self.command(arguments).output().unwrap())
    }

    fn expect(&self, status: i32, arguments: &[&str]) -> String {
        self.both(status, arguments).0
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Publishes a provider at this URL, and the sample prompts.
    fn with_prompts(&self, url: &str) {
        let prices = json!({"input": 1_000_000_000, "output": 2_000_000_000});
        let metadata = json!({"adapter": "openai", "url": url, "currency": "USD", "models": {"small": {"max_tokens": 100, "prices": prices}}});
        self.write("provider.json", &json!({"entity_type": "provider", "name": "main", "metadata": metadata}).to_string());
        assert!(
            self.expect(0, &["publish", "provider.json", "--tenant", "acme"]).starts_with("published provider main version")
        );
        let samples = self.expect(0, &["prompt", "samples", "--tenant", "acme", "--provider", "main"]);
        let mut publish =
            self.command(&["publish", "-", "--tenant", "acme"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        publish.stdin.take().unwrap().write_all(samples.as_bytes()).unwrap();
        let out = shell::ended(0, &["publish", "-"], &publish.wait_with_output().unwrap()).0;
        assert_eq!(out.lines().count(), samples.lines().count());
    }
}

#[test]
fn prompts_are_published_built_evaluated_run_and_explained() {
    let folder = Folder::new();
    folder.with_prompts(&model());
    let at = ["--tenant", "acme"];
    let with = |arguments: &[&'static str]| [arguments, &at].concat();
    let (text, hash) = folder.both(0, &with(&["prompt", "build", "support@v1", "--vars", "{\"customer\":\"Ada\"}"]));
    assert!(text.contains("The customer is Ada.") && hash.contains("compiled_hash"), "{text}{hash}");
    let (_, err) = folder.both(2, &with(&["prompt", "build", "support@v1"]));
    assert!(err.contains("needs a value for `customer`"), "{err}");
    assert!(folder.expect(0, &with(&["provider", "check", "main", "--call"])).contains("model small"));
    assert!(folder.expect(0, &with(&["provider", "costs"])).contains("1 calls, 1 with a cost that was computed again, 0 that"));

    // The model cannot say that there is no answer, so one fixture of five fails, and the gate does not ask for more.
    let eval = with(&["prompt", "eval", "support", "--variant", "support@v1", "--variant", "support@v2"]);
    let table = folder.expect(0, &eval);
    assert!(table.contains("support@v2: let through") && table.contains("failed no-tracking/1"), "{table}");
    // An evaluation that fails leaves no file, so that it can be repeated as it was typed.
    let unknown = with(&["prompt", "eval", "support", "--variant", "support@v9", "--out", "eval.xml"]);
    assert!(folder.both(2, &unknown).1.contains("support@v9") && !folder.0.path().join("eval.xml").exists());
    let junit = folder.expect(0, &[eval.as_slice(), &["--format", "junit", "--out", "eval.xml"]].concat());
    assert!(junit.is_empty());
    let xml = fs::read_to_string(folder.0.path().join("eval.xml")).unwrap();
    assert!(xml.contains("tests=\"10\" failures=\"2\" errors=\"0\""), "{xml}");
    let again = folder.both(2, &[eval.as_slice(), &["--out", "eval.xml"]].concat()).1;
    assert!(again.contains("exists: name a new file"), "{again}");

    let family: Value = {
        let listed = folder.expect(0, &with(&["list", "--type", "prompt_family", "--json"]));
        serde_json::from_str(listed.lines().next().unwrap()).unwrap()
    };
    let input = json!({"question": "How long?", "vars": {"customer": "Ada"}, "session": "s"}).to_string();
    let submit =
        ["request", "submit", family["id"].as_str().unwrap(), "--kind", "prompt.run", "--owner", "bot", "--input", &input];
    folder.expect(0, &[&submit[..], &at].concat());
    folder.expect(0, &["run", "--until-idle"]);
    let of = |kind: &str| -> Value {
        let listed = folder.expect(0, &["list", "--type", kind, "--tenant", "acme", "--json"]);
        serde_json::from_str(listed.lines().next().unwrap()).unwrap()
    };
    let run = of("prompt_run");
    let told = folder.expect(0, &["prompt", "explain", run["id"].as_str().unwrap(), "--tenant", "acme"]);
    for part in [
        "30 days",
        "contract  held",
        "built again",
        "chosen by",
        "block ",
        "answer/1, attempt 1, try 1 of small: complete",
        "USD, used",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for kind in ["prompt_build", "prompt_selection"] {
        let told = folder.expect(0, &["prompt", "verify", of(kind)["id"].as_str().unwrap(), "--tenant", "acme"]);
        assert!(told.contains("again"), "{told}");
    }
    folder.expect(2, &["prompt", "verify", run["id"].as_str().unwrap(), "--tenant", "acme"]);
    folder.expect(0, &["fsck", "--trust", "demo.ledger.trust.json"]);
}

#[test]
fn a_provider_that_this_host_cannot_ask_is_told_with_what_to_do() {
    let folder = Folder::new();
    let (_, err) = folder.both(2, &["provider", "check", "main", "--tenant", "acme"]);
    assert!(err.contains("no provider `main`"), "{err}");
    let publish = |name: &str, more: Value| {
        let mut metadata = json!({"adapter": "openai", "url": "http://127.0.0.1:9/v1", "models": {"small": {"max_tokens": 5}}});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        folder.write("p.json", &json!({"entity_type": "provider", "name": name, "metadata": metadata}).to_string());
        folder.both(0, &["publish", "p.json", "--tenant", "acme"])
    };
    publish("main", json!({"secret": "openai", "retry": {"tries": 1}}));
    let told = folder.expect(1, &["provider", "check", "main", "--tenant", "acme"]);
    assert!(told.contains("openai") && told.contains("HostSecrets"), "{told}");
    folder.write(
        "demo.ledger.keys/secrets.json",
        r#"{"openai": {"env": "LOGLINE_TEST_SECRET", "urls": ["http://127.0.0.1:9/v1"]}}"#,
    );
    let told = folder.expect(1, &["provider", "check", "main", "--tenant", "acme"]);
    assert!(told.contains("set the environment variable LOGLINE_TEST_SECRET"), "{told}");
    let mut check = folder.command(&["provider", "check", "main", "--tenant", "acme", "--call"]);
    let output = check.env("LOGLINE_TEST_SECRET", "s3cret-of-the-test").output().unwrap();
    let (out, err) = shell::ended(1, &["provider check --call"], &output);
    assert!(out.contains("model small: provider:") && !(out + &err).contains("s3cret"), "nobody listens on port 9");
    folder.write("demo.ledger.keys/secrets.json", r#"{"openai": {"text": "s3cret", "urls": []}}"#);
    let (out, err) = folder.both(1, &["provider", "check", "main", "--tenant", "acme", "--call"]);
    assert!(out.contains("secrets.json") && !(out.clone() + &err).contains("s3cret"), "{out}{err}");
}

#[test]
fn a_file_with_a_fault_publishes_nothing() {
    let folder = Folder::new();
    let note =
        |name: &str| json!({"entity_type": "prompt_block", "name": name, "content": "Be kind.", "metadata": {"rank": "app"}});
    for (text, said) in [
        (json!([note("a"), {"entity_type": "prompt_block"}]).to_string(), "draft 2: `name` is missing"),
        (format!("{}\n{}\n", note("a"), "{\"entity_type\":"), "line 2"),
        (json!([note("a"), 5]).to_string(), "draft 2: a draft is a JSON object"),
        (json!([note("a"), {"entity_type": "policy", "name": "p", "tenant_id": "other"}]).to_string(), "of tenant `other`"),
        ("[]".to_owned(), "no draft"),
        (String::new(), "file.json"),
    ] {
        folder.write("file.json", &text);
        let (_, err) = folder.both(2, &["publish", "file.json", "--tenant", "acme"]);
        assert!(err.contains(said), "{said}: {err}");
    }
    assert_eq!(folder.expect(0, &["list", "--type", "prompt_block", "--tenant", "acme"]), "");
    folder.write("file.json", &note("a").to_string());
    assert!(folder.expect(0, &["publish", "file.json", "--tenant", "acme"]).starts_with("published prompt_block a version"));
    assert!(folder.expect(0, &["publish", "file.json", "--tenant", "acme"]).starts_with("unchanged: prompt_block a version"));
    let (_, err) = folder.both(2, &["publish", "file.json", "--tenant", "other"]);
    assert!(err.contains("tenant `other`"), "{err}");
}

#[test]
fn fixtures_of_other_tools_are_taken_over_and_bad_ones_named() {
    let folder = Folder::new();
    folder.write(
        "tests.yaml",
        "prompts: [p.txt]\ntests:\n  - vars: {query: Where?}\n    assert: [{type: contains, value: Paris}]\n  - vars: {}\n    assert: []\n",
    );
    let (out, err) = folder.both(1, &["prompt", "fixtures", "tests.yaml", "--from", "promptfoo", "--question", "query"]);
    let fixtures: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(fixtures["fixtures"][0]["question"], "Where?");
    assert!(err.contains("entry 2: `vars` has no text `query`"), "{err}");
    folder.write("items.jsonl", "{\"input\": \"Where?\", \"expectedOutput\": \"Paris\"}\n{\"input\": \n");
    let (_, err) = folder.both(1, &["prompt", "fixtures", "items.jsonl", "--from", "langfuse"]);
    assert!(err.contains("entry 2"), "{err}");
}

#[test]
fn a_model_is_asked_in_confidence_and_told_what_was_remembered() {
    let folder = Folder::new();
    folder.with_prompts(&model());
    let of = ["--tenant", "acme", "--owner", "user-4711"];
    let with = |arguments: &[&'static str]| [arguments, &of].concat();
    let ask = ["prompt", "ask", "support@v1", "when may Xanthippe return it?", "--vars", "{\"customer\":\"Xanthippe\"}"];
    let recall = with(&[&ask[..], &["--memory", "on"]].concat());
    let (_, err) = folder.both(2, &recall);
    assert!(err.contains("consent"), "{err}");
    folder.expect(0, &with(&["memory", "consent", "--grant"]));
    folder.expect(0, &with(&["memory", "add", "Xanthippe returns it on Tuesday"]));
    let told: Value = serde_json::from_str(&folder.expect(0, &[&recall[..], &["--json"]].concat())).unwrap();
    assert!(told["answer"]["text"].as_str().unwrap().contains("30 days"), "{told}");
    let run = told["run"].as_str().unwrap();
    let explained = folder.expect(0, &["prompt", "explain", run, "--tenant", "acme"]);
    assert!(explained.contains("30 days") && explained.contains("context "), "{explained}");
    let plain = folder.expect(0, &with(&ask));
    assert!(plain.contains("30 days"), "{plain}");
    let exported = folder.expect(0, &["list", "--tenant", "acme", "--json", "--type", "prompt_run", "--limit", "10"]);
    assert_eq!(exported.lines().filter(|line| line.contains("30 days")).count(), 1, "only the open one is in the clear");
    folder.expect(0, &with(&["memory", "forget", "--last"]));
    let (_, err) = folder.both(2, &["prompt", "explain", run, "--tenant", "acme"]);
    assert!(err.contains("erased"), "{err}");
    // By a worker, too.
    let variant: Value = serde_json::from_str(
        folder.expect(0, &["list", "--tenant", "acme", "--json", "--type", "prompt_variant"]).lines().next().unwrap(),
    )
    .unwrap();
    let input = json!({"question": "in confidence", "vars": {"customer": "Xanthippe"}}).to_string();
    let submit =
        ["request", "submit", variant["id"].as_str().unwrap(), "--kind", "prompt.run", "--input", &input, "--confidential"];
    folder.expect(0, &[&submit[..], &of].concat());
    folder.expect(0, &["run", "--until-idle"]);
    let done = folder.expect(0, &["list", "--tenant", "acme", "--json", "--type", "request", "--status", "complete"]);
    assert!(!done.contains("in confidence"), "{done}");
}

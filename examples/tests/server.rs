//! The example `server`, and the lines of the README that call it, as they are written there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

const README: &str = include_str!("../../README.md");

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

/// The lines of the README's block that call `$URL`.
fn lines() -> Vec<&'static str> {
    let block = README.split("```sh\n").find(|block| block.contains("$URL/api/")).unwrap();
    block.split("```").next().unwrap().lines().filter(|line| line.starts_with("curl ")).collect()
}

#[test]
fn the_lines_of_the_readme_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new(example())
        .args(["--listen", "127.0.0.1:0", "--db"])
        .arg(folder.path().join("demo.ledger"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let mut server = Server(server);
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["tenant"], "acme");
    let (url, token) = (ready["url"].as_str().unwrap(), ready["token"].as_str().unwrap());

    let lines = lines();
    assert_eq!(lines.len(), 4);
    let outputs: Vec<_> = lines
        .iter()
        .map(|line| {
            let ran = Command::new("sh").args(["-c", line]).env("URL", url).env("TOKEN", token).output().unwrap();
            let is_cut = line.contains("--max-time") && ran.status.code() == Some(MAX_TIME);
            let text = String::from_utf8(ran.stdout).unwrap();
            assert!(ran.status.success() || is_cut, "{line}\n{text}\n{}", String::from_utf8_lossy(&ran.stderr));
            text
        })
        .collect();
    let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(json(&outputs[0])["output"]["fee_minor"], 25);
    assert_eq!(json(&outputs[1])["sealed_by"], "host");
    let newest = &json(&outputs[2])["spans"][0];
    assert_eq!(newest["content"]["text"], "budget approved");
    assert!(outputs[3].contains("id: "), "{}", outputs[3]);

    // It ends by itself when it is told to.
    let metrics = Command::new("curl").args(["-sS", "--fail", &format!("{url}/metrics")]).output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(metrics.contains("logline_http_requests_total{") && !metrics.contains("acme"), "{metrics}");
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    // Its output ends with it.
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(output.read_to_end(&mut Vec::new())));
    end.recv_timeout(Duration::from_secs(30)).expect("it does not end").unwrap();
    let status = server.0.wait().unwrap();
    assert!(status.success(), "{status}");
}

//! Transparency logs as an operator and an auditor use them: real processes on real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod attacks;
#[path = "../shell/mod.rs"]
mod shell;

use std::fs;
use std::io::BufRead as _;
use std::path::PathBuf;

use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_sqlite::SqliteLedger;
use serde_json::Value;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    /// A ledger with `count` notes, and a key for the log.
    fn with(count: usize) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.append(count);
        folder.expect(0, &["keygen", "log.key"]);
        folder
    }

    fn append(&self, count: usize) -> Vec<String> {
        let key = KeyPair::from_seed(&[7; 32]);
        let note = |n: usize| {
            let draft =
                Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.trial").name(n.to_string());
            draft.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap()
        };
        let spans: Vec<_> = (0..count).map(note).collect();
        let ids = spans.iter().map(|span| span.id.to_string()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = SqliteLedger::open(self.path("demo.ledger")).unwrap();
            ledger.append(&Scope::Operator, spans, &AppendOptions::default()).await.unwrap();
        });
        ids
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs, expects this exit status, and returns standard output and standard error.
    #[track_caller]
    fn expect(&self, status: i32, arguments: &[&str]) -> (String, String) {
        shell::expect(&self.0, status, arguments)
    }

    #[track_caller]
    fn keep(&self, more: &[&str]) -> String {
        let keep =
            ["log", "run", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks", "--log-key", "log.key", "--until-idle"];
        self.expect(0, &[&keep[..], more].concat()).0
    }

    /// The published checkpoint as JSON, with the log's key.
    fn checkpoint(&self) -> Value {
        let show =
            ["log", "checkpoint", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks", "--log-key", "log.key", "--json"];
        serde_json::from_str(&self.expect(0, &show).0).unwrap()
    }
}

#[test]
fn an_operator_keeps_a_log_and_an_auditor_verifies_it_without_the_ledger() {
    let folder = Folder::with(300);
    assert!(folder.keep(&[]).contains("300 spans entered"));
    assert_eq!(folder.keep(&[]), "", "there is nothing more to enter");
    let ids = folder.append(20);
    folder.keep(&[]);
    let shown = folder.checkpoint();
    assert_eq!(shown["size"], 320);
    let (key, origin) = (shown["key"].as_str().unwrap().to_owned(), shown["origin"].as_str().unwrap().to_owned());
    assert!(!origin.contains("acme"), "an origin says nothing about the tenant");
    folder.expect(0, &["export", "export.ndjson", "--tenant", "acme"]);
    let place = ["--tiles", "tiles", "--locks", "locks"];
    let prove = ["log", "prove", "acme", &ids[7], "--row", "row.ndjson", "--out", "row.tlog-proof"];
    assert!(folder.expect(0, &[&prove[..], &place].concat()).0.contains("is leaf 307 of 320 leaves"));

    // From here on there is no ledger, and no private folder.
    fs::remove_file(folder.path("demo.ledger")).unwrap();
    fs::remove_dir_all(folder.path("locks")).unwrap();
    let log = format!("tiles/{origin}");
    let verify = ["verify", "export.ndjson", "--log", &log, "--log-key", &key];
    let (out, _) = folder.expect(0, &verify);
    assert!(out.contains("rows         passed (320)") && out.contains("authority    not checked"), "{out}");
    let one = ["verify", "row.ndjson", "--proof", "row.tlog-proof", "--log-key", &key];
    assert!(folder.expect(0, &one).0.contains("is leaf 307"));
    let json: Value = serde_json::from_str(&folder.expect(0, &[&one[..], &["--json"]].concat()).0).unwrap();
    assert_eq!((&json["clean"], &json["checks"]["rows"]["verdict"]), (&Value::Bool(true), &Value::from("passed")));

    // A row that was removed, another row with the proof, another key.
    let export = fs::read_to_string(folder.path("export.ndjson")).unwrap();
    let lines: Vec<_> = export.lines().collect();
    fs::write(folder.path("export.ndjson"), [&lines[..5], &lines[6..]].concat().join("\n") + "\n").unwrap();
    let (out, _) = folder.expect(1, &verify);
    assert!(out.contains("was removed") && out.contains("complete     FAILED (1)"), "{out}");
    let (out, _) = folder.expect(1, &[&verify[..], &["--json"]].concat());
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["clean"], &last["checks"]["complete"]["verdict"]), (&Value::Bool(false), &Value::from("failed")));
    fs::write(folder.path("row.ndjson"), format!("{}\n", lines[8])).unwrap();
    assert!(folder.expect(1, &one).0.contains("the entry is not in the log"));
    folder.expect(0, &["keygen", "other.key"]);
    assert!(folder.expect(2, &["verify", "export.ndjson", "--log", &log]).1.contains("--policy"));
    assert!(folder.expect(2, &["verify", "export.ndjson", "--log", &log, "--log-key", "no"]).1.contains("NAME+ID+BASE64"));
    let (out, _) = folder.expect(
        1,
        &[
            "verify",
            "export.ndjson",
            "--log",
            &log,
            "--log-key",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ],
    );
    assert!(out.contains("not one of the 1 logs") && out.contains("no checkpoint was accepted"), "{out}");
}

#[test]
fn a_log_that_has_grown_proves_it_to_whoever_kept_a_checkpoint() {
    let folder = Folder::with(70);
    folder.keep(&[]);
    let old = folder.checkpoint();
    fs::write(folder.path("old.checkpoint"), old["checkpoint"].as_str().unwrap()).unwrap();
    folder.append(300);
    folder.keep(&[]);
    let prove =
        ["log", "consistency", "acme", "--known", "old.checkpoint", "--tiles", "tiles", "--locks", "locks", "--out", "growth"];
    assert!(folder.expect(0, &prove).0.contains("continues 70 leaves"));
    let growth = fs::read_to_string(folder.path("growth")).unwrap();
    assert!(growth.starts_with("old 70\n") && growth.contains(folder.checkpoint()["checkpoint"].as_str().unwrap()), "{growth}");
    // A checkpoint of another history: no proof leads from it.
    let other = format!("{}=", "A".repeat(43));
    let text = old["checkpoint"].as_str().unwrap().replace(old["root"].as_str().unwrap(), &other);
    fs::write(folder.path("old.checkpoint"), text).unwrap();
    folder.expect(2, &prove);
}

#[test]
fn a_ledger_that_was_restored_stops_its_log_until_a_new_one_is_begun() {
    let folder = Folder::with(10);
    folder.keep(&[]);
    fs::copy(folder.path("demo.ledger"), folder.path("yesterday")).unwrap();
    folder.append(5);
    folder.keep(&[]);
    let old = folder.checkpoint();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(folder.path(&format!("ledger{suffix}")));
    }
    fs::copy(folder.path("yesterday"), folder.path("demo.ledger")).unwrap();
    folder.append(20);
    let keep =
        ["log", "run", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks", "--log-key", "log.key", "--until-idle"];
    let (_, err) = folder.expect(2, &keep);
    assert!(err.contains("restored from a copy") && err.contains("--begin-again"), "{err}");
    assert_eq!(folder.checkpoint(), old);
    folder.keep(&["--begin-again"]);
    let new = folder.checkpoint();
    assert_ne!(new["origin"], old["origin"]);
    assert_eq!(new["size"], 31, "the old checkpoint, and every row that is left");
    let entries = fs::read(folder.path(&format!("tiles/{}/tile/entries/000.p/31", new["origin"].as_str().unwrap()))).unwrap();
    let named = String::from_utf8_lossy(&entries[3..300]).into_owned();
    assert!(named.starts_with(old["origin"].as_str().unwrap()), "{named}");
}

#[test]
fn one_folder_cannot_be_public_and_private() {
    let folder = Folder::with(1);
    let (_, err) = folder
        .expect(2, &["log", "run", "--tenant", "acme", "--tiles", "a", "--locks", "a", "--log-key", "log.key", "--until-idle"]);
    assert!(err.contains("must be two folders"), "{err}");
    let (_, err) = folder.expect(2, &["log", "checkpoint", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks"]);
    assert!(err.contains("has no log"), "{err}");
}

/// A witness of another company, as a process.
struct Witness {
    process: std::process::Child,
    key: String,
    url: String,
}

impl Witness {
    fn start(folder: &Folder, name: &str, log: &str, more: &[&str]) -> Self {
        let key_file = format!("{name}.key");
        if !folder.path(&key_file).exists() {
            folder.expect(0, &["keygen", &key_file]);
        }
        let full = format!("witness.example/{name}");
        let options = ["witness", "--json", "--name", &full, "--key", &key_file, "--state", name, "--log", log];
        let mut command = shell::command(&folder.0, &[&options[..], &["--listen", "127.0.0.1:0"], more].concat());
        let mut process = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { key: text("key"), url: text("listens"), process }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_companies_watch_each_other_and_a_quorum_holds_back_what_they_have_not_seen() {
    let folder = Folder::with(30);
    folder.keep(&[]);
    let shown = folder.checkpoint();
    let log = shown["key"].as_str().unwrap().to_owned();
    let one = Witness::start(&folder, "one", &log, &["--begin"]);
    let two = Witness::start(&folder, "two", &log, &["--begin"]);
    let policy = |urls: [&str; 2]| {
        let lines = format!(
            "log {log}\nwitness one {} {}\nwitness two {} {}\ngroup both all one two\nquorum both\n",
            one.key, urls[0], two.key, urls[1]
        );
        fs::write(folder.path("policy"), lines).unwrap();
    };
    policy([&one.url, &two.url]);
    folder.append(5);
    folder.keep(&["--policy", "policy"]);
    folder.expect(0, &["export", "export.ndjson", "--tenant", "acme"]);
    let origin = shown["origin"].as_str().unwrap();
    let verify = ["verify", "export.ndjson", "--log", &format!("tiles/{origin}"), "--policy", "policy"];
    let (out, _) = folder.expect(0, &verify);
    assert!(out.contains("passed"), "{out}");

    // One of them is killed, without a chance to say anything: the checkpoint waits.
    let (dead_key, dead_url) = (two.key.clone(), two.url.clone());
    drop(two);
    folder.append(5);
    let keep =
        ["log", "run", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks", "--log-key", "log.key", "--until-idle"];
    let (_, err) = folder.expect(2, &[&keep[..], &["--policy", "policy"]].concat());
    assert!(err.contains("signed and not published"), "{err}");
    assert_eq!(folder.checkpoint()["size"], 35, "readers see the one before");
    // It does not start without its state, and goes on where it was with it.
    let again = ["witness", "--name", "witness.example/two", "--key", "two.key", "--log", &log, "--listen", "127.0.0.1:0"];
    assert!(folder.expect(2, &[&again[..], &["--state", "elsewhere"]].concat()).1.contains("is its disk there?"));
    assert!(folder.expect(2, &[&again[..], &["--state", "one"]].concat()).1.contains("another witness"));
    assert!(folder.expect(2, &[&again[..], &["--state", "two", "--begin"]].concat()).1.contains("without `--begin`"));
    let two = Witness::start(&folder, "two", &log, &[]);
    assert_eq!(two.key, dead_key);
    fs::write(folder.path("policy"), fs::read_to_string(folder.path("policy")).unwrap().replace(&dead_url, &two.url)).unwrap();
    folder.keep(&["--policy", "policy"]);
    assert_eq!(folder.checkpoint()["size"], 40);
    let no_url = fs::read_to_string(folder.path("policy")).unwrap().replace(&two.url, "");
    fs::write(folder.path("policy"), no_url).unwrap();
    assert!(folder.expect(2, &[&keep[..], &["--policy", "policy"]].concat()).1.contains("have no URL"));
}

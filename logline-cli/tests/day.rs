//! The operator's day: from nothing to a function that was executed and audited, and what is done with requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use shell::{command, expect};
use tempfile::TempDir;

/// A folder with the guest of the examples, and no ledger.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logline-wasm/guests/fee.wasm");
    fs::copy(guest, folder.path().join("fee.wasm")).unwrap();
    folder
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn ready() -> TempDir {
    let folder = folder();
    expect(&folder, 0, &["init", "--tenant", "acme"]);
    publish(&folder);
    folder
}

fn publish(folder: &TempDir) -> String {
    expect(folder, 0, &["function", "publish", "fee.wasm", "--tenant", "acme", "--name", "fee", "--config", r#"{"rate":25}"#]).0
}

fn submit(folder: &TempDir, more: &[&str]) -> String {
    let request = ["request", "submit", "fee", "--tenant", "acme", "--owner", "payments-api", "--input"];
    let input = [r#"{"payment":"pay_1","amount_minor":10000}"#];
    expect(folder, 0, &[&request[..], &input[..], more].concat()).0.trim().to_owned()
}

fn work(folder: &TempDir) {
    expect(folder, 0, &["run", "--until-idle"]);
}

/// The block of a page that begins with this line.
fn block(page: &str, first: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let page = fs::read_to_string(path).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    let found = blocks.filter_map(|block| block.strip_prefix("sh\n")).find(|block| block.starts_with(first));
    found.unwrap_or_else(|| panic!("no block begins with `{first}`")).to_owned()
}

#[cfg(unix)]
#[test]
fn the_five_commands_of_the_pages_execute_and_audit_a_function() {
    for page in ["README.md", "docs/first-steps.md"] {
        let folder = folder();
        let commands = block(page, "logline init");
        assert_eq!(commands.lines().count(), 5, "{commands}");
        let tool = Path::new(env!("CARGO_BIN_EXE_logline")).parent().unwrap();
        let path = std::env::join_paths(
            std::iter::once(tool.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let output = Command::new("sh")
            .args(["-e", "-c", &commands])
            .current_dir(folder.path())
            .env_remove("LOGLINE_LEDGER")
            .env("PATH", path.unwrap())
            .output()
            .unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        assert!(out.contains("0 problems; authority checked"), "{out}");
        let id = out.lines().find(|line| line.len() == 36).unwrap();
        let (shown, _) = expect(&folder, 0, &["request", "show", id]);
        for told in
            [r#"output  {"fee_minor":25}"#, "status    complete", "proof   execution", "signed by", "fee          pay_1"]
        {
            assert!(shown.contains(told), "{told} is missing:\n{shown}");
        }
    }
}

#[test]
fn what_was_done_already_is_not_done_again() {
    let folder = ready();
    assert!(publish(&folder).contains("published already"));
    let (again, _) = expect(&folder, 0, &["init", "--tenant", "acme"]);
    assert!(again.contains("nothing to do"), "{again}");
    let (beta, _) = expect(&folder, 0, &["init", "--tenant", "beta"]);
    assert!(beta.contains("manifest version 2"), "{beta}");
    let first = submit(&folder, &["--idempotency-key", "pay_1"]);
    assert_eq!(submit(&folder, &["--idempotency-key", "pay_1"]), first);
    work(&folder);
    let (listed, _) = expect(&folder, 0, &["list", "--type", "execution", "--json"]);
    assert_eq!(listed.lines().count(), 1);
}

#[test]
fn which_failed_today_and_why_is_one_command() {
    let folder = ready();
    submit(&folder, &[]);
    let wrong = ["request", "submit", "fee", "--tenant", "acme", "--owner", "payments-api", "--input"];
    expect(&folder, 0, &[&wrong[..], &[r#"{"payment":"pay_2","amount_minor":0}"#]].concat());
    work(&folder);
    let (failed, _) = expect(&folder, 0, &["list", "--type", "execution", "--status", "error", "--since", "today"]);
    assert!(
        failed.contains("function.run fee\n    guest:no_amount: amount_minor is 0")
            && failed.contains("about ")
            && failed.lines().count() == 3,
        "{failed}"
    );
    let (old, note) = expect(&folder, 0, &["list", "--until", "2020-01-01"]);
    assert!(old.is_empty() && note.contains("no span matches"), "{old}{note}");
    let (stats, _) = expect(&folder, 0, &["stats", "--json"]);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["open"]["due"], 0);
    let rows = |entity_type: &str, status: &str| {
        let mut counts = stats["counts"].as_array().unwrap().iter();
        counts.find(|count| count["type"] == entity_type && count["status"] == status).unwrap()["spans"].clone()
    };
    assert_eq!((rows("execution", "complete"), rows("execution", "error")), (1.into(), 1.into()));
}

#[test]
fn a_request_is_shown_awaited_cancelled_and_revived() {
    let folder = ready();
    let id = submit(&folder, &["--due", "2999-01-01T00:00:00Z"]);
    let (shown, _) = expect(&folder, 0, &["request", "show", &id]);
    assert!(shown.contains("waits until 2999-01-01"), "{shown}");
    // Nothing of it is due, so the worker has nothing to do.
    work(&folder);
    let (_, told) = expect(&folder, 2, &["request", "wait", &id, "--seconds", "0"]);
    assert!(told.contains("is a worker running?"), "{told}");
    expect(&folder, 0, &["request", "cancel", &id, "--who", "user:alice"]);
    let (shown, _) = expect(&folder, 0, &["request", "show", &id]);
    assert!(shown.contains("status    cancelled") && shown.contains("user:alice"), "{shown}");
    let (_, told) = expect(&folder, 2, &["request", "cancel", &id]);
    assert!(told.contains("has ended with status `cancelled`"), "{told}");
    expect(&folder, 0, &["request", "revive", &id]);
    let (stats, _) = expect(&folder, 0, &["stats"]);
    assert!(stats.contains("open requests: "), "{stats}");
    let now = submit(&folder, &[]);
    work(&folder);
    let (output, _) = expect(&folder, 0, &["request", "wait", &now]);
    assert_eq!(output.trim(), r#"{"fee_minor":25}"#);
}

#[cfg(unix)]
#[test]
fn a_function_is_stopped_and_put_to_work_again() {
    let folder = ready();
    expect(&folder, 0, &["function", "stop", "fee", "--tenant", "acme"]);
    let (again, _) = expect(&folder, 0, &["function", "stop", "fee", "--tenant", "acme"]);
    assert!(again.contains("is stopped: version 1"), "{again}");
    let id = submit(&folder, &[]);
    work(&folder);
    let (shown, _) = expect(&folder, 0, &["request", "show", &id]);
    assert!(shown.contains("function_stopped"), "{shown}");
    publish(&folder);
    let id = submit(&folder, &[]);
    work(&folder);
    let (shown, _) = expect(&folder, 0, &["request", "show", &id]);
    assert!(shown.contains("fee_minor"), "{shown}");
}

#[test]
fn a_run_that_is_interrupted_ends_in_order() {
    let folder = ready();
    let mut child = command(&folder, &["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = submit(&folder, &[]);
    expect(&folder, 0, &["request", "wait", &id]);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let ended = text(std::io::read_to_string(child.stdout.take().unwrap()).unwrap().into_bytes());
    assert!(ended.contains("request_worker: claimed 1, recorded 1"), "{ended}");
}

#[test]
fn inputs_come_from_a_file_or_a_pipe_and_what_is_no_json_is_told() {
    let folder = ready();
    let input = r#"{"payment":"pay_3","amount_minor":20000}"#;
    fs::write(folder.path().join("in.json"), input).unwrap();
    let request = ["request", "submit", "fee", "--tenant", "acme", "--owner", "payments-api", "--input"];
    let file = expect(&folder, 0, &[&request[..], &["@in.json"]].concat()).0;
    let mut piped = command(&folder, &[&request[..], &["-"]].concat());
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let pipe = text(child.wait_with_output().unwrap().stdout);
    work(&folder);
    for id in [file, pipe] {
        assert_eq!(expect(&folder, 0, &["request", "wait", id.trim()]).0.trim(), r#"{"fee_minor":50}"#);
    }
    for (input, told) in [("{payment", "quote it"), ("@none.json", "none.json"), ("{\"a\":1,\"a\":2}", "is not JSON")] {
        let (_, error) = expect(&folder, 2, &[&request[..], &[input]].concat());
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn misuse_is_told_with_what_to_do() {
    let folder = folder();
    let submit = ["request", "submit", "fee", "--tenant", "acme", "--owner", "payments-api"];
    let told = |arguments: &[&str], parts: &[&str]| {
        let (_, error) = expect(&folder, 2, arguments);
        for part in parts {
            assert!(error.contains(part), "{part} is missing: {error}");
        }
    };
    told(&["run"], &["there is no ledger", "logline init"]);
    told(&["init", "--ledger", "sqlite:none/demo.ledger"], &["none/demo.ledger", "folder"]);
    told(&["init", "--ledger", "postgres://host@127.0.0.1:1/x"], &["--home DIR"]);
    told(&["init", "--tenant", "acme", "--threshold", "2"], &["2 of 1 distinct keys"]);
    expect(&folder, 0, &["init", "--tenant", "acme"]);
    let function = [&submit[..], &["--input", "1"]].concat();
    told(&function, &["no function `fee`", "logline function ls --tenant acme"]);
    told(&submit, &["--input <JSON>"]);
    told(&["function", "publish", "none.wasm", "--tenant", "acme", "--name", "fee"], &["none.wasm", "No such file"]);
    fs::write(folder.path().join("text.wasm"), "hello").unwrap();
    told(
        &["function", "publish", "text.wasm", "--tenant", "acme", "--name", "fee"],
        &["neither a WebAssembly binary nor its text"],
    );
    fs::write(folder.path().join("empty.wat"), "(module)").unwrap();
    told(&["function", "publish", "empty.wat", "--tenant", "acme", "--name", "fee"], &["does not export"]);
    let (checked, _) = expect(&folder, 1, &["function", "check", "empty.wat"]);
    assert!(checked.contains("does not export"), "{checked}");
    let publish = ["function", "publish", "fee.wasm", "--name", "fee"];
    told(
        &[&publish[..], &["--tenant", "beta"]].concat(),
        &["work in tenant `beta` as publisher", "logline init --tenant beta"],
    );
    told(&[&publish[..], &["--tenant", "acme", "--visibility", "all"]].concat(), &["`private`, `tenant` or `public`"]);
    told(&[&publish[..], &["--tenant", "acme", "--config", "{rate:25}"]].concat(), &["--config is not JSON"]);
    told(&["request", "show", "d241e168"], &["`d241e168` is not the id of a request"]);
    let limits = ["--tenant", "acme", "--limits", r#"{"fuel":900000000000}"#];
    told(&[&publish[..], &limits].concat(), &["limits.fuel is 900000000000, the most is 100000000"]);
    // The first stays, the second is refused, the third was not tried.
    let block = |name: &str, rank: &str| {
        json!({"entity_type": "prompt_block", "name": name, "content": "Be brief.", "metadata": {"rank": rank}}).to_string()
    };
    let drafts = [block("a", "doctrine"), block("b", "no rank"), block("c", "doctrine")].join("\n");
    fs::write(folder.path().join("blocks.ndjson"), drafts).unwrap();
    told(
        &["publish", "blocks.ndjson", "--tenant", "acme"],
        &["blocks.ndjson, line 2: ", "1 of 3 drafts are published", "publish the whole file again"],
    );
    told(&["run", "--key", "demo.ledger.keys/publisher.key"], &["is not a host's key"]);
    told(&["init", "--tenant", "system"], &["`system` cannot be a tenant"]);
    told(&["get", "d241e168-eeb3"], &["part of an id"]);
    told(&["list", "--since", "yesterday"], &["is not a time", "`24h`"]);
    // The keys of another ledger.
    expect(&folder, 0, &["init", "--ledger", "sqlite:other.ledger"]);
    told(&["run", "--trust", "other.ledger.trust.json"], &["sealed by"]);
    fs::remove_file(folder.path().join("demo.ledger.trust.json")).unwrap();
    told(&["run"], &["demo.ledger.trust.json", "copy it from a host"]);
    told(&["init", "--tenant", "acme"], &["the ledger has rows, but there is no trust root"]);
}

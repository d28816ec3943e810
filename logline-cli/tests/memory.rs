//! Memories from the shell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.expect(0, &["init", "--tenant", "acme"]);
        folder
    }

    /// What is printed, if the exit status is `status`.
    #[track_caller]
    fn expect(&self, status: i32, args: &[&str]) -> String {
        let (out, err) = shell::expect(&self.0, status, args);
        if status == 2 { err } else { out }
    }

    /// `logline memory` for a user, with one JSON object for each line.
    fn memory(&self, owner: &str, args: &[&str]) -> Vec<Value> {
        let args: Vec<_> =
            ["memory"].iter().chain(args).chain(&["--tenant", "acme", "--owner", owner, "--json"]).copied().collect();
        self.expect(0, &args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_user_consents_remembers_recalls_exports_and_forgets() {
    let folder = Folder::new();
    let refused = folder.expect(2, &["memory", "add", "tea", "--tenant", "acme", "--owner", "u-1"]);
    assert!(refused.contains("there is no consent"), "{refused}");
    folder.memory("u-1", &["consent", "--grant"]);
    let kept =
        folder.memory("u-1", &["add", "prefers tea", "--type", "preference", "--about", "drink", "--sensitivity", "pii"]);
    let again = folder.memory("u-1", &["add", "prefers coffee", "--type", "preference", "--about", "drink"]);
    assert!(kept[0]["memory"] == again[0]["memory"] && again[0]["superseded"] == true);
    // From standard input, as no shell should keep it.
    let args = ["memory", "add", "-", "--tenant", "acme", "--owner", "u-1"];
    let mut child = shell::command(&folder.0, &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"the door code is 4711\n").unwrap();
    assert!(child.wait().unwrap().success());

    let found = folder.memory("u-1", &["search", "coffee tea"]);
    assert_eq!((found.len(), found[0]["text"].as_str()), (1, Some("prefers coffee")));
    folder.memory("u-2", &["consent", "--grant"]);
    assert!(folder.memory("u-2", &["search", "coffee door code"]).is_empty());

    std::fs::write(folder.0.path().join("words.txt"), "correct horse battery\n").unwrap();
    folder.memory("u-1", &["export", "--passphrase-file", "words.txt", "--out", "u-1.memories"]);
    let import = || folder.memory("u-2", &["import", "u-1.memories", "--passphrase-file", "words.txt"]).remove(0);
    assert_eq!(import(), json!({"memories": 2, "already_there": 0}));
    assert_eq!(import(), json!({"memories": 0, "already_there": 2}));
    assert_eq!(folder.memory("u-2", &["search", "door"]).len(), 1);

    let receipt = folder.memory("u-1", &["forget", "--all"]);
    assert!(receipt[0]["memories"] == 2 && receipt[0]["state"] == "shredded");
    assert!(folder.memory("u-1", &["search", "coffee door code"]).is_empty());
    assert_eq!(folder.memory("u-2", &["search", "door"]).len(), 1);
    assert!(folder.expect(0, &["memory", "seal", "--tenant", "acme"]).contains("1 receipts"));
    assert_eq!(folder.memory("u-1", &["receipts"])[0]["state"], "sealed");
    let erased = folder.expect(0, &["memory", "verify-erasure", "--tenant", "acme"]);
    assert!(erased.starts_with("2 memories forgotten or expired, 3 encrypted versions tried, 0 opened"), "{erased}");
    let used = folder.expect(0, &["memory", "uses", "--tenant", "acme", found[0]["memory"].as_str().unwrap()]);
    assert_eq!(used.lines().count(), 1, "the search that found it: {used}");
    folder.expect(0, &["fsck", "--trust", "demo.ledger.trust.json"]);
}

#[test]
fn a_contract_that_was_published_is_found_by_the_memories_that_name_it() {
    let folder = Folder::new();
    let publish = |status: i32, draft: Value| {
        std::fs::write(folder.0.path().join("contract.json"), draft.to_string()).unwrap();
        folder.expect(status, &["publish", "contract.json", "--tenant", "acme"])
    };
    let schema = json!({"properties": {"data": {"required": ["city"]}}});
    // Also where nobody has kept memories yet.
    let draft = json!({"entity_type": "memory_contract", "name": "profile/v1", "content": schema});
    let refused = publish(2, json!({"entity_type": "memory_contract", "name": "profile/v1", "content": {"type": 7}}));
    assert!(refused.contains("not a JSON schema"), "{refused}");
    let mut elsewhere = draft.clone();
    elsewhere["id"] = json!("0192f0c1-0000-7000-8000-000000000001");
    let refused = publish(2, elsewhere);
    assert!(refused.contains("leave `id` out"), "{refused}");
    publish(0, draft);
    folder.memory("u-1", &["consent", "--grant"]);
    folder.memory("u-1", &["add", "lives there", "--schema", "profile/v1", "--data", "{\"city\": \"Porto\"}"]);
    let user = ["--tenant", "acme", "--owner", "u-1"];
    let args = [&["memory", "add", "lives nowhere", "--schema", "profile/v1", "--data", "{}"][..], &user].concat();
    let refused = folder.expect(2, &args);
    assert!(refused.contains("the contract `profile/v1` is not kept"), "{refused}");
}

#[test]
fn misuse_says_what_to_do() {
    let folder = Folder::new();
    let other = folder.expect(2, &["memory", "consent", "--grant", "--tenant", "globex", "--owner", "u-1"]);
    assert!(other.contains("logline init --tenant globex"), "{other}");
    folder.memory("u-1", &["consent", "--grant"]);
    for (args, said) in [
        (&["memory", "forget", "--last"][..], "nothing was forgotten"),
        (&["memory", "add", "x", "--layer", "permanent"], "reviewer"),
        (&["memory", "add", "x", "--type", "wish"], "is no type of memory"),
        (&["memory", "add", "x", "--visibility", "tenant"], "layer shared"),
        (&["memory", "forget"], "required"),
        (&["memory", "search", "x", "--session-only"], "session"),
    ] {
        let args: Vec<_> = args.iter().chain(&["--tenant", "acme", "--owner", "u-1"]).copied().collect();
        let refused = folder.expect(2, &args);
        assert!(refused.contains(said), "{args:?}: {refused}");
    }
    // The tenant's keys are away: nothing is written in the clear instead.
    folder.memory("u-1", &["add", "x"]);
    std::fs::remove_dir_all(folder.0.path().join("demo.ledger.keys/tenants")).unwrap();
    let refused = folder.expect(2, &["memory", "add", "secret", "--tenant", "acme", "--owner", "u-1"]);
    assert!(refused.contains("no key of epoch 1"), "{refused}");
}

/// Without network: a service that cannot be used is told before anything is kept.
#[test]
fn keys_in_a_service_that_cannot_be_used_stop_the_command() {
    let folder = Folder::new();
    let user = ["--tenant", "acme", "--owner", "u-1"];
    folder.memory("u-1", &["consent", "--grant"]);
    let add = |place: &str| {
        let args = [&["memory", "add", "tea", "--memory-keys", place][..], &user[..]].concat();
        let mut command = shell::command(&folder.0, &args);
        for variable in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"] {
            command.env_remove(variable);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/nonexistent");
        let output = command.env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = add("kms:production");
    let expected = if cfg!(feature = "kms") { "AWS_REGION" } else { "--features kms" };
    assert!(status == Some(2) && said.contains(expected), "{said}");
    let (status, said) = add("vault:production");
    assert!(status == Some(2) && said.contains("kms:PREFIX"), "{said}");
    assert!(folder.memory("u-1", &["search", "tea"]).is_empty());
}

/// Against a server that plays AWS KMS: `cargo xtask interop` starts one (moto) and names it in `LOGLINE_KMS_URL`.
#[cfg(feature = "kms")]
#[test]
#[ignore = "needs a server that plays AWS KMS: cargo xtask interop runs it"]
fn memories_are_kept_under_keys_of_a_service() {
    let url = std::env::var("LOGLINE_KMS_URL").expect("LOGLINE_KMS_URL names no server: run `cargo xtask interop`");
    let folder = Folder::new();
    let memory = |args: &[&str]| {
        let mut all = vec!["memory"];
        all.extend(args);
        all.extend(["--tenant", "acme", "--memory-keys", "kms:shell"]);
        let mut command = shell::command(&folder.0, &all);
        command.env("AWS_ENDPOINT_URL", &url).env("AWS_REGION", "eu-central-1");
        let output = command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let owner = ["--owner", "u-1"];
    memory(&[&["consent", "--grant"][..], &owner].concat());
    memory(&[&["add", "prefers tea"][..], &owner].concat());
    assert!(memory(&[&["search", "tea"][..], &owner].concat()).contains("prefers tea"));
    memory(&[&["forget", "--last"][..], &owner].concat());
    memory(&["seal"]);
    // AWS waits before it deletes a key.
    assert!(memory(&[&["receipts"][..], &owner].concat()).contains("sealing"));
    assert!(memory(&["verify-erasure"]).contains("0 opened"));
    assert!(!folder.0.path().join("demo.ledger.keys/tenants").exists(), "no key is in a file");
}

#[cfg(unix)]
#[test]
fn the_loop_that_looks_after_memories_starts_and_ends_in_order() {
    use std::io::{BufRead as _, BufReader};
    let folder = Folder::new();
    folder.memory("u-1", &["consent", "--grant"]);
    folder.memory("u-1", &["add", "prefers tea"]);
    let mut child = shell::command(&folder.0, &["memory", "keep", "--tenant", "acme"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("looking after memories"), "{line}");
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && printed.contains("memory_keeper"), "{printed}{}", String::from_utf8_lossy(&ended.stderr));
}

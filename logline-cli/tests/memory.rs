//! Memories from the shell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
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
    assert_eq!(folder.memory("u-2", &["import", "u-1.memories", "--passphrase-file", "words.txt"])[0]["memories"], 2);
    assert_eq!(folder.memory("u-2", &["search", "door"]).len(), 1);

    let receipt = folder.memory("u-1", &["forget", "--all"]);
    assert!(receipt[0]["memories"] == 2 && receipt[0]["state"] == "shredded");
    assert!(folder.memory("u-1", &["search", "coffee door code"]).is_empty());
    assert_eq!(folder.memory("u-2", &["search", "door"]).len(), 1);
    assert!(folder.expect(0, &["memory", "seal", "--tenant", "acme"]).contains("1 receipts"));
    assert_eq!(folder.memory("u-1", &["receipts"])[0]["state"], "sealed");
    let erased = folder.expect(0, &["memory", "verify-erasure", "--tenant", "acme"]);
    assert!(erased.starts_with("2 memories forgotten or expired, 3 encrypted versions tried, 0 opened"), "{erased}");
    folder.expect(0, &["fsck", "--trust", "demo.ledger.trust.json"]);
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

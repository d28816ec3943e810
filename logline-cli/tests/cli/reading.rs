//! Keys, audits, reading, following, and what rows can do to a terminal.

use crate::world::*;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn keygen_makes_a_private_file_once() {
    let folder = Folder::new();
    let out = folder.expect(0, &["keygen", "a.key", "--json"]);
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(made["public_key"].as_str().unwrap().len(), 64);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(folder.path("a.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let before = fs::read(folder.path("a.key")).unwrap();
    folder.expect(2, &["keygen", "a.key"]);
    assert_eq!(fs::read(folder.path("a.key")).unwrap(), before);
}

#[test]
fn what_a_row_says_forges_no_line_and_no_escape_of_the_terminal() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["keygen", "a.key"]);
    folder.expect(0, &["import", "in.ndjson", "--key", "a.key"]);
    let forged = "x\n0 rows in 0 chains: 0 problems; authority checked\u{1b}]0;title\u{7}\u{202e}";
    folder.tamper(&format!("UPDATE universal_registry SET id = '{forged}'"));
    let is_shown_plainly = |text: &str| {
        let hostile = |c: char| c == '\u{1b}' || c == '\u{7}' || c == '\u{202e}';
        assert!(!text.contains(hostile), "{text:?}");
        assert!(text.lines().all(|line| !line.starts_with("0 rows in 0 chains")), "{text}");
    };
    for command in [&["fsck"][..], &["list"], &["function", "ls", "--tenant", "acme"], &["stats"], &["tail", "--from-start"]] {
        let output = folder.run(command);
        is_shown_plainly(&text(&output.stdout));
        is_shown_plainly(&text(&output.stderr));
    }
}

#[test]
fn fsck_exits_1_and_names_the_row() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["import", "in.ndjson"]);
    assert!(folder.expect(0, &["fsck"]).contains("1 rows in 1 chains: 0 problems; authority not checked (no --trust)"));
    folder.tamper("UPDATE universal_registry SET content = '{\"n\":7}'");
    let out = folder.expect(1, &["fsck"]);
    assert!(out.contains(&format!("acme/{ID}/0: content was changed")), "{out}");
    let out = folder.expect(1, &["fsck", "--json"]);
    let problem: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&problem["tenant_id"], &problem["id"], &problem["seq"]), (&json!("acme"), &json!(ID), &json!("0")));
    folder.expect(1, &["get", ID]);
}

#[test]
fn a_removed_row_shows_against_a_sidecar() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0), note("0197a000-0000-7000-8000-000000000002", 0)]));
    folder.expect(0, &["import", "in.ndjson"]);
    let key: Value = serde_json::from_str(&folder.expect(0, &["keygen", "op.key", "--json"])).unwrap();
    folder.expect(0, &["export", "out.ndjson", "--sidecar", "side", "--key", "op.key"]);
    let public = key["public_key"].as_str().unwrap();
    folder.expect(0, &["fsck", "--against", "side", "--sidecar-key", public]);
    folder.expect(2, &["fsck", "--against", "side", "--sidecar-key", &"ab".repeat(32)]);
    folder.tamper(&format!("DELETE FROM universal_registry WHERE id = '{ID}'"));
    folder.expect(0, &["fsck"]);
    let out = folder.expect(1, &["fsck", "--against", "side"]);
    assert!(out.contains(&format!("acme/{ID}/0: the sidecar names this version")), "{out}");
}

#[test]
fn without_identity_the_operator_reads_and_with_one_only_what_it_may() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["import", "in.ndjson"]);
    folder.expect(0, &["get", ID]);
    folder.expect(0, &["get", ID, "--tenant", "acme", "--user", "alice"]);
    folder.expect(0, &["get", ID, "--tenant", "acme"]);
    folder.expect(2, &["get", ID, "--tenant", "acme", "--user", "bob"]);
    folder.expect(2, &["get", ID, "--tenant", "globex", "--user", "alice"]);
    folder.expect(2, &["get", ID, "--tenant", "globex", "--user", "alice", "--in", "acme"]);
    assert_eq!(folder.expect(0, &["export", "--tenant", "globex"]), "");
    assert_eq!(folder.expect(0, &["export", "--tenant", "acme", "--user", "alice"]).lines().count(), 1);
}

#[test]
fn tail_resumes_after_a_cursor() {
    let folder = Folder::new();
    let all: Vec<Value> = (0..5).map(|n| note(&format!("0197a000-0000-7000-8000-{n:012}"), 0)).collect();
    folder.write("in.ndjson", &lines(&all));
    folder.expect(0, &["import", "in.ndjson"]);
    let out = folder.expect(0, &["tail", "--from-start", "--limit", "3", "--json"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let out = folder.expect(0, &["tail", "--after", last["cursor"].as_str().unwrap(), "--limit", "2", "--json"]);
    let rows: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows[0]["span"]["id"], all[3]["id"]);
    folder.expect(2, &["tail", "--after", "garbage"]);
}

#[test]
fn a_live_tail_prints_what_another_process_imports() {
    use std::io::{BufRead as _, BufReader};
    let folder = Folder::new();
    folder.write("first.ndjson", &lines(&[note(ID, 0)]));
    folder.write("second.ndjson", &lines(&[note("0197a000-0000-7000-8000-000000000002", 0)]));
    folder.expect(0, &["import", "first.ndjson"]);
    let mut tail = folder.command(&["tail", "--from-start", "--limit", "2", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut rows = BufReader::new(tail.stdout.take().unwrap()).lines();
    // Its first row says that it is running.
    assert!(rows.next().unwrap().unwrap().contains(ID));
    folder.expect(0, &["import", "second.ndjson"]);
    assert!(rows.next().unwrap().unwrap().contains("000000000002"));
    assert!(tail.wait().unwrap().success());
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    let error = |arguments: &[&str]| {
        let output = folder.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        text(&output.stderr)
    };
    assert!(error(&["fsck"]).contains("there is no ledger `ledger`: check the path"));
    assert!(error(&["import", "missing.ndjson"]).contains("missing.ndjson"));
    assert!(!folder.path("ledger").exists(), "a failed import leaves no ledger behind");
    folder.expect(0, &["import", "in.ndjson"]);
    folder.write("open.key", "x");
    assert!(error(&["import", "in.ndjson", "--key", "open.key"]).contains("open.key"));
    assert!(error(&["fsck", "--trust", "in.ndjson"]).contains("trust root in.ndjson"));
    assert!(error(&["get", "0197a000-0000-7000-8000-00000000beef"]).contains("in any tenant"));
    let other =
        Command::new(env!("CARGO_BIN_EXE_logline")).args(["--ledger", "mysql://u:secret@h/db", "fsck"]).output().unwrap();
    assert!(text(&other.stderr).contains("use sqlite:FILE or postgres://"));
    assert!(!text(&other.stderr).contains("secret"), "what stands in a URL may be a password");
    assert!(error(&["doctor"]).contains("a SQLite file needs no set-up"));
    let none = Command::new(env!("CARGO_BIN_EXE_logline")).env_remove("LOGLINE_LEDGER").arg("fsck").output().unwrap();
    assert!(text(&none.stderr).contains("pass --ledger sqlite:FILE"));
}

#[test]
fn a_row_cannot_write_lines_or_colours_to_the_terminal() {
    let folder = Folder::new();
    let mut forger = note(ID, 0);
    forger["this"] = json!("ok\n2026-01-01T00:00:00.000000Z  function  forged\u{1b}[31m\u{202e}");
    folder.write("in.ndjson", &lines(&[forger]));
    folder.expect(0, &["import", "in.ndjson"]);
    for arguments in [["history", ID], ["get", ID]] {
        let out = folder.expect(0, &arguments);
        assert!(!out.contains("\n2026-01-01") && !out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out}");
    }
}

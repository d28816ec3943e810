//! The tool as an operator uses it: real processes on real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    /// Changes rows without the triggers that forbid it, and puts the triggers back.
    fn tamper(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path("ledger")).unwrap();
        let triggers = "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE type = 'trigger'";
        let triggers: String = connection.query_row(triggers, [], |row| row.get(0)).unwrap();
        let all = format!("DROP TRIGGER ur_no_update; DROP TRIGGER ur_no_delete; {sql}; {triggers}");
        connection.execute_batch(&all).unwrap();
    }

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logline"));
        command.current_dir(self.0.path()).env_remove("LOGLINE_LEDGER").args(["--ledger", "sqlite:ledger"]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs, expects this exit status, and returns standard output.
    fn expect(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{err}");
        out
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn note(id: &str, seq: u32) -> Value {
    json!({"id": id, "seq": seq, "entity_type": "note", "who": "w", "this": "t", "tenant_id": "acme", "owner_id": "alice",
        "at": "2026-03-02T09:14:05Z", "content": {"n": seq}})
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|v| format!("{v}\n")).collect()
}

const ID: &str = "0197a000-0000-7000-8000-000000000001";

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
fn an_import_names_every_bad_line_and_keeps_the_good_ones() {
    let folder = Folder::new();
    let good = note(ID, 0).to_string();
    let file = format!(
        "{good}\nnot json\n\n{}\n{}\n{}\n{}\n",
        r#"{"id":"0197a000-0000-7000-8000-000000000002","entity_type":"note","who":"w","this":"t","tenant_id":"acme","owner_id":"a","content":{"x":1,"x":2}}"#,
        r#"{"id":"0197a000-0000-7000-8000-000000000003","entity_type":"note","who":"w","this":"t","tenant_id":"acme","owner_id":"a","input":9007199254740993}"#,
        r#"{"id":"0197a000-0000-7000-8000-000000000004","entity_type":"note","who":"w","this":"t","owner_id":"a"}"#,
        note(ID, 1)
    );
    folder.write("in.ndjson", &file);
    let output = folder.run(&["import", "in.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    for expected in [
        "line 2: malformed json",
        "line 4: duplicate key `x`",
        "line 5: number `9007199254740993`",
        "line 6: column `tenant_id` is missing: add it to the line, or pass --tenant",
    ] {
        assert!(err.contains(expected), "{expected}\n{err}");
    }
    assert!(err.contains("made the key"), "{err}");
    assert!(
        text(&output.stdout).contains("6 lines: 2 appended, 0 there already, 4 refused; 2 sealed"),
        "{}",
        text(&output.stdout)
    );
    folder.expect(0, &["fsck"]);
    let again = folder.expect(1, &["import", "in.ndjson", "--json"]);
    let summary: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["appended"], &summary["existing"]), (&json!(0), &json!(2)), "importing again changes nothing");
}

#[test]
fn unsigned_versions_are_linked_and_marked() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 3), note(ID, 4), note("c0c0c0c0-0000-4000-8000-bldp00000001", 1)]));
    folder.expect(0, &["import", "in.ndjson"]);
    let history = folder.expect(0, &["history", ID, "--json"]);
    let versions: Vec<Value> = history.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&versions[0]["seq"], &versions[1]["seq"]), (&json!(3), &json!(4)));
    assert_eq!(versions[1]["prev_hash"], versions[0]["curr_hash"]);
    assert_eq!(versions[0]["metadata"]["origin"], json!({"by": "import", "was": "unsigned"}));
    // An id that only looks like a UUID is mapped, and found under its text.
    folder.expect(0, &["get", "c0c0c0c0-0000-4000-8000-bldp00000001"]);
}

#[test]
fn a_version_whose_predecessor_was_refused_is_refused_too() {
    let folder = Folder::new();
    let mut leap = note(ID, 0);
    leap["at"] = json!("2026-03-02T23:59:60Z");
    let mut nobody = note("0197a000-0000-7000-8000-000000000009", 0);
    nobody.as_object_mut().unwrap().remove("owner_id");
    let batch = [leap, note(ID, 1), note(ID, 2), nobody, note("0197a000-0000-7000-8000-000000000009", 1)];
    folder.write("in.ndjson", &lines(&batch));
    let output = folder.run(&["import", "in.ndjson"]);
    let err = text(&output.stderr);
    for expected in [
        "line 1: column `at`: leap seconds",
        "line 2: a version of this id before it was refused on line 1",
        "line 3: a version",
        "line 4: column `owner_id`",
        "line 5: a version of this id before it was refused on line 4",
    ] {
        assert!(err.contains(expected), "{expected}\n{err}");
    }
    folder.write("unreadable.ndjson", &format!("{{broken\n{}", lines(&[note(ID, 7)])));
    let err = text(&folder.run(&["import", "unreadable.ndjson"]).stderr);
    assert!(err.contains("line 2: line 1 could not be read and may be the version before it"), "{err}");
    assert_eq!(folder.expect(0, &["export"]), "");
}

#[test]
fn signed_lines_are_never_altered_and_a_broken_seal_needs_reseal() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0), note(ID, 1)]));
    folder.expect(0, &["import", "in.ndjson"]);
    let export = folder.expect(0, &["export"]);
    let forged = export.replacen("\"content\":{\"n\":0}", "\"content\":{\"n\":9}", 1);
    assert_ne!(forged, export);
    folder.write("forged.ndjson", &forged);
    let other = Folder::new();
    fs::copy(folder.path("forged.ndjson"), other.path("forged.ndjson")).unwrap();
    let output = other.run(&["import", "forged.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(err.contains("line 1: content was changed"), "{err}");
    assert!(err.contains("line 2: a version of this id before it was refused on line 1"), "{err}");
    other.expect(0, &["import", "forged.ndjson", "--reseal"]);
    let resealed = other.expect(0, &["history", ID, "--json"]);
    for line in resealed.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["metadata"]["origin"]["was"], "resealed");
    }
    other.expect(0, &["fsck"]);
}

#[test]
fn rows_of_another_system_are_taken_with_two_flags_and_each_is_named() {
    let folder = Folder::new();
    let mut seed = note(ID, 0);
    for (name, value) in [
        ("curr_hash", json!("b3:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")),
        ("signature", json!("ed25519:aa")),
        ("public_key", json!("ed25519:bb")),
        ("prev_hash", json!("b3:00")),
    ] {
        seed[name] = value;
    }
    folder.write("in.ndjson", &lines(&[seed.clone()]));
    let refused = text(&folder.run(&["import", "in.ndjson"]).stderr);
    assert!(refused.contains("if another system has sealed it, pass --reseal"), "{refused}");
    seed["version"] = json!("1.0.0");
    seed["sig"] = json!({"alg": "none"});
    seed["metadata"] = json!({"imported": {"from": "elsewhere"}});
    folder.write("in.ndjson", &lines(&[seed.clone()]));
    let refused = text(&folder.run(&["import", "in.ndjson", "--reseal"]).stderr);
    assert!(refused.contains("unknown column `sig`") && refused.contains("--keep-unknown"), "{refused}");
    folder.expect(0, &["import", "in.ndjson", "--reseal", "--keep-unknown"]);
    let row: Value = serde_json::from_str(&folder.expect(0, &["get", ID, "--tenant", "acme", "--json"])).unwrap();
    let kept = json!({"from": "elsewhere", "sig": {"alg": "none"}, "version": "1.0.0"});
    assert_eq!((&row["metadata"]["imported"], &row["metadata"]["origin"]["was"]), (&kept, &json!("resealed")));
    assert!(folder.expect(0, &["import", "in.ndjson", "--reseal", "--keep-unknown"]).contains("1 there already"));
    // A signed row keeps its seal and its columns: what the seal does not cover is not taken in silence.
    let mut signed: Value = serde_json::from_str(&folder.expect(0, &["get", ID, "--tenant", "acme", "--json"])).unwrap();
    signed["extra"] = json!(1);
    signed["id"] = json!("0197a000-0000-7000-8000-000000000002");
    folder.write("signed.ndjson", &lines(&[signed]));
    let refused = text(&folder.run(&["import", "signed.ndjson", "--keep-unknown"]).stderr);
    assert!(refused.contains("unknown column `extra`"), "{refused}");
    // Nothing that is there is overwritten.
    let mut twice = note("0197a000-0000-7000-8000-000000000003", 0);
    twice["from"] = json!("here");
    twice["metadata"] = json!({"imported": {"from": "elsewhere"}});
    folder.write("twice.ndjson", &lines(&[twice]));
    let refused = text(&folder.run(&["import", "twice.ndjson", "--keep-unknown"]).stderr);
    assert!(refused.contains("unknown column `from`"), "{refused}");
    folder.expect(0, &["fsck"]);
}

#[test]
fn metadata_that_is_no_object_is_kept() {
    let folder = Folder::new();
    let mut odd = note(ID, 0);
    odd["metadata"] = json!(["kept", 1]);
    folder.write("in.ndjson", &lines(&[odd]));
    folder.expect(0, &["import", "in.ndjson"]);
    let row: Value = serde_json::from_str(&folder.expect(0, &["get", ID, "--json"])).unwrap();
    assert_eq!(row["metadata"]["original"], json!(["kept", 1]));
}

#[test]
fn an_export_read_into_an_empty_ledger_is_the_same_export() {
    let folder = Folder::new();
    let all: Vec<Value> = (0..300).map(|n| note(&format!("0197a000-0000-7000-8000-{n:012}"), 0)).collect();
    folder.write("in.ndjson", &lines(&all));
    folder.expect(0, &["import", "in.ndjson"]);
    folder.expect(0, &["export", "out.ndjson"]);
    let other = Folder::new();
    fs::copy(folder.path("out.ndjson"), other.path("out.ndjson")).unwrap();
    other.expect(0, &["import", "out.ndjson"]);
    assert_eq!(other.expect(0, &["export"]), fs::read_to_string(folder.path("out.ndjson")).unwrap());
}

/// One message that says what to do, where each line would be refused with a message of its own.
#[test]
fn a_file_of_another_format_is_refused_with_its_cure() {
    let folder = Folder::new();
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&[u8], &str); 6] = [
        (b"\x1f\x8b\x08\x00rest", "gunzip"),
        (b"\x28\xb5\x2f\xfdrest", "unzstd"),
        (&[b"\xff\xfe".as_slice(), &utf16].concat(), "UTF-8"),
        (&utf16, "UTF-8"),
        (b"  [\n{\"entity_type\":\"note\"}\n]", "jq -c '.[]'"),
        (b"{\n  \"entity_type\": \"note\"\n}\n", "jq -c ."),
    ];
    for (bytes, cure) in cases {
        fs::write(folder.path("in"), bytes).unwrap();
        let output = folder.run(&["import", "in"]);
        let err = text(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(cure) && err.lines().count() == 1, "{err}");
    }
    let marked = format!("\u{feff}{}", lines(&[note(ID, 0)]));
    folder.write("in", &marked);
    assert!(folder.expect(0, &["import", "in"]).contains("1 appended"));
    let mut fsck = Command::new(env!("CARGO_BIN_EXE_logline"));
    let output = fsck.current_dir(folder.0.path()).args(["--ledger", "sqlite:x.db?mode=ro", "fsck"]).output().unwrap();
    assert!(text(&output.stderr).contains("options after `?`") && !folder.path("x.db?mode=ro").exists());
}

/// `logline export - | head` is no failure, and a full disk is one.
#[test]
fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
    let folder = Folder::new();
    let many: Vec<_> = (0..400).map(|n| note(&format!("0197a000-0000-7000-8000-{n:012}"), 0)).collect();
    folder.write("in", &lines(&many));
    folder.expect(0, &["import", "in"]);
    for command in [["export", "-"].as_slice(), &["fsck", "--json"], &["tail", "--from-start", "--limit", "400"]] {
        let mut child =
            folder.command(command).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).contains("roken pipe")), (Some(0), false), "{command:?}");
        if fs::exists("/dev/full").unwrap() {
            let full = fs::File::options().write(true).open("/dev/full").unwrap();
            let output = folder.command(command).stdout(full).output().unwrap();
            let err = text(&output.stderr);
            assert!(output.status.code() == Some(2) && err.contains("No space left"), "{command:?}: {err}");
        }
    }
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
fn an_export_with_its_manifest_is_read_into_an_empty_ledger_under_a_trust_root() {
    use logline_core::roles::Role;
    use logline_core::trust::{Manifest, RootSet, TrustRoot};
    use logline_core::{Draft, KeyPair, MemoryLedger, Scope, Signer as _, SystemClock, SystemIds, ledger::LedgerExt as _};

    let folder = Folder::new();
    let key = |n: u8| KeyPair::from_seed(&[n; 32]);
    let trust = TrustRoot::new([key(1).public_key()], 1);
    let line = |signer: u8, entity_type: &str| {
        let draft = Draft::new(entity_type).tenant("acme").owner("alice").who("w").this("t");
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
        text(&span.to_line()) + "\n"
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let manifest = runtime.block_on(async {
        let ledger = MemoryLedger::new();
        let manifest =
            Manifest::first(RootSet::new([key(1).public_key()], 1)).grant(key(2).public_key(), Role::Publisher, ["acme"]);
        let span = trust.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
        assert!(ledger.find(&Scope::Operator, "system", span.id).await.unwrap().is_some());
        text(&span.to_line()) + "\n"
    });
    folder.write("trust.json", &serde_json::to_string(&trust).unwrap());
    // The first of the publisher's functions comes before the manifest that names the publisher.
    let file = line(2, "function") + &manifest + &line(2, "function") + &line(66, "function");
    folder.write("in.ndjson", &file);
    let output = folder.run(&["import", "in.ndjson", "--trust", "trust.json"]);
    let err = text(&output.stderr);
    assert!(err.contains("line 4: span") && !err.contains("line 1") && !err.contains("line 3"), "{err}");
    assert!(
        text(&output.stdout).contains("3 appended, 0 there already, 1 refused")
            && text(&output.stdout).contains("authority checked")
    );
    assert!(folder.expect(0, &["fsck", "--trust", "trust.json"]).contains("authority checked"));
    // A tampered manifest does not stop the audit of the rest.
    let sql = "DROP TRIGGER ur_no_update; UPDATE universal_registry SET name = 'x' WHERE entity_type = 'manifest'";
    rusqlite::Connection::open(folder.path("ledger")).unwrap().execute_batch(sql).unwrap();
    let out = folder.expect(1, &["fsck", "--trust", "trust.json"]);
    assert!(out.contains("no manifest") && out.contains("content was changed") && out.contains("3 rows"), "{out}");
}

#[test]
fn an_export_overwrites_an_earlier_one_and_nothing_else() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["import", "in.ndjson"]);
    folder.expect(0, &["keygen", "op.key"]);
    let (ledger, key) = (fs::read(folder.path("ledger")).unwrap(), fs::read(folder.path("op.key")).unwrap());
    folder.expect(2, &["export", "ledger"]);
    folder.expect(2, &["export", "op.key"]);
    folder.write("notes.txt", "mine");
    folder.expect(2, &["export", "notes.txt"]);
    folder.expect(2, &["export", "out", "--sidecar", "op.key", "--key", "op.key"]);
    folder.expect(2, &["export", "out", "--sidecar", "out", "--key", "op.key"]);
    assert_eq!((fs::read(folder.path("ledger")).unwrap(), fs::read(folder.path("op.key")).unwrap()), (ledger, key));
    for _ in 0..2 {
        folder.expect(0, &["export", "out", "--sidecar", "side", "--key", "op.key"]);
    }
    folder.expect(0, &["fsck", "--against", "side"]);
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

#[test]
fn a_key_is_made_only_for_lines_that_need_one() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["import", "in.ndjson"]);
    folder.expect(0, &["export", "signed.ndjson"]);
    let other = Folder::new();
    fs::copy(folder.path("signed.ndjson"), other.path("signed.ndjson")).unwrap();
    other.expect(0, &["import", "signed.ndjson"]);
    assert!(!other.path("ledger.key").exists());
}

#[test]
fn a_trust_root_that_cannot_be_met_is_refused_before_anything_is_read_or_made() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    let trust = json!({"manifest_id": "00000000-0000-4000-8000-0000000000aa", "keys": [], "threshold": 0});
    folder.write("trust.json", &trust.to_string());
    folder.expect(2, &["import", "in.ndjson", "--trust", "trust.json"]);
    assert!(!folder.path("ledger").exists());
    folder.expect(0, &["import", "in.ndjson"]);
    folder.expect(2, &["fsck", "--trust", "trust.json"]);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = Folder::new();
    let all: Vec<Value> = (0..500).map(|n| note(&format!("0197a000-0000-7000-8000-{n:012}"), 0)).collect();
    folder.write("in.ndjson", &lines(&all));
    folder.expect(0, &["import", "in.ndjson"]);
    let tool = env!("CARGO_BIN_EXE_logline");
    let script = format!("{tool} --ledger sqlite:ledger tail --from-start --limit 500 --json | head -n 1");
    let output = Command::new("sh").current_dir(folder.0.path()).args(["-c", &script]).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    // Nor does a log that nobody reads stop an import.
    folder.write("bad.ndjson", &format!("{}nonsense\n{}", "x\n".repeat(3000), lines(&[note(ID, 0)])));
    let script = format!("{tool} --ledger sqlite:other import bad.ndjson 2>&1 >/dev/null | head -n 1");
    Command::new("sh").current_dir(folder.0.path()).args(["-c", &script]).output().unwrap();
    let ledger = ["--ledger", "sqlite:other", "get", ID];
    let output = Command::new(tool).current_dir(folder.0.path()).args(ledger).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Writes about this many bytes of unsigned spans.
fn large_file(path: &Path, bytes: usize) -> usize {
    use std::io::Write as _;
    let mut out = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let (mut written, mut rows) = (0, 0_usize);
    while written < bytes {
        let row = json!({"id": format!("0197a000-0000-7000-8000-{rows:012}"), "entity_type": "note", "who": "w", "this": "t",
            "tenant_id": "acme", "owner_id": "alice", "content": "x".repeat(700)});
        let line = format!("{row}\n");
        out.write_all(line.as_bytes()).unwrap();
        written += line.len();
        rows += 1;
    }
    out.flush().unwrap();
    rows
}

/// Megabytes of the file that goes through, and of address space that each process may have. `cargo xtask large` raises the first.
const MEGABYTES: usize = 30;
const ADDRESS_SPACE_KIB: usize = 160 << 10;

/// Names of files in the folder, apart from the ledger's own.
fn files(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("ledger"));
    names.sort();
    names
}

#[test]
fn an_export_that_fails_leaves_the_earlier_one_as_it_was() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["keygen", "k"]);
    folder.expect(0, &["import", "in.ndjson", "--key", "k"]);
    folder.expect(0, &["export", "out.ndjson", "--sidecar", "out.sidecar", "--key", "k"]);
    let (export, sidecar) = (fs::read(folder.path("out.ndjson")).unwrap(), fs::read(folder.path("out.sidecar")).unwrap());
    // A row that cannot be read any more.
    let connection = rusqlite::Connection::open(folder.path("ledger")).unwrap();
    let sql = "UPDATE universal_registry SET content = '{'";
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    connection.execute_batch(sql).unwrap();
    drop(connection);
    folder.expect(2, &["export", "out.ndjson", "--sidecar", "out.sidecar", "--key", "k"]);
    assert_eq!(fs::read(folder.path("out.ndjson")).unwrap(), export);
    assert_eq!(fs::read(folder.path("out.sidecar")).unwrap(), sidecar);
    assert_eq!(files(&folder), ["in.ndjson", "k", "out.ndjson", "out.sidecar"], "nothing is left beside them");
}

#[test]
fn an_export_and_its_sidecar_are_two_files_however_their_paths_are_spelt() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["keygen", "k"]);
    folder.expect(0, &["import", "in.ndjson", "--key", "k"]);
    fs::create_dir(folder.path("sub")).unwrap();
    for (export, sidecar) in [("e", "e"), ("e", "./e"), ("sub/../e", "e")] {
        let refused = folder.run(&["export", export, "--sidecar", sidecar, "--key", "k"]);
        assert_eq!(refused.status.code(), Some(2), "{export} {sidecar}");
        assert!(text(&refused.stderr).contains("cannot be the same file"), "{}", text(&refused.stderr));
        assert_eq!(files(&folder), ["in.ndjson", "k", "sub"]);
    }
}

#[cfg(unix)]
#[test]
fn an_export_to_a_pipe_is_streamed_into_it() {
    let folder = Folder::new();
    folder.write("in.ndjson", &lines(&[note(ID, 0)]));
    folder.expect(0, &["keygen", "k"]);
    folder.expect(0, &["import", "in.ndjson", "--key", "k"]);
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
    let reader = Command::new("cat").arg(folder.path("pipe")).stdout(Stdio::piped()).spawn().unwrap();
    folder.expect(0, &["export", "pipe"]);
    let read = reader.wait_with_output().unwrap().stdout;
    assert_eq!(text(&read), folder.expect(0, &["export"]));
    folder.expect(0, &["export", "/dev/null"]);
}

#[test]
fn a_large_file_goes_through_under_a_limited_address_space() {
    let megabytes = std::env::var("LOGLINE_LARGE_MB").ok().map_or(MEGABYTES, |mb| mb.parse().unwrap());
    let folder = Folder::new();
    let rows = large_file(&folder.path("in.ndjson"), megabytes << 20);
    let limited = |arguments: &str| {
        let tool = env!("CARGO_BIN_EXE_logline");
        // One arena: what the limit is about is the tool's memory, not the allocator's reservations per thread.
        let script = format!("ulimit -v {ADDRESS_SPACE_KIB}; exec {tool} --ledger sqlite:ledger {arguments}");
        let output = Command::new("sh")
            .current_dir(folder.0.path())
            .env("MALLOC_ARENA_MAX", "1")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(limited("import in.ndjson").contains(&format!("{rows} appended")));
    limited("keygen op.key");
    assert!(limited("export out.ndjson --sidecar side --key op.key").contains(&format!("{rows} spans")));
    assert!(limited("fsck --against side").contains(&format!("{rows} rows in {rows} chains: 0 problems")));
}

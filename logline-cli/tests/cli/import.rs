//! What is imported, and what is refused.

use crate::world::*;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

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

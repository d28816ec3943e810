//! Exports: files, pipes, disks that are full and readers that go away.

use crate::world::*;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

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

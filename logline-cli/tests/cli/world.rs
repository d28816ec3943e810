//! A folder with a ledger, and the tool in it.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub(crate) struct Folder(pub(crate) TempDir);

impl Folder {
    /// Changes rows without the triggers that forbid it, and puts the triggers back.
    pub(crate) fn tamper(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path("ledger")).unwrap();
        let triggers = "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE type = 'trigger'";
        let triggers: String = connection.query_row(triggers, [], |row| row.get(0)).unwrap();
        let all = format!("DROP TRIGGER ur_no_update; DROP TRIGGER ur_no_delete; {sql}; {triggers}");
        connection.execute_batch(&all).unwrap();
    }

    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logline"));
        command.current_dir(self.0.path()).env_remove("LOGLINE_LEDGER").args(["--ledger", "sqlite:ledger"]).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs, expects this exit status, and returns standard output.
    pub(crate) fn expect(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{err}");
        out
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn note(id: &str, seq: u32) -> Value {
    json!({"id": id, "seq": seq, "entity_type": "note", "who": "w", "this": "t", "tenant_id": "acme", "owner_id": "alice",
        "at": "2026-03-02T09:14:05Z", "content": {"n": seq}})
}

pub(crate) fn lines(values: &[Value]) -> String {
    values.iter().map(|v| format!("{v}\n")).collect()
}

pub(crate) const ID: &str = "0197a000-0000-7000-8000-000000000001";

/// Writes about this many bytes of unsigned spans.
pub(crate) fn large_file(path: &Path, bytes: usize) -> usize {
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
pub(crate) const MEGABYTES: usize = 30;
pub(crate) const ADDRESS_SPACE_KIB: usize = 160 << 10;

/// Names of files in the folder, apart from the ledger's own.
pub(crate) fn files(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("ledger"));
    names.sort();
    names
}

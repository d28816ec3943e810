//! The tool on PostgreSQL as an operator uses it: real processes, a real server, logins with one role each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::process::{Command, Output};

use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{KeyPair, SYSTEM_TENANT, Signer as _, SystemClock};
use logline_pg::{PgLedger, PgOptions};
use logline_pg_testing::PrivateServer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server of its own, a folder to work in, and the tool.
struct Site {
    server: PrivateServer,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let server = PrivateServer::start(&Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let site = Self { server, folder: tempfile::tempdir().unwrap() };
        site.sql("postgres", "CREATE DATABASE ledger");
        site
    }

    fn sql(&self, database: &str, sql: &str) {
        let output = self.server.program("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-c", sql, database]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
    }

    fn run(&self, login: &str, database: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logline"));
        command.current_dir(self.folder.path()).env("LOGLINE_LEDGER", self.server.url(login, database));
        command.args(arguments).output().unwrap()
    }

    /// Runs, expects this exit status, and returns what was printed.
    fn expect(&self, status: i32, login: &str, database: &str, arguments: &[&str]) -> String {
        let output = self.run(login, database, arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{login}: {arguments:?}\n{out}\n{err}");
        if status == 2 { err } else { out }
    }

    /// Schema, and logins with one role each.
    fn migrated() -> Self {
        let site = Self::new();
        site.expect(0, "postgres", "ledger", &["migrate"]);
        site.sql(
            "postgres",
            "CREATE ROLE api LOGIN; GRANT logline_app TO api; CREATE ROLE auditor LOGIN; GRANT logline_operator TO auditor",
        );
        site
    }

    fn write(&self, name: &str, rows: &[Value]) {
        fs::write(self.folder.path().join(name), rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn note(number: u32) -> Value {
    json!({"id": format!("0197a000-0000-7000-8000-{number:012}"), "entity_type": "note", "who": "w", "this": "t",
        "tenant_id": "acme", "owner_id": "alice", "at": "2026-03-02T09:14:05Z", "content": {"n": number}})
}

fn ids(tail: &str) -> Vec<String> {
    tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["span"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_database_is_set_up_checked_filled_and_audited() {
    let site = Site::migrated();
    assert!(site.expect(0, "postgres", "ledger", &["migrate"]).contains("in place"));
    let findings = site.expect(0, "auditor", "ledger", &["doctor", "--json"]);
    for finding in findings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        // The test's server does not wait for the disk, and is told so.
        assert!(finding["severity"] != "failure", "{finding}");
    }
    site.write("in.ndjson", &[note(1), note(2), note(3)]);
    site.expect(0, "auditor", "ledger", &["keygen", "op.key"]);
    assert!(site.expect(0, "auditor", "ledger", &["import", "in.ndjson", "--key", "op.key"]).contains("3 appended"));
    let get = ["get", "0197a000-0000-7000-8000-000000000001", "--json"];
    let row: Value = serde_json::from_str(&site.expect(0, "auditor", "ledger", &get)).unwrap();
    assert_eq!(row["content"], json!({"n": 1}));
    assert!(site.expect(0, "auditor", "ledger", &["fsck"]).contains("3 rows in 3 chains: 0 problems"));
    assert_eq!(
        site.expect(0, "auditor", "ledger", &["rebuild"]),
        "0 open requests, 0 schedules and policies, 0 counters of today\n"
    );
    // As alice, and as somebody of another tenant, with a login that may be both.
    let tail = ["tail", "--from-start", "--limit", "3", "--json", "--tenant", "acme", "--user", "alice"];
    assert_eq!(ids(&site.expect(0, "api", "ledger", &tail)).len(), 3);
    let row = ["get", "0197a000-0000-7000-8000-000000000001", "--in", "acme", "--tenant", "globex", "--user", "alice"];
    site.expect(2, "api", "ledger", &row);
}

#[test]
fn a_restored_dump_is_complete_and_readers_go_on_where_they_were() {
    let site = Site::migrated();
    site.write("in.ndjson", &(0..20).map(note).collect::<Vec<_>>());
    site.expect(0, "auditor", "ledger", &["keygen", "op.key"]);
    site.expect(0, "auditor", "ledger", &["import", "in.ndjson", "--key", "op.key"]);
    let first = site.expect(0, "auditor", "ledger", &["tail", "--from-start", "--limit", "8", "--json"]);
    let last: Value = serde_json::from_str(first.lines().last().unwrap()).unwrap();
    let cursor = last["cursor"].as_str().unwrap();
    site.expect(0, "auditor", "ledger", &["export", "/dev/null", "--sidecar", "ledger.sidecar", "--key", "op.key"]);
    let dump = site.server.program("pg_dump").args(["--format=custom", "ledger"]).output().unwrap();
    assert!(dump.status.success(), "{}", text(&dump.stderr));
    // A row that is younger than the dump.
    site.write("late.ndjson", &[note(99)]);
    site.expect(0, "auditor", "ledger", &["import", "late.ndjson", "--key", "op.key"]);

    // Into another cluster, whose transaction ids begin anew: the roles first.
    let new = Site::new();
    assert_eq!(new.expect(0, "postgres", "postgres", &["migrate", "--roles"]), "the roles are in place\n");
    new.sql("postgres", "CREATE ROLE auditor LOGIN; GRANT logline_operator TO auditor");
    let file = new.folder.path().join("ledger.dump");
    fs::write(&file, dump.stdout).unwrap();
    // The server's user reads it.
    let input = fs::File::open(&file).unwrap();
    let restore = new.server.program("pg_restore").args(["--exit-on-error", "--dbname=ledger"]).stdin(input).output().unwrap();
    assert!(restore.status.success(), "{}", text(&restore.stderr));
    fs::copy(site.folder.path().join("ledger.sidecar"), new.folder.path().join("ledger.sidecar")).unwrap();
    fs::copy(site.folder.path().join("op.key"), new.folder.path().join("op.key")).unwrap();

    let audit = new.expect(0, "auditor", "ledger", &["fsck", "--against", "ledger.sidecar"]);
    assert!(audit.contains("20 rows in 20 chains: 0 problems"), "{audit}");
    new.expect(0, "auditor", "ledger", &["doctor"]);
    new.write("late.ndjson", &[note(100)]);
    new.expect(0, "auditor", "ledger", &["import", "late.ndjson", "--key", "op.key"]);
    let rest = ids(&new.expect(0, "auditor", "ledger", &["tail", "--after", cursor, "--limit", "13", "--json"]));
    let expected: Vec<_> = (8..20).chain([100]).map(|n| note(n)["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rest, expected, "no gap, no repeat");
    // What the dump did not have is missed by nobody but who knew of it.
    site.expect(0, "auditor", "ledger", &["export", "/dev/null", "--sidecar", "younger.sidecar", "--key", "op.key"]);
    fs::copy(site.folder.path().join("younger.sidecar"), new.folder.path().join("younger.sidecar")).unwrap();
    let audit = new.expect(1, "auditor", "ledger", &["fsck", "--against", "younger.sidecar"]);
    assert!(audit.contains(note(99)["id"].as_str().unwrap()), "{audit}");
}

#[test]
fn a_delegated_key_counts_for_its_tenants_and_no_other() {
    let site = Site::migrated();
    let (root, authority) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let trust = TrustRoot::new([root.public_key()], 1);
    fs::write(site.folder.path().join("trust.json"), serde_json::to_vec(&trust).unwrap()).unwrap();
    authority.save_new(site.folder.path().join("authority.key")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = PgLedger::connect(PgOptions::new(&site.server.url("auditor", "ledger")).unwrap()).await.unwrap();
        let manifest = Manifest::first(RootSet::new([root.public_key()], 1)).grant(
            authority.public_key(),
            Role::Runtime,
            [SYSTEM_TENANT, "acme"],
        );
        trust.publish(&ledger, &manifest, &root, &SystemClock).await.unwrap();
    });
    let host: Value = serde_json::from_str(&site.expect(0, "auditor", "ledger", &["keygen", "host.key", "--json"])).unwrap();
    let host = host["public_key"].as_str().unwrap();
    let delegate = |tenants| ["delegate", host, "--tenants", tenants, "--key", "authority.key", "--trust", "trust.json"];
    let refused = site.expect(2, "auditor", "ledger", &delegate("acme,globex"));
    assert!(refused.contains("cannot delegate for tenant `globex`"), "{refused}");
    assert!(site.expect(0, "auditor", "ledger", &delegate("acme")).contains(host));

    // The importer seals with the host's key and holds it to what it was given.
    let mut elsewhere = note(2);
    elsewhere["tenant_id"] = "globex".into();
    let mut now = [note(1), elsewhere];
    now.iter_mut().for_each(|row| drop(row.as_object_mut().unwrap().remove("at")));
    site.write("in.ndjson", &now);
    let out = site.expect(1, "auditor", "ledger", &["import", "in.ndjson", "--key", "host.key", "--trust", "trust.json"]);
    assert!(out.contains("1 appended") && out.contains("1 refused"), "{out}");
    site.expect(0, "auditor", "ledger", &["fsck", "--trust", "trust.json"]);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let site = Site::new();
    assert!(site.expect(2, "postgres", "ledger", &["fsck"]).contains("logline migrate"));
    assert!(site.expect(2, "postgres", "nowhere", &["migrate"]).contains("create it"));
    let site = Site::migrated();
    site.sql("postgres", "CREATE ROLE stranger LOGIN");
    assert!(site.expect(2, "stranger", "ledger", &["fsck"]).contains("grant logline_app"));
    assert!(site.expect(2, "api", "ledger", &["fsck"]).contains("role"));
    site.sql("ledger", "INSERT INTO ledger.migrations (version, name, hash) VALUES (99, 'later', '')");
    for command in ["migrate", "fsck"] {
        assert!(site.expect(2, "postgres", "ledger", &[command]).contains("upgrade this library"), "{command}");
    }
    // A promise that does not hold is status 1.
    site.sql("ledger", "DELETE FROM ledger.migrations WHERE version = 99");
    site.sql("ledger", "ALTER TABLE ledger.universal_registry NO FORCE ROW LEVEL SECURITY");
    assert!(site.expect(1, "auditor", "ledger", &["doctor"]).contains("FORCE ROW LEVEL SECURITY"));
}

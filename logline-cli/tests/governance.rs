//! Governance with the tool: a function from proposal through two approvals to promotion, one of them signed without the ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use logline_pg_testing::PrivateServer;
use serde_json::{Value, json};
use shell::{command, ended};
use tempfile::TempDir;

/// A folder to work in, with a ledger that the environment names.
trait Site {
    fn folder(&self) -> &TempDir;

    fn command(&self, arguments: &[&str]) -> Command;

    /// The file with the trust root.
    fn trust(&self) -> &'static str;
}

impl Site for TempDir {
    fn folder(&self) -> &TempDir {
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self, arguments)
    }

    fn trust(&self) -> &'static str {
        "demo.ledger.trust.json"
    }
}

/// The same with a ledger in PostgreSQL.
struct OnPostgres {
    server: PrivateServer,
    folder: TempDir,
}

impl OnPostgres {
    fn new() -> Self {
        let server = PrivateServer::start(&Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let site = Self { server, folder: tempfile::tempdir().unwrap() };
        site.sql("CREATE DATABASE ledger");
        let mut migrate = site.command(&["migrate"]);
        let output = migrate.env("LOGLINE_LEDGER", site.server.url("postgres", "ledger")).output().unwrap();
        ended(0, &["migrate"], &output);
        site.sql("CREATE ROLE host LOGIN; GRANT logline_operator TO host");
        site
    }

    fn sql(&self, sql: &str) {
        let output = self.server.program("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Site for OnPostgres {
    fn folder(&self) -> &TempDir {
        &self.folder
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.folder, arguments);
        command.env("LOGLINE_LEDGER", self.server.url("host", "ledger")).env("LOGLINE_HOME", "home");
        command
    }

    fn trust(&self) -> &'static str {
        "home/trust.json"
    }
}

/// Runs with an answer on standard input.
fn answer(command: &mut Command, answer: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn expect_answering(site: &dyn Site, status: i32, arguments: &[&str], says: &str) -> String {
    let output = answer(&mut site.command(arguments), says);
    let (out, err) = ended(status, arguments, &output);
    format!("{out}{err}")
}

#[track_caller]
fn expect(site: &dyn Site, status: i32, arguments: &[&str]) -> String {
    expect_answering(site, status, arguments, "")
}

/// The same, for the object that `--json` prints.
#[track_caller]
fn object(site: &dyn Site, status: i32, arguments: &[&str], says: &str) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let output = answer(&mut site.command(&arguments), says);
    let (out, _) = ended(status, &arguments, &output);
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// A ledger in which functions of `acme` need two of three approvals.
fn governed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    govern(&folder);
    folder
}

fn govern(site: &dyn Site) {
    let folder = site.folder();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logline-wasm/guests/fee.wasm");
    fs::copy(guest, folder.path().join("fee.wasm")).unwrap();
    expect(site, 0, &["init", "--tenant", "acme"]);
    let mut manifest = object(site, 0, &["manifest", "show"], "");
    for name in ["a", "b", "c"] {
        let made = object(site, 0, &["keygen", &format!("{name}.key")], "");
        let key = made["public_key"].clone();
        manifest["authorities"].as_array_mut().unwrap().push(json!({"key": key, "role": "approver", "tenants": ["acme"]}));
    }
    manifest["governance"] = json!({
        "promotion": "required", "classes": {"function": {"threshold": 2}}, "exclude_proposer": true, "exclude_signers": true,
    });
    fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
    expect(site, 0, &["manifest", "publish", "m.json"]);
    publish(site, 25);
}

fn publish(site: &dyn Site, rate: u32) {
    let config = json!({"rate": rate}).to_string();
    expect(site, 0, &["function", "publish", "fee.wasm", "--tenant", "acme", "--name", "fee", "--config", &config]);
}

fn propose(site: &dyn Site, more: &[&str]) -> String {
    let arguments = ["propose", "function", "fee", "--tenant", "acme", "--reason", "the new rate"];
    object(site, 0, &[&arguments[..], more].concat(), "")["proposal"].as_str().unwrap().to_owned()
}

/// The fee that the function computes, or the code of its failure.
fn fee(site: &dyn Site) -> (String, Value) {
    let arguments = ["request", "submit", "fee", "--tenant", "acme", "--owner", "api"];
    let input = ["--input", r#"{"payment":"p","amount_minor":10000}"#];
    let id = expect(site, 0, &[&arguments[..], &input[..]].concat()).lines().next().unwrap().trim().to_owned();
    expect(site, 0, &["run", "--until-idle"]);
    let rows = site.command(&["list", "--tenant", "acme", "--type", "execution", "--json"]).output().unwrap();
    let rows = String::from_utf8(rows.stdout).unwrap();
    let execution: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let execution = execution.into_iter().find(|row| row["related_to"][0] == id.as_str()).unwrap();
    let said = if execution["error"].is_null() { execution["output"].clone() } else { execution["error"]["code"].clone() };
    (execution["id"].as_str().unwrap().to_owned(), said)
}

#[test]
fn a_function_is_proposed_approved_by_two_promoted_explained_and_rolled_back() {
    full_circle(&tempfile::tempdir().unwrap());
}

#[test]
fn a_function_in_postgresql_is_proposed_approved_by_two_promoted_explained_and_rolled_back() {
    full_circle(&OnPostgres::new());
}

fn full_circle(site: &dyn Site) {
    govern(site);
    assert_eq!(fee(site).1, "not_promoted");
    let proposal = propose(site, &[]);
    let vote = |by: &str, proposal: &str, says: &str, status: i32| {
        expect_answering(site, status, &["approve", proposal, "--tenant", "acme", "--key", by], says)
    };
    // Whoever does not say `yes` signs nothing.
    assert!(vote("a.key", &proposal, "no\n", 1).contains("nothing was signed"));
    let shown = vote("a.key", &proposal, "yes\n", 0);
    for told in ["the new rate", "+   \"rate\": 25", "hashes to", "1 of 2 approvals"] {
        assert!(shown.contains(told), "{told} is missing:\n{shown}");
    }
    let early = expect(site, 1, &["promote", &proposal, "--tenant", "acme"]);
    assert!(early.contains("1 of 2 approvals count"), "{early}");
    vote("b.key", &proposal, "yes\n", 0);
    expect(site, 0, &["promote", &proposal, "--tenant", "acme"]);
    let (execution, said) = fee(site);
    assert_eq!(said, json!({"fee_minor": 25}));
    // Who has allowed it?
    let explained = object(site, 0, &["explain", &execution, "--tenant", "acme"], "");
    assert_eq!((&explained["holds"], explained["approvals"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(explained["proposal"], proposal.as_str());
    // A new version changes nothing until it is promoted. The difference is shown.
    publish(site, 99);
    assert_eq!(fee(site).1, json!({"fee_minor": 25}));
    let next = propose(site, &[]);
    let diff = expect(site, 0, &["diff", &next, "--tenant", "acme"]);
    assert!(diff.contains("-   \"rate\": 25") && diff.contains("+   \"rate\": 99"), "{diff}");
    for by in ["b.key", "c.key"] {
        vote(by, &next, "yes\n", 0);
    }
    expect(site, 0, &["promote", &next, "--tenant", "acme"]);
    assert_eq!(fee(site).1, json!({"fee_minor": 99}));
    // And back, with approvals of its own.
    let back = object(site, 0, &["rollback", "function", "fee", "--tenant", "acme", "--to", "0"], "");
    let back = back["proposal"].as_str().unwrap();
    for by in ["a.key", "c.key"] {
        vote(by, back, "yes\n", 0);
    }
    expect(site, 0, &["promote", back, "--tenant", "acme"]);
    assert_eq!(fee(site).1, json!({"fee_minor": 25}));
    // What was carried out keeps its approvals.
    for carried in [&*proposal, &*next, back] {
        let told = expect(site, 0, &["explain", carried, "--tenant", "acme"]);
        assert!(told.matches("approved   by").count() == 2 && !told.contains("void") && told.contains("carried out"), "{told}");
        let told = object(site, 0, &["explain", carried, "--tenant", "acme"], "");
        assert_eq!((&told["counted"], &told["carried_out"], &told["refusal"]), (&json!(2), &json!(true), &Value::Null));
    }
    let clean = expect(site, 0, &["fsck", "--trust", site.trust()]);
    assert!(clean.contains("0 problems; authority checked"), "{clean}");
}

#[test]
fn no_vote_is_asked_for_what_no_vote_can_carry() {
    let folder = governed();
    let withdrawn = propose(&folder, &[]);
    expect(&folder, 0, &["withdraw", &withdrawn, "--tenant", "acme"]);
    let vote = |proposal: &str, by: &str, status: i32| {
        expect_answering(&folder, status, &["approve", proposal, "--tenant", "acme", "--key", by], "yes\n")
    };
    let told = vote(&withdrawn, "a.key", 2);
    assert!(told.contains("no vote can carry this proposal: the proposal was withdrawn"), "{told}");
    publish(&folder, 26);
    let carried = propose(&folder, &[]);
    vote(&carried, "a.key", 0);
    vote(&carried, "b.key", 0);
    expect(&folder, 0, &["promote", &carried, "--tenant", "acme"]);
    assert!(vote(&carried, "c.key", 2).contains("carried out already"));
    let told = expect(&folder, 2, &["rollback", "function", "fee", "--tenant", "acme", "--to", "1"]);
    assert!(told.contains("version 1 is in force already"), "{told}");
}

#[test]
fn a_vote_prints_nothing_but_its_result_for_a_program() {
    let folder = governed();
    let proposal = propose(&folder, &[]);
    let arguments = ["approve", &proposal, "--tenant", "acme", "--key", "a.key", "--json"];
    let output = answer(&mut folder.command(&arguments), "yes\n");
    let (out, err) = ended(0, &arguments, &output);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!((&told["counted"], &told["needed"]), (&json!(1), &json!(2)));
    assert!(err.contains("+   \"rate\": 25") && err.contains("hashes to"), "what is decided about is shown: {err}");
}

#[test]
fn a_manifest_is_approved_by_what_it_changes_and_a_vote_that_cannot_count_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    expect(&folder, 0, &["init", "--tenant", "acme"]);
    let second = object(&folder, 0, &["keygen", "second.key"], "")["public_key"].as_str().unwrap().to_owned();
    expect(&folder, 0, &["rotate", "--add", &second]);
    let rotated = object(&folder, 0, &["rotate", "--threshold", "2"], "");
    assert_eq!((&rotated["in_force"], &rotated["counted"], &rotated["needed"]), (&json!(false), &json!(1), &json!(2)));
    let hash = rotated["curr_hash"].as_str().unwrap();
    let approve = ["manifest", "approve", hash, "--key", "second.key"];
    let told = expect_answering(&folder, 0, &approve, "yes\n");
    for part in ["changes since version", "-     \"threshold\": 1", "+     \"threshold\": 2", "1 of 2 approvals", "is in force"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    // A member that nobody obeys is not published by mistake.
    let mut manifest = object(&folder, 0, &["manifest", "show"], "");
    manifest["budget"] = json!({"acme": {}});
    fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
    let told = expect(&folder, 2, &["manifest", "publish", "m.json"]);
    assert!(told.contains("m.json: ") && told.contains("does not know the member `budget`"), "{told}");
    let kept = object(&folder, 0, &["manifest", "publish", "m.json", "--keep-unknown"], "");
    let hash = kept["curr_hash"].as_str().unwrap();
    expect_answering(&folder, 0, &["manifest", "approve", hash, "--key", "second.key"], "yes\n");
    // What is in force already may stay.
    let manifest = object(&folder, 0, &["manifest", "show"], "");
    fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
    expect(&folder, 0, &["manifest", "publish", "m.json"]);
    // A vote for what was overtaken is no vote.
    let told = expect_answering(&folder, 2, &approve, "yes\n");
    assert!(told.contains("would not count"), "{told}");
}

#[test]
fn an_approval_is_signed_on_a_machine_without_the_ledger() {
    let folder = governed();
    let proposal = propose(&folder, &[]);
    expect(&folder, 0, &["approve", &proposal, "--tenant", "acme", "--out", "ballot.ndjson"]);
    // Another machine: it has the ballot and the key, and nothing else.
    let offline = tempfile::tempdir().unwrap();
    for file in ["ballot.ndjson", "a.key"] {
        fs::copy(folder.path().join(file), offline.path().join(file)).unwrap();
    }
    let sign = ["approve", "--sign", "ballot.ndjson", "--key", "a.key", "--out", "vote.ndjson"];
    let shown = expect_answering(&offline, 0, &sign, "yes\n");
    assert!(shown.contains("+   \"rate\": 25") && shown.contains("hashes to"), "{shown}");
    fs::copy(offline.path().join("vote.ndjson"), folder.path().join("vote.ndjson")).unwrap();
    expect(&folder, 0, &["import", "vote.ndjson", "--trust", "demo.ledger.trust.json"]);
    let stands = object(&folder, 0, &["explain", &proposal, "--tenant", "acme"], "");
    assert_eq!((&stands["counted"], &stands["needed"]), (&json!(1), &json!(2)));
}

#[test]
fn a_ballot_with_other_content_than_its_proposal_is_not_signed() {
    let folder = governed();
    let proposal = propose(&folder, &[]);
    expect(&folder, 0, &["approve", &proposal, "--tenant", "acme", "--out", "ballot.ndjson"]);
    let ballot = fs::read_to_string(folder.path().join("ballot.ndjson")).unwrap();
    let lines: Vec<&str> = ballot.lines().collect();
    // The content is changed, and the hash is not.
    let changed = lines[2].replace("\"rate\":25", "\"rate\":99");
    assert_ne!(changed, lines[2]);
    // Another version in the place of the proposed one.
    publish(&folder, 99);
    let other = propose(&folder, &[]);
    expect(&folder, 0, &["approve", &other, "--tenant", "acme", "--out", "other.ndjson"]);
    let other = fs::read_to_string(folder.path().join("other.ndjson")).unwrap();
    let swapped = other.lines().nth(2).unwrap().to_owned();
    for (name, line) in [("changed", changed), ("swapped", swapped)] {
        fs::write(folder.path().join(name), [lines[0], lines[1], &line].join("\n")).unwrap();
        let sign = ["approve", "--sign", name, "--key", "a.key", "--out", "vote.ndjson"];
        expect_answering(&folder, 2, &sign, "yes\n");
        assert!(!folder.path().join("vote.ndjson").exists(), "{name}");
    }
}

#[test]
fn an_approval_that_does_not_count_is_told_so() {
    let folder = governed();
    let proposal = propose(&folder, &[]);
    let own = "demo.ledger.keys/publisher.key";
    let refused = expect_answering(&folder, 2, &["approve", &proposal, "--tenant", "acme", "--key", own], "yes\n");
    assert!(refused.contains("approver"), "{refused}");
    let twice = ["approve", &proposal, "--tenant", "acme", "--key", "a.key"];
    expect_answering(&folder, 0, &twice, "yes\n");
    let again = expect_answering(&folder, 1, &twice, "yes\n");
    assert!(again.contains("counted already") || again.contains("does not count"), "{again}");
    let rejected = ["reject", &proposal, "--tenant", "acme", "--key", "a.key"];
    expect_answering(&folder, 0, &rejected, "yes\n");
    let stands = object(&folder, 0, &["explain", &proposal, "--tenant", "acme"], "");
    assert_eq!(stands["counted"], 0);
    // A withdrawn proposal is not carried out.
    expect(&folder, 0, &["withdraw", &proposal, "--tenant", "acme", "--reason", "a mistake"]);
    assert!(expect(&folder, 1, &["promote", &proposal, "--tenant", "acme"]).contains("withdrawn"));
}

#[test]
fn there_is_no_way_to_approve_a_bare_hash() {
    let folder = governed();
    let hash = "0".repeat(64);
    for arguments in [&["approve", &hash, "--tenant", "acme"][..], &["approve", "--hash", &hash, "--tenant", "acme"]] {
        expect(&folder, 2, arguments);
    }
}

#[test]
fn a_stolen_key_is_ended_with_the_commands_of_the_runbook() {
    let folder = governed();
    expect(&folder, 0, &["keygen", "log.key"]);
    let next = object(&folder, 0, &["keygen", "next.key"], "")["public_key"].as_str().unwrap().to_owned();
    let keep = || {
        let log = ["log", "run", "--tenant", "acme", "--tenant", "system", "--tiles", "public", "--locks", "private"];
        expect(&folder, 0, &[&log[..], &["--log-key", "log.key", "--until-idle"]].concat());
    };
    keep();
    for tenant in ["acme", "system"] {
        let shown = expect(&folder, 0, &["log", "checkpoint", "--tenant", tenant, "--tiles", "public", "--locks", "private"]);
        fs::write(folder.path().join(format!("{tenant}.checkpoint")), shown).unwrap();
    }
    // The thief publishes a function.
    publish(&folder, 99);
    keep();
    let stolen = object(&folder, 0, &["manifest", "show"], "");
    let role = |role: &str| {
        let of = stolen["authorities"].as_array().unwrap().iter().find(|of| of["role"] == role).unwrap();
        of["key"].as_str().unwrap().to_owned()
    };
    let thief = role("publisher");
    // The successor, and the end.
    let mut manifest = stolen.clone();
    let grant = json!({"key": next, "role": "publisher", "tenants": ["acme", "system"]});
    manifest["authorities"].as_array_mut().unwrap().push(grant);
    fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
    expect(&folder, 0, &["manifest", "publish", "m.json"]);
    let checkpoints = ["--checkpoint", "acme.checkpoint", "--checkpoint", "system.checkpoint"];
    // A key that was copied wrongly, a right that the key has not, and in the end the same once more: each would say that the thief is gone.
    let wrong = object(&folder, 0, &["keygen", "wrong.key"], "")["public_key"].as_str().unwrap().to_owned();
    for missed in
        [&["end-key", &wrong][..], &["end-key", &thief, "--tenant", "nobody"], &["end-key", &thief, "--role", "approver"]]
    {
        let refused = expect(&folder, 2, &[missed, &checkpoints].concat());
        assert!(refused.contains("nothing was ended"), "{refused}");
    }
    let end = [&["end-key", &thief][..], &checkpoints].concat();
    let ended = expect(&folder, 0, &end);
    assert!(ended.contains("has ended as publisher of system, publisher of acme"), "{ended}");
    assert!(expect(&folder, 2, &end).contains("nothing was ended"));
    // The audit names the thief's row and no other; without the log nothing of the key counts.
    let audit = ["fsck", "--trust", "demo.ledger.trust.json"];
    let found = expect(&folder, 1, &[&audit[..], &["--tiles", "public"]].concat());
    assert!(found.contains(" 1 problems; authority checked") && found.contains("has ended"), "{found}");
    let blind = expect(&folder, 1, &audit);
    assert!(blind.contains("name the folder of the log's tiles") && !blind.contains(" 1 problems"), "{blind}");
    // The thief publishes nothing more; the successor does.
    let again = ["function", "publish", "fee.wasm", "--tenant", "acme", "--name", "fee", "--tiles", "public", "--config"];
    let refused = expect(&folder, 2, &[&again[..], &[r#"{"rate":1}"#]].concat());
    assert!(refused.contains("has ended") || refused.contains("does not let key"), "{refused}");
    expect(&folder, 0, &[&again[..], &[r#"{"rate":2}"#, "--key", "next.key"]].concat());
}

#[test]
fn root_keys_are_added_and_then_both_must_approve() {
    let folder = governed();
    let second = object(&folder, 0, &["keygen", "second.key"], "")["public_key"].as_str().unwrap().to_owned();
    let waits = object(&folder, 0, &["rotate", "--add", &second, "--threshold", "2"], "");
    assert_eq!(waits["in_force"], false);
    let hash = waits["curr_hash"].as_str().unwrap();
    let approve = ["manifest", "approve", hash, "--key", "second.key"];
    assert!(expect_answering(&folder, 1, &approve, "no\n").contains("nothing was signed"));
    let told = expect_answering(&folder, 0, &approve, "yes\n");
    assert!(told.contains("manifest version 3 is in force"), "{told}");
    assert!(expect(&folder, 2, &["rotate", "--add", &second]).contains("nothing would change"));
}

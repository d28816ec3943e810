//! A log under faults of the machine: killed processes, a disk that is full, stores that are away. Whatever happens, no checkpoint that anybody has
//! seen is contradicted by a later one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod shell;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_sqlite::SqliteLedger;
use serde_json::Value;
use tempfile::TempDir;

const KEEP: [&str; 13] = [
    "log",
    "run",
    "--tenant",
    "acme",
    "--tiles",
    "tiles",
    "--locks",
    "locks",
    "--log-key",
    "log.key",
    "--until-idle",
    "--batch",
    "7",
];

struct Site {
    folder: TempDir,
    seen: usize,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        shell::expect(&folder, 0, &["keygen", "log.key"]);
        Self { folder, seen: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, count: usize) {
        let key = KeyPair::from_seed(&[7; 32]);
        let note = |n: usize| {
            let draft =
                Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.trial").name(n.to_string());
            draft.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = SqliteLedger::open(self.path("demo.ledger")).unwrap();
            ledger.append(&Scope::Operator, (0..count).map(note).collect(), &AppendOptions::default()).await.unwrap();
        });
    }

    /// Keeps what a reader would see now, to hold it against what comes later.
    fn look(&mut self) {
        let Ok(logs) = fs::read_dir(self.path("tiles/log.invalid")) else { return };
        for log in logs {
            if let Ok(checkpoint) = fs::read(log.unwrap().path().join("checkpoint")) {
                self.seen += 1;
                fs::write(self.path(&format!("seen-{}", self.seen)), checkpoint).unwrap();
            }
        }
    }

    /// The log has every row, and continues every checkpoint that was ever seen.
    fn audit(&mut self, rows: u64) {
        shell::expect(&self.folder, 0, &KEEP);
        self.look();
        let show =
            ["log", "checkpoint", "--tenant", "acme", "--tiles", "tiles", "--locks", "locks", "--log-key", "log.key", "--json"];
        let shown: Value = serde_json::from_str(&shell::expect(&self.folder, 0, &show).0).unwrap();
        assert_eq!(shown["size"], rows);
        let _ = fs::remove_file(self.path("export.ndjson"));
        shell::expect(&self.folder, 0, &["export", "export.ndjson", "--tenant", "acme"]);
        let log = format!("tiles/{}", shown["origin"].as_str().unwrap());
        let known: Vec<_> = (1..=self.seen).flat_map(|n| ["--known".to_owned(), format!("seen-{n}")]).collect();
        let verify = ["verify", "export.ndjson", "--log", &log, "--log-key", shown["key"].as_str().unwrap()];
        let verify: Vec<_> = verify.into_iter().chain(known.iter().map(String::as_str)).collect();
        let (out, _) = shell::expect(&self.folder, 0, &verify);
        assert!(out.contains("consistency  passed"), "{out}");
    }
}

#[test]
fn a_process_that_is_killed_again_and_again_contradicts_nothing_that_was_seen() {
    // `cargo xtask kill-log` sets more rounds.
    let rounds: u64 = std::env::var("LOGLINE_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut site = Site::new();
    let (mut rows, mut killed) = (0, 0);
    let mut chance = 7_u64;
    for _ in 0..rounds {
        site.append(60);
        rows += 60;
        // Two processes at once, which are killed at other moments each.
        let start = || shell::command(&site.folder, &KEEP).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut processes = [start(), start()];
        for process in &mut processes {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis((chance >> 33) % 120));
            killed += u64::from(process.try_wait().unwrap().is_none());
            process.kill().unwrap();
            process.wait().unwrap();
        }
        site.look();
    }
    assert!(killed > rounds / 2, "{killed} of {} were killed while they worked", rounds * 2);
    site.audit(rows);
}

#[test]
fn a_full_disk_stops_the_log_and_it_goes_on_when_there_is_room() {
    let mut site = Site::new();
    site.append(20);
    shell::expect(&site.folder, 0, &KEEP);
    site.look();
    // No file may have more than 32 KiB, which SQLite needs for its shared memory. The bundle of 256 rows has more. A write beyond the limit
    // fails, as on a full disk.
    site.append(236);
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_logline")]).args(&KEEP[..12]).arg("256").current_dir(site.folder.path());
    let output = command.env_remove("LOGLINE_HOME").env("LOGLINE_LEDGER", "sqlite:demo.ledger").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("log store") && err.contains("try again"), "{err}");
    site.look();
    site.audit(256);
}

#[test]
fn a_tile_that_was_cut_or_replaced_stops_the_log_until_it_is_put_back() {
    let mut site = Site::new();
    site.append(20);
    shell::expect(&site.folder, 0, &KEEP);
    site.look();
    let log = fs::read_dir(site.path("tiles/log.invalid")).unwrap().next().unwrap().unwrap().path();
    let tile = log.join("tile/0/000.p/20");
    let good = fs::read(&tile).unwrap();
    site.append(1);
    for bad in [&good[..33], &[&good[..31], &[good[31] ^ 1], &good[32..]].concat()] {
        fs::write(&tile, bad).unwrap();
        let (_, err) = shell::expect(&site.folder, 2, &KEEP);
        assert!(err.contains("tile"), "{err}");
    }
    // From the rows, or from a copy.
    let rebuild = [&["log", "rebuild"][..], &KEEP[2..10]].concat();
    let (out, _) = shell::expect(&site.folder, 0, &rebuild);
    assert!(out.starts_with("2 files of") && out.contains("0 were missing, 1 were damaged"), "{out}");
    assert_eq!(fs::read(&tile).unwrap(), good);
    fs::remove_dir_all(site.path("tiles")).unwrap();
    let (out, _) = shell::expect(&site.folder, 0, &rebuild);
    assert!(out.contains("2 were missing, 0 were damaged"), "{out}");
    assert_eq!(fs::read(&tile).unwrap(), good);
    site.audit(21);
}

#[test]
fn without_its_lock_store_a_log_does_not_begin_anew_by_itself() {
    let mut site = Site::new();
    site.append(20);
    shell::expect(&site.folder, 0, &KEEP);
    site.look();
    site.append(20);
    // The disk of the locks is not mounted: there is a folder, and nothing in it.
    fs::rename(site.path("locks"), site.path("away")).unwrap();
    for made in [false, true] {
        if made {
            fs::create_dir(site.path("locks")).unwrap();
        }
        let (_, err) = shell::expect(&site.folder, 2, &KEEP);
        assert!(err.contains("is its disk there?"), "{err}");
    }
    fs::remove_dir(site.path("locks")).unwrap();
    fs::rename(site.path("away"), site.path("locks")).unwrap();
    site.audit(40);
}

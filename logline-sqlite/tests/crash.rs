//! `kill -9` of a writing process at random moments: every acknowledged span is there, nothing is half-written.
//!
//! The test starts itself as the writer: with `LOGLINE_CRASH_WRITER` set to a ledger file, `writer` appends until it is killed
//! and prints each acknowledged batch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Query};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_sqlite::SqliteLedger;

const ROUNDS: usize = 100;
const BATCH: usize = 5;
const WRITER: &str = "LOGLINE_CRASH_WRITER";

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
#[ignore = "started by the test below as a process to be killed"]
fn writer() {
    let Ok(path) = std::env::var(WRITER) else { return };
    block_on(async {
        let ledger = SqliteLedger::open(path).unwrap();
        let key = KeyPair::from_seed(&[7; 32]);
        // Several callers at once, so that kills hit grouped commits.
        let callers = (0..4).map(|_| async {
            loop {
                let batch: Vec<_> = (0..BATCH)
                    .map(|_| {
                        let draft = Draft::new("note").tenant("acme").owner("alice").who("w").this("t").code("x".repeat(700));
                        draft.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap()
                    })
                    .collect();
                let trace: Vec<_> = batch.iter().map(|span| span.id.to_string()).collect();
                ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {}", trace.join(" ")).unwrap();
                out.flush().unwrap();
            }
        });
        futures_util::future::join_all(callers).await;
    });
}

/// Starts the writer, lets it acknowledge `acks` batches, kills it, and returns the ids it had acknowledged by then.
fn write_and_kill(path: &Path, acks: usize) -> Vec<Vec<String>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(WRITER, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut killed = false;
    // After the kill, what was printed before it is still read from the pipe.
    for line in lines {
        let Ok(line) = line else { break };
        if let Some(ids) = line.split("ack ").nth(1) {
            let ids: Vec<_> = ids.split(' ').map(str::to_owned).collect();
            // A line that was cut by the kill is no acknowledgement.
            if ids.len() == BATCH && ids.iter().all(|id| id.len() == 36) {
                acknowledged.push(ids);
            }
        }
        if !killed && acknowledged.len() >= acks {
            // SIGKILL.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the writer ended by itself");
    acknowledged
}

#[test]
fn every_acknowledged_span_survives_kill_9_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let mut acknowledged = HashMap::new();
    for round in 0..ROUNDS {
        // Between no and a few dozen acknowledged batches, at whatever point of the next ones the signal lands.
        let acks = 1 + (round * 7919) % 23;
        for ids in write_and_kill(&path, acks) {
            for id in ids {
                acknowledged.insert(id, round);
            }
        }
    }
    block_on(async {
        let ledger = SqliteLedger::open(&path).unwrap();
        let spans = ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap();
        let stored: HashSet<_> = spans.iter().map(|span| span.id.to_string()).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|(id, _)| !stored.contains(*id)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert_eq!(stored.len() % BATCH, 0, "a batch is half there");
        let report = fsck(&ledger, Audit::default(), &mut |_| {}).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.rows as usize, stored.len());
        assert!(acknowledged.len() >= ROUNDS * BATCH);
    });
}

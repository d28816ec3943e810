//! The transparency log beside a ledger that is written to: what it costs the appends, how soon a row is covered by a checkpoint, and how long an
//! audit takes beside the bare signatures. Runs alternate, and each number is a median of ratios within one pair of runs.
//!
//! `cargo bench -p logline-benches --bench log_live [-- ROWS PAIRS]`. ROWS is the size of the audited export.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that fails may panic, and it prints"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use logline_benches::key;
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Query};
use logline_core::{Draft, KeyPair, Scope, Signer as _, SystemClock, SystemIds, VerifiedSpan, Verifier};
use logline_log::audit::LogAudit;
use logline_log::note::{KeyKind, Note, NoteKey};
use logline_log::store::Directory;
use logline_log::{Checkpoint, Integrator, LogSite, Policy, Step, last_signed};
use logline_sqlite::SqliteLedger;

const TENANT: &str = "acme";

/// How long the loop `log_keeper` gathers rows for one checkpoint.
const GATHER: Duration = Duration::from_millis(250);

fn note(n: usize) -> VerifiedSpan {
    let draft = Draft::new("note").tenant(TENANT).owner("alice").who("user:alice").this("note.trial").name(n.to_string());
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key()).unwrap()
}

struct Site {
    _folder: tempfile::TempDir,
    ledger: SqliteLedger,
    tiles: Directory,
    locks: Directory,
    signer: KeyPair,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tiles, locks) = (Directory::new(folder.path().join("tiles")), Directory::new(folder.path().join("locks")));
        let ledger = SqliteLedger::open(folder.path().join("ledger.db")).unwrap();
        Self { _folder: folder, ledger, tiles, locks, signer: KeyPair::generate().unwrap() }
    }

    fn integrator(&self) -> Integrator {
        let site = LogSite::new(Arc::new(self.tiles.clone()), Arc::new(self.locks.clone()), Arc::new(self.signer.clone()));
        Integrator::new(Arc::new(self.ledger.clone()), site, TENANT)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Appends at a rate for a while, with or without the log. Returns the mean latency of an append, and how long each row waited for its
/// checkpoint.
async fn appends(per_second: usize, seconds: usize, with_log: bool) -> (Duration, Vec<Duration>) {
    let site = Arc::new(Site::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let appended = Arc::new(AtomicUsize::new(0));
    let keeper = with_log.then(|| {
        let (site, is_over) = (Arc::clone(&site), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut integrator, mut covered) = (site.integrator(), Vec::new());
            loop {
                // What was appended before the last look is in the checkpoint that comes of it.
                let ends = is_over.load(Ordering::SeqCst);
                match integrator.step().await.unwrap() {
                    Step::Integrated { checkpoint, .. } => covered.push((checkpoint.size, Instant::now())),
                    Step::Idle if ends => return covered,
                    _ => {}
                }
                tokio::time::sleep(GATHER).await;
            }
        })
    });
    let (mut when, mut spent) = (Vec::new(), Duration::ZERO);
    const BATCH: usize = 20;
    let rounds = per_second * seconds / BATCH;
    let spans: Vec<Vec<_>> = (0..rounds).map(|round| (0..BATCH).map(|n| note(round * BATCH + n)).collect()).collect();
    let started = Instant::now();
    for (round, batch) in spans.into_iter().enumerate() {
        let due = started + Duration::from_secs_f64((round * BATCH) as f64 / per_second as f64);
        tokio::time::sleep_until(due.into()).await;
        let began = Instant::now();
        site.ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
        spent += began.elapsed();
        let count = appended.fetch_add(BATCH, Ordering::SeqCst) + BATCH;
        when.push((count as u64, Instant::now()));
    }
    is_over.store(true, Ordering::SeqCst);
    let mut waits = Vec::new();
    if let Some(keeper) = keeper {
        let covered = keeper.await.unwrap();
        for (count, at) in when {
            let (_, done) = covered.iter().find(|(size, _)| *size >= count).unwrap();
            waits.push(done.saturating_duration_since(at));
        }
    }
    (spent / u32::try_from(rounds).unwrap(), waits)
}

/// The time of an audit of an export, and of checking its signatures alone on all cores.
fn audits(lines: &[u8], rows: &[logline_core::SignedSpan], site: &Site, note: &Note, policy: &Policy) -> (Duration, Duration) {
    let origin = Checkpoint::of(note).unwrap().origin;
    let mut cache: HashMap<String, Option<Vec<u8>>> = HashMap::new();
    let mut read = |name: &str| {
        let file = cache.entry(name.to_owned()).or_insert_with(|| site.tiles.read_now(&format!("{origin}/{name}")).unwrap());
        Ok(file.clone())
    };
    let began = Instant::now();
    let mut export = std::io::Cursor::new(lines);
    let report = LogAudit::new(policy).run(note, &mut read, Some(&mut export), &mut |problem| panic!("{problem}")).unwrap();
    assert!(report.is_clean());
    let audited = began.elapsed();
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in rows.chunks(rows.len().div_ceil(cores)) {
            scope.spawn(move || {
                let mut verifier = Verifier::new();
                part.iter().for_each(|row| row.seal_only(&mut verifier));
            });
        }
    });
    (audited, began.elapsed())
}

/// The bare signature of a row.
trait SealOnly {
    fn seal_only(&self, verifier: &mut Verifier);
}

impl SealOnly for logline_core::SignedSpan {
    fn seal_only(&self, verifier: &mut Verifier) {
        let message = [b"DSSEv1 31 application/vnd.logline.span.v1 32 ".as_slice(), &self.seal.curr_hash.0].concat();
        verifier.verify(&self.seal.public_key, &message, &self.seal.signature).unwrap();
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (rows, pairs): (usize, usize) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(5));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut ratios, mut waits) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // Which one is first alternates too.
            let (with, without) = if pair % 2 == 0 {
                let without = appends(1000, 5, false).await;
                (appends(1000, 5, true).await, without)
            } else {
                let with = appends(1000, 5, true).await;
                (with, appends(1000, 5, false).await)
            };
            ratios.push(with.0.as_secs_f64() / without.0.as_secs_f64());
            waits.extend(with.1);
        }
        waits.sort_unstable();
        println!(
            "appends of 20 rows at 1,000 rows/s with the log beside them without: {:.3} ({ratios:.3?})",
            median(ratios.clone())
        );
        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
        println!("append to covered by a published checkpoint: median {:?}, p95 {:?}, worst {:?}", at(50), at(95), at(100));

        let site = Site::new();
        for first in (0..rows).step_by(1000) {
            let batch = (first..rows.min(first + 1000)).map(note).collect();
            site.ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
        }
        let mut integrator = site.integrator();
        while integrator.step().await.unwrap() != Step::Idle {}
        let signed = last_signed(&site.locks, TENANT).await.unwrap().unwrap();
        let origin = Checkpoint::of(&signed).unwrap().origin;
        let note = Note::parse(&site.tiles.read_now(&format!("{origin}/checkpoint")).unwrap().unwrap()).unwrap();
        let policy = Policy::of_log(NoteKey::new(origin, KeyKind::Log, site.signer.public_key()).unwrap());
        let all = site.ledger.collect(&Scope::runtime(TENANT), &Query::timeline().tenant(TENANT), usize::MAX).await.unwrap();
        let lines: Vec<u8> = all.iter().flat_map(|row| [row.to_line().as_slice(), b"\n"].concat()).collect();
        let mut ratios = Vec::new();
        let mut last = (Duration::ZERO, Duration::ZERO);
        for _ in 0..pairs {
            last = audits(&lines, &all, &site, &note, &policy);
            ratios.push(last.0.as_secs_f64() / last.1.as_secs_f64());
        }
        println!(
            "audit of {rows} rows beside their bare signatures on all cores: {:.3} ({ratios:.3?}; last {last:?})",
            median(ratios.clone())
        );
    });
}

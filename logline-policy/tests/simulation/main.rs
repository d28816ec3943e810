//! A whole fleet in one thread of virtual time: hosts that crash at any call of the ledger, a ledger that is slow, fails before or after
//! it did what it was asked, and is away for ten seconds; clocks that are minutes apart. What happens follows from a seed alone.
//!
//! `LOGLINE_SIMULATION_SEED=7 cargo test -p logline-policy --test simulation` repeats one seed, `LOGLINE_SIMULATION_SEEDS=10000` runs so
//! many (`cargo xtask simulate`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests may, and this one says how to repeat it"
)]
#![allow(unreachable_pub, reason = "the parts of one test")]

#[path = "../../../logline-kernels/tests/setup/mod.rs"]
mod setup;

mod check;
mod fleet;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use check::Counted;
use fleet::simulate;

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// Attempts that a tenant may make in a day.
const PER_DAY: u64 = 60;

/// How long faults go on.
const STORM: Duration = Duration::from_secs(60);

fn run(seed: u64, policies: bool) -> Result<Counted, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, policies))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs the seeds that were asked for, on two threads; what they did in all.
fn run_all(test: &str, usual: u64, policies: bool) -> (usize, Counted) {
    let seeds: Vec<u64> = match from_env("LOGLINE_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("LOGLINE_SIMULATION_SEEDS").unwrap_or(usual)).collect(),
    };
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Counted::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    match run(*seed, policies) {
                        Ok(counted) => total.lock().unwrap().add(counted),
                        Err(error) => failed.lock().unwrap().push((*seed, error)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (seed, error) in &failed {
        eprintln!(
            "seed {seed}: {error}\n  repeat it: LOGLINE_SIMULATION_SEED={seed} cargo test -p logline-policy --test simulation {test}"
        );
    }
    assert!(failed.is_empty(), "{} of {} seeds failed", failed.len(), seeds.len());
    let total = total.into_inner().unwrap();
    println!("{} seeds: {total}", seeds.len());
    (seeds.len(), total)
}

#[test]
fn whatever_happens_to_a_fleet_every_attempt_is_recorded_once() {
    let (seeds, total) = run_all("whatever_happens", 60, false);
    // A simulation in which nothing goes wrong proves nothing.
    assert!(seeds < 10 || (total.lost > 0 && total.crashes > 0 && total.failures > 0), "{total}");
}

#[test]
fn whatever_happens_to_agents_every_effect_happens_once() {
    let (seeds, total) = run_all("agents", 30, true);
    assert!(seeds < 10 || (total.crashes > 0 && total.failures > 0), "{total}");
}

#[test]
fn a_seed_repeats_itself_to_the_last_hash() {
    // (Without policies: their evaluation takes a thread of its own, which no seed schedules.)
    assert_eq!(run(3, false).unwrap(), run(3, false).unwrap());
}

//! What one hostile tenant costs the others, and what one hostile user costs the rest of its tenant.
//!
//! Ten tenants share a ledger and a host. In each run one user of one tenant does something hostile. Meanwhile a user of every
//! other tenant, and another user of the same tenant, ask for executions and wait for the answers. The table compares their
//! waiting times with those of a quiet host in the same run.
//!
//! The program fails if a request of another tenant is not answered within 30 seconds, or if the other tenants wait longer than
//! `--within` allows. What the users of the hostile tenant itself wait is shown: they share what their tenant gets.
#![allow(clippy::print_stdout, reason = "a program prints to its user")]

mod attacks;
mod guests;
mod site;
mod victims;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use attacks::Attack;
use site::{Failure, Site};
use victims::Felt;

#[derive(Parser)]
#[command(about = "What hostile users cost the others")]
struct Options {
    /// The attacks; all of them if none is named.
    attacks: Vec<Attack>,
    /// The stores.
    #[arg(long, value_enum, default_values = ["sqlite", "postgres"])]
    on: Vec<Store>,
    /// How many hostile rows, or runs.
    #[arg(long, default_value_t = 2000)]
    size: usize,
    /// How many times each victim asks, before the attack and during it.
    #[arg(long, default_value = "30")]
    rounds: NonZeroUsize,
    /// Fail as well if the 99th percentile of the other tenants is more than this many times that of the quiet host.
    #[arg(long, value_name = "RATIO")]
    within: Option<f64>,
}

/// Where the ledger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!(
                "\na user of another tenant was not answered within {} s, or waited longer than allowed",
                victims::PATIENCE.as_secs()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the attacks. Returns whether every victim was answered, and soon enough.
async fn run(options: &Options) -> Result<bool, Failure> {
    let attacks = if options.attacks.is_empty() { Attack::value_variants() } else { &options.attacks };
    println!("{} hostile rows or runs, {} rounds; waiting times in milliseconds\n", options.size, options.rounds);
    println!("{:<10} {:<16} {:>28} {:>28} {:>10}", "", "", "other tenants", "same tenant", "");
    println!(
        "{:<10} {:<16} {:>28} {:>28} {:>10}",
        "store", "attack", "median p99 quiet | with", "median p99 quiet | with", "p99 ratio"
    );
    let mut all_answered = true;
    let within = options.within.unwrap_or(f64::INFINITY);
    for store in &options.on {
        for attack in attacks {
            let site = Site::open(*store).await?;
            let quiet = victims::measure(&site, options.rounds.get()).await?;
            let felt = attacks::during(&site, *attack, options.size, victims::measure(&site, options.rounds.get())).await?;
            all_answered &= felt.is_answered() && quiet.is_answered() && ratio(&quiet, &felt) <= within;
            println!("{}", row(*store, *attack, &quiet, &felt));
            site.close().await?;
        }
    }
    Ok(all_answered)
}

/// How many times as long the other tenants waited, by the 99th percentile.
fn ratio(quiet: &Felt, felt: &Felt) -> f64 {
    victims::at(&felt.others, 0.99) / victims::at(&quiet.others, 0.99).max(0.001)
}

fn row(store: Store, attack: Attack, quiet: &Felt, felt: &Felt) -> String {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned()).unwrap_or_default();
    let cell = |quiet: &[f64], felt: &[f64]| {
        let of = |times: &[f64]| format!("{:.0} {:.0}", victims::at(times, 0.5), victims::at(times, 0.99));
        format!("{} | {}", of(quiet), of(felt))
    };
    format!(
        "{:<10} {:<16} {:>28} {:>28} {:>10.1}",
        name(store.to_possible_value()),
        name(attack.to_possible_value()),
        cell(&quiet.others, &felt.others),
        cell(&quiet.same, &felt.same),
        ratio(quiet, felt)
    )
}

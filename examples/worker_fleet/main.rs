//! A fleet of worker processes on one ledger. With `--chaos` workers are killed at random. At the end the example counts the
//! outcome of every request.
//!
//! `cargo run --example worker_fleet -- --chaos` starts a private PostgreSQL server. `--ledger sqlite:FILE` or
//! `--ledger postgres://…` uses that ledger instead. It must be empty, and the PostgreSQL login must be allowed to migrate it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod fleet;
mod setup;
mod tally;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt as _;
use logline_core::request::Request;
use logline_core::{Host, HostError};
use serde_json::json;

use fleet::Fleet;
use setup::{Site, TENANTS};
use tally::Tally;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs worker processes on one ledger and shows that no request is lost and none is recorded twice.
#[derive(Parser)]
struct Options {
    /// An empty ledger: `sqlite:FILE` or `postgres://LOGIN@HOST/DATABASE`. Default: a private PostgreSQL server.
    #[arg(long)]
    ledger: Option<String>,
    /// Number of requests in total.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
    /// Number of worker processes, 1 to 32.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: u8,
    /// Kill workers at random, and start a new one for each.
    #[arg(long)]
    chaos: bool,
    /// With --chaos, spread the requests over this many seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print only one line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Run as worker number N. The example starts its own program with this option.
    #[arg(long, hide = true, requires_all = ["ledger", "keys"])]
    worker: Option<usize>,
    #[arg(long, hide = true)]
    keys: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse();
    let result = match (options.worker, &options.ledger, &options.keys) {
        (Some(number), Some(ledger), Some(keys)) => fleet::work(number, ledger, keys).await.map(|()| true),
        _ => run(&options).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("worker_fleet failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool> {
    let say = |text: String| {
        if !options.json {
            println!("{text}");
        }
    };
    let site = Site::prepare(options.ledger.as_deref(), options.workers.into()).await?;
    say(format!("ledger {}: {} tenants with a function each", site.shown, TENANTS.len()));
    let host = site.host().await?;
    let mut fleet = Fleet::start(&site, options.workers.into())?;
    say(format!("{} worker processes, each with a key that an authority has delegated to", options.workers));

    let started = Instant::now();
    let mut tally = Tally::follow(&host).await?;
    let spread = if options.chaos { Duration::from_secs(options.seconds) } else { Duration::ZERO };
    let submitting = submit(&host, &site, options.requests, spread);
    let ended = tally.until(options.requests, |ended, lately| {
        say(format!("{ended:>8} of {} requests have ended, {lately:.0} a second", options.requests));
    });
    let both = async { tokio::try_join!(submitting, ended) };
    tokio::pin!(both);
    let mut kills = 0;
    loop {
        let pause = tokio::time::sleep(fleet.next_kill());
        tokio::select! {
            done = &mut both => {
                done?;
                break;
            }
            () = pause, if options.chaos => {
                fleet.kill_one()?;
                kills += 1;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    fleet.stop()?;
    let count = tally::count(&host, &site.trust).await?;
    let line = json!({
        "requests": options.requests, "outcomes": count.ended, "attempts": count.attempts, "lost": options.requests - count.ended,
        "duplicated": count.duplicated, "unrecorded": count.unrecorded, "chain_errors": count.problems, "kills": kills,
        "seconds": (seconds * 1000.0).round() / 1000.0, "p50_ms": count.percentile(0.50), "p95_ms": count.percentile(0.95),
    });
    if options.json {
        println!("{line}");
    } else {
        println!("\n{} requests ended in {seconds:.1} s, {kills} workers were killed", count.ended);
        println!("{} attempts, of which {} were lost with their worker and say so", count.attempts, count.lost_attempts);
        println!("{} attempts without a record, {} with more than one", count.unrecorded, count.duplicated);
        println!("audit: {} rows, {} problems", count.rows, count.problems);
        println!(
            "from request to recorded outcome: p50 {:.1} ms, p95 {:.1} ms",
            count.percentile(0.50),
            count.percentile(0.95)
        );
    }
    Ok(count.ended == options.requests && count.duplicated == 0 && count.unrecorded == 0 && count.problems == 0)
}

/// How many submissions are in progress at the same time.
const SUBMITTED_AT_ONCE: usize = 64;

/// Submits requests for all tenants in turn.
async fn submit(host: &Host, site: &Site, requests: usize, spread: Duration) -> Result<()> {
    let started = Instant::now();
    let submissions = TENANTS.into_iter().cycle().take(requests).enumerate();
    let submissions = futures_util::stream::iter(submissions).map(|(n, tenant)| async move {
        let due = spread.mul_f64(n as f64 / requests.max(1) as f64);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        // With the idempotency key a retry does not create a second request.
        let request = Request::new(tenant, "customer", site.function(tenant), json!({"number": n, "amount_minor": n * 100}))
            .max_attempts(100)
            .backoff(Duration::from_millis(100))
            .idempotency_key(n.to_string());
        let mut tries = 0;
        loop {
            match host.submit(request.clone()).await {
                Ok(_) => return Ok::<(), HostError>(()),
                Err(error) if tries >= 20 => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a request was not stored, trying again");
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        }
    });
    let mut submissions = submissions.buffer_unordered(SUBMITTED_AT_ONCE);
    while let Some(submitted) = submissions.next().await {
        submitted?;
    }
    Ok(())
}

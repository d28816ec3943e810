//! Two tenants on one PostgreSQL database: three writer processes, a live tail, and attacks that fail.
//!
//! `cargo run --example multi_tenant_postgres` starts a private server. If `DATABASE_URL` is set, it uses that database, which
//! must be empty. The URL's login must be a superuser.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod attacks;
mod setup;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt as _;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{Ledger as _, LedgerExt as _, WatchFrom};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, Visibility};
use logline_pg::{PgLedger, PgOptions};
use serde_json::json;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Tenant and user of each writer. Each is a process of its own with its own key, to which an authority has delegated.
const WRITERS: [(&str, &str); 3] = [("acme", "alice"), ("acme", "bob"), ("globex", "carol")];

/// How long to wait for a row before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two tenants, three writer processes, one live tail, and attacks that fail.
#[derive(Parser)]
struct Options {
    /// Notes that each writer appends.
    #[arg(long, default_value_t = 200)]
    notes: usize,
    /// Run as writer number N on this database. The example starts its own program with this option.
    #[arg(long, hide = true, requires_all = ["url", "keys"])]
    writer: Option<usize>,
    #[arg(long, hide = true)]
    url: Option<String>,
    #[arg(long, hide = true)]
    keys: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse();
    let result = match (options.writer, &options.url, &options.keys) {
        (Some(writer), Some(url), Some(keys)) => write(writer, url, keys, options.notes).await.map(|()| true),
        _ => run(&options).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("multi_tenant_postgres failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a writer process. It knows only its tenant, its user, its key and the API's login.
async fn write(number: usize, url: &str, keys: &Path, notes: usize) -> Result<()> {
    let (tenant, user) = WRITERS.get(number).ok_or("there is no such writer")?;
    let ledger = PgLedger::connect(PgOptions::new(url)?.max_connections(2).writers(1)).await?;
    let (key, scope) = (KeyPair::load(setup::key_file(keys, number))?, Scope::user(*tenant, *user));
    for n in 0..notes {
        let visibility = if n % 2 == 0 { Visibility::Private } else { Visibility::Tenant };
        let note = Draft::new("note").tenant(*tenant).owner(*user).who(format!("user:{user}")).this("note.shift");
        let note = note.visibility(visibility).content(json!({"n": n})).stamp(&SystemClock, &SystemIds);
        ledger.append_one(&scope, note.seal_local(&key)?).await?;
    }
    Ok(())
}

/// The writer processes. They are killed when this is dropped.
struct Writers(Vec<Child>);

impl Writers {
    fn start(url: &str, keys: &Path, notes: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut writers = Self(Vec::new());
        for number in 0..WRITERS.len() {
            let mut command = Command::new(&program);
            command
                .args(["--writer", &number.to_string(), "--url", url, "--notes", &notes.to_string()])
                .arg("--keys")
                .arg(keys);
            writers.0.push(command.stdin(Stdio::null()).spawn()?);
        }
        Ok(writers)
    }

    fn wait(&mut self) -> Result<()> {
        for writer in &mut self.0 {
            let status = writer.wait()?;
            if !status.success() {
                return Err(format!("a writer process ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for writer in &mut self.0 {
            // The writer may have ended by itself.
            let _ = writer.kill();
            let _ = writer.wait();
        }
    }
}

async fn run(options: &Options) -> Result<bool> {
    let database = setup::database().await?;
    println!("database {} has the ledger's schema, roles, and a login each for API, worker and auditor", database.shown);
    let auditor = PgLedger::connect(PgOptions::new(&database.auditor)?).await?;
    let keys = setup::Keys::prepare(&auditor, &WRITERS).await?;
    println!("the manifest names one authority over hosts; it has delegated to a key of each writer, for an hour");

    // Each tail shows what its scope may see: all rows of acme, and all rows of globex.
    let worker = PgLedger::connect(PgOptions::new(&database.worker)?).await?;
    let mut tails = Vec::new();
    for tenant in ["acme", "globex"] {
        let tail = worker.watch(&Scope::runtime(tenant), WatchFrom::Now).await?;
        tails.push(tail.map(move |row| (tenant, row)));
    }
    let mut tail = futures_util::stream::select_all(tails);
    let started = Instant::now();
    let mut writers = Writers::start(&database.api, keys.folder(), options.notes)?;
    let expected = WRITERS.len() * options.notes;
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for total in 1..=expected {
        let row = tokio::time::timeout(PATIENCE, tail.next()).await.map_err(|_| "the tail lost a row")?;
        let Some((tenant, row)) = row else { break };
        let span = row?.span;
        if span.tenant_id != tenant {
            return Err(format!("the tail of {tenant} shows a row of {}", span.tenant_id).into());
        }
        *seen.entry((span.tenant_id.clone(), span.owner_id.clone())).or_default() += 1;
        if total % 200 == 0 {
            println!("tail: {total} of {expected} rows, last {}/{} {}", span.tenant_id, span.owner_id, span.id);
        }
    }
    writers.wait()?;
    let took = started.elapsed();
    println!("{} writer processes appended {expected} notes, and the tail showed each once, in {took:.1?}:", WRITERS.len());
    for ((tenant, owner), notes) in &seen {
        println!("  {tenant}/{owner}: {notes}");
    }
    let complete = seen.len() == WRITERS.len() && seen.values().all(|notes| *notes == options.notes);

    println!("\nattacks, each with a login that a thief of the API's password would have:");
    let attacks_failed = attacks::run(&database).await?;

    let trusted = keys.trust.resolve(&auditor).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(&auditor, audit, &mut |_| {}).await?;
    println!(
        "\naudit: {} rows in {} chains, each by a key that the manifest names or an authority delegated to: {} problems",
        report.rows, report.chains, report.problems
    );
    Ok(complete && attacks_failed && report.is_clean() && report.rows as usize >= expected)
}

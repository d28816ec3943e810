//! The main job of LogLine in one run. A function is stored in a ledger, verified, and executed in a sandbox, and every step is
//! a signed span. The example then verifies the whole history and runs three attacks on it.
//!
//! `cargo run --example quickstart -- --help` lists the options.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod attacks;
mod report;
mod setup;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::Ledger;
use logline_core::request::Request;
use logline_core::{Host, Scope, json, ndjson};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::Value;

use report::Tally;
use setup::Setup;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The tenant whose payments are scored, and the user who asks for it.
pub(crate) const TENANT: &str = "acme";
pub(crate) const USER: &str = "payments-api";

const EVENTS: &str = include_str!("events.ndjson");

/// Scores payment events with a function from a signed ledger, and verifies every row.
#[derive(Parser)]
struct Options {
    /// Payment events, one JSON object a line; `-` reads standard input. Default: 50 events that come with the example.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Keep the ledger in FILE and its keys beside it. A second run continues with them. Default: a temporary folder.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// Write the ledger as NDJSON, one signed span a line.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(io::stderr).init();
    match run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<bool> {
    let source = open_events(options.input.as_deref())?;
    let export = options.export.as_deref().map(create_export).transpose()?;
    let folder = tempfile::tempdir()?;
    let path = options.db.clone().unwrap_or_else(|| folder.path().join("quickstart.ledger"));
    let ledger = SqliteLedger::open(&path)?;
    println!("ledger   {} ({})", path.display(), ledger.capability().durability);

    // Four keys, the pinned trust root, a manifest that names the keys, and the kernels' seeds.
    let setup = Setup::prepare(&path, &ledger).await?;

    // An application composes such a host.
    let host = Host::builder()
        .ledger(ledger.clone())
        .trust(setup.trust.clone())
        .key(setup.host.clone())
        .install(logline_kernels::all())
        .sandbox(WasmSandbox::new()?)
        .build()
        .await?;
    println!(
        "manifest version {} is in force, approved by {} of the pinned keys",
        host.trusted().manifest.version,
        setup.trust.threshold
    );

    let booted = host.boot(logline_core::ids::RUN_CODE).await?;
    println!("stage-0  booted {} from span {}", booted.span.code.as_deref().unwrap_or_default(), booted.span.key());

    let function = setup.publish_function(&host).await?;
    println!(
        "function {} `{}`, signed by {TENANT}'s publisher\n",
        function.key(),
        function.name.as_deref().unwrap_or_default()
    );

    let tally = score(&host, source, function.id).await?;
    tally.print_summary();
    report::print_span_counts(&ledger).await?;

    let clean = verify(&host, &ledger).await?;
    if let (Some(file), Some(path)) = (export, &options.export) {
        let mut out = BufWriter::new(file);
        let exported = ndjson::export(&ledger, &Scope::Operator, None, &mut out, &mut |_| {}).await?;
        println!("export   {} spans to {}, blake3 {}", exported.spans, path.display(), exported.hash);
    }
    let repelled = attacks::run(&host, &ledger, &setup, &function, folder.path(), tally.last_execution).await?;
    // The function accepts every event that comes with the example. It may refuse events of another input.
    let expected = options.input.is_some() || tally.failed == 0;
    let held = clean && repelled && expected && tally.bad_lines == 0;
    println!("\n{}", if held { "everything holds" } else { "NOT everything holds: see above" });
    Ok(held)
}

fn open_events(input: Option<&Path>) -> Result<Box<dyn BufRead + Send>> {
    Ok(match input {
        None => Box::new(EVENTS.as_bytes()),
        Some(path) if path.as_os_str() == "-" => Box::new(BufReader::new(io::stdin())),
        Some(path) => Box::new(BufReader::new(File::open(path).map_err(|e| format!("{}: {e}", path.display()))?)),
    })
}

/// Creates the export file. Only an empty file or an earlier export is overwritten.
fn create_export(path: &Path) -> Result<File> {
    if fs::read(path).is_ok_and(|bytes| !bytes.is_empty() && !bytes.starts_with(b"{\"at\":")) {
        return Err(format!("{} exists and is no export: choose another file", path.display()).into());
    }
    Ok(File::create(path).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// Sends every event through the function.
async fn score(host: &Host, mut source: Box<dyn BufRead + Send>, function: uuid::Uuid) -> Result<Tally> {
    let mut lines = ndjson::LineReader::new(source.as_mut(), 1 << 20);
    let mut tally = Tally::default();
    report::print_header();
    while let Some(line) = lines.next_line()? {
        let (number, event) = match line {
            ndjson::Line::Whole(_, bytes) if bytes.trim_ascii().is_empty() => continue,
            ndjson::Line::Whole(number, bytes) => (number, json::parse(bytes).map_err(|e| e.to_string())),
            ndjson::Line::TooLong(number) => (number, Err("longer than 1 MiB".to_owned())),
        };
        match event {
            Ok(event) => {
                let payment = event.get("id").and_then(Value::as_str).unwrap_or("?").escape_debug().to_string();
                let execution = host.execute(Request::new(TENANT, USER, function, event)).await?;
                tally.add(&payment, &execution);
            }
            Err(error) => {
                tally.bad_lines += 1;
                eprintln!("line {number}: {error}");
            }
        }
    }
    Ok(tally)
}

/// Audits every row: hash, signature, chain and authority.
async fn verify(host: &Host, ledger: &SqliteLedger) -> Result<bool> {
    let trusted = host.trusted();
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(ledger, audit, &mut report::print_problem).await?;
    println!(
        "verified {} spans in {} version chains: hash, signature, link and signer's role of each; {} problems",
        report.rows, report.chains, report.problems
    );
    Ok(report.is_clean())
}

//! `logline`: the operator's tool for ledgers.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to whoever runs it")]

mod commands;
mod open;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{delegate, doctor, export, fsck, import, keygen, migrate, read, rebuild, replay, tail};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Works on LogLine ledgers: signed, append-only, verifiable.
///
/// Exit status: 0 where all held, 1 where something did not, 2 where the command could not be carried out.
#[derive(Parser)]
#[command(name = "logline", version)]
struct Options {
    /// The ledger: `sqlite:FILE` or `postgres://LOGIN@HOST/DATABASE`.
    #[arg(long, global = true, value_name = "URL", env = "LOGLINE_LEDGER")]
    ledger: Option<String>,
    /// One JSON object a line, for machines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a new key file, readable by its owner only.
    Keygen(keygen::Options),
    /// Makes a host's key count, for some tenants and a time: a runtime authority signs for it.
    Delegate(delegate::Options),
    /// Appends spans from NDJSON, signed or not; names every bad line and keeps the good ones.
    Import(import::Options),
    /// Writes all spans as NDJSON, with a signed sidecar if a key is given for one.
    Export(export::Options),
    /// Audits every row: hash, signature, chain, and with a trust root the signer's role.
    Fsck(fsck::Options),
    /// Prints the last version of a span.
    Get(read::Options),
    /// Prints every version of a span.
    History(read::Options),
    /// Runs executions again from the ledger and compares: output, what was emitted and logged, and fuel.
    Replay(replay::Options),
    /// Follows the ledger.
    Tail(tail::Options),
    /// Brings a PostgreSQL database to this version's schema, roles included.
    Migrate(migrate::Options),
    /// Checks a PostgreSQL database: schema, row-level security, roles, settings; says what to fix.
    Doctor,
    /// Makes the tables of open requests and of today's quota counters anew from the rows: a repair. Appends wait meanwhile.
    Rebuild,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return output::failed(&e, options.json),
    };
    match runtime.block_on(run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => output::failed(e.as_ref(), options.json),
    }
}

async fn run(options: &Options) -> Result<bool, Error> {
    let ledger = options.ledger.as_deref();
    match &options.command {
        Command::Keygen(command) => keygen::run(command, options.json),
        Command::Delegate(command) => delegate::run(command, ledger, options.json).await,
        Command::Import(command) => import::run(command, ledger, options.json).await,
        Command::Export(command) => export::run(command, ledger, options.json).await,
        Command::Fsck(command) => fsck::run(command, ledger, options.json).await,
        Command::Get(command) => read::get(command, ledger, options.json).await,
        Command::History(command) => read::history(command, ledger, options.json).await,
        Command::Replay(command) => replay::run(command, ledger, options.json).await,
        Command::Tail(command) => tail::run(command, ledger, options.json).await,
        Command::Migrate(command) => migrate::run(command, ledger, options.json).await,
        Command::Doctor => doctor::run(ledger, options.json).await,
        Command::Rebuild => rebuild::run(ledger, options.json).await,
    }
}

//! `logline`: the operator's tool for ledgers.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints to its user")]

mod commands;
mod open;
mod output;
mod site;
mod tenant_keys;
mod when;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::run as worker;
use commands::{
    completions, delegate, doctor, end_key, export, fsck, function, governance, import, init, keygen, list, log, manifest,
    memory, migrate, policy, prompt, provider, publish, read, rebuild, replay, request, rotate, stats, tail, verify, witness,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Works with LogLine ledgers: signed, append-only, verifiable.
///
/// Exit status: 0 if everything is valid, 1 if something is not, 2 if the command could not be carried out.
#[derive(Parser)]
#[command(name = "logline", version)]
struct Options {
    /// The ledger: `sqlite:FILE` or `postgres://LOGIN@HOST/DATABASE`.
    #[arg(long, global = true, value_name = "URL", env = "LOGLINE_LEDGER")]
    ledger: Option<String>,
    /// Print one JSON object per line, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes keys, trust root, first manifest and kernels for a ledger. What exists is not changed.
    Init(init::Options),
    /// Publishes, checks and lists functions.
    Function(function::Options),
    /// Submits, shows, cancels, revives and awaits requests.
    Request(request::Options),
    /// Runs the worker, the schedules and the policies of a host in one process.
    Run(worker::Options),
    /// Lists spans, the newest first.
    List(list::Options),
    /// Counts rows by type and status, and open requests.
    Stats(stats::Options),
    /// Publishes policies, schedules, providers and prompts from a file of drafts.
    Publish(publish::Options),
    /// Tries policies.
    Policy(policy::Options),
    /// Builds, evaluates, verifies and explains prompts.
    Prompt(prompt::Options),
    /// Checks providers.
    Provider(provider::Options),
    /// Keeps, finds, exports and forgets memories of users.
    Memory(memory::Options),
    /// Shows, publishes and approves manifests.
    Manifest(manifest::Options),
    /// Ends a key, or one of its rights, at a place in transparency logs: what it has signed later does not count.
    EndKey(end_key::Options),
    /// Adds root keys, and sets how many of them must approve.
    Rotate(rotate::Options),
    /// Proposes to put a version in force.
    Propose(governance::ProposeOptions),
    /// Proposes to go back to a version that was in force.
    Rollback(governance::RollbackOptions),
    /// Takes a proposal back.
    Withdraw(governance::WithdrawOptions),
    /// Shows what a proposal would change, and how its vote stands.
    Diff(governance::DiffOptions),
    /// Approves a proposal, after its content was shown.
    Approve(governance::VoteOptions),
    /// Rejects a proposal, after its content was shown.
    Reject(governance::VoteOptions),
    /// Carries out a proposal that enough approvers have approved.
    Promote(governance::PromoteOptions),
    /// Tests whether a version passes a gate, and records the result.
    Test(governance::TestOptions),
    /// Says which approvals have allowed what ran, or how a vote stands.
    Explain(governance::ExplainOptions),
    /// Prints a script that completes this command's arguments in your shell.
    Completions(completions::Options),
    /// Creates a new key file that only its owner can read.
    Keygen(keygen::Options),
    /// Makes a host's key a runtime key of some tenants for a limited time, signed by a runtime authority.
    Delegate(delegate::Options),
    /// Appends signed or unsigned spans from NDJSON. Reports every bad line and stores the good ones.
    Import(import::Options),
    /// Writes all spans as NDJSON, with a signed sidecar if `--sidecar` and `--key` are given.
    Export(export::Options),
    /// Audits every row: hash, signature, chain, and the signer's role if a trust root is given.
    Fsck(fsck::Options),
    /// Keeps the transparency logs of tenants, shows their checkpoints, and proves that rows are in them.
    Log(log::Options),
    /// Watches logs of others: cosigns each checkpoint that continues the one before, over HTTP. It needs no ledger.
    Witness(witness::Options),
    /// Verifies an export against a log, or one row against its proof. It needs no ledger.
    Verify(verify::Options),
    /// Prints the last version of a span.
    Get(read::Options),
    /// Prints every version of a span.
    History(read::Options),
    /// Runs executions again from the ledger and compares output, emitted spans, logs and fuel.
    Replay(replay::Options),
    /// Follows the ledger and prints every version that is appended.
    Tail(tail::Options),
    /// Brings a PostgreSQL database to this version's schema, including its roles.
    Migrate(migrate::Options),
    /// Checks a PostgreSQL database (schema, row-level security, roles, settings) and says what to fix.
    Doctor,
    /// Rebuilds the tables of open requests, active schedules and policies, and today's quota counters from the rows. This is a
    /// repair. Appends wait meanwhile.
    Rebuild,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = match std::env::var_os(tracing_subscriber::EnvFilter::DEFAULT_ENV) {
        Some(_) => tracing_subscriber::EnvFilter::from_default_env(),
        // A host whose ledger is away must say so.
        None => tracing_subscriber::EnvFilter::new("warn,sqlx=error"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
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
        Command::Init(command) => init::run(command, ledger, options.json).await,
        Command::Function(command) => function::run(command, ledger, options.json).await,
        Command::Request(command) => request::run(command, ledger, options.json).await,
        Command::Run(command) => worker::run(command, ledger, options.json).await,
        Command::List(command) => list::run(command, ledger, options.json).await,
        Command::Stats(command) => stats::run(command, ledger, options.json).await,
        Command::Publish(command) => publish::run(command, ledger, options.json).await,
        Command::Prompt(command) => prompt::run(command, ledger, options.json).await,
        Command::Provider(command) => provider::run(command, ledger, options.json).await,
        Command::Memory(command) => memory::run(command, ledger, options.json).await,
        Command::Policy(command) => policy::run(command, ledger, options.json).await,
        Command::Manifest(command) => manifest::run(command, ledger, options.json).await,
        Command::EndKey(command) => end_key::run(command, ledger, options.json).await,
        Command::Rotate(command) => rotate::run(command, ledger, options.json).await,
        Command::Propose(command) => governance::propose(command, ledger, options.json).await,
        Command::Rollback(command) => governance::rollback(command, ledger, options.json).await,
        Command::Withdraw(command) => governance::withdraw(command, ledger, options.json).await,
        Command::Diff(command) => governance::diff(command, ledger, options.json).await,
        Command::Approve(command) => governance::approve(command, ledger, options.json).await,
        Command::Reject(command) => governance::reject(command, ledger, options.json).await,
        Command::Promote(command) => governance::promote(command, ledger, options.json).await,
        Command::Test(command) => governance::test(command, ledger, options.json).await,
        Command::Explain(command) => governance::explain(command, ledger, options.json).await,
        Command::Completions(command) => completions::run::<Options>(command),
        Command::Keygen(command) => keygen::run(command, options.json),
        Command::Delegate(command) => delegate::run(command, ledger, options.json).await,
        Command::Import(command) => import::run(command, ledger, options.json).await,
        Command::Export(command) => export::run(command, ledger, options.json).await,
        Command::Fsck(command) => fsck::run(command, ledger, options.json).await,
        Command::Log(command) => log::run(command, ledger, options.json).await,
        Command::Witness(command) => witness::run(command, options.json).await,
        Command::Verify(command) => verify::run(command, options.json),
        Command::Get(command) => read::get(command, ledger, options.json).await,
        Command::History(command) => read::history(command, ledger, options.json).await,
        Command::Replay(command) => replay::run(command, ledger, options.json).await,
        Command::Tail(command) => tail::run(command, ledger, options.json).await,
        Command::Migrate(command) => migrate::run(command, ledger, options.json).await,
        Command::Doctor => doctor::run(ledger, options.json).await,
        Command::Rebuild => rebuild::run(ledger, options.json).await,
    }
}

//! A function on a schedule, and policies that react to what it does. Then a dry run, which shows what an unpublished policy
//! would have done, and policies that are refused because they cannot work.
//!
//! `cargo run --example policies -- --help` lists the options.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::StreamExt as _;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{Ledger as _, WatchFrom};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, Visibility, ids};
use logline_kernels::{Loops, Run as _, SchedulerReport, WorkerReport};
use logline_policy::{AgentReport, Decision, DryRunOptions, dry_run};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TENANT: &str = "acme";

/// The function: it returns its argument, which contains the slot of the schedule.
const ECHO: &str = r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "alloc") (param $len i32) (result i32)
    (global.set $next (i32.add (global.get $next) (local.get $len)))
    (i32.sub (global.get $next) (local.get $len)))
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))"#;

/// Runs a schedule and policies on a ledger for a few seconds, and shows what they wrote.
#[derive(Parser)]
struct Options {
    /// How many seconds the example runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(io::stderr).init();
    match run(&Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("policies failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let ledger = SqliteLedger::open(folder.path().join("ledger.db"))?;
    let (root, publisher, host_key) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let trust = TrustRoot::new([root.public_key()], 1);
    let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
        .allow("run_code", ids::RUN_CODE)
        .allow("request_worker", ids::REQUEST_WORKER)
        .allow("observer_bot", ids::OBSERVER)
        .allow("policy_agent", ids::POLICY_AGENT)
        .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
        .grant(host_key.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
    logline_kernels::install(&ledger, &logline_kernels::all().and(logline_policy::all()), &publisher, &SystemClock).await?;
    let host = Host::builder()
        .ledger(ledger.clone())
        .trust(trust.clone())
        .key(host_key)
        .install(logline_kernels::all())
        .install(logline_policy::all())
        .sandbox(WasmSandbox::new()?)
        .build()
        .await?;

    host.publish(scheduled(), &publisher).await?;
    host.publish(policy("answered", answered()), &publisher).await?;
    host.publish(policy("reminder", reminder()), &publisher).await?;
    logline_policy::install_policies(&ledger, TENANT, "compliance", &publisher, &SystemClock).await?;
    println!(
        "one function on a schedule of every second, two policies of ours, eight built in. {} seconds:\n",
        options.seconds
    );

    let watch = ledger.watch(&Scope::runtime(TENANT), WatchFrom::Now).await?;
    let show = tokio::spawn(watch.for_each(|row| async {
        if let Ok(row) = row {
            show(&row.span);
        }
    }));
    let ran = host.run(Loops::installed(&host), tokio::time::sleep(Duration::from_secs(options.seconds))).await?;
    show.abort();
    let (worker, scheduler, agent) =
        (ran.report::<WorkerReport>(), ran.report::<SchedulerReport>(), ran.report::<AgentReport>());
    println!(
        "\n{} slots, {} attempts, {} decisions, {} spans written for policies",
        scheduler.submitted, worker.recorded, agent.spans, agent.effects
    );

    // A dry run over the executions that are stored already. It writes nothing.
    let strict =
        policy("strict", json!({"on": ["execution"], "when": "span.this == 'function.run'", "then": [answer("again")]}));
    let foreseen = dry_run(&host, strict.columns(), &DryRunOptions::default()).await?;
    let acts = foreseen.iter().filter(|one| matches!(one.decision, Ok(Decision::Act(_)))).count();
    println!("a policy that is not published would have acted on {acts} of these executions");

    for when in [
        "span.status == 'error' &&",
        "spam.status == 'error'",
        "span.related_to.all(a, span.related_to.all(b, span.related_to.all(c, a == b)))",
    ] {
        let broken = policy("broken", json!({"on": ["execution"], "when": when, "then": [answer("never")]}));
        match host.publish(broken, &publisher).await {
            Err(refused) => println!("refused: {refused}"),
            Ok(_) => return Err("a policy that cannot work was published".into()),
        }
    }

    let trusted = trust.resolve(&ledger).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(&ledger, audit, &mut |_| {}).await?;
    println!("{} rows, {} problems", report.rows, report.problems);
    Ok(report.problems == 0 && worker.recorded > 0 && agent.effects > 0)
}

fn scheduled() -> Draft {
    Draft::new("function")
        .tenant(TENANT)
        .owner("risk-team")
        .who("publisher:risk-team")
        .this("function.heartbeat")
        .visibility(Visibility::Tenant)
        .runtime(logline_wasm::RUNTIME)
        .code(ECHO)
        .status("scheduled")
        .metadata(json!({"schedule": {"every_ms": 1000, "input": {"book": "eur"}}}))
}

fn policy(name: &str, content: Value) -> Draft {
    Draft::new("policy")
        .tenant(TENANT)
        .owner("compliance")
        .who("publisher:compliance")
        .this(format!("policy.{name}"))
        .name(name)
        .status("active")
        .language("cel")
        .content(content)
}

fn answer(text: &str) -> Value {
    json!({"emit": {"entity_type": "observation", "this": "execution.answered", "content": {"text": text, "slot": "${span.output.input.slot}"}}})
}

/// A policy that writes an observation as soon as an execution completes.
fn answered() -> Value {
    json!({"on": ["execution"], "when": "span.this == 'function.run' && span.status == 'complete'", "then": [answer("${span.owner_id} was answered")]})
}

/// A policy that writes a reminder two seconds after an observation, unless the observation is deleted by then.
fn reminder() -> Value {
    json!({
        "on": ["observation"],
        "when": "!span.is_deleted",
        "due": "timestamp(span.at) + duration('2s')",
        "then": [{"emit": {"entity_type": "reminder", "this": "observation.old", "content": "${span.content.slot}"}}],
    })
}

fn show(span: &SignedSpan) {
    // Intermediate versions are not shown. The ledger has all of them.
    if span.entity_type == "policy_cursor" || span.status.as_deref() == Some("running") {
        return;
    }
    let time = span.at.to_string();
    let time = time.get(11..23).unwrap_or_default();
    let status = span.status.as_deref().unwrap_or("-");
    println!("{time}  {:<12} {:<10} {:<24} by {}", span.entity_type, status, span.this, span.who);
}

//! The whole loop of prompts: build one, evaluate two variants, let 2,000 sessions find out which one is better, explain an answer, verify
//! what was built and chosen, and find a call whose host died.
//!
//! `cargo run --example prompt_lab` needs no network: a function stands for the model. `--db FILE` keeps the ledger, `--export FILE` writes
//! it. The exit status is 1 if anything does not hold.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod customers;
mod site;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use logline_core::Scope;
use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, WatchFrom};
use logline_core::request::Request;
use logline_kernels::provider::Script;
use logline_prompts::eval::{EvalRun, PROMPT_EVALUATE, report};
use logline_prompts::{Checked, PROMPT_BUILD, PROMPT_LEARN, PROMPT_RUN, explain, verify_build, verify_selection};
use serde_json::{Value, json};
use uuid::Uuid;

use site::{Site, TENANT, id};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Builds, evaluates, chooses, explains and verifies prompts, without a network.
#[derive(Parser)]
struct Options {
    /// Keep the ledger in this file. It must not exist.
    #[arg(long)]
    db: Option<PathBuf>,
    /// Write the ledger to this file, one span a line.
    #[arg(long)]
    export: Option<PathBuf>,
    /// How many sessions are simulated.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..))]
    sessions: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prompt_lab failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = options.db.clone().unwrap_or_else(|| folder.path().join("prompt_lab.ledger"));
    if file.exists() {
        return Err(format!("{} exists: name a new file", file.display()).into());
    }
    let site = Site::new(&file).await?;
    build(&site).await?;
    evaluate(&site).await?;
    let last = sessions(&site, options.sessions).await?;
    look_back(&site, &last).await?;
    lose_a_call(&site).await?;
    let trusted = site.trusted().await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(&site.ledger, audit, &mut print_problem).await?;
    println!("\nthe ledger has {} spans, all of them signed by somebody who may", report.rows);
    holds(report.problems == 0, "the audit found nothing")?;
    if let Some(path) = &options.export {
        let mut out = BufWriter::new(File::create(path)?);
        logline_core::ndjson::export(&site.ledger, &Scope::Operator, None, &mut out, &mut |_| {}).await?;
    }
    Ok(())
}

fn print_problem(event: Event) {
    if let Event::Problem(problem) = event {
        eprintln!("{problem}");
    }
}

fn holds(is_true: bool, what: &str) -> Result<()> {
    if is_true { Ok(()) } else { Err(format!("this should be true, and is not: {what}").into()) }
}

async fn ask(site: &Site, of: Uuid, this: &str, input: Value) -> Result<Value> {
    Ok(site.host.execute(Request::new(TENANT, "support-bot", of, input).this(this)).await?.result?)
}

fn uuid(value: &Value, member: &str) -> Result<Uuid> {
    Ok(value.get(member).and_then(Value::as_str).ok_or("no id")?.parse()?)
}

async fn build(site: &Site) -> Result<()> {
    let vars = json!({"vars": {"customer": "Ada"}});
    let first = ask(site, id("prompt_variant", "support@v1"), PROMPT_BUILD, vars.clone()).await?;
    let again = ask(site, id("prompt_variant", "support@v1"), PROMPT_BUILD, vars).await?;
    let built = verify_build(&site.reader(), &site.trusted().await?.authorities, TENANT, uuid(&first, "build")?).await?;
    println!("support@v1 for Ada, {}:\n", built.compiled_hash);
    println!("{}\n", built.text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
    holds(first.get("compiled_hash") == again.get("compiled_hash"), "the same prompt has the same hash")
}

async fn evaluate(site: &Site) -> Result<()> {
    let variants = json!({"variants": [id("prompt_variant", "support@v1"), id("prompt_variant", "support@v2")]});
    let told = ask(site, id("prompt_eval", "support"), PROMPT_EVALUATE, variants).await?;
    let query = Query::new().tenant(TENANT).entity_type("prompt_eval_run");
    let spans = site.ledger.collect(&Scope::runtime(TENANT), &query, 10).await?;
    let runs = spans.iter().map(|span| EvalRun::read(span)).collect::<std::result::Result<Vec<_>, _>>()?;
    println!("five fixtures of five kinds, asked of both variants:\n\n{}", report::table(&runs));
    let failed: Vec<u64> = runs.iter().map(|run| run.counts.failed).collect();
    holds(failed == [1, 0] && told.get("passed") == Some(&json!(true)), "only v1 misses the contradiction")
}

/// Sessions of customers, some at the same time. After every hundred, the shares are renewed. Returns what the last one was told.
async fn sessions(site: &Site, count: u32) -> Result<Value> {
    println!("{count} sessions of customers; v2 is sure more often, and nobody has told the family so:\n");
    let family = id("prompt_family", "support");
    let (mut last, mut all, mut batch) = (Value::Null, BTreeMap::new(), 0);
    while batch * 100 < count {
        let numbers = batch * 100..((batch + 1) * 100).min(count);
        let asked = stream::iter(numbers).map(|n| async move {
            let input = json!({"question": format!("Customer {n}: where is my parcel?"), "vars": {"customer": "Ada"}, "session": format!("s{n}")});
            ask(site, family, PROMPT_RUN, input).await
        });
        let told: Vec<Value> = asked.buffered(16).try_collect().await?;
        let mut chosen = BTreeMap::new();
        for one in &told {
            let name = one.get("variant").and_then(Value::as_str).unwrap_or_default().to_owned();
            *chosen.entry(name.clone()).or_insert(0_u32) += 1;
            *all.entry(name).or_insert(0_u32) += 1;
        }
        last = told.into_iter().next_back().unwrap_or_default();
        ask(site, family, PROMPT_LEARN, Value::Null).await?;
        batch += 1;
        if batch.is_power_of_two() || batch * 100 >= count {
            println!("  sessions {:>5} to {:>5}: {chosen:?}", (batch - 1) * 100 + 1, (batch * 100).min(count));
        }
    }
    println!("  together: {all:?}");
    let (v1, v2) = (all.get("support@v1").copied().unwrap_or(0), all.get("support@v2").copied().unwrap_or(0));
    holds(count < 1_000 || v2 > 2 * v1, "the better variant was chosen more than twice as often")?;
    Ok(last)
}

/// Explains the last answer, and verifies how its prompt was built and how its variant was chosen.
async fn look_back(site: &Site, last: &Value) -> Result<()> {
    let trusted = site.trusted().await?;
    let authorities = &trusted.authorities;
    let explained = explain(&site.reader(), authorities, TENANT, uuid(last, "run")?).await?;
    println!("\nwhy the last customer was told {}:", explained.answer);
    println!("  what was asked, made up again and compared with the calls: {}", explained.asked);
    println!("  the prompt {} of {} blocks", explained.compiled_hash, explained.blocks.as_array().map_or(0, Vec::len));
    for one in &explained.tries {
        println!(
            "  {} asked {}: {}, {} nanos",
            one.call,
            one.model,
            one.status,
            one.cost.get("nanos").cloned().unwrap_or_default()
        );
    }
    verify_build(&site.reader(), authorities, TENANT, explained.build).await?;
    let choice = verify_selection(&site.reader(), &trusted, TENANT, uuid(last, "selection")?).await?;
    println!("  the variant was as likely as {:.3}, and comes out again from seed and counts", choice.propensity);
    holds(explained.asked == Checked::Passed, "the calls asked what the records say")?;
    holds(explained.tries.iter().any(|one| one.is_used), "the answer has a call")
}

/// A host that dies while it waits for the model leaves an intent. Whoever ends the request closes it as `unknown`.
async fn lose_a_call(site: &Site) -> Result<()> {
    site.model.then([Script::Hang]);
    let input = json!({"question": "Will you answer?", "vars": {"customer": "Ada"}});
    let request = Request::new(TENANT, "support-bot", id("prompt_variant", "support@v1"), input).this(PROMPT_RUN);
    let request = site.host.submit(request).await?;
    let mut rows = site.ledger.watch(&Scope::runtime(TENANT), WatchFrom::Now).await?;
    let intent = async {
        loop {
            let row = rows.next().await.ok_or("the ledger was closed")??;
            if row.span.entity_type == "provider_request" {
                return Ok::<_, Box<dyn Error + Send + Sync>>(row.span);
            }
        }
    };
    // Dropped in the middle of the call, as if the process had died.
    let intent = tokio::select! {
        intent = intent => intent?,
        ended = site.host.run_request(TENANT, request.id) => return Err(format!("the call ended: {ended:?}").into()),
    };
    let outcomes = async || {
        let query = Query::new().tenant(TENANT).entity_type("provider_execution");
        let all = site.ledger.collect(&Scope::runtime(TENANT), &query, usize::MAX).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(
            all.into_iter().filter(|span| span.related_to.contains(&intent.id)).collect::<Vec<_>>(),
        )
    };
    holds(outcomes().await?.is_empty(), "the call has no outcome yet")?;
    site.host.cancel(TENANT, request.id, "operator").await?;
    let found = outcomes().await?;
    let status = found.first().and_then(|span| span.status.clone()).unwrap_or_default();
    println!("\na call was lost: intent {}, closed as `{status}` by whoever ended its request", intent.id);
    holds(found.len() == 1 && status == "unknown", "it is `unknown`, once")
}

//! A memory's whole life: refused without consent, kept encrypted, recalled in another session, told to a model in confidence, seen by nobody
//! else, forgotten with a receipt, and gone from an old backup as well.
//!
//! `cargo run --example memory`. `--db FILE` keeps the ledger, with its store of keys and its tenants' keys beside it; `--secret TEXT` is
//! what is kept and then forgotten, and stands nowhere afterwards; `--export FILE` writes the ledger. The exit status is 1 if anything does
//! not hold.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod disk;
mod site;

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use logline_core::contract::CipherError;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::Ledger as _;
use logline_core::request::Request;
use logline_core::{HostError, Scope};
use logline_memory::{
    Kind, Memory, MemoryError, Mode, ReceiptState, Sensitivity, Wanted, What, close_epoch, uses, verify_erasure,
};

use logline_prompts::PROMPT_RUN;
use serde_json::json;

use site::{Site, TENANT};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Keeps, recalls and forgets a memory.
#[derive(Parser)]
struct Options {
    /// Keep the ledger in this file. It must not exist.
    #[arg(long)]
    db: Option<PathBuf>,
    /// What is kept, found and then forgotten.
    #[arg(long, default_value = "the code of the garage is 4711")]
    secret: String,
    /// Write the ledger to this file, one span a line.
    #[arg(long)]
    export: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a step, or ends the example with what does not hold.
fn holds(condition: bool, what: &str) -> Result<()> {
    if !condition {
        return Err(format!("this does not hold: {what}").into());
    }
    println!("  {what}");
    Ok(())
}

async fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = options.db.clone().unwrap_or_else(|| folder.path().join("memory.ledger"));
    if file.exists() {
        return Err(format!("{} exists: name a new file", file.display()).into());
    }
    let site = Site::new(&file).await?;
    let secret = options.secret.as_str();
    let wanted = Wanted::default();

    println!("without consent");
    let monday = site.memories("u-1", Mode::On).session("monday");
    let fact = Memory::new(Kind::Fact, secret).key("garage/code").sensitivity(Sensitivity::Pii);
    holds(matches!(monday.remember(&fact).await, Err(MemoryError::NoConsent { .. })), "nothing is remembered")?;
    let off = site.memories("u-1", Mode::Off);
    holds(matches!(off.search(secret, &wanted).await, Err(MemoryError::NoConsent { .. })), "nothing is recalled")?;

    println!("with consent");
    monday.grant(None).await?;
    let kept = monday.remember(&fact).await?;
    monday.remember(&Memory::new(Kind::Preference, "prefers to be called in the morning")).await?;
    let tuesday = site.memories("u-1", Mode::On).session("tuesday");
    let answer = tuesday.search(secret, &wanted).await?;
    let first = answer.hits.first().ok_or("nothing was found in the second session")?;
    holds(
        first.memory.body.text == secret && first.memory.id == kept.id,
        "the second session recalls what the first one was told",
    )?;
    let result = site.ledger.get(&Scope::Operator, TENANT, answer.result).await?;
    holds(result.meta("consent").is_some(), "the search is recorded, with the consent that it relies on")?;
    disk::nowhere(&file, secret)?;
    println!("  neither the fact nor the query is on the disk in the clear");

    println!("a model");
    let input = json!({"question": secret, "memory": tuesday.for_prompt(&wanted).await?});
    let asked = Request::new(TENANT, "u-1", site.prompt, input).this(PROMPT_RUN).confidential();
    let asked = site.host.execute(asked).await?;
    let answer = asked.result.as_ref().map_err(|failure| failure.to_string())?;
    holds(
        answer.to_string().contains(&kept.id.to_string()),
        "is told what was remembered, and its answer comes back in the clear",
    )?;
    disk::nowhere(&file, secret)?;
    println!("  question, memories, prompt and answer are on the disk encrypted, under the user's key");

    println!("others");
    for (tenant, owner) in [(TENANT, "u-2"), ("globex", "u-1")] {
        let other = site.of(tenant, owner, Mode::On);
        other.grant(None).await?;
        let found = other.search(secret, &wanted).await?.hits;
        holds(found.is_empty() && other.get(kept.id).await?.is_none(), &format!("{owner} of {tenant} sees nothing"))?;
    }

    println!("forgotten");
    let backup = tempfile::tempdir()?;
    disk::copy(&file, backup.path())?;
    let used = uses(&site.ledger, TENANT, kept.id).await?;
    let receipt = tuesday.forget(&What::One(kept.id)).await?;
    println!("  receipt {}: {} memory, used by {} spans", receipt.id, receipt.memories, used.len());
    let found = tuesday.search(secret, &wanted).await?.hits;
    holds(found.iter().all(|hit| hit.memory.id != kept.id), "no search finds it")?;
    let gone = site.host.outcome(TENANT, asked.request.id).await;
    holds(matches!(gone, Err(HostError::Cipher(CipherError::Erased))), "nor can anybody read what the model has made of it")?;
    let before = site.opens(backup.path(), kept.id).await?;
    holds(
        before && receipt.state == ReceiptState::Shredded,
        "shredded: a backup from before still opens with the tenant's key",
    )?;
    close_epoch(&site.host, TENANT).await?;
    let state = tuesday.receipts(1).await?.first().map(|receipt| receipt.state);
    let after = site.opens(backup.path(), kept.id).await?;
    holds(!after && state == Some(ReceiptState::Sealed), "sealed: the epoch has ended, and the backup opens nothing")?;
    let erased = verify_erasure(&site.ledger, &site.host.trusted().authorities, site.kernel.vault(), TENANT).await?;
    holds(erased.is_clean() && erased.versions > 0, "every version that was forgotten was tried with every key that is left")?;
    holds(tuesday.search("called morning", &wanted).await?.hits.len() == 1, "what was not forgotten is recalled as before")?;

    let trusted = site.trust.resolve(&site.ledger).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(&site.ledger, audit, &mut |_| {}).await?;
    println!("the ledger");
    holds(report.is_clean(), &format!("{} spans, all of them signed by somebody who may, every chain whole", report.rows))?;
    if let Some(path) = &options.export {
        let mut out = BufWriter::new(File::create(path)?);
        logline_core::ndjson::export(&site.ledger, &Scope::Operator, None, &mut out, &mut |_| {}).await?;
    }
    disk::nowhere(&file, secret)?;
    println!("everything holds");
    Ok(())
}

//! A function from proposal through two of three approvals to promotion, the ways to cheat and why each is refused, a rollback, the end
//! of a stolen key, and one span that is verified offline in another process, which has no ledger.
//!
//! `cargo run --example governance -- --help` lists the options.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod cheats;
mod site;

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use logline_core::fsck::{Audit, Event, fsck};
use logline_core::roles::Role;
use logline_core::trust::Ended;
use logline_core::trust::governance::{Environment, Version, Wish, promotion_of};
use logline_core::{ParsedSpan, Rules, Scope, SignedSpan, Signer as _, SystemClock, Verifier, ndjson, parse_line};
use logline_log::note::{Note, NoteKey};
use logline_log::{Checkpoint, Leaf, LogProof, Policy, prove};
use site::{Site, TENANT, end_at};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Governs a function, and shows what each way of cheating comes to.
#[derive(Parser)]
struct Options {
    /// Keep the ledger in this file, which must not exist. Without it: a temporary one.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// Write all spans to this file, which must not exist, as NDJSON.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Keep the log's tiles, its checkpoints and the `.tlog-proof` of one span in this folder. Without it: a temporary one.
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Verify a span offline, as the example asks another process to do: the row, the proof, the key of the log and of its witness.
    #[arg(long, num_args = 4, value_names = ["ROW", "PROOF", "LOG", "WITNESS"], hide = true)]
    verify: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.verify.as_slice() {
        [row, proof, log, witness] => verify(Path::new(row), Path::new(proof), log, witness),
        _ => run(&options).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("governance failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let db = options.db.clone().unwrap_or_else(|| folder.path().join("ledger.db"));
    let log = options.log.clone().unwrap_or_else(|| folder.path().join("log"));
    if let Some(taken) = [Some(&db), options.export.as_ref()].into_iter().flatten().find(|path| path.exists()) {
        return Err(format!("{} exists: choose another file", taken.display()).into());
    }
    let mut site = Site::new(&db, &log).await?;
    let production = Wish::promote(Environment::Production);

    println!("1. from proposal to promotion");
    let v0 = site.publish(25).await?;
    println!("   published, not promoted: {}", refusal(site.run().await?.1));
    let proposed = site.propose(&v0, &production.clone().because("the first rate")).await?;
    let [one, two, three] = &site.keys.approvers;
    site.approve(&proposed, one).await?;
    println!("   one approval: {}", refusal(site.promote(&proposed).await?.result));
    site.approve(&proposed, two).await?;
    site.promote(&proposed).await?.result?;
    let (execution, rate) = site.run().await?;
    println!("   two approvals, promoted: the rate is {}", rate?);
    let promotion = promotion_of(&execution.span).ok_or("the execution names no promotion")?;
    println!("   the execution names promotion {}/{}, which names the approvals", promotion.id, promotion.seq);

    println!("2. ways to cheat");
    let mut held = cheats::all(&site, &proposed, three).await?;

    println!("3. a rollback is an act of its own");
    let v1 = site.publish(30).await?;
    site.put_in_force(&v1, &production).await?;
    println!("   promoted: the rate is {}", site.run().await?.1?);
    let back = Wish::roll_back(Environment::Production).because("customers complain");
    let old = site.version(&Version::of(&v0)).await?;
    let rolled_back = site.put_in_force(&old, &back).await?;
    println!("   rolled back by proposal {}: the rate is {}", rolled_back.id, site.run().await?.1?);

    println!("4. a stolen key");
    let before = site.keep_log().await?;
    println!("   the last checkpoint from before the theft: {} leaves", before.size);
    let stolen = site.smuggle(next_of(&site, 99).await?, &site.keys.publisher).await?;
    let thief = site.keys.publisher.public_key();
    let mut manifest = site.host.trusted().manifest.clone();
    manifest.version += 1;
    let manifest = manifest.end(Ended { tenants: vec![TENANT.to_owned()], ..Ended::of_key(thief, [end_at(&before)]) }).grant(
        site.keys.successor.public_key(),
        Role::Publisher,
        [TENANT],
    );
    site.trust.publish(&site.ledger, &manifest, &site.keys.root, &SystemClock).await?;
    site.host.refresh().await?;
    let trusted = site.host.trusted();
    held &= report("what the key signed before its end counts", trusted.authorities.check(&v0).is_ok());
    held &= report("what the thief signed, dated back, does not", trusted.authorities.check(&stolen).is_err());
    let refused = site.host.publish(Site::draft(77), &site.keys.publisher).await;
    held &= report("the host writes nothing for the key", refused.is_err());
    println!("   the function still runs: the rate is {}", site.run().await?.1?);

    println!("5. the audit");
    let mut audit = Audit::default();
    (audit.authorities, audit.trusted) = (Some(&trusted.authorities), Some(&*trusted));
    let mut found = Vec::new();
    let audited = fsck(&site.ledger, audit, &mut |event| {
        if let Event::Problem(problem) = event {
            found.push(problem);
        }
    })
    .await?;
    for problem in &found {
        println!("   {}", problem.to_string().chars().take(150).collect::<String>());
    }
    println!("   {} rows, {} promotions counted again", audited.rows, audited.promotions_checked.unwrap_or_default());
    // What the cheats and the thief have smuggled in, and nothing else.
    held &= report("it names what was smuggled in, and nothing else", found.len() == cheats::SMUGGLED + 1);

    println!("6. one span, verified in a process without the ledger");
    let checkpoint = site.keep_log().await?;
    let row = site.version(&promotion).await?;
    held &= offline(&site, &checkpoint, &row, &log)?;
    if let Some(path) = &options.export {
        let mut file = File::create_new(path)?;
        let exported = ndjson::export(&site.ledger, &Scope::Operator, None, &mut file, &mut |_| {}).await?;
        println!("exported {} spans to {}", exported.spans, path.display());
    }
    Ok(held)
}

/// The next version of the function, dated back to the first.
async fn next_of(site: &Site, rate: u32) -> Result<logline_core::Draft> {
    let last = site.last(Site::function()).await?;
    let draft = Site::draft(rate).following(&last).ok_or("the version is the same")?;
    Ok(draft.at(last.at))
}

fn refusal<T, E: ToString>(said: std::result::Result<T, E>) -> String {
    said.err().map_or_else(|| "it was not refused".to_owned(), |error| error.to_string())
}

fn report(what: &str, holds: bool) -> bool {
    println!("   {} {what}", if holds { "ok " } else { "NO " });
    holds
}

/// Writes the row, its proof and the keys, and asks another process to verify them. It gets no ledger.
fn offline(site: &Site, checkpoint: &Checkpoint, row: &SignedSpan, folder: &Path) -> Result<bool> {
    let tiles = site.tiles();
    let mut read = |name: &str| tiles.read_now(&format!("{}/{name}", checkpoint.origin)).map_err(|error| error.to_string());
    let note = Note::parse(&read("checkpoint")?.ok_or("the log has no published checkpoint")?)?;
    let proof = prove(&Leaf::of(row), &note, &Checkpoint::of(&note)?, None, &mut read)?;
    // The other process works in this folder.
    let folder = fs::canonicalize(folder)?;
    let (row_file, proof_file) = (folder.join("promotion.ndjson"), folder.join("promotion.tlog-proof"));
    fs::write(&row_file, row.to_line())?;
    fs::write(&proof_file, proof.to_string())?;
    let (log, witness) = site.log_keys(checkpoint)?;
    let status = Command::new(std::env::current_exe()?)
        .arg("--verify")
        .args([&row_file, &proof_file])
        .args([log.to_string(), witness.to_string()])
        .current_dir(&folder)
        .status()?;
    Ok(report("the other process has verified row, proof, checkpoint and cosignature", status.success()))
}

/// What the other process does.
fn verify(row: &Path, proof: &Path, log: &str, witness: &str) -> Result<bool> {
    let (log, witness): (NoteKey, NoteKey) = (log.parse()?, witness.parse()?);
    let ParsedSpan::Signed(row) = parse_line(&fs::read(row)?, &Rules::default())? else {
        return Err("the row is not signed".into());
    };
    row.check(&mut Verifier::new())?;
    let policy = Policy::new(vec![log], vec![witness], 1)?;
    let checkpoint = LogProof::parse(&fs::read(proof)?)?.verify(&row, &policy)?;
    println!("   {} by {} is in the log of {} leaves, cosigned by 1 witness", row.key(), row.seal.public_key, checkpoint.size);
    Ok(true)
}

//! `logline manifest`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use logline::home::KeyOf;
use logline_core::ledger::Ledger as _;
use logline_core::trust::Manifest;
use logline_core::{Hash, SYSTEM_TENANT, Scope, Span, SystemClock, Verifier};
use serde_json::{Value, json};

use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the manifest in force, as it may be changed and published.
    Show(Show),
    /// Publishes the next manifest, signed by a root key. It counts when enough root keys have approved it.
    #[command(after_help = "Example: logline manifest show >m.json; edit m.json; logline manifest publish m.json")]
    Publish(Publish),
    /// Approves a manifest with another root key, after it was shown.
    Approve(Approve),
}

#[derive(Args)]
struct Show {
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
struct Publish {
    /// The whole manifest. Its `version` is set to the next one.
    file: PathBuf,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
struct Approve {
    /// The hash of the manifest, as `logline manifest publish` has printed it.
    hash: Hash,
    #[command(flatten)]
    home: HomeOptions,
}

/// A larger file is not read.
const MAX_BYTES: u64 = 1 << 20;

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Show(show) => {
            let site = Site::open(url, &show.home).await?;
            let trusted = site.trust()?.resolve(&site.ledger).await?;
            output::raw(&pretty(&trusted.manifest, json)?);
            Ok(true)
        }
        Command::Publish(publish) => {
            let site = Site::open(url, &publish.home).await?;
            let trust = site.trust()?;
            let trusted = trust.resolve(&site.ledger).await?;
            let text = output::text_of(&publish.file, MAX_BYTES)?;
            let mut members =
                logline_core::json::parse(text.as_bytes()).map_err(|e| format!("{}: {e}", publish.file.display()))?;
            let next = trusted.manifest.version.saturating_add(1);
            let object = members.as_object_mut().ok_or("a manifest is a JSON object")?;
            object.insert("version".to_owned(), next.into());
            let manifest = read(&trusted.span, members)?;
            let span = trust.publish(&site.ledger, &manifest, &site.key(KeyOf::Root)?, &SystemClock).await?;
            let in_force = trust.resolve(&site.ledger).await?.manifest.version;
            let hash = span.seal.curr_hash;
            output::line(&if json {
                json!({"version": next, "curr_hash": hash, "in_force": in_force == next}).to_string()
            } else if in_force == next {
                format!("manifest version {next} is in force ({hash})")
            } else {
                format!("manifest version {next} ({hash}) waits for approvals: `logline manifest approve {hash} --key ROOTKEY`")
            });
            Ok(true)
        }
        Command::Approve(approve) => {
            let site = Site::open(url, &approve.home).await?;
            let trust = site.trust()?;
            let (scope, id) = (Scope::runtime(SYSTEM_TENANT), trust.manifest_id);
            let mut from = 0;
            let found = loop {
                let rows = site.ledger.history(&scope, SYSTEM_TENANT, id, from, 100).await?;
                let last = rows.last().ok_or_else(|| format!("no manifest has the hash {}", approve.hash))?.seq;
                match rows.into_iter().find(|row| row.seal.curr_hash == approve.hash) {
                    Some(row) => break row,
                    None => from = last.saturating_add(1),
                }
            };
            let span = found.verify(&mut Verifier::new())?;
            output::raw(&pretty(&Manifest::from_span(&span)?, json)?);
            if !crate::output::is_yes("approve this manifest?")? {
                output::note("nothing was signed");
                return Ok(false);
            }
            trust.approve(&site.ledger, &span, &site.key(KeyOf::Root)?, &SystemClock).await?;
            let in_force = trust.resolve(&site.ledger).await?.manifest.version;
            output::line(&if json {
                json!({"in_force": in_force}).to_string()
            } else {
                format!("manifest version {in_force} is in force")
            });
            Ok(true)
        }
    }
}

/// Reads a manifest from its members, as it would stand in a span.
fn read(like: &Span, members: Value) -> Result<Manifest, Error> {
    let mut span = like.clone();
    span.metadata = Some(members);
    Ok(Manifest::from_span(&span)?)
}

fn pretty(manifest: &Manifest, json: bool) -> Result<String, Error> {
    let draft = manifest.to_draft(logline_core::ids::MANIFEST);
    let metadata = draft.columns().metadata.clone().unwrap_or_default();
    Ok(if json { metadata.to_string() } else { serde_json::to_string_pretty(&metadata)? })
}

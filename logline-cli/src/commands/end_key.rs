//! `logline end-key`

use std::path::PathBuf;

use clap::Args;
use logline::home::KeyOf;
use logline_core::roles::Role;
use logline_core::trust::{Ended, LogEnd};
use logline_core::{Hash, PublicKey, SystemClock};
use logline_log::Checkpoint;
use logline_log::note::Note;
use serde_json::json;

use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
#[command(
    after_help = "Example: logline end-key HEX --checkpoint before-the-theft.checkpoint --key root.key\n\nHosts, `fsck` and `import` need the \
                  files of these logs from then on (--tiles, LOGLINE_TILES): without them nothing counts that the key has signed."
)]
pub(crate) struct Options {
    /// The public key that ends.
    key_to_end: PublicKey,
    /// A checkpoint of a log that holds rows of the key: what is in the log up to there counts. Once for each log.
    #[arg(long, value_name = "FILE", required = true)]
    checkpoint: Vec<PathBuf>,
    /// The role that ends. Without it: all of them.
    #[arg(long)]
    role: Option<Role>,
    /// A tenant in which it ends. May be given several times. Without it: all of them.
    #[arg(long)]
    tenant: Vec<String>,
    #[command(flatten)]
    home: HomeOptions,
}

/// A larger file is not a checkpoint.
const MAX_BYTES: u64 = 1 << 20;

/// More logs than this stand in lists, so that the manifest has room for other ends.
const MAX_IN_MANIFEST: usize = 100;

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let mut logs = Vec::new();
    for file in &options.checkpoint {
        let text = output::text_of(file, MAX_BYTES)?;
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let checkpoint = Checkpoint::of(&Note::parse(text.as_bytes()).map_err(|e| named(&e))?).map_err(|e| named(&e))?;
        logs.push(LogEnd { origin: checkpoint.origin.to_string(), size: checkpoint.size, root: Hash(checkpoint.root.0) });
    }
    let site = Site::open(url, &options.home).await?;
    let trust = site.trust()?;
    let mut manifest = trust.resolve(&site.ledger).await?.manifest;
    manifest.version = manifest.version.saturating_add(1);
    let (next, key) = (manifest.version, options.key_to_end);
    let mut ended = Ended { role: options.role, tenants: options.tenant.clone(), ..Ended::of_key(key, logs) };
    if ended.logs.len() > MAX_IN_MANIFEST {
        ended.lists = trust.list_logs(&site.ledger, &ended.logs, &site.key(KeyOf::Publisher)?, &SystemClock).await?;
        ended.logs.clear();
    }
    let span = trust.publish(&site.ledger, &manifest.end(ended), &site.key(KeyOf::Root)?, &SystemClock).await?;
    let in_force = trust.resolve(&site.ledger).await?.manifest.version == next;
    let hash = span.seal.curr_hash;
    output::line(&if json {
        json!({"ended": key, "version": next, "curr_hash": hash, "in_force": in_force}).to_string()
    } else if in_force {
        format!("key {key} has ended: manifest version {next} is in force")
    } else {
        format!("manifest version {next} waits for approvals: `logline manifest approve {hash} --key ROOTKEY`")
    });
    Ok(true)
}

//! `logline rotate`

use clap::Args;
use logline::home::KeyOf;
use logline_core::{PublicKey, SystemClock};
use serde_json::json;

use crate::commands::manifest::Standing;
use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
#[command(
    after_help = "Example: logline rotate --add HEX --threshold 2 --key root.key\n\nRoot keys are added here and ended with `logline end-key`."
)]
pub(crate) struct Options {
    /// A root key to add. May be given several times.
    #[arg(long, value_name = "HEX")]
    add: Vec<PublicKey>,
    /// How many root keys must approve the manifests after the next one.
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trust = site.trust()?;
    let mut manifest = site.resolve(&trust).await?.manifest;
    let before = manifest.root.clone();
    for key in &options.add {
        if !manifest.root.keys.contains(key) {
            manifest.root.keys.push(*key);
        }
    }
    manifest.root.threshold = options.threshold.unwrap_or(manifest.root.threshold);
    if manifest.root == before {
        return Err("nothing would change: name a root key with --add that is not one yet, or another --threshold".into());
    }
    manifest.version = manifest.version.saturating_add(1);
    let next = manifest.version;
    let span = trust.publish(&site.ledger, &manifest, &site.key(KeyOf::Root)?, &SystemClock).await?;
    let standing = Standing::of(&trust, &site, &span).await?;
    let (threshold, keys) = (manifest.root.threshold, manifest.root.keys.len());
    output::line(&if json {
        standing.to_json([("threshold", json!(threshold)), ("keys", json!(keys))]).to_string()
    } else if standing.is_in_force() {
        format!("manifest version {next} is in force: {threshold} of {keys} root keys approve the next one")
    } else {
        standing.to_string()
    });
    Ok(true)
}

//! `logline end-key`

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use logline::home::KeyOf;
use logline_core::roles::Role;
use logline_core::trust::{Ended, LogEnd, Trusted};
use logline_core::{Clock as _, Hash, PublicKey, SystemClock};
use logline_log::Checkpoint;
use logline_log::note::Note;
use serde_json::json;

use crate::commands::manifest::Standing;
use crate::output::plain;
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
    let trusted = site.resolve(&trust).await?;
    let key = options.key_to_end;
    let mut ended = Ended { role: options.role, tenants: options.tenant.clone(), ..Ended::of_key(key, logs) };
    let rights = rights(&trusted, &ended);
    // It cannot be undone, so that it must not miss.
    if rights.is_empty() {
        return Err(format!(
            "key {key} has no such right that has not ended already: look at `logline manifest show`; nothing was ended. (Of a key with a \
             delegation, name the tenant with --tenant.)"
        )
        .into());
    }
    let mut manifest = trusted.manifest;
    manifest.version = manifest.version.saturating_add(1);
    let next = manifest.version;
    if ended.logs.len() > MAX_IN_MANIFEST {
        ended.lists = trust.list_logs(&site.ledger, &ended.logs, &site.key(KeyOf::Publisher)?, &SystemClock).await?;
        ended.logs.clear();
    }
    let span = trust.publish(&site.ledger, &manifest.end(ended), &site.key(KeyOf::Root)?, &SystemClock).await?;
    let standing = Standing::of(&trust, &site, &span).await?;
    output::line(&if json {
        standing.to_json([("ended", json!(key)), ("rights", json!(rights))]).to_string()
    } else if standing.is_in_force() {
        let logs = options.checkpoint.len();
        format!(
            "key {key} has ended as {}: manifest version {next} is in force. What it has signed counts up to the {logs} checkpoints that \
             were named, and in no other log: if `logline fsck` names rows of it, publish them again with another key",
            rights.join(", ")
        )
    } else {
        standing.to_string()
    });
    Ok(true)
}

/// The rights of the key that end with `ended`, and have not ended before.
fn rights(trusted: &Trusted, ended: &Ended) -> Vec<String> {
    let (manifest, key, now) = (&trusted.manifest, ended.key, SystemClock.now());
    let before = |role: Role, tenant: &str| manifest.ended.iter().any(|other| other.key == key && other.ends(role, tenant));
    let mut found = Vec::new();
    for right in manifest.authorities.iter().filter(|right| right.key == key) {
        // `*` has no name of its own: whatever is named of it ends, and all of it if nothing is named.
        let named: Vec<&String> = match ended.tenants.is_empty() || right.tenants.iter().all(|tenant| tenant != "*") {
            true => right.tenants.iter().collect(),
            false => ended.tenants.iter().collect(),
        };
        let ends = |tenant: &&String| ended.ends(right.role, tenant) && !before(right.role, tenant);
        found.extend(named.into_iter().filter(ends).map(|tenant| format!("{} of {}", right.role, plain(tenant))));
    }
    if manifest.root.keys.contains(&key) && ended.role.is_none() && ended.tenants.is_empty() && !manifest.has_ended_root(&key) {
        found.push("root key".to_owned());
    }
    if found.is_empty() {
        // A key that has its right by a delegation stands in no manifest.
        let everybody = manifest.authorities.iter().flat_map(|right| &right.tenants).filter(|tenant| *tenant != "*");
        let tenants: BTreeSet<&String> =
            if ended.tenants.is_empty() { everybody.collect() } else { ended.tenants.iter().collect() };
        let roles = [Role::Publisher, Role::Approver, Role::Member, Role::Runtime];
        let roles = roles.into_iter().filter(|role| ended.role.is_none_or(|only| only == *role));
        for role in roles {
            let has = |tenant: &&&String| trusted.authorities.has(&key, role, tenant, now) && !before(role, tenant);
            found.extend(tenants.iter().filter(has).map(|tenant| format!("{role} of {}", plain(tenant))));
        }
    }
    found
}

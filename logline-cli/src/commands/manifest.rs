//! `logline manifest`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use logline::home::KeyOf;
use logline_core::ledger::Ledger as _;
use logline_core::trust::{Manifest, SkipReason, TrustError, TrustRoot};
use logline_core::{Hash, SYSTEM_TENANT, Scope, SignedSpan, Span, SystemClock, Verifier};
use serde_json::{Map, Value, json};

use crate::commands::governance::difference;
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
    /// Publishes members that this version of the tool does not know.
    #[arg(long)]
    keep_unknown: bool,
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
            let trusted = site.trusted().await?;
            output::raw(&pretty(&trusted.manifest, json)?);
            Ok(true)
        }
        Command::Publish(options) => publish(options, url, json).await,
        Command::Approve(options) => approve(options, url, json).await,
    }
}

async fn publish(options: &Publish, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trust = site.trust()?;
    let trusted = site.trusted().await?;
    let text = output::text_of(&options.file, MAX_BYTES)?;
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", options.file.display());
    let mut members = logline_core::json::parse(text.as_bytes()).map_err(|e| named(&e))?;
    let next = trusted.manifest.version.saturating_add(1);
    let object = members.as_object_mut().ok_or_else(|| named(&"a manifest is a JSON object"))?;
    object.insert("version".to_owned(), next.into());
    let manifest = read(&trusted.span, members).map_err(|e| named(&e))?;
    let is_new = |(name, value): &(&String, &Value)| trusted.manifest.unknown.get(*name) != Some(*value);
    if let Some((name, _)) = manifest.unknown.iter().find(is_new)
        && !options.keep_unknown
    {
        return Err(named(&format!(
            "this version of the tool does not know the member `{}`, so no host of this version obeys it: correct it, or pass \
             --keep-unknown to publish it for newer hosts",
            name.escape_debug()
        ))
        .into());
    }
    let span = trust.publish(&site.ledger, &manifest, &site.key(KeyOf::Root)?, &SystemClock).await?;
    let standing = Standing::of(&trust, &site, &span).await?;
    output::line(&if json { standing.to_json([]).to_string() } else { standing.to_string() });
    Ok(true)
}

async fn approve(options: &Approve, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trust = site.trust()?;
    let (scope, id) = (Scope::runtime(SYSTEM_TENANT), trust.manifest_id);
    let mut from = 0;
    let found = loop {
        let rows = site.ledger.history(&scope, SYSTEM_TENANT, id, from, 100).await?;
        let last = rows.last().ok_or_else(|| format!("no manifest has the hash {}", options.hash))?.seq;
        match rows.into_iter().find(|row| row.seal.curr_hash == options.hash) {
            Some(row) => break row,
            None => from = last.saturating_add(1),
        }
    };
    let span = found.verify(&mut Verifier::new())?;
    let manifest = Manifest::from_span(&span)?;
    let show = |text: &str| output::shown(text, json);
    pretty(&manifest, false)?.lines().for_each(show);
    match site.resolve(&trust).await {
        Ok(trusted) => {
            show(&format!("changes since version {}, which is in force:", trusted.manifest.version));
            difference(Some(&trusted.span), &span).iter().for_each(|line| show(line));
        }
        Err(TrustError::NoManifest { .. }) => show("it would be the first: no version is in force"),
        Err(error) => return Err(error.into()),
    }
    show(&Standing::of(&trust, &site, &span).await?.to_string());
    if !output::is_yes("approve this manifest?")? {
        output::note("nothing was signed");
        return Ok(false);
    }
    trust.approve(&site.ledger, &span, &site.key(KeyOf::Root)?, &SystemClock).await?;
    let standing = Standing::of(&trust, &site, &span).await?;
    output::line(&if json { standing.to_json([]).to_string() } else { standing.to_string() });
    Ok(true)
}

/// Whether a version of the manifest is in force, and what it lacks if not.
pub(crate) struct Standing {
    version: u64,
    hash: Hash,
    /// Whether it, or a later one, is in force.
    is_in_force: bool,
    lacks: Option<SkipReason>,
}

impl Standing {
    pub(crate) async fn of(trust: &TrustRoot, site: &Site, span: &SignedSpan) -> Result<Self, Error> {
        let version = Manifest::from_span(span)?.version;
        let (in_force, skipped) = match site.resolve(trust).await {
            Ok(trusted) => (trusted.manifest.version, trusted.skipped),
            Err(TrustError::NoManifest { skipped, .. }) => (0, skipped),
            Err(error) => return Err(error.into()),
        };
        let row = span.key().to_string();
        let lacks = skipped.into_iter().find(|skipped| skipped.row == row).map(|skipped| skipped.reason);
        Ok(Self { version, hash: span.seal.curr_hash, is_in_force: lacks.is_none() && in_force >= version, lacks })
    }

    pub(crate) fn is_in_force(&self) -> bool {
        self.is_in_force
    }

    /// The same as JSON, with further members.
    pub(crate) fn to_json<const N: usize>(&self, more: [(&str, Value); N]) -> Value {
        let mut said = Map::new();
        let mut say = |name: &str, value: Value| drop(said.insert(name.to_owned(), value));
        say("version", json!(self.version));
        say("curr_hash", json!(self.hash));
        say("in_force", json!(self.is_in_force));
        if let Some(SkipReason::Approvals { found, needed, .. }) = &self.lacks {
            say("counted", json!(found));
            say("needed", json!(needed));
        }
        more.into_iter().for_each(|(name, value)| say(name, value));
        Value::Object(said)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, hash, .. } = self;
        match &self.lacks {
            None if self.is_in_force => write!(f, "manifest version {version} is in force ({hash})"),
            None => write!(f, "manifest version {version} ({hash}) is not in the ledger"),
            Some(lacks @ SkipReason::Approvals { .. }) => {
                write!(f, "manifest version {version} waits, as {lacks}: `logline manifest approve {hash} --key ROOTKEY`")
            }
            Some(lacks) => write!(f, "manifest version {version} ({hash}) does not count: {lacks}"),
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

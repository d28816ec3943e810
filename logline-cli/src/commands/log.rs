//! `logline log`: keeps the transparency logs of tenants, shows their checkpoints, and proves that rows are in them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use logline_core::ledger::Ledger;
use logline_core::{KeyPair, Scope, SignedSpan, Signer as _};
use logline_log::note::{KeyKind, MAX_NOTE, Note, NoteKey};
use logline_log::store::Directory;
use logline_log::{Checkpoint, Integrator, Leaf, LogSite, Policy, Step, last_signed, prove, prove_continues};
use logline_witness::HttpWitness;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::output::{Output, plain};
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enters the spans of tenants into their logs, and publishes checkpoints. A log that does not exist is begun.
    Run(RunOptions),
    /// Makes lost or damaged files of a log again from the rows of the ledger, if these lead to the root that was signed last.
    Rebuild(RebuildOptions),
    /// Prints the published checkpoint of a tenant's log, and the key that verifies it.
    Checkpoint(ShowOptions),
    /// Writes a `.tlog-proof` for one version of a span, which verifies offline.
    Prove(ProveOptions),
    /// Writes the proof that a log continues an older checkpoint, which verifies offline.
    Consistency(ConsistencyOptions),
}

/// Where the logs are.
#[derive(Args)]
struct Place {
    /// The folder of tiles and checkpoints. Anybody may read it, except `staging/`.
    #[arg(long, value_name = "DIR")]
    tiles: PathBuf,
    /// The folder of the last signed checkpoints. Keep it outside the ledger's database and its copies, and never restore it.
    #[arg(long, value_name = "DIR")]
    locks: PathBuf,
}

/// Who signs the logs, and who cosigns them.
#[derive(Args)]
struct Keys {
    /// The log's key, which must sign nothing else: `logline keygen log.key` makes one.
    #[arg(long, value_name = "KEYFILE")]
    log_key: PathBuf,
    /// A policy file whose witnesses are asked to cosign each checkpoint: lines `witness NAME KEY URL`, and a `quorum` without which no
    /// checkpoint is published. Its `log` lines do not matter here.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Keys {
    fn site(&self, place: &Place) -> Result<LogSite, Error> {
        let (tiles, locks) = place.stores()?;
        let site = LogSite::new(Arc::new(tiles), Arc::new(locks), Arc::new(KeyPair::load(&self.log_key)?));
        match &self.policy {
            Some(path) => with_witnesses(site, path),
            None => Ok(site),
        }
    }
}

impl Place {
    fn stores(&self) -> Result<(Directory, Directory), Error> {
        if self.tiles == self.locks {
            return Err("--tiles and --locks must be two folders: everybody may read the one, and nobody the other".into());
        }
        Ok((Directory::new(&self.tiles), Directory::new(&self.locks)))
    }

    /// The published checkpoint of a tenant's log.
    async fn published(&self, tenant: &str) -> Result<(Directory, Note, Checkpoint), Error> {
        let (tiles, locks) = self.stores()?;
        let missing =
            || format!("tenant `{}` has no log in {}: `logline log run` begins one", plain(tenant), self.locks.display());
        let signed = Checkpoint::of(&last_signed(&locks, tenant).await?.ok_or_else(missing)?)?;
        let bytes = tiles.read_now(&format!("{}/checkpoint", signed.origin))?;
        let bytes =
            bytes.ok_or_else(|| format!("log `{}` has no published checkpoint: run `logline log run`", signed.origin))?;
        let note = Note::parse(&bytes)?;
        let checkpoint = Checkpoint::of(&note)?;
        Ok((tiles, note, checkpoint))
    }
}

#[derive(Args)]
#[command(
    after_help = "Example: logline log run --ledger sqlite:demo.ledger --tenant acme --tiles public/ --locks private/ --log-key log.key --until-idle\n\nInterrupt it (Ctrl-C or SIGTERM) at any time."
)]
struct RunOptions {
    /// The tenant whose spans are entered. May be given several times.
    #[arg(long, required = true)]
    tenant: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// The most spans of one checkpoint.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// End when the logs have every span.
    #[arg(long)]
    until_idle: bool,
    /// Begin logs for those of the tenants that are new, in folders that are in use already. Without it a tenant without its last signed
    /// checkpoint is refused there, because it may be lost. In new folders it is not needed.
    #[arg(long, conflicts_with = "begin_again")]
    begin: bool,
    /// Begin a new log that names the last checkpoint of the present one: after a restore of the ledger or of the locks, or with a new
    /// key. Everything is entered again.
    #[arg(long)]
    begin_again: bool,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline log rebuild --ledger sqlite:demo.ledger --tenant acme --tiles public/ --locks private/ --log-key log.key"
)]
struct RebuildOptions {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// The last checkpoint of the log before this one, if it was begun again and its first file is lost.
    #[arg(long, value_name = "FILE")]
    continues: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example: logline log checkpoint --tenant acme --tiles public/ --locks private/ --log-key log.key")]
struct ShowOptions {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    place: Place,
    /// The log's key file, to print the key that others verify with.
    #[arg(long, value_name = "KEYFILE")]
    log_key: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline log prove --ledger sqlite:demo.ledger acme 0197a000-0000-7000-8000-000000000001 --tiles public/ --locks private/ --row row.ndjson --out row.tlog-proof"
)]
struct ProveOptions {
    /// The tenant.
    tenant: String,
    /// The id of the span.
    id: Uuid,
    /// The version; the last one without it.
    #[arg(long)]
    seq: Option<u32>,
    #[command(flatten)]
    place: Place,
    /// The file for the proof; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Also write the row to this file: the proof is about its exact bytes.
    #[arg(long, value_name = "FILE")]
    row: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline log consistency acme --known yesterday.checkpoint --tiles public/ --locks private/ --out growth"
)]
struct ConsistencyOptions {
    /// The tenant.
    tenant: String,
    /// The older checkpoint, as it was published.
    #[arg(long, value_name = "FILE")]
    known: PathBuf,
    #[command(flatten)]
    place: Place,
    /// The file for the proof; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

/// How long a log that is complete waits for more.
const PAUSE: Duration = Duration::from_millis(500);

/// How long it waits after a failure that may pass.
const RETRY: Duration = Duration::from_secs(2);

/// With `--until-idle` somebody waits for the end: so often it is tried again, first after this pause, then after twice as long, and so on.
const TRIES: u32 = 5;
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The log of one tenant, and how often it has failed since it last went on.
struct Kept<'a> {
    tenant: &'a String,
    log: Integrator,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Kept<'_> {
    /// Notes a failure that may pass. Returns false if it was tried often enough.
    fn rests(&mut self, until_idle: bool) -> bool {
        let pause = if until_idle { FIRST_RETRY.saturating_mul(1 << self.failures.min(TRIES)) } else { RETRY };
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(Instant::now() + pause);
        !until_idle || self.failures <= TRIES
    }
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Run(options) => keep(options, url, json).await,
        Command::Rebuild(options) => rebuild(options, url, json).await,
        Command::Checkpoint(options) => show(options, json).await,
        Command::Prove(options) => write_proof(options, url, json).await,
        Command::Consistency(options) => write_consistency(options, json).await,
    }
}

async fn keep(options: &RunOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = options.keys.site(&options.place)?.batch(usize::try_from(options.batch)?);
    let missing = site.missing(&options.tenant).await?;
    if options.begin && missing.tenants.is_empty() {
        return Err("each of these tenants has a log: run without `--begin`".into());
    }
    let ledger: Arc<dyn Ledger> = open::for_reading(url).await?;
    let begins = options.begin || !missing.is_in_use;
    let log_of = |tenant: &String| {
        let log = Integrator::new(Arc::clone(&ledger), site.clone(), tenant);
        if begins { log.begins() } else { log }
    };
    let mut logs: Vec<_> =
        options.tenant.iter().map(|tenant| Kept { tenant, log: log_of(tenant), failures: 0, rests_until: None }).collect();
    if options.begin_again {
        for Kept { tenant, log, .. } in &mut logs {
            say(tenant, &log.begin_again().await?, json);
        }
    }
    let stop = logline::shutdown_signal();
    tokio::pin!(stop);
    let mut has_stopped = false;
    loop {
        let (mut has_more, mut next, mut left) = (false, None, Vec::new());
        for mut kept in logs {
            if let Some(until) = kept.rests_until.filter(|until| *until > Instant::now()) {
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
                left.push(kept);
                continue;
            }
            let tenant = kept.tenant;
            let step = tokio::select! {
                biased;
                () = &mut stop => return Ok(!has_stopped),
                step = kept.log.step() => step,
            };
            match step {
                Ok(step) => {
                    has_more |= step != Step::Idle;
                    (kept.failures, kept.rests_until) = (0, None);
                    say(tenant, &step, json);
                }
                Err(error) if error.is_temporary() && kept.rests(options.until_idle) => {
                    output::note(&format!("tenant {tenant}: {error}"));
                    next = next.into_iter().chain(kept.rests_until).min();
                }
                // A person must look. The logs of the other tenants go on.
                Err(error) => {
                    output::note(&format!("logline: tenant {tenant}: {error}"));
                    has_stopped = true;
                    continue;
                }
            }
            left.push(kept);
        }
        logs = left;
        if logs.is_empty() {
            return Err("no log can go on: see above".into());
        }
        if has_more {
            continue;
        }
        if options.until_idle && next.is_none() {
            return Ok(!has_stopped);
        }
        let until = match next {
            Some(next) if options.until_idle => next,
            next => next.into_iter().chain([Instant::now() + PAUSE]).min().unwrap_or_else(Instant::now),
        };
        tokio::select! {
            biased;
            () = &mut stop => return Ok(!has_stopped),
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// The site with the witnesses of a policy file, and its quorum.
fn with_witnesses(mut site: LogSite, path: &Path) -> Result<LogSite, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let policy: Policy = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let mut asked = Vec::new();
    for key in policy.witnesses() {
        let Some(url) = policy.url(key) else { continue };
        site = site.witness(key.clone(), Arc::new(HttpWitness::new(url)?));
        asked.push(key.clone());
    }
    // Of those without a URL nobody can be asked: a quorum that needs them would never be reached.
    if !policy.can_reach_quorum(&asked) {
        return Err(
            format!("{}: the quorum needs witnesses whose lines have no URL: `witness NAME KEY URL`", path.display()).into()
        );
    }
    Ok(site.quorum(policy))
}

fn say(tenant: &str, step: &Step, json: bool) {
    let (spans, checkpoint) = match step {
        Step::Begun(checkpoint) => (0, checkpoint),
        Step::Integrated { spans, checkpoint } => (*spans, checkpoint),
        _ => return,
    };
    if json {
        let (origin, root) = (checkpoint.origin.as_str(), checkpoint.root.to_string());
        output::line(
            &json!({"tenant": tenant, "entered": spans, "origin": origin, "size": checkpoint.size, "root": root}).to_string(),
        );
    } else {
        output::line(&format!("{tenant}: {spans} spans entered; {checkpoint}"));
    }
}

async fn rebuild(options: &RebuildOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = options.keys.site(&options.place)?;
    let continues = options.continues.as_ref().map(|path| output::text_of(path, MAX_NOTE as u64)).transpose()?;
    let continues = continues.map(|text| Note::parse(text.as_bytes())).transpose()?;
    let ledger: Arc<dyn Ledger> = open::for_reading(url).await?;
    let rebuilt = Integrator::new(ledger, site, &options.tenant).rebuild(continues.as_ref()).await?;
    let (checkpoint, files, missing, damaged) = (&rebuilt.checkpoint, rebuilt.files, rebuilt.missing, rebuilt.damaged);
    if json {
        let (origin, root) = (checkpoint.origin.as_str(), checkpoint.root.to_string());
        let line = json!({
            "origin": origin, "size": checkpoint.size, "root": root, "files": files, "missing": missing, "damaged": damaged,
        });
        output::line(&line.to_string());
    } else {
        output::line(&format!("{files} files of {checkpoint}: {missing} were missing, {damaged} were damaged"));
    }
    Ok(true)
}

async fn show(options: &ShowOptions, json: bool) -> Result<bool, Error> {
    let key = options.log_key.as_ref().map(KeyPair::load).transpose()?;
    let (_, note, checkpoint) = options.place.published(&options.tenant).await?;
    let key = key.map(|key| NoteKey::new(checkpoint.origin.clone(), KeyKind::Log, key.public_key())).transpose()?;
    // A key that does not verify the checkpoint must not be handed to anybody.
    if let Some(key) = &key {
        Checkpoint::verify(&note, key, &[])?;
    }
    if json {
        output::line(
            &json!({
                "origin": checkpoint.origin.as_str(), "size": checkpoint.size, "root": checkpoint.root.to_string(),
                "checkpoint": note.to_string(), "key": key.map(|key| key.to_string()),
            })
            .to_string(),
        );
    } else {
        output::raw(note.to_string().trim_end());
        if let Some(key) = key {
            output::note(&format!("key: {key}"));
        }
    }
    Ok(true)
}

async fn write_proof(options: &ProveOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let row = find(ledger.as_ref(), options).await?;
    let (tiles, note, checkpoint) = options.place.published(&options.tenant).await?;
    let mut read = |name: &str| tiles.read_now(&format!("{}/{name}", checkpoint.origin)).map_err(|error| error.to_string());
    let proof = prove(&Leaf::of(&row), &note, &checkpoint, None, &mut read)?;
    if let Some(path) = &options.row {
        write(path, &[row.to_line().as_slice(), b"\n"].concat())?;
    }
    if write(&options.out, proof.to_string().as_bytes())? {
        // Nothing else may stand in what is read as a proof.
    } else if json {
        output::line(&json!({"index": proof.index, "size": checkpoint.size, "origin": checkpoint.origin.as_str()}).to_string());
    } else {
        output::line(&format!("{} is leaf {} of {checkpoint}", row.key(), proof.index));
    }
    Ok(true)
}

async fn write_consistency(options: &ConsistencyOptions, json: bool) -> Result<bool, Error> {
    let known = output::text_of(&options.known, MAX_NOTE as u64)?;
    let known = Checkpoint::of(&Note::parse(known.as_bytes())?)?;
    let (tiles, note, checkpoint) = options.place.published(&options.tenant).await?;
    let mut read = |name: &str| tiles.read_now(&format!("{}/{name}", checkpoint.origin)).map_err(|error| error.to_string());
    let proof = prove_continues(&known, &note, &mut read)?;
    if write(&options.out, proof.to_string().as_bytes())? {
        // Nothing else may stand in what is read as a proof.
    } else if json {
        let (origin, hashes) = (checkpoint.origin.as_str(), proof.proof.len());
        output::line(&json!({"from": known.size, "size": checkpoint.size, "origin": origin, "hashes": hashes}).to_string());
    } else {
        output::line(&format!("{checkpoint} continues {} leaves", known.size));
    }
    Ok(true)
}

/// Writes a file, or standard output if it is named `-`. Returns true in the second case.
fn write(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    if path.as_os_str() == "-" {
        output::raw(String::from_utf8_lossy(bytes).trim_end());
        return Ok(true);
    }
    let output = Output::create(path)?;
    output.file().write_all(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    output.finish()?;
    Ok(false)
}

async fn find(ledger: &dyn Ledger, options: &ProveOptions) -> Result<SignedSpan, Error> {
    let scope = Scope::runtime(&options.tenant);
    let missing = || format!("no span {} in tenant `{}` with this version", options.id, plain(&options.tenant));
    let Some(seq) = options.seq else { return Ok(ledger.get(&scope, &options.tenant, options.id).await?) };
    let rows = ledger.history(&scope, &options.tenant, options.id, seq, 1).await?;
    Ok(rows.into_iter().next().filter(|row| row.seq == seq).ok_or_else(missing)?)
}

//! `logline memory`: keeps, finds, exports and forgets memories of users.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use logline::home::KeyOf;
use logline_core::roles::Role;
use logline_core::{Host, PublicKey, Timestamp, Visibility};
use logline_kernels::{Loops, Run as _};
use logline_memory::export::Imported;
use logline_memory::{
    Kind, Layer, Memories, Memory, MemoryKeeper, MemoryKernel, Mode, Receipt, ReceiptState, Sensitivity, Wanted, What,
    close_epoch, uses, verify_erasure,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::commands::run::report;
use crate::output::{Output, plain};
use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, output, when};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Records that a user permits memories, or permits them no more.
    Consent(ConsentOptions),
    /// Keeps a memory. It is encrypted unless its sensitivity is public.
    Add(AddOptions),
    /// Finds memories that a user may read.
    Search(SearchOptions),
    /// Forgets, for good. Prints the receipt.
    Forget(ForgetOptions),
    /// Prints the receipts of a user.
    Receipts(ReceiptsOptions),
    /// Prints the spans that have used a memory, as tenant/id/seq: searches, runs of prompts, and calls of models.
    Uses(UsesOptions),
    /// Writes all memories of a user to a file that opens with a passphrase.
    Export(ExportOptions),
    /// Keeps the memories of such a file.
    Import(ImportOptions),
    /// Ends an epoch of the tenant's key, so that no backup opens what was forgotten before. Receipts become `sealed`.
    Seal(SealOptions),
    /// Runs the loop that ends memories at their time, and epochs once a day.
    Keep(KeepOptions),
    /// Tries to open everything that was forgotten, with every key that is left.
    VerifyErasure(SealOptions),
}

/// Whose memories.
#[derive(Args)]
struct Of {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// The user whose memories they are. It stands in the ledger in the clear: use a pseudonym.
    #[arg(long)]
    owner: String,
    /// The session of the call.
    #[arg(long)]
    session: Option<String>,
    /// Remember and recall in the session alone.
    #[arg(long, requires = "session")]
    session_only: bool,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(after_help = "Example: logline memory consent --ledger sqlite:demo.ledger --tenant acme --owner u-1 --grant")]
struct ConsentOptions {
    #[command(flatten)]
    of: Of,
    /// The user permits it.
    #[arg(long, required_unless_present = "revoke", conflicts_with = "revoke")]
    grant: bool,
    /// The user permits it no more.
    #[arg(long)]
    revoke: bool,
    /// When the consent ends, such as `30d` or a day.
    #[arg(long, value_parser = when::later, conflicts_with = "revoke")]
    until: Option<Timestamp>,
}

/// Who may read a memory.
#[derive(Clone, Copy, ValueEnum)]
enum Readers {
    /// The user.
    Private,
    /// Everybody in the tenant.
    Tenant,
    /// Everybody.
    Public,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory add 'prefers tea' --ledger sqlite:demo.ledger --tenant acme --owner u-1 --type preference --about drink"
)]
struct AddOptions {
    /// The text; `-` reads it from standard input, where no shell keeps it.
    text: String,
    #[command(flatten)]
    of: Of,
    /// note, fact, profile, preference, relationship, plan, action or other.
    #[arg(long = "type", default_value = "note")]
    kind: Kind,
    /// session, temporary, shared or local. (A reviewer makes memories permanent.)
    #[arg(long, default_value = "temporary")]
    layer: Layer,
    /// public, internal, secret or pii.
    #[arg(long, default_value = "internal")]
    sensitivity: Sensitivity,
    /// Who may read it.
    #[arg(long, value_enum, default_value = "private")]
    visibility: Readers,
    /// What it is about: a later memory about the same supersedes it.
    #[arg(long, value_name = "KEY")]
    about: Option<String>,
    /// A word to filter by, in the clear. May be given several times.
    #[arg(long)]
    tag: Vec<String>,
    /// The name of the contract that it keeps.
    #[arg(long)]
    schema: Option<String>,
    /// Structured data, as JSON.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// When it expires, such as `30d` or a day.
    #[arg(long, value_parser = when::later)]
    until: Option<Timestamp>,
}

#[derive(Args)]
#[command(after_help = "Example: logline memory search tea --ledger sqlite:demo.ledger --tenant acme --owner u-1")]
struct SearchOptions {
    /// What to look for; `-` reads it from standard input.
    query: String,
    #[command(flatten)]
    of: Of,
    /// The most memories.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    limit: u8,
    /// Print whole texts.
    #[arg(long)]
    full: bool,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory forget --ledger sqlite:demo.ledger --tenant acme --owner u-1 --last\n\nIt needs no consent, and cannot be undone. `logline memory seal` then makes old backups useless."
)]
struct ForgetOptions {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    what: WhatOptions,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct WhatOptions {
    /// The user's newest memory.
    #[arg(long)]
    last: bool,
    /// One memory.
    #[arg(long, value_name = "ID")]
    id: Option<Uuid>,
    /// All memories of a session.
    #[arg(long, value_name = "SESSION")]
    of_session: Option<String>,
    /// Everything of the user.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
#[command(after_help = "Example: logline memory receipts --ledger sqlite:demo.ledger --tenant acme --owner u-1")]
struct ReceiptsOptions {
    #[command(flatten)]
    of: Of,
    /// The most receipts, the newest first.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory uses --ledger sqlite:demo.ledger --tenant acme 0197c0de-0000-7000-8000-000000000001"
)]
struct UsesOptions {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// The memory, also if it is forgotten.
    id: Uuid,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory export --ledger sqlite:demo.ledger --tenant acme --owner u-1 --passphrase-file words.txt --out u-1.memories"
)]
struct ExportOptions {
    #[command(flatten)]
    of: Of,
    /// A file whose first line is the passphrase, of at least 12 bytes.
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory import u-1.memories --ledger sqlite:demo.ledger --tenant acme --owner u-1 --passphrase-file words.txt"
)]
struct ImportOptions {
    /// The file.
    file: PathBuf,
    #[command(flatten)]
    of: Of,
    /// A file whose first line is the passphrase.
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
    /// The public key that must have signed it, as `export` printed it.
    #[arg(long, value_name = "KEY")]
    signed_by: Option<PublicKey>,
}

#[derive(Args)]
#[command(after_help = "Example: logline memory seal --ledger sqlite:demo.ledger --tenant acme")]
struct SealOptions {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(
    after_help = "Example: logline memory keep --ledger sqlite:demo.ledger --tenant acme\n\nInterrupt it (Ctrl-C or SIGTERM) at any time."
)]
struct KeepOptions {
    /// The tenant. May be given several times.
    #[arg(long, required = true)]
    tenant: Vec<String>,
    /// How many hours an epoch of a tenant's key lasts if something was forgotten in it.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    epoch_hours: u32,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Consent(options) => consent(options, url, json).await,
        Command::Add(options) => add(options, url, json).await,
        Command::Search(options) => search(options, url, json).await,
        Command::Forget(options) => forget(options, url, json).await,
        Command::Receipts(options) => receipts(options, url, json).await,
        Command::Uses(options) => used(options, url, json).await,
        Command::Export(options) => export(options, url, json).await,
        Command::Import(options) => import(options, url, json).await,
        Command::Seal(options) => seal(options, url, json).await,
        Command::Keep(options) => keep(options, url, json).await,
        Command::VerifyErasure(options) => verify(options, url, json).await,
    }
}

/// A host with the kernel `memory`, for one tenant.
struct Opened {
    site: Site,
    kernel: MemoryKernel,
    host: Host,
}

impl Opened {
    async fn of(url: Option<&str>, home: &HomeOptions, tenant: &str) -> Result<Self, Error> {
        let site = Site::open(url, home).await?;
        let kernel = site.memory().await?;
        let host = site.host_of(&kernel).await?;
        check_tenant(&host, &host.key(), Role::Runtime, tenant)?;
        Ok(Self { site, kernel, host })
    }

    fn memories(&self, of: &Of) -> Memories<'_> {
        let mode = if of.session_only { Mode::SessionOnly } else { Mode::On };
        let memories = Memories::new(&self.host, self.kernel.vault(), &of.tenant, &of.owner, mode);
        match &of.session {
            Some(session) => memories.session(session),
            None => memories,
        }
    }
}

/// The argument, or standard input.
fn text_of(argument: &str) -> Result<String, Error> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let text = std::io::read_to_string(std::io::stdin())?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn passphrase(file: &std::path::Path) -> Result<String, Error> {
    let text = output::text_of(file, 4096)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn consent(options: &ConsentOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let memories = opened.memories(&options.of);
    if options.grant {
        memories.grant(options.until).await?;
    } else {
        memories.revoke().await?;
    }
    let said = if options.grant { "granted" } else { "revoked" };
    if json {
        output::line(&json!({"consent": said}).to_string());
    } else {
        output::line(&format!("consent {said}"));
    }
    Ok(true)
}

async fn add(options: &AddOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let mut memory = Memory::new(options.kind, text_of(&options.text)?)
        .layer(options.layer)
        .sensitivity(options.sensitivity)
        .visibility(match options.visibility {
            Readers::Private => Visibility::Private,
            Readers::Tenant => Visibility::Tenant,
            Readers::Public => Visibility::Public,
        });
    for tag in &options.tag {
        memory = memory.tag(tag);
    }
    if let Some(key) = &options.about {
        memory = memory.key(key);
    }
    if let Some(schema) = &options.schema {
        memory = memory.schema(schema);
    }
    if let Some(data) = &options.data {
        memory = memory.data(serde_json::from_str(data).map_err(|e| format!("--data is not JSON: {e}"))?);
    }
    if let Some(until) = options.until {
        memory = memory.ttl_at(until);
    }
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let kept = opened.memories(&options.of).remember(&memory).await?;
    if json {
        output::line(&json!({"memory": kept.id, "seq": kept.seq, "superseded": kept.superseded}).to_string());
    } else {
        output::line(&format!("kept {} seq {}{}", kept.id, kept.seq, if kept.superseded { ", superseding" } else { "" }));
    }
    Ok(true)
}

async fn search(options: &SearchOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let wanted = Wanted::most(usize::from(options.limit));
    let answer = opened.memories(&options.of).search(&text_of(&options.query)?, &wanted).await?;
    for hit in &answer.hits {
        let text = if options.full { &hit.memory.body.text } else { &hit.preview };
        if json {
            let line = json!({
                "memory": hit.memory.id, "seq": hit.memory.seq, "scope": hit.scope, "layer": hit.memory.terms.layer.as_str(),
                "score": hit.score, "text": text,
            });
            output::line(&line.to_string());
        } else {
            output::line(&format!("{}  {:<8} {:.4}  {}", hit.memory.id, hit.scope, hit.score, plain(text)));
        }
    }
    if answer.is_truncated {
        output::note("the user has more memories than are indexed: some could not be found");
    }
    if !json {
        output::note(&format!("{} found; the search is recorded as {}", answer.hits.len(), answer.result));
    }
    Ok(true)
}

fn state_of(receipt: &Receipt) -> String {
    match receipt.state {
        ReceiptState::Shredded => "shredded".to_owned(),
        ReceiptState::Sealing(at) => format!("sealing until {at}"),
        ReceiptState::Sealed => "sealed".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn as_json(receipt: &Receipt) -> Value {
    json!({
        "receipt": receipt.id, "memories": receipt.memories, "in_the_clear": receipt.in_the_clear, "epoch": receipt.epoch,
        "state": state_of(receipt),
    })
}

async fn forget(options: &ForgetOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let what = match &options.what {
        WhatOptions { id: Some(id), .. } => What::One(*id),
        WhatOptions { of_session: Some(session), .. } => What::Session(session.clone()),
        WhatOptions { all: true, .. } => What::Subject,
        _ => What::Last,
    };
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let receipt = opened.memories(&options.of).forget(&what).await?;
    if json {
        output::line(&as_json(&receipt).to_string());
        return Ok(true);
    }
    output::line(&format!("forgotten: {} memories, receipt {}, {}", receipt.memories, receipt.id, state_of(&receipt)));
    if receipt.in_the_clear > 0 {
        output::note(&format!(
            "{} of them were public: nothing finds them any more, and their texts stand in the ledger for good",
            receipt.in_the_clear
        ));
    }
    output::note("copies of the store of keys from before still open with the tenant's key: `logline memory seal` ends that");
    Ok(true)
}

async fn receipts(options: &ReceiptsOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    for receipt in opened.memories(&options.of).receipts(options.limit).await? {
        if json {
            output::line(&as_json(&receipt).to_string());
        } else {
            output::line(&format!(
                "{}  {} memories, epoch {}, {}",
                receipt.id,
                receipt.memories,
                receipt.epoch,
                state_of(&receipt)
            ));
        }
    }
    Ok(true)
}

async fn used(options: &UsesOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.home, &options.tenant).await?;
    for span in uses(opened.host.ledger().as_ref(), &options.tenant, options.id).await? {
        if json {
            output::line(&json!({"tenant": span.tenant_id, "id": span.id, "seq": span.seq}).to_string());
        } else {
            output::line(&span.to_string());
        }
    }
    Ok(true)
}

async fn export(options: &ExportOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let out = Output::create(&options.out)?;
    let key = opened.site.key(KeyOf::Host)?;
    let written = opened.memories(&options.of).export(&passphrase, &key, BufWriter::new(out.file())).await?;
    out.finish()?;
    if json {
        output::line(
            &json!({"memories": written.memories, "hash": written.hash.to_string(), "key": written.key.to_string()})
                .to_string(),
        );
    } else {
        output::line(&format!("{} memories written to {}, signed by {}", written.memories, options.out.display(), written.key));
    }
    Ok(true)
}

async fn import(options: &ImportOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let passphrase = passphrase(&options.passphrase_file)?;
    let file = File::open(&options.file).map_err(|e| format!("{}: {e}", options.file.display()))?;
    let opened = Opened::of(url, &options.of.home, &options.of.tenant).await?;
    let imported = opened.memories(&options.of).import(&passphrase, BufReader::new(file), options.signed_by).await?;
    let Imported { kept, already, .. } = imported;
    if json {
        output::line(&json!({"memories": kept, "already_there": already}).to_string());
    } else {
        output::line(&format!("{kept} memories kept, {already} were already there"));
    }
    Ok(true)
}

async fn seal(options: &SealOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.home, &options.tenant).await?;
    let sealed = close_epoch(&opened.host, &options.tenant).await?;
    if json {
        output::line(&json!({"sealed": sealed}).to_string());
    } else {
        output::line(&format!("an epoch of the tenant's key has ended: {sealed} receipts are sealed"));
    }
    Ok(true)
}

async fn keep(options: &KeepOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let kernel = site.memory().await?;
    let hours = Duration::from_secs(u64::from(options.epoch_hours) * 3600);
    let keeper = MemoryKeeper::new(&options.tenant).epoch(hours).kernel(&kernel);
    let host = site.host_keeping(&kernel, &keeper).await?;
    for tenant in &options.tenant {
        check_tenant(&host, &host.key(), Role::Runtime, tenant)?;
    }
    let stop = logline::shutdown_signal();
    output::note("looking after memories; interrupt to stop");
    let ran = host.run(Loops::none().with(keeper), stop).await?;
    report(&ran, json);
    Ok(true)
}

async fn verify(options: &SealOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let opened = Opened::of(url, &options.home, &options.tenant).await?;
    let found =
        verify_erasure(&opened.site.ledger, &opened.host.trusted().authorities, opened.kernel.vault(), &options.tenant).await?;
    if json {
        let line = json!({
            "memories": found.memories, "versions": found.versions, "opened": found.opened.iter().map(|key| key.id).collect::<Vec<_>>(),
            "shredded": found.shredded, "sealing": found.sealing, "sealed": found.sealed, "not_remembered": found.not_remembered,
        });
        output::line(&line.to_string());
        return Ok(found.is_clean());
    }
    for key in &found.opened {
        output::line(&format!("{key} still opens"));
    }
    for receipt in &found.not_remembered {
        output::line(&format!("receipt {receipt} is not remembered: the store of keys comes from a backup"));
    }
    output::line(&format!(
        "{} memories forgotten or expired, {} encrypted versions tried, {} opened; receipts: {} sealed, {} sealing, {} shredded",
        found.memories,
        found.versions,
        found.opened.len(),
        found.sealed,
        found.sealing,
        found.shredded
    ));
    Ok(found.is_clean())
}

//! `logline request`

mod show;

use std::path::Path;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use logline::home::KeyOf;
use logline_core::ledger::{Ledger, LedgerExt as _};
use logline_core::request::{NotRunnable, Request};
use logline_core::roles::Role;
use logline_core::{Execution, HostError, Scope, SignedSpan, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::function::json_of;
use super::read::tenant_of;
use crate::open::Identity;
use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, open, output, site, when};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Asks for a run of a function. A worker carries it out (`logline run`, or your service).
    #[command(
        after_help = "Example: logline request submit fee --ledger sqlite:demo.ledger --tenant acme --owner payments-api --input '{\"payment\":\"pay_1\",\"amount_minor\":10000}'"
    )]
    Submit(Box<Submit>),
    /// Prints the whole life of a request: versions, attempts, output or errors, and why it waits.
    #[command(after_help = "Example: logline request show ID --ledger sqlite:demo.ledger")]
    Show(One),
    /// Waits until a request has ended or waits for a retry, and prints its output.
    #[command(after_help = "Example: logline request wait ID --ledger sqlite:demo.ledger --seconds 60")]
    Wait(Wait),
    /// Cancels a request. A running attempt stops at its worker's next heartbeat.
    #[command(after_help = "Example: logline request cancel ID --ledger sqlite:demo.ledger --who user:alice")]
    Cancel(Change),
    /// Schedules a request again that is dead, cancelled or ended in error.
    #[command(after_help = "Example: logline request revive ID --ledger sqlite:demo.ledger --who user:alice")]
    Revive(Change),
}

#[derive(Args)]
struct Submit {
    /// The function: its name or its id.
    function: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// The user in whose name the function runs, and who may read the result.
    #[arg(long)]
    owner: String,
    /// The input: JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON")]
    input: String,
    /// Makes it harmless to submit the same request again: the stored one is returned.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// When it is due: in `30s`, `10m`, `2h` or `7d`, on a day, or at a time as `2026-05-01T12:00:00Z`. Without it: now.
    #[arg(long, value_name = "TIME", value_parser = when::later)]
    due: Option<Timestamp>,
    /// What kind of request it is, such as `prompt.run` or `provider.invoke`; what it names is then a prompt or a provider, by its id. Without
    /// it a function runs.
    #[arg(long, value_name = "THIS", value_parser = NonEmptyStringValueParser::new())]
    kind: Option<String>,
    /// Encrypt the input, and everything that comes of it, under the owner's key. For kinds that ask a model, such as `prompt.run`.
    #[arg(long)]
    confidential: bool,
    /// 0 to 9. The highest runs first within the tenant.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// The most attempts, with growing pauses. Without it the first failure ends the request.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: Option<u32>,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
struct One {
    /// The id of the request.
    id: String,
    #[command(flatten)]
    identity: Identity,
}

#[derive(Args)]
struct Wait {
    #[command(flatten)]
    one: One,
    /// How long to wait.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
struct Change {
    #[command(flatten)]
    one: One,
    /// Who asks for it, as the ledger records it.
    #[arg(long, default_value = "operator")]
    who: String,
    #[command(flatten)]
    home: HomeOptions,
}

impl One {
    /// The tenant and the id of the request, which must exist.
    async fn find(&self, ledger: &dyn Ledger) -> Result<(String, Uuid), Error> {
        let typed = || {
            format!(
                "`{}` is not the id of a request: give the 36 characters that `request submit` printed",
                output::plain(&self.id)
            )
        };
        let id: Uuid = self.id.parse().map_err(|_| typed())?;
        let tenant = tenant_of(ledger, &self.identity, None, id).await?;
        let span = ledger.get(&self.identity.scope(), &tenant, id).await?;
        if span.entity_type != "request" {
            return Err(format!("span {id} is of type `{}`, not a request", output::plain(&span.entity_type)).into());
        }
        Ok((tenant, id))
    }
}

/// Says what an operator can do if a worker or another operator was faster.
fn overtaken(error: HostError) -> Error {
    match error.is_conflict() {
        true => "the request was changed at the same time, by a worker or by somebody else: look at it (`logline request show`), and try again".into(),
        false => error.into(),
    }
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Submit(options) => submit(options, url, json).await,
        Command::Show(one) => {
            let ledger = open::queue_for_reading(url).await?;
            let (tenant, id) = one.find(&ledger).await?;
            show::show(&ledger, &one.identity.scope(), &tenant, id, json).await
        }
        Command::Wait(options) => wait(options, url, json).await,
        Command::Cancel(options) => {
            let site = Site::open(url, &options.home).await?;
            let (tenant, id) = options.one.find(&site.ledger).await?;
            let cancelled = site.host(KeyOf::Host).await?.cancel(&tenant, id, &options.who).await.map_err(overtaken)?;
            output::span(&cancelled, json)?;
            Ok(true)
        }
        Command::Revive(options) => {
            let site = Site::open(url, &options.home).await?;
            let (tenant, id) = options.one.find(&site.ledger).await?;
            let revived = site.host(KeyOf::Host).await?.revive(&tenant, id, &options.who).await.map_err(overtaken)?;
            output::span(&revived, json)?;
            Ok(true)
        }
    }
}

/// The most bytes of an input that are read. No manifest allows as many.
const MAX_INPUT: u64 = 4 << 20;

fn input(text: &str) -> Result<Value, Error> {
    let path = text.strip_prefix('@').or((text == "-").then_some(text));
    match path {
        Some(path) => {
            let text = output::text_of(Path::new(path), MAX_INPUT).map_err(|error| format!("--input {error}"))?;
            json_of("--input", &text)
        }
        None => json_of("--input", text),
    }
}

async fn submit(options: &Submit, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let (tenant, owner) = (options.tenant.as_str(), options.owner.as_str());
    let function = site::function(tenant, &options.function)?;
    let mut request = Request::new(tenant, owner, function, input(&options.input)?);
    if let Some(kind) = &options.kind {
        request = request.this(kind);
    }
    if options.confidential {
        request = request.confidential();
    }
    if let Some(key) = &options.idempotency_key {
        request = request.idempotency_key(key);
    }
    if let Some(due) = options.due {
        request = request.due_at(due);
    }
    if let Some(priority) = options.priority {
        request = request.priority(priority);
    }
    if let Some(attempts) = options.max_attempts {
        request = request.max_attempts(attempts);
    }
    let site = Site::open(url, &options.home).await?;
    let host = if options.confidential { site.host_of(&site.memory().await?).await? } else { site.host(KeyOf::Host).await? };
    check_tenant(&host, &host.key(), Role::Runtime, tenant)?;
    let found = site.ledger.find(&Scope::user(tenant, owner), tenant, function).await?;
    let is_one = |span: &SignedSpan| options.kind.is_some() || span.entity_type == "function";
    if !found.as_ref().is_some_and(is_one) {
        return Err(format!(
            "no {} `{}` ({function}) in tenant `{tenant}` that `{owner}` can see: `logline function ls --tenant {tenant}` lists \
             functions; a private one is seen by its owner only",
            if options.kind.is_some() { "span" } else { "function" },
            output::plain(&options.function)
        )
        .into());
    }
    let was_asked = match request.derived_id() {
        Some(id) => site.ledger.find(&Scope::runtime(tenant), tenant, id).await?.is_some(),
        None => false,
    };
    let submitted = host.submit(request).await?;
    let id = submitted.id.to_string();
    output::line(&if json {
        json!({"request": id, "submitted_before": was_asked, "tenant_id": tenant, "curr_hash": submitted.seal.curr_hash.to_string()}).to_string()
    } else {
        id
    });
    if was_asked && !json {
        output::note("it was submitted before: `logline request show ID` tells how it went");
    } else if !json {
        output::note("a worker carries it out: `logline run`, or your service; `logline request show ID` tells how it goes");
    }
    Ok(true)
}

async fn wait(options: &Wait, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let (tenant, id) = options.one.find(&site.ledger).await?;
    let host = site.host(KeyOf::Host).await?;
    let patience = Duration::from_secs(options.seconds);
    let Ok(ended) = tokio::time::timeout(patience, host.outcome(&tenant, id)).await else {
        return Err(format!(
            "request {id} has not ended within {}: is a worker running? `logline request show {id}` tells why it waits",
            when::duration(patience)
        )
        .into());
    };
    let ended = match ended {
        Err(HostError::NotRunnable(NotRunnable::Ended { status, .. })) => {
            output::line(&if json {
                json!({"request": id.to_string(), "status": status}).to_string()
            } else {
                format!("request {id} has ended with the status `{status}`, and no attempt has a result")
            });
            return Ok(false);
        }
        ended => ended?,
    };
    if let Some(at) = ended.retry_at() {
        output::note(&format!("it is tried again at {at}"));
    }
    let Execution { result, span, .. } = ended;
    if json {
        output::span(&span, true)?;
    } else {
        match &result {
            Ok(value) => output::line(&output::plain(&value.to_string())),
            Err(failure) => output::line(&output::plain(&failure.to_string())),
        }
    }
    Ok(result.is_ok())
}

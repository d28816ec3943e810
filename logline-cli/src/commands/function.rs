//! `logline function`

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use logline::home::KeyOf;
use logline_core::ledger::{LedgerError, LedgerExt as _, Query};
use logline_core::roles::Role;
use logline_core::trust::Limits;
use logline_core::{Draft, Scope, Signer as _, Visibility};
use logline_kernels::publish_module;
use logline_wasm::{WasmSandbox, encode_binary};
use serde_json::{Value, json};

use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publishes a WebAssembly module as a function. If the last version is the same, nothing is written.
    #[command(
        after_help = "Example: logline function publish fee.wasm --ledger sqlite:demo.ledger --tenant acme --name fee --config '{\"rate\":25}'"
    )]
    Publish(Box<Publish>),
    /// Checks whether the sandbox could run a module. Needs no ledger.
    #[command(after_help = "Example: logline function check fee.wasm")]
    Check {
        /// The module: WebAssembly, binary or text.
        file: PathBuf,
    },
    /// Stops a function: no host runs it any more, whatever is promoted. Publishing it again puts it to work again.
    #[command(after_help = "Example: logline function stop fee --ledger sqlite:demo.ledger --tenant acme")]
    Stop(Stop),
    /// Lists the functions of a tenant.
    #[command(after_help = "Example: logline function ls --ledger sqlite:demo.ledger --tenant acme")]
    Ls {
        /// The tenant.
        #[arg(long)]
        tenant: String,
    },
}

#[derive(Args)]
struct Stop {
    /// The function, by name or id.
    function: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
struct Publish {
    /// The module: WebAssembly, binary or text.
    file: PathBuf,
    /// The tenant of the function.
    #[arg(long)]
    tenant: String,
    /// The function's name. Requests may name the function by it.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What each call gets beside its input: JSON.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// The owner of the function.
    #[arg(long, default_value = "publisher")]
    owner: String,
    /// Who may see it and ask for it: `private` (its owner), `tenant` or `public`.
    #[arg(long, default_value = "tenant")]
    visibility: String,
    /// Lower limits than the manifest's for the tenant, as a JSON object: fuel, memory_bytes, timeout_ms, …
    #[arg(long, value_name = "JSON")]
    limits: Option<String>,
    /// What models have to know of it to use it as a tool, as a JSON object: name, description, input_schema.
    #[arg(long, value_name = "JSON")]
    tool: Option<String>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Publish(options) => publish(options, url, json).await,
        Command::Stop(options) => stop(options, url, json).await,
        Command::Check { file } => check(file, json).await,
        Command::Ls { tenant } => list(tenant, url, json).await,
    }
}

/// A larger module than any manifest allows is not read.
const MAX_MODULE: u64 = 16 << 20;

/// Reads a module as the sandbox takes it, and as bytes if it is a binary.
fn read(path: &Path) -> Result<Module, Error> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| named(&e))?;
    file.take(MAX_MODULE + 1).read_to_end(&mut bytes).map_err(|e| named(&e))?;
    if bytes.len() as u64 > MAX_MODULE {
        return Err(named(
            &"the module has more than 16 MiB, which no manifest allows: build it smaller (--release, opt-level = \"s\")",
        )
        .into());
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(Module::Binary(bytes));
    }
    let text = String::from_utf8(bytes).map_err(|_| named(&"this is neither a WebAssembly binary nor its text"))?;
    if !text.trim_start().starts_with(['(', ';']) {
        return Err(named(&"this is neither a WebAssembly binary nor its text").into());
    }
    Ok(Module::Text(text))
}

enum Module {
    Binary(Vec<u8>),
    Text(String),
}

async fn publish(options: &Publish, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let module = read(&options.file)?;
    let mut function = logline_wasm::function(&options.tenant, &options.name).owner(&options.owner);
    let visibility: Result<Visibility, ()> = options.visibility.parse();
    function = function.visibility(visibility.map_err(|()| "--visibility is `private`, `tenant` or `public`")?);
    if let Some(config) = &options.config {
        function = function.input(json_of("--config", config)?);
    }
    if let Some(limits) = &options.limits {
        function = function.meta("limits", json_of("--limits", limits)?);
    }
    if let Some(tool) = &options.tool {
        function = function.meta("tool", json_of("--tool", tool)?);
    }
    let site = Site::open(url, &options.home).await?;
    let publisher = site.key(KeyOf::Publisher)?;
    // It runs nothing, so the publisher's key is its key.
    let host = site.host(KeyOf::Publisher).await?;
    check_tenant(&host, &publisher.public_key(), Role::Publisher, &options.tenant)?;
    let scope = Scope::runtime(&options.tenant);
    let before = site.ledger.head(&scope, &options.tenant, function.columns().id).await?;
    let counts = match before.clone() {
        Some(before) => Some(host.trusted().last_that_counts(site.ledger.as_ref(), &scope, before).await?),
        None => None,
    };
    let is_stopped = counts.is_some_and(|counts| counts.is_deleted || counts.status.as_deref() == Some(STOPPED));
    if is_stopped {
        // The new code goes in while it is stopped, so that the old one does not run again for a moment.
        function = function.status(STOPPED);
    }
    let mut published = match module {
        Module::Binary(binary) => publish_module(&host, function, &binary, &publisher).await?,
        Module::Text(text) => host.publish_if_changed(Draft::code(function, text), &publisher).await?,
    };
    if is_stopped {
        published = host.publish(Draft::next_version(&published).status("active"), &publisher).await?;
    }
    let is_new = before.is_none_or(|before| before.seal.curr_hash != published.seal.curr_hash);
    let (id, hash) = (published.id.to_string(), published.seal.curr_hash.to_string());
    output::line(&if json {
        let signer = publisher.public_key().to_string();
        json!({"function": id, "seq": published.seq, "curr_hash": hash, "published": is_new, "signer": signer}).to_string()
    } else if is_new {
        format!("published function {} as version {} ({id}, {hash})", output::plain(&options.name), published.seq)
    } else {
        format!("function {} is published already: version {} ({id}, {hash})", output::plain(&options.name), published.seq)
    });
    Ok(true)
}

/// The status of a function that was stopped.
const STOPPED: &str = "stopped";

async fn stop(options: &Stop, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let publisher = site.key(KeyOf::Publisher)?;
    let host = site.host(KeyOf::Publisher).await?;
    let tenant = options.tenant.as_str();
    check_tenant(&host, &publisher.public_key(), Role::Publisher, tenant)?;
    let id = site.named(tenant, "function", &options.function).await?;
    let last = site.ledger.find(&Scope::runtime(tenant), tenant, id).await?;
    let last = last.filter(|last| last.entity_type == "function").ok_or_else(|| format!("there is no function {id}"))?;
    let stopped = match last.status.as_deref() {
        Some(STOPPED) => last.seq,
        _ => host.publish(Draft::next_version(&last).status(STOPPED), &publisher).await?.seq,
    };
    output::line(&if json {
        json!({"function": id, "seq": stopped, "status": STOPPED}).to_string()
    } else {
        format!("function {} is stopped: version {stopped}", output::plain(&options.function))
    });
    Ok(true)
}

/// Reads JSON from a flag.
pub(super) fn json_of(flag: &str, text: &str) -> Result<Value, Error> {
    let value = logline_core::json::parse(text.as_bytes());
    value.map_err(|e| format!("{flag} is not JSON: {e}; quote it for the shell, as in {flag} '{{\"rate\":25}}'").into())
}

async fn check(file: &Path, json: bool) -> Result<bool, Error> {
    let code = match read(file)? {
        Module::Binary(binary) => encode_binary(&binary),
        Module::Text(text) => text,
    };
    let checked = WasmSandbox::new()?.check("check", &code, &Limits::default()).await;
    let (is_valid, told) = match &checked {
        Ok(()) => (true, json!({"valid": true})),
        Err(failure) => (false, json!({"valid": false, "code": failure.code, "message": failure.message})),
    };
    output::line(&match (&checked, json) {
        (_, true) => told.to_string(),
        (Ok(()), false) => format!("{}: the sandbox can run it, with the default limits", file.display()),
        (Err(failure), false) => format!("{}: {}", file.display(), output::plain(&failure.to_string())),
    });
    Ok(is_valid)
}

async fn list(tenant: &str, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let query = Query::new().tenant(tenant).entity_type("function");
    let mut cursor = None;
    loop {
        let page = ledger.scan(&Scope::runtime(tenant), &query, cursor.as_ref()).await?;
        cursor.clone_from(&page.next);
        for row in page.rows {
            let function = match row.span {
                Ok(function) => function,
                Err(damaged) => {
                    output::note(&LedgerError::from(damaged).to_string());
                    continue;
                }
            };
            if json {
                // Without the code, which may have megabytes. `logline get` prints it.
                let mut row: Value = serde_json::from_slice(&function.to_line())?;
                row.as_object_mut().map(|row| row.remove("code"));
                output::line(&row.to_string());
            } else {
                output::span(&function, false)?;
            }
        }
        if cursor.is_none() {
            return Ok(true);
        }
    }
}

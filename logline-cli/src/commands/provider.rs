//! `logline provider`

use clap::{Args, Subcommand};
use logline::home::KeyOf;
use logline_core::contract::Reader;
use logline_core::contract::provider::SecretSource as _;
use logline_core::ledger::LedgerExt as _;
use logline_core::request::Request;
use logline_core::{Scope, SignedSpan};
use logline_kernels::provider::{PROVIDER_INVOKE, ProviderSpec, verify_costs};
use serde_json::json;

use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a published provider against this host: its columns, adapter, models and secret. With `--call`, each model is asked for one
    /// word, which is recorded and costs what it costs.
    #[command(after_help = "Example: logline provider check main --ledger sqlite:demo.ledger --tenant acme --call")]
    Check(Box<Check>),
    /// Computes the cost of every recorded call again, from its usage and from the prices that its record names by hash. Exit status 1 if
    /// one does not verify.
    #[command(after_help = "Example: logline provider costs --ledger sqlite:demo.ledger --tenant acme")]
    Costs(Box<Costs>),
}

#[derive(Args)]
struct Costs {
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

/// How many calls are read at once.
const PAGE: usize = 500;

async fn costs(options: &Costs, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let reader = Reader::new(&site.ledger, Scope::runtime(&options.tenant));
    let (mut looked_at, mut priced, mut faults, mut after) = (0, 0, 0, None);
    loop {
        let page = verify_costs(&reader, &trusted.authorities, &options.tenant, after.as_ref(), PAGE).await?;
        looked_at += page.looked_at;
        priced += page.priced;
        for fault in page.faults {
            faults += 1;
            let text = fault.to_string();
            output::line(&if json { json!({"fault": text}).to_string() } else { output::plain(&text) });
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    output::line(&if json {
        json!({"calls": looked_at, "verified": priced, "faults": faults}).to_string()
    } else {
        format!("{looked_at} calls, {priced} with a cost that was computed again, {faults} that do not verify")
    });
    Ok(faults == 0)
}

#[derive(Args)]
struct Check {
    /// The name or id of the provider.
    provider: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// Ask each model.
    #[arg(long)]
    call: bool,
    /// In whose name the models are asked.
    #[arg(long, default_value = "operator")]
    owner: String,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let options = match &options.command {
        Command::Check(options) => options,
        Command::Costs(options) => return costs(options, url, json).await,
    };
    let site = Site::open(url, &options.home).await?;
    let id = site.named(&options.tenant, "provider", &options.provider).await?;
    let span = site.ledger.find(&Scope::runtime(&options.tenant), &options.tenant, id).await?;
    let span = span.filter(|span| span.entity_type == "provider").ok_or_else(|| format!("there is no provider {id}"))?;
    let mut findings = vec![found(&site, &span).await];
    if findings.iter().all(|(_, fault)| fault.is_none()) && options.call {
        findings.extend(called(options, &site, &span).await?);
    }
    let is_good = findings.iter().all(|(_, fault)| fault.is_none());
    for (what, fault) in findings {
        output::line(&match (json, fault) {
            (true, fault) => json!({"checked": what, "passed": fault.is_none(), "fault": fault}).to_string(),
            (false, None) => format!("{what}: good"),
            (false, Some(fault)) => format!("{what}: {}", output::plain(&fault)),
        });
    }
    Ok(is_good)
}

/// What is wrong without a call.
async fn found(site: &Site, span: &SignedSpan) -> (String, Option<String>) {
    let fault = async {
        if span.status.as_deref() != Some("active") {
            return Err("its status is not `active`: it is not asked".to_owned());
        }
        let spec = ProviderSpec::read(span)?;
        let exec = site.providers().map_err(|e| e.to_string())?;
        exec.providers().check(&spec)?;
        if let Some(reference) = &spec.secret {
            let secrets = site.secrets().map_err(|e| e.to_string())?;
            secrets.secret(reference, spec.url.as_deref()).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    ("columns, adapter, models, secret".to_owned(), fault.await.err())
}

/// Asks every model for one word.
async fn called(options: &Check, site: &Site, span: &SignedSpan) -> Result<Vec<(String, Option<String>)>, Error> {
    let host = site.host(KeyOf::Host).await?;
    let spec = ProviderSpec::read(span)?;
    let mut findings = Vec::new();
    for name in spec.models.keys() {
        let text = json!([{"type": "text", "text": "Answer with the word: ready"}]);
        let body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 16});
        let input = json!({"model": name, "request": body});
        let request = Request::new(&options.tenant, &options.owner, span.id, input).this(PROVIDER_INVOKE);
        let result = host.execute(request).await?.result;
        let (what, fault) = match result {
            Ok(answer) => {
                let cost = answer.get("cost").filter(|cost| !cost.is_null()).map_or(String::new(), |cost| format!(" ({cost})"));
                (format!("model {name}{cost}"), None)
            }
            Err(failure) => (format!("model {name}"), Some(format!("{}: {}", failure.code, failure.message))),
        };
        findings.push((what, fault));
    }
    Ok(findings)
}

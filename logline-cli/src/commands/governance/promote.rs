//! Asks a host to carry out a proposal, or to test a version.

use clap::Args;
use logline::home::KeyOf;
use logline_core::Signer as _;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_kernels::governance::{PROMOTE, TEST};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{OfProposal, Subject};
use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct PromoteOptions {
    #[command(flatten)]
    of: OfProposal,
    /// Who asks for it, as the ledger records it.
    #[arg(long, default_value = "operator")]
    owner: String,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(after_help = "Example: logline test function fee --tenant acme --gate check --version 3")]
pub(crate) struct TestOptions {
    #[command(flatten)]
    subject: Subject,
    /// The gate: `check`, `eval`, `dry_run` or `smoke`.
    #[arg(long)]
    gate: String,
    /// The version.
    #[arg(long, value_name = "SEQ")]
    version: u32,
    /// The span that shows it: the execution of the gate `smoke`, the `prompt_eval_run` of the gate `eval`.
    #[arg(long, value_name = "ID")]
    evidence: Option<Uuid>,
    /// What is expected: JSON.
    #[arg(long, value_name = "JSON")]
    expect: Option<String>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn promote(options: &PromoteOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let OfProposal { proposal, tenant } = &options.of;
    let request = Request::new(tenant, &options.owner, *proposal, Value::Null).this(PROMOTE);
    carry_out(&options.home, url, json, request, |output| {
        let subject = output.get("subject");
        let text = |name: &str| subject.and_then(|subject| subject.get(name)).map(ToString::to_string).unwrap_or_default();
        let environment = output.get("environment").and_then(Value::as_str).unwrap_or_default();
        format!("version {} of {} is in force in {environment}", text("seq"), text("id"))
    })
    .await
}

pub(crate) async fn test(options: &TestOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let Subject { kind, name, tenant } = &options.subject;
    let id = Site::open(url, &options.home).await?.named(tenant, kind, name).await?;
    let expect = options.expect.as_deref().map(|text| crate::commands::function::json_of("--expect", text)).transpose()?;
    let mut input = json!({"gate": options.gate, "seq": options.version});
    for (name, value) in [("evidence", options.evidence.map(|id| json!(id))), ("expect", expect)] {
        if let (Some(members), Some(value)) = (input.as_object_mut(), value) {
            members.insert(name.to_owned(), value);
        }
    }
    let request = Request::new(tenant, "operator", id, input).this(TEST);
    let mut passed = false;
    let ran = carry_out(&options.home, url, json, request, |output| {
        passed = output.get("passed").and_then(Value::as_bool) == Some(true);
        match (passed, output.get("reason").and_then(Value::as_str)) {
            (true, _) => "passed".to_owned(),
            (false, reason) => format!("not passed: {}", reason.unwrap_or_default()),
        }
    });
    let ran = ran.await?;
    Ok(ran && passed)
}

async fn carry_out(
    home: &HomeOptions,
    url: Option<&str>,
    json: bool,
    request: Request,
    mut told: impl FnMut(&Value) -> String,
) -> Result<bool, Error> {
    let site = Site::open(url, home).await?;
    let host = site.host(KeyOf::Host).await?;
    check_tenant(&host, &site.key(KeyOf::Host)?.public_key(), Role::Runtime, &request.tenant)?;
    let execution = host.execute(request).await?;
    match &execution.result {
        Ok(value) => {
            let text = told(value);
            output::line(&if json { value.to_string() } else { text });
            Ok(true)
        }
        Err(failure) => {
            output::line(&if json { failure.to_value().to_string() } else { failure.to_string() });
            Ok(false)
        }
    }
}

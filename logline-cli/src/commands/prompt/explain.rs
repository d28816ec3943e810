//! `logline prompt explain` and `logline prompt verify`

use clap::Args;
use logline_core::Scope;
use logline_core::contract::Reader;
use logline_core::ledger::LedgerExt as _;
use logline_prompts::{explain_with, verify_build_with, verify_selection};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(super) struct Explain {
    /// The id of the `prompt_run`.
    run: Uuid,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
pub(super) struct Verify {
    /// The id of a `prompt_build` or a `prompt_selection`.
    record: Uuid,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

pub(super) async fn explain_run(options: &Explain, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let reader = Reader::new(&site.ledger, Scope::runtime(&options.tenant));
    let (tenant, scope) = (options.tenant.as_str(), Scope::runtime(&options.tenant));
    let key = match site.ledger.find(&scope, tenant, options.run).await? {
        Some(run) => site.confidential(tenant, &run.owner_id).await?,
        None => None,
    };
    let explained = explain_with(&reader, &trusted.authorities, tenant, options.run, key.as_ref()).await?;
    if json {
        output::line(&serde_json::to_string(&explained)?);
        return Ok(true);
    }
    let text = |value: &Value, member: &str| match value.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    output::line(&format!("answer    {}", explained.answer));
    output::line(&format!("contract  {}", explained.contract.as_str().unwrap_or_default()));
    output::line(&format!("prompt    {} (build {}, built again and compared)", explained.compiled_hash, explained.build));
    output::line(&format!("variant   {} version {}", text(&explained.variant, "id"), text(&explained.variant, "seq")));
    if let Value::String(selection) = &explained.selection {
        output::line(&format!("chosen by {selection} (check it with `logline prompt verify`)"));
    }
    for block in explained.blocks.as_array().into_iter().flatten() {
        output::line(&format!("block     {} version {}", text(block, "id"), text(block, "seq")));
    }
    for context in explained.context.as_array().into_iter().flatten() {
        let used = if context.get("used") == Some(&json!(true)) { "used" } else { "left out" };
        output::line(&format!("context   {} version {}, {used}", text(context, "id"), text(context, "seq")));
    }
    for one in &explained.tries {
        let how = one.error.as_str().unwrap_or(one.status.as_str());
        let cost = one
            .cost
            .get("nanos")
            .map_or("cost not known".to_owned(), |nanos| format!("{nanos} nanos of {}", text(&one.cost, "currency")));
        let used = if one.is_used { ", used" } else { "" };
        let (call, model) = (one.call.as_str().unwrap_or_default(), one.model.as_str().unwrap_or_default());
        output::line(&format!(
            "try       {call}, attempt {}, try {} of {model}: {how}, {cost}{used}",
            one.attempt, one.ordinal
        ));
    }
    output::line(&format!("asked     {} (each call was made up again and compared with its hash)", explained.asked));
    for call in &explained.tool_calls {
        let how = call.error.as_str().unwrap_or("complete");
        let run = call.execution.map_or_else(|| "not run".to_owned(), |id| format!("execution {id}"));
        output::line(&format!("tool      {}, {}: {how}, {run}", call.call, output::plain(&call.name)));
    }
    Ok(true)
}

pub(super) async fn verify(options: &Verify, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let (tenant, id) = (options.tenant.as_str(), options.record);
    let reader = Reader::new(&site.ledger, Scope::runtime(tenant));
    let found = site.ledger.find(&Scope::runtime(tenant), tenant, id).await?;
    let found = found.ok_or_else(|| format!("there is no span {id} in tenant `{}`", output::plain(tenant)))?;
    let key = site.confidential(tenant, &found.owner_id).await?;
    let verified = match found.entity_type.as_str() {
        "prompt_build" => verify_build_with(&reader, &trusted.authorities, tenant, id, key.as_ref())
            .await
            .map(|built| format!("the prompt was built again: {}", built.compiled_hash))
            .map_err(|error| error.to_string()),
        "prompt_selection" => verify_selection(&reader, &trusted, tenant, id)
            .await
            .map(|choice| format!("the choice was made again; it was as likely as {}", choice.propensity))
            .map_err(|error| error.to_string()),
        other => {
            return Err(format!("{id} is of type `{}`: give a prompt_build or a prompt_selection", output::plain(other)).into());
        }
    };
    let is_good = verified.is_ok();
    let told = verified.unwrap_or_else(|error| error);
    output::line(&if json { json!({"verified": is_good, "message": told}).to_string() } else { told });
    Ok(is_good)
}

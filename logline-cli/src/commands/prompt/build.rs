//! `logline prompt build`

use clap::Args;
use logline_core::contract::Reader;
use logline_core::{Clock as _, Scope, SystemClock};
use logline_prompts::{Versions, build, load};
use serde_json::{Value, json};

use crate::commands::function::json_of;
use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(super) struct Build {
    /// The name or id of the variant.
    variant: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// Values of variables: a JSON object.
    #[arg(long, value_name = "JSON")]
    vars: Option<String>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(super) async fn run(options: &Build, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let vars = options.vars.as_deref().map(|text| json_of("--vars", text)).transpose()?.unwrap_or(Value::Null);
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let reader = Reader::new(&site.ledger, Scope::runtime(&options.tenant));
    let id = site.named(&options.tenant, "prompt_variant", &options.variant).await?;
    let loaded = load(&reader, Versions::in_force(&trusted, SystemClock.now()), &options.tenant, id).await?;
    let built = build(&loaded.variant, &loaded.blocks, &vars)?;
    if json {
        output::line(
            &json!({"variant": loaded.variant.name, "compiled_hash": built.compiled_hash, "text": built.text}).to_string(),
        );
    } else {
        // The text of blocks and variables may hold what a terminal obeys.
        built.text.lines().for_each(output::line);
        output::note(&format!("{} bytes, compiled_hash {}", built.text.len(), built.compiled_hash));
    }
    Ok(true)
}

//! `logline prompt eval`

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use logline::home::KeyOf;
use logline_core::Scope;
use logline_core::ledger::Ledger as _;
use logline_core::request::Request;
use logline_prompts::eval::{EvalRun, PROMPT_EVALUATE, report};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::output::Output;
use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(super) struct Eval {
    /// The name or id of the suite.
    suite: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// A variant, by name or id. Others are compared with the first.
    #[arg(long = "variant", required = true, value_name = "VARIANT")]
    variants: Vec<String>,
    /// In whose name the models are asked.
    #[arg(long, default_value = "operator")]
    owner: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the result to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One file with a plot.
    Html,
    /// For build servers.
    Junit,
    /// One line a trial.
    Csv,
}

pub(super) async fn run(options: &Eval, url: Option<&str>, json: bool) -> Result<bool, Error> {
    // Before anything is paid.
    let out = options.out.as_deref().map(new_file).transpose()?;
    let site = Site::open(url, &options.home).await?;
    let tenant = options.tenant.as_str();
    let suite = site.named(tenant, "prompt_eval", &options.suite).await?;
    let mut variants = Vec::new();
    for text in &options.variants {
        variants.push(site.named(tenant, "prompt_variant", text).await?);
    }
    let host = site.host(KeyOf::Host).await?;
    output::note("asking the fixtures: every call is recorded");
    let request = Request::new(tenant, &options.owner, suite, json!({"variants": variants})).this(PROMPT_EVALUATE);
    let told = host.execute(request).await?.result.map_err(|failure| output::plain(&failure.to_string()))?;
    let mut runs = Vec::new();
    for run in told.get("runs").and_then(Value::as_array).into_iter().flatten() {
        let id: Uuid = run.get("run").and_then(Value::as_str).unwrap_or_default().parse()?;
        let span = site.ledger.get(&Scope::runtime(tenant), tenant, id).await?;
        runs.push(EvalRun::read(&span)?);
    }
    let text = match options.format {
        _ if json => told.to_string() + "\n",
        Format::Table => report::table(&runs),
        Format::Html => report::html(&runs),
        Format::Junit => report::junit(&runs),
        Format::Csv => report::csv(&runs),
    };
    match out {
        Some(out) => {
            out.file().write_all(text.as_bytes())?;
            out.finish()?;
        }
        None => output::raw(text.trim_end_matches('\n')),
    }
    Ok(runs.iter().all(|run| run.gate.passed))
}

/// A file that does not exist yet, and will not if the evaluation fails.
fn new_file(path: &Path) -> Result<Output, Error> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(format!("{} exists: name a new file", path.display()).into());
    }
    Output::create(path)
}

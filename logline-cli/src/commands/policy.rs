//! `logline policy`

use std::path::Path;

use clap::{Args, Subcommand};
use logline_core::ledger::Ledger as _;
use logline_core::{ParsedSpan, Rules, Scope, Span, Timestamp, parse_line};
use logline_policy::{Action, Decision, DryRunOptions, Foreseen, dry_run, policy_id};
use serde_json::{Value, json};

use crate::site::{HomeOptions, Site, id_or};
use crate::{Error, output, when};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Asks a policy about the newest spans of its tenant, and prints what it would have decided. Nothing is written.
    #[command(after_help = "Example: logline policy dry-run refunds.json --ledger sqlite:demo.ledger --tenant acme --since 7d")]
    DryRun(Box<DryRun>),
}

#[derive(Args)]
struct DryRun {
    /// The policy: a file with its columns as JSON, or the name or id of a published one.
    policy: String,
    /// The tenant of the policy.
    #[arg(long)]
    tenant: String,
    /// How many of the newest spans are asked about.
    #[arg(long, default_value_t = 10_000)]
    spans: usize,
    /// Spans at or after this time: `today`, an age such as `24h` or `7d`, a day, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<Timestamp>,
    /// Spans before this time.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<Timestamp>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let Command::DryRun(options) = &options.command;
    let site = Site::open(url, &options.home).await?;
    let policy = policy(options, &site).await?;
    let mut wanted = DryRunOptions::default().spans(options.spans);
    (wanted.since, wanted.until) = (options.since, options.until);
    let foreseen = dry_run(&site.reader().await?, &policy, &wanted).await?;
    let mut all_decided = true;
    for Foreseen { span, at, decision, .. } in &foreseen {
        let (told, value) = match decision {
            Ok(Decision::Act(actions)) => {
                let told: Vec<_> = actions.iter().map(ToString::to_string).collect();
                let values: Vec<_> = actions.iter().map(Action::to_value).collect();
                (told.join("; "), json!({"decision": "act", "actions": values}))
            }
            Ok(Decision::Later(time)) => (format!("later, at {time}"), json!({"decision": "later", "at": time.to_string()})),
            Ok(_) => continue,
            Err(failure) => {
                all_decided = false;
                (failure.to_string(), json!({"decision": "failed", "code": failure.code, "message": failure.message}))
            }
        };
        output::line(&if json {
            let mut row = json!({"span": span.to_string(), "of": at.to_string()});
            if let (Value::Object(row), Value::Object(more)) = (&mut row, value) {
                row.extend(more);
            }
            row.to_string()
        } else {
            format!("{at}  {}  {}", output::plain(&span.to_string()), output::plain(&told))
        });
    }
    if !json {
        output::note(&format!("{} decisions other than to pass", foreseen.len()));
    }
    Ok(all_decided)
}

/// The policy of a file, or a published one.
async fn policy(options: &DryRun, site: &Site) -> Result<Span, Error> {
    let path = Path::new(&options.policy);
    if path.is_file() {
        let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read(path).map_err(|e| named(&e))?;
        let value = logline_core::json::parse(&text).map_err(|e| named(&e))?;
        // On one line, as a row of an import.
        let parsed = parse_line(value.to_string().as_bytes(), &Rules::default()).map_err(|e| named(&e))?;
        let ParsedSpan::Unsigned(draft) = parsed else { return Err(named(&"this row is sealed: give a draft").into()) };
        let mut span = draft.columns().clone();
        span.tenant_id.clone_from(&options.tenant);
        return Ok(span);
    }
    let id = id_or(&options.policy, policy_id)?;
    let missing = |e| format!("`{}` is neither a file nor a policy of the tenant: {e}", output::plain(&options.policy));
    Ok(site.ledger.get(&Scope::runtime(&options.tenant), &options.tenant, id).await.map_err(missing)?.span)
}

//! `logline prompt`

mod ask;
mod build;
mod eval;
mod explain;
mod fixtures;

use clap::{Args, Subcommand};
use logline_prompts::samples;
use serde_json::json;

use crate::site::{id_or, published_id};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Asks the model of a variant, records everything, and prints the answer.
    #[command(
        after_help = "Example: logline prompt ask support@v1 'how long may I return it?' --ledger sqlite:demo.ledger --tenant acme --owner user-4711 --vars '{\"customer\":\"Ada\"}' --memory on"
    )]
    Ask(Box<ask::Ask>),
    /// Builds the prompt of a variant and prints it. Nothing is written.
    #[command(
        after_help = "Example: logline prompt build support@v1 --ledger sqlite:demo.ledger --tenant acme --vars '{\"customer\":\"Ada\"}'"
    )]
    Build(Box<build::Build>),
    /// Evaluates variants with the fixtures of a suite, and prints how they did. Exit status 1 if the gate of one is closed.
    #[command(
        after_help = "Example: logline prompt eval support --ledger sqlite:demo.ledger --tenant acme --variant support@v1 --variant support@v2"
    )]
    Eval(Box<eval::Eval>),
    /// Says how an answer came about: prompt, blocks, context, choice, and every try with its cost. Record and prompt are verified.
    #[command(after_help = "Example: logline prompt explain ID --ledger sqlite:demo.ledger --tenant acme")]
    Explain(Box<explain::Explain>),
    /// Builds a recorded prompt again, or makes a recorded choice again, and compares.
    #[command(after_help = "Example: logline prompt verify ID --ledger sqlite:demo.ledger --tenant acme")]
    Verify(Box<explain::Verify>),
    /// Turns tests of promptfoo, or items of a Langfuse data set, into fixtures. Bad entries are named, the others are printed.
    #[command(after_help = "Example: logline prompt fixtures tests.yaml --from promptfoo --question query")]
    Fixtures(fixtures::Fixtures),
    /// Prints drafts to begin with: blocks, two variants, a suite, a family. `logline publish` publishes them.
    #[command(
        after_help = "Example: logline prompt samples --tenant acme --provider main | logline publish - --ledger sqlite:demo.ledger --tenant acme"
    )]
    Samples {
        /// The tenant.
        #[arg(long)]
        tenant: String,
        /// The provider that the variants ask: its name or id.
        #[arg(long)]
        provider: String,
        /// The owner of the drafts.
        #[arg(long, default_value = "publisher")]
        owner: String,
    },
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    match &options.command {
        Command::Ask(options) => ask::run(options, url, json).await,
        Command::Build(options) => build::run(options, url, json).await,
        Command::Eval(options) => eval::run(options, url, json).await,
        Command::Explain(options) => explain::explain_run(options, url, json).await,
        Command::Verify(options) => explain::verify(options, url, json).await,
        Command::Fixtures(options) => fixtures::run(options, json),
        Command::Samples { tenant, provider, owner } => {
            let provider = id_or(provider, |name| published_id(tenant, "provider", name))?;
            for draft in samples(tenant, owner, provider) {
                let columns = draft.columns();
                let mut row = json!({
                    "entity_type": columns.entity_type, "id": columns.id.to_string(), "name": columns.name, "owner_id": columns.owner_id,
                    "content": columns.content, "metadata": columns.metadata,
                });
                if let Some(row) = row.as_object_mut() {
                    row.retain(|_, value| !value.is_null());
                }
                output::line(&row.to_string());
            }
            Ok(true)
        }
    }
}

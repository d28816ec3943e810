//! `logline migrate`

use clap::Args;
use serde_json::json;

use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// Begin a new epoch of append order. Use it after a recovery to a point in time, so that readers that hold cursors of rows
    /// that no longer exist see everything that comes.
    #[arg(long)]
    new_epoch: bool,
    /// Create the cluster's roles and nothing else. Use it before a dump is restored: a dump names roles but does not contain
    /// them.
    #[arg(long, conflicts_with = "new_epoch")]
    roles: bool,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let database = open::database(url)?;
    if options.roles {
        logline_pg::create_roles(&database).await?;
        output::line(&if json { json!({"roles": true}).to_string() } else { "the roles are in place".to_owned() });
        return Ok(true);
    }
    let migrated = if options.new_epoch {
        logline_pg::migrate_to_new_epoch(&database).await?
    } else {
        logline_pg::migrate(&database).await?
    };
    output::line(&if json {
        json!({"from": migrated.from, "to": migrated.to, "epoch": migrated.epoch}).to_string()
    } else if migrated.from == migrated.to {
        format!("schema version {} is in place; epoch {}", migrated.to, migrated.epoch)
    } else {
        format!("migrated from schema version {} to {}; epoch {}", migrated.from, migrated.to, migrated.epoch)
    });
    Ok(true)
}

//! `logline migrate`

use clap::Args;
use serde_json::json;

use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// Begin a new epoch of append order. Use it after a recovery to a point in time: readers may then hold cursors of rows
    /// that no longer exist, and the new epoch lets them see all new rows.
    #[arg(long)]
    new_epoch: bool,
    /// Create the cluster's roles and nothing else. Use it before a dump is restored: a dump names roles but does not contain
    /// them.
    #[arg(long, conflicts_with = "new_epoch")]
    roles: bool,
    /// Record the definitions of policies, functions, triggers, indexes, owners and grants as they are now. Use it after you
    /// have changed one of them on purpose, or upgraded the server: until then `logline doctor` reports them.
    #[arg(long, conflicts_with_all = ["new_epoch", "roles"])]
    accept_definitions: bool,
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
    } else if options.accept_definitions {
        logline_pg::accept_definitions(&database).await?
    } else {
        logline_pg::migrate(&database).await?
    };
    let definitions = logline_pg::definitions(&database).await?.to_string();
    output::line(&if json {
        json!({"from": migrated.from, "to": migrated.to, "epoch": migrated.epoch, "definitions": definitions}).to_string()
    } else if migrated.from == migrated.to {
        format!("schema version {} is in place; epoch {}; definitions {definitions}", migrated.to, migrated.epoch)
    } else {
        format!(
            "migrated from schema version {} to {}; epoch {}; definitions {definitions}",
            migrated.from, migrated.to, migrated.epoch
        )
    });
    Ok(true)
}

//! Attacks by somebody who has stolen a login, through the library and with plain SQL.

use logline_core::ledger::{LedgerExt as _, Query};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_pg::{PgLedger, PgOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::Result;
use crate::setup::Database;

/// Runs every attack. Returns true if all of them failed.
pub(crate) async fn run(database: &Database) -> Result<bool> {
    let ledger = PgLedger::connect(PgOptions::new(&database.api)?).await?;
    let mallory = Scope::user("globex", "mallory");
    let mut all_failed = true;
    let mut report = |attack: &str, failed: bool, how: String| {
        println!("  {} {attack}: {how}", if failed { "fails   " } else { "SUCCEEDS" });
        all_failed &= failed;
    };

    let query = Query::timeline().tenant("acme");
    let found = ledger.collect(&mallory, &query, 10).await?.len();
    report("another tenant's user scans acme", found == 0, format!("{found} rows"));

    let forged = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.forged");
    let forged = forged.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::generate()?)?;
    let refused = ledger.append_one(&mallory, forged.clone()).await;
    report("they append as alice of acme", refused.is_err(), shown(refused));

    let refused = ledger.append_one(&Scope::Operator, forged).await;
    report("they claim to be the operator", refused.is_err(), shown(refused));

    let mut session = PgConnection::connect(&database.api).await?;
    session.execute("SELECT set_config('app.tenant_id', 'globex', false), set_config('app.user_id', 'mallory', false)").await?;
    let count = "SELECT count(*) FROM ledger.visible_timeline WHERE tenant_id = 'acme'";
    let found: i64 = sqlx::query_scalar(count).fetch_one(&mut session).await?;
    report("plain SQL reads acme through the view", found == 0, format!("{found} rows"));
    for (attack, sql) in [
        ("plain SQL changes a row", "UPDATE ledger.universal_registry SET content = '{}'"),
        ("plain SQL empties the ledger", "TRUNCATE ledger.universal_registry"),
        ("plain SQL switches row-level security off", "ALTER TABLE ledger.universal_registry DISABLE ROW LEVEL SECURITY"),
        ("plain SQL takes the worker's role", "SET ROLE logline_runtime"),
        (
            "plain SQL inserts into acme",
            "INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility,
                is_deleted, curr_hash, signature, public_key)
             VALUES (gen_random_uuid(), 0, 'note', 'w', 't', now(), 'alice', 'acme', 'private', false, '', '', '')",
        ),
    ] {
        let refused = session.execute(AssertSqlSafe(sql)).await;
        let refused =
            refused.map_err(|error| error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned()));
        report(attack, refused.is_err(), shown(refused));
    }
    Ok(all_failed)
}

fn shown<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "it was done".to_owned())
}

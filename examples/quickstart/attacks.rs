//! Three attacks on the ledger: each is refused, or the audit finds it.

use std::path::Path;

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, Versions};
use logline_core::{Draft, Host, KeyPair, Scope, SignedSpan, SpanKey, SystemClock, SystemIds};
use logline_sqlite::SqliteLedger;

use crate::setup::Setup;
use crate::{Result, TENANT, report};

/// The stranger: a user of another tenant, with a key of their own.
const OTHER_TENANT: &str = "globex";
const STRANGER: &str = "mallory";

/// Runs all three attacks. Returns true if each of them was refused or found.
pub(crate) async fn run(
    host: &Host,
    ledger: &SqliteLedger,
    setup: &Setup,
    function: &SignedSpan,
    folder: &Path,
    victim: Option<SpanKey>,
) -> Result<bool> {
    let Some(victim) = victim else {
        println!("\nno execution to attack: give at least one event");
        return Ok(false);
    };
    let found = tamper(setup, ledger, &folder.join("tampered.ledger"), &victim).await?;
    let refused = stranger(host, ledger, function, &victim).await?;
    let apart = squat(setup, ledger, &folder.join("squatted.ledger"), function).await?;
    Ok(found && refused && apart)
}

/// Somebody with access to the file changes the outcome of one execution with plain SQL.
async fn tamper(setup: &Setup, ledger: &SqliteLedger, copy: &Path, victim: &SpanKey) -> Result<bool> {
    println!("\nattack 1 a copy of the file, one row changed by SQL behind the library's back");
    ledger.copy_to(copy).await?;
    let sql = rusqlite::Connection::open(copy)?;
    let update = "UPDATE universal_registry SET output = json_object('decision', 'allow', 'score', 0), status = 'complete'
                  WHERE tenant_id = ?1 AND id = ?2";
    let key = [victim.tenant_id.clone(), victim.id.to_string()];
    match sql.execute(update, key.clone()) {
        Err(e) => println!("  sql:   {e}"),
        Ok(_) => println!("  sql:   NOT refused"),
    }
    println!("  so the attacker drops the trigger first");
    sql.execute_batch("DROP TRIGGER ur_no_update")?;
    sql.execute(update, key)?;
    drop(sql);

    let tampered = SqliteLedger::open(copy)?;
    let trusted = setup.trust.resolve(&tampered).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let mut named = Vec::new();
    let report = fsck(&tampered, audit, &mut |event| {
        report::print_problem(event.clone());
        if let Event::Problem(problem) = event {
            named.push((problem.tenant_id, problem.id));
        }
    })
    .await?;
    let exact = named == [(victim.tenant_id.clone(), victim.id.to_string())];
    println!("  {} of {} rows is named, {}", named.len(), report.rows, if exact { "the right one" } else { "NOT as expected" });
    Ok(exact)
}

/// A user of another tenant tries to read an execution and to replace the function.
async fn stranger(host: &Host, ledger: &SqliteLedger, function: &SignedSpan, victim: &SpanKey) -> Result<bool> {
    let scope = Scope::user(OTHER_TENANT, STRANGER);
    let key = KeyPair::generate()?;
    let mut held = true;
    let mut expect = |what: &str, refused: Option<String>| {
        held &= refused.is_some();
        println!("  {what}: {}", refused.unwrap_or_else(|| "NOT refused".to_owned()));
    };

    println!("\nattack 2 {STRANGER} of tenant {OTHER_TENANT} against tenant {TENANT}");
    let read = ledger.get(&scope, TENANT, victim.id).await;
    expect("reads an execution", read.err().map(|e| e.to_string()));
    let query = Query::new().tenant(TENANT).versions(Versions::All);
    let rows = ledger.scan(&scope, &query, None).await?.rows.len();
    expect("lists the tenant", (rows == 0).then(|| "0 rows are visible".to_owned()));
    let forged = Draft::next_version(function).code("(module)").stamp(&SystemClock, &SystemIds).seal_local(&key)?;
    let append = ledger.append_one(&scope, forged.clone()).await;
    expect("appends the function's next version", append.err().map(|e| e.to_string()));
    let publish = host.publish(Draft::next_version(function).code("(module)"), &key).await;
    expect("publishes it through the host", publish.err().map(|e| e.to_string()));
    Ok(held)
}

/// The stranger writes a function with the same id in their own tenant, in a copy of the ledger.
async fn squat(setup: &Setup, ledger: &SqliteLedger, copy: &Path, function: &SignedSpan) -> Result<bool> {
    println!("\nattack 3 a copy of the file, the same id in the stranger's own tenant");
    ledger.copy_to(copy).await?;
    let copied = SqliteLedger::open(copy)?;
    let squat =
        Draft::new("function").id(function.id).tenant(OTHER_TENANT).owner(STRANGER).who(STRANGER).this("function.squat");
    let squat = squat.seq(function.seq).code("(module)").stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::generate()?)?;
    let receipt = copied.append_one(&Scope::runtime(OTHER_TENANT), squat).await;
    println!("  appended as {}", receipt.map_or_else(|e| e.to_string(), |r| r.key.to_string()));
    let after = copied.get(&Scope::runtime(TENANT), TENANT, function.id).await?;
    let unchanged = after == *function;
    println!("  {TENANT}'s function is {}", if unchanged { "what it was" } else { "CHANGED" });
    println!("  and an audit names the row, because no manifest lets its signer publish:");
    let trusted = setup.trust.resolve(&copied).await?;
    let mut audit = Audit::default();
    audit.authorities = Some(&trusted.authorities);
    let report = fsck(&copied, audit, &mut report::print_problem).await?;
    Ok(unchanged && report.problems == 1)
}

//! Compares what ran with what was promoted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Query};
use crate::span::{SignedSpan, SpanKey};
use crate::trust::Trusted;
use crate::trust::governance::{Class, Environment, Pointer, ReadError, Version, pointer_id, promotion_of};
use crate::value::timestamp::Timestamp;

/// How far the clocks of hosts may differ, and how long a host may go on with what it has read before: a promotion that was replaced, and
/// a manifest that was followed by a stricter one.
const SLACK: Duration = Duration::from_secs(600);

/// How many pointers are kept in memory.
const MAX_POINTERS: usize = 4096;

/// Calls `on_problem` for each execution that ran a version which was not in force. Returns how many executions were compared. The hosts
/// that have signed them were told apart from strangers before.
pub(super) async fn check(
    ledger: &dyn Ledger,
    trusted: &Trusted,
    on_problem: &mut (dyn FnMut(SpanKey, String) + Send),
) -> Result<u64, LedgerError> {
    if !trusted.past.iter().any(|past| past.governs_anything()) {
        return Ok(0);
    }
    let query = Query::chains().entity_type("execution");
    let (mut count, mut cursor, mut pointers) = (0, None, BTreeMap::new());
    loop {
        let page = ledger.scan(&Scope::Operator, &query, cursor.as_ref()).await?;
        cursor = page.next;
        // A damaged row is reported where rows are read.
        for row in page.rows.into_iter().filter_map(|row| row.span.ok()).filter(|row| row.prev_hash.is_none()) {
            // What ran no function needed no promotion.
            let Some((tenant, ran)) = function_of(&row) else { continue };
            count += 1;
            let began = row.at.saturating_sub(Duration::from_millis(row.duration_ms.unwrap_or(0).into()));
            let outcome = match promotion_of(&row) {
                Some(promotion) => named(ledger, trusted, &mut pointers, (&tenant, &ran, &promotion, began)).await?,
                None if is_required(trusted, &tenant, began) => {
                    Err("it names no promotion, and the manifest demanded one in every environment".to_owned())
                }
                None => Ok(()),
            };
            if let Err(reason) = outcome {
                on_problem(row.key(), format!("version {} of {}: {reason}", ran.seq, ran.id));
            }
        }
        if cursor.is_none() {
            return Ok(count);
        }
    }
}

/// The function that an execution says it ran, and the tenant of the function.
fn function_of(execution: &SignedSpan) -> Option<(String, Version)> {
    let function = execution.meta("function")?;
    let text = |name: &str| function.get(name).and_then(Value::as_str);
    let seq = function.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok())?;
    let version = Version { id: text("id")?.parse().ok()?, seq, curr_hash: text("curr_hash")?.parse().ok()? };
    Some((text("tenant").unwrap_or(&execution.tenant_id).to_owned(), version))
}

/// Whether no host, wherever it worked, could run an unpromoted function of this tenant at that time.
fn is_required(trusted: &Trusted, tenant: &str, began: Timestamp) -> bool {
    // A host may have gone on for a while with the manifest before.
    let from = began.saturating_sub(SLACK);
    let mut known = trusted.past.iter().filter(|past| past.at <= began).rev();
    let mut in_force = Vec::new();
    for past in known.by_ref() {
        in_force.push(past);
        if past.at <= from {
            break;
        }
    }
    let demands = |environment| in_force.iter().all(|past| past.requires(tenant, environment, Class::Function));
    in_force.last().is_some_and(|oldest| oldest.at <= from) && Environment::ALL.into_iter().all(demands)
}

type Pointers = BTreeMap<Uuid, Pointer>;

/// Whether the promotion that an execution names has put in force what ran.
async fn named(
    ledger: &dyn Ledger,
    trusted: &Trusted,
    pointers: &mut Pointers,
    (tenant, ran, promotion, began): (&str, &Version, &Version, Timestamp),
) -> Result<Result<(), String>, LedgerError> {
    let place = Environment::ALL
        .into_iter()
        .find(|environment| pointer_id(tenant, *environment, Class::Function, ran.id) == promotion.id);
    let Some(environment) = place else {
        return Ok(Err("it names a promotion of something else".to_owned()));
    };
    if !pointers.contains_key(&promotion.id) {
        if pointers.len() >= MAX_POINTERS {
            pointers.clear();
        }
        match trusted.pointer(ledger, tenant, environment, Class::Function, ran.id).await {
            Ok(pointer) => drop(pointers.insert(promotion.id, pointer)),
            Err(ReadError::Ledger(error)) => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    let held = pointers.get(&promotion.id).map(Pointer::held).unwrap_or_default();
    let Some(at) = held.iter().position(|held| held.promotion == *promotion) else {
        return Ok(Err("it names a promotion that does not hold".to_owned()));
    };
    let (Some(found), next) = (held.get(at), held.get(at + 1)) else { return Ok(Ok(())) };
    Ok(if found.subject != *ran {
        Err(format!("the promotion that it names has put version {} in force", found.subject.seq))
    } else if found.until.is_some_and(|until| until <= began.saturating_sub(SLACK)) {
        Err("the promotion that it names was one of an emergency, and had ended".to_owned())
    } else if next.is_some_and(|next| next.at <= began.saturating_sub(SLACK) && next.until.is_none()) {
        Err("the promotion that it names had been replaced".to_owned())
    } else {
        Ok(())
    })
}

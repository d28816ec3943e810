//! Compares what ran with what was promoted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Query};
use crate::span::{SignedSpan, SpanKey};
use crate::trust::Trusted;
use crate::trust::governance::{Class, Environment, Pointer, ReadError, Version, pointer_id, promotion_of, promotions_of};
use crate::value::timestamp::Timestamp;

/// How far the clocks of hosts may differ, and how long a host may go on with what it has read before: a promotion that was replaced, and
/// a manifest that was followed by a stricter one.
const SLACK: Duration = Duration::from_secs(600);

/// How many pointers are kept in memory.
const MAX_POINTERS: usize = 4096;

/// Calls `on_problem` for each record that used a version which was not in force. Returns how many uses were compared. The hosts that have
/// signed the records were told apart from strangers before.
pub(super) async fn check(
    ledger: &dyn Ledger,
    trusted: &Trusted,
    on_problem: &mut (dyn FnMut(SpanKey, String) + Send),
) -> Result<u64, LedgerError> {
    if !trusted.past.iter().any(|past| past.governs_anything()) {
        return Ok(0);
    }
    let (mut count, mut pointers) = (0, BTreeMap::new());
    for entity_type in ["execution", "provider_request", "prompt_build"] {
        let query = Query::chains().entity_type(entity_type);
        let mut cursor = None;
        loop {
            let page = ledger.scan(&Scope::Operator, &query, cursor.as_ref()).await?;
            cursor = page.next;
            // A damaged row is reported where rows are read.
            for row in page.rows.into_iter().filter_map(|row| row.span.ok()).filter(|row| row.prev_hash.is_none()) {
                let began = row.at.saturating_sub(Duration::from_millis(row.duration_ms.unwrap_or(0).into()));
                for used in uses_of(&row) {
                    count += 1;
                    let outcome = match &used.promotion {
                        Some(promotion) => named(ledger, trusted, &mut pointers, (&used, promotion, began)).await?,
                        None if is_required(trusted, &used, began) => {
                            Err("it names no promotion, and the manifest demanded one in every environment".to_owned())
                        }
                        None => Ok(()),
                    };
                    if let Err(reason) = outcome {
                        on_problem(row.key(), format!("version {} of {}: {reason}", used.version.seq, used.version.id));
                    }
                }
            }
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(count)
}

/// A governed span that a record says was used.
struct Used {
    tenant: String,
    class: Class,
    version: Version,
    promotion: Option<Version>,
}

/// What a record says was used. What ran no function needed no promotion.
fn uses_of(row: &SignedSpan) -> Vec<Used> {
    let promotions = promotions_of(row);
    let used = |class, named: Option<&Value>, promotion: Option<Version>| {
        let (tenant, version) = version_of(row, named?)?;
        let promotion = promotion.or_else(|| promotions.get(&version.id).copied());
        Some(Used { tenant, class, version, promotion })
    };
    let found = match row.entity_type.as_str() {
        "execution" => vec![used(Class::Function, row.meta("function"), promotion_of(row))],
        "provider_request" => {
            let detail = |name: &str| row.meta("details").and_then(|details| details.get(name));
            ["provider", "price_table"].map(|name| used(Class::Provider, detail(name), None)).into()
        }
        _ => {
            let blocks = row.meta("blocks").and_then(Value::as_array).into_iter().flatten();
            row.meta("variant").into_iter().chain(blocks).map(|named| used(Class::Prompt, Some(named), None)).collect()
        }
    };
    found.into_iter().flatten().collect()
}

/// The version that a reference names, and its tenant.
fn version_of(row: &SignedSpan, named: &Value) -> Option<(String, Version)> {
    let text = |name: &str| named.get(name).and_then(Value::as_str);
    let seq = named.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok())?;
    let version = Version { id: text("id")?.parse().ok()?, seq, curr_hash: text("curr_hash")?.parse().ok()? };
    Some((text("tenant").unwrap_or(&row.tenant_id).to_owned(), version))
}

/// Whether no host, wherever it worked, could use an unpromoted version at that time.
fn is_required(trusted: &Trusted, used: &Used, began: Timestamp) -> bool {
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
    let demands = |environment| in_force.iter().all(|past| past.requires(&used.tenant, environment, used.class));
    in_force.last().is_some_and(|oldest| oldest.at <= from) && Environment::ALL.into_iter().all(demands)
}

type Pointers = BTreeMap<Uuid, Pointer>;

/// Whether the promotion that a record names has put in force what was used.
async fn named(
    ledger: &dyn Ledger,
    trusted: &Trusted,
    pointers: &mut Pointers,
    (used, promotion, began): (&Used, &Version, Timestamp),
) -> Result<Result<(), String>, LedgerError> {
    let Used { tenant, class, version, .. } = used;
    let place =
        Environment::ALL.into_iter().find(|environment| pointer_id(tenant, *environment, *class, version.id) == promotion.id);
    let Some(environment) = place else {
        return Ok(Err("it names a promotion of something else".to_owned()));
    };
    if !pointers.contains_key(&promotion.id) {
        if pointers.len() >= MAX_POINTERS {
            pointers.clear();
        }
        match trusted.pointer(ledger, tenant, environment, *class, version.id).await {
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
    Ok(if found.subject != *version {
        Err(format!("the promotion that it names has put version {} in force", found.subject.seq))
    } else if found.until.is_some_and(|until| until <= began.saturating_sub(SLACK)) {
        Err("the promotion that it names was one of an emergency, and had ended".to_owned())
    } else if next.is_some_and(|next| next.at <= began.saturating_sub(SLACK) && next.until.is_none()) {
        Err("the promotion that it names had been replaced".to_owned())
    } else {
        Ok(())
    })
}

//! Counts the approvals of every promotion again.

use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Query};
use crate::span::SpanKey;
use crate::trust::Trusted;
use crate::trust::governance::{Promoted, ReadError, pointer_id};

/// Calls `on_void` for each promotion that does not hold, with the reason. Returns how many promotions were counted.
pub(super) async fn check(
    ledger: &dyn Ledger,
    trusted: &Trusted,
    on_void: &mut (dyn FnMut(SpanKey, String) + Send),
) -> Result<u64, LedgerError> {
    let query = Query::chains().entity_type("promotion");
    let (mut count, mut cursor, mut last) = (0, None, None);
    loop {
        let page = ledger.scan(&Scope::Operator, &query, cursor.as_ref()).await?;
        cursor = page.next;
        // A damaged row is reported where rows are read.
        for row in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            count += 1;
            let chain = Some((row.tenant_id.clone(), row.id));
            if last == chain {
                continue;
            }
            last = chain;
            let place = Promoted::of(&row).map(|said| (said.environment, said.class, said.subject.id));
            let (environment, class, subject) = match place {
                Ok(place) if row.id == pointer_id(&row.tenant_id, place.0, place.1, place.2) => place,
                Ok(_) => {
                    on_void(row.key(), "its id is not that of the pointer that it names".to_owned());
                    continue;
                }
                Err(reason) => {
                    on_void(row.key(), reason);
                    continue;
                }
            };
            match trusted.pointer(ledger, &row.tenant_id, environment, class, subject).await {
                Ok(pointer) => {
                    for (version, reason) in pointer.skipped() {
                        let key = SpanKey { tenant_id: row.tenant_id.clone(), id: version.id, seq: version.seq };
                        on_void(key, reason.clone());
                    }
                }
                Err(ReadError::Ledger(error)) => return Err(error),
                Err(error) => on_void(row.key(), error.to_string()),
            }
        }
        if cursor.is_none() {
            return Ok(count);
        }
    }
}

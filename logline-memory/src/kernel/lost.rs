//! Texts that have waited too long for their memory, and memories whose keys are gone.

use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::ledger::{LedgerError, Query};
use logline_core::trust::Authorities;
use logline_core::{SignedSpan, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::{MEMORY_EXPIRE, MEMORY_FORGET, MEMORY_FORGET_REST, RECEIPT, Refusal};
use crate::belief::{Believed, Rows, Standing, find};
use crate::envelope;
use crate::form::{self, Content, Stored};
use crate::vault::{Vault, VaultError};

/// For how long a text may wait between its encryption and the moment in which it is kept. A request that waited longer is refused with
/// `erased`, and [`Memories::remember`](crate::Memories::remember) encrypts the text again.
pub const MAX_WAIT: Duration = Duration::from_secs(12 * 60 * 60);

/// `time` less `by`.
pub(crate) fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_unix_micros(time.unix_micros().saturating_sub(micros)).unwrap_or(Timestamp::EPOCH)
}

/// The time from which on a text must have been encrypted to be kept at `now`.
pub(super) fn kept_since(now: Timestamp) -> Timestamp {
    earlier(now, MAX_WAIT)
}

/// The id of the key of an encrypted memory. A row that cannot be read has none.
pub(crate) fn key_of(row: &SignedSpan) -> Option<Uuid> {
    match Stored::read(row).ok()?.content {
        Content::Sealed(envelope) => envelope::key_id(&envelope).ok(),
        _ => None,
    }
}

/// The id of the key under which a row says that it is encrypted, also if it says nothing else that can be read.
pub(super) fn sealed_under(row: &SignedSpan) -> Option<Uuid> {
    envelope::key_id(&form::envelope(row.meta("sealed")?).ok()?).ok()
}

/// The id of the key that a memory needs to be found. `None` if it is not found, or has no encrypted text.
fn needed_key(row: &Believed) -> Option<Uuid> {
    key_of(row).filter(|_| Stored::read(row).is_ok_and(|stored| stored.status.is_found()))
}

/// Whether a memory is found, and has a text that needs a key.
pub(super) fn needs_key(row: &Believed) -> bool {
    needed_key(row).is_some()
}

/// Whether not one of these memories of a tenant has a key, although nobody has forgotten them: the store of keys was lost, or is an old copy.
pub(super) async fn are_lost(
    vault: &Vault,
    reader: &Reader<'_>,
    authorities: &Authorities,
    rows: &[Believed],
) -> Result<bool, Refusal> {
    let Some(first) = rows.first() else { return Ok(false) };
    let keys: Vec<_> = rows.iter().filter_map(|row| key_of(row)).collect();
    if vault.missing(&first.tenant_id, &keys).await?.len() < rows.len() {
        return Ok(false);
    }
    for row in rows {
        if was_forgotten(reader, authorities, row).await? {
            return Ok(false);
        }
    }
    // Somebody may be forgetting them at this moment: keys go first, then rows. First the intents, then the rows again: whatever has ended
    // in between shows in the rows.
    if is_being_forgotten(reader, &first.tenant_id, rows).await? {
        return Ok(false);
    }
    for row in rows {
        if !find(reader, authorities, &row.tenant_id, row.id).await?.is_some_and(|now| needs_key(&now)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a request is open by which something of the owners of `rows` is forgotten. Such a request is in the ledger before a key is destroyed.
async fn is_being_forgotten(reader: &Reader<'_>, tenant: &str, rows: &[Believed]) -> Result<bool, LedgerError> {
    const ENDS: [&str; 3] = [MEMORY_FORGET, MEMORY_FORGET_REST, MEMORY_EXPIRE];
    for status in ["running", "scheduled"] {
        let mut requests = Rows::of(reader, Query::new().tenant(tenant).entity_type("request").status(status));
        while let Some(request) = requests.next().await? {
            if ENDS.contains(&request.this.as_str()) && rows.iter().any(|row| row.owner_id == request.owner_id) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Of rows that are the last versions of memories: those that would be found, and whose keys are gone.
///
/// # Errors
/// If the keys cannot be read.
pub(crate) async fn unreadable(vault: &Vault, tenant: &str, rows: Vec<Believed>) -> Result<Vec<Believed>, VaultError> {
    let rows: Vec<_> = rows.into_iter().filter_map(|row| needed_key(&row).map(|key| (key, row))).collect();
    let keys: Vec<_> = rows.iter().map(|(key, _)| *key).collect();
    let missing = vault.missing(tenant, &keys).await?;
    Ok(rows.into_iter().filter(|(key, _)| missing.contains(key)).map(|(_, row)| row).collect())
}

/// Whether the key of a memory was destroyed with everything of its user: a receipt says so that was given out about when the memory was
/// written. If a key is gone for another reason, such as an old copy of the store of keys, it may come back, and the memory stays.
pub(super) async fn was_forgotten(
    reader: &Reader<'_>,
    authorities: &Authorities,
    row: &SignedSpan,
) -> Result<bool, LedgerError> {
    const ABOUT: i64 = 24 * 60 * 60 * 1_000_000;
    let query = Query::new().tenant(&row.tenant_id).entity_type(RECEIPT).owner(&row.owner_id);
    let mut receipts = Standing::of(reader, authorities, query);
    while let Some(receipt) = receipts.next().await? {
        let what = receipt.content.as_ref().and_then(|content| content.get("what")).and_then(Value::as_str);
        let apart = receipt.at.unix_micros().saturating_sub(row.at.unix_micros()).saturating_abs();
        if what == Some("subject") && apart < ABOUT {
            return Ok(true);
        }
    }
    Ok(false)
}

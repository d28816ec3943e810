//! Keys without a text, and texts without a key.
//!
//! A key is durable before the span that has its text is written. If the text is refused, or the process dies in between, the key stays
//! behind: an orphan, which [`reap`] deletes after a time of grace. The other way round, a memory that is begun while everything of its
//! user is forgotten may be committed right after its key was destroyed. Such a memory is told by [`unreadable`], and ended by [`mend`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logline_core::contract::{Reader, RecordKey};
use logline_core::ledger::{Ledger, LedgerError, LedgerExt as _};
use logline_core::request::Request;
use logline_core::{Host, Scope, SignedSpan, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::consent::consent_id;
use crate::envelope;
use crate::form::{Content, MEMORY, Stored};
use crate::kernel::MEMORY_EXPIRE;
use crate::memories::MemoryError;
use crate::vault::{Vault, VaultError};

/// For how long a text may wait between its encryption and the moment in which it is kept. A request that waited longer is refused with
/// `erased`, and [`Memories::remember`](crate::Memories::remember) encrypts the text again.
pub const MAX_WAIT: Duration = Duration::from_secs(12 * 60 * 60);

/// For how long a key is left alone at least. It is longer than [`MAX_WAIT`] by more than an attempt may take, so that no key is taken from
/// a write that is on its way.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The most keys that one call of [`reap`] looks at.
const KEYS: usize = 500;

/// About the most rows that one call of [`reap`] reads.
const ROWS: usize = 20_000;

/// What [`reap`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reaped {
    /// How many keys it looked at.
    pub looked_at: u64,
    /// How many had no text, and were deleted.
    pub dropped: u64,
    /// Where the next call goes on. Keys before it have their text for good, so a caller keeps this place, and need not look twice.
    pub reached: Option<(Timestamp, Uuid)>,
    /// Whether there was more to look at.
    pub more: bool,
}

/// Deletes keys of a tenant whose text stands in no span, if they are older than `grace`, which is at least [`GRACE`]. It looks at the
/// keys after `from`, the oldest first, a few hundred in one call.
///
/// The ledger must be complete: after the restore of an older copy, import what is missing first. A copy of the store from before still
/// opens what was deleted, until the user forgets something and the epoch ends; its text stands in a request alone.
///
/// # Errors
/// If ledger or keys fail.
pub async fn reap(
    ledger: &dyn Ledger,
    vault: &Vault,
    tenant: &str,
    grace: Duration,
    from: Option<(Timestamp, Uuid)>,
) -> Result<Reaped, MemoryError> {
    let before = vault.now(tenant).await?;
    let before = earlier(before, grace.max(GRACE));
    reap_before(ledger, vault, tenant, before, from).await
}

/// `time` less `by`.
fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_unix_micros(time.unix_micros().saturating_sub(micros)).unwrap_or(Timestamp::EPOCH)
}

/// The time from which on a text must have been encrypted to be kept at `now`.
pub(crate) fn kept_since(now: Timestamp) -> Timestamp {
    earlier(now, MAX_WAIT)
}

/// As [`reap`], for keys that were added before this time.
pub(crate) async fn reap_before(
    ledger: &dyn Ledger,
    vault: &Vault,
    tenant: &str,
    before: Timestamp,
    from: Option<(Timestamp, Uuid)>,
) -> Result<Reaped, MemoryError> {
    let keys = vault.aged(tenant, before, from, KEYS).await?;
    let mut reaped = Reaped { reached: from, more: keys.len() == KEYS, ..Reaped::default() };
    let (mut rows, mut orphans) = (0, Vec::new());
    let mut texts: BTreeMap<Uuid, Texts> = BTreeMap::new();
    for key in keys {
        if rows > ROWS {
            reaped.more = true;
            break;
        }
        if !texts.contains_key(&key.span) {
            texts.insert(key.span, Texts::of(ledger, tenant, key.span, &mut rows).await?);
        }
        if texts.get(&key.span).is_some_and(|texts| texts.is_orphan(&key)) {
            orphans.push(key.id);
        }
        reaped.looked_at += 1;
        reaped.reached = Some((key.added_at, key.id));
    }
    if !orphans.is_empty() {
        let dropped = vault.drop_aged(tenant, &orphans, before).await?;
        reaped.dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
        metrics::counter!("logline_memory_orphaned_keys_total").increment(reaped.dropped);
        tracing::info!(tenant, dropped, "keys without a text were deleted");
    }
    Ok(reaped)
}

/// The keys of the texts that the versions of a span have.
#[derive(Default)]
struct Texts {
    keys: BTreeSet<Uuid>,
    /// Whether it is of another type: an application may encrypt texts of its own with the vault.
    is_foreign: bool,
}

impl Texts {
    async fn of(ledger: &dyn Ledger, tenant: &str, span: Uuid, rows: &mut usize) -> Result<Self, LedgerError> {
        const PAGE: usize = 500;
        let (scope, mut from, mut found) = (Scope::runtime(tenant), 0, Self::default());
        loop {
            let page = ledger.history(&scope, tenant, span, from, PAGE).await?;
            *rows += page.len() + 1;
            for row in &page {
                found.is_foreign |= row.entity_type != MEMORY;
                found.keys.extend(key_of(row));
            }
            match page.last() {
                Some(last) if page.len() == PAGE => from = last.seq.saturating_add(1),
                _ => return Ok(found),
            }
        }
    }

    fn is_orphan(&self, key: &RecordKey) -> bool {
        !self.is_foreign && !self.keys.contains(&key.id)
    }
}

/// The id of the key of an encrypted memory. A row that cannot be read has none.
fn key_of(row: &SignedSpan) -> Option<Uuid> {
    match Stored::read(row).ok()?.content {
        Content::Sealed(envelope) => envelope::key_id(&envelope).ok(),
        _ => None,
    }
}

/// Of rows that are the last versions of memories: those that would be found, and whose keys are gone.
///
/// # Errors
/// If the keys cannot be read.
pub(crate) async fn unreadable(vault: &Vault, tenant: &str, rows: Vec<SignedSpan>) -> Result<Vec<SignedSpan>, VaultError> {
    let is_found = |row: &SignedSpan| Stored::read(row).is_ok_and(|stored| stored.status.is_found());
    let rows: Vec<_> =
        rows.into_iter().filter(is_found).filter_map(|row| key_of(&row).map(|key| (key, row))).collect();
    let keys: Vec<_> = rows.iter().map(|(key, _)| *key).collect();
    let missing = vault.missing(tenant, &keys).await?;
    Ok(rows.into_iter().filter(|(key, _)| missing.contains(key)).map(|(_, row)| row).collect())
}

/// Memories of a tenant that would be found but cannot be read, among the last versions with these ids.
///
/// # Errors
/// If ledger or keys fail.
pub(crate) async fn unreadable_of(
    ledger: &dyn Ledger,
    vault: &Vault,
    tenant: &str,
    ids: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<SignedSpan>, MemoryError> {
    let (scope, mut rows) = (Scope::runtime(tenant), Vec::new());
    for id in ids {
        rows.extend(ledger.find(&scope, tenant, id).await?);
    }
    Ok(unreadable(vault, tenant, rows).await?)
}

/// Whether the key of a memory was destroyed with everything of its user: a receipt says so that was given out about when the memory was
/// written. If a key is gone for another reason, such as an old copy of the store of keys, it may come back, and the memory stays.
pub(crate) async fn was_forgotten(reader: &Reader<'_>, row: &SignedSpan) -> Result<bool, LedgerError> {
    use crate::kernel::{RECEIPT, each};
    const ABOUT: i64 = 24 * 60 * 60 * 1_000_000;
    let query = logline_core::ledger::Query::new().tenant(&row.tenant_id).entity_type(RECEIPT).owner(&row.owner_id);
    let mut found = false;
    each(reader, &query, |receipt| {
        let what = receipt.content.as_ref().and_then(|content| content.get("what")).and_then(Value::as_str);
        let apart = receipt.at.unix_micros().saturating_sub(row.at.unix_micros()).saturating_abs();
        found |= what == Some("subject") && apart < ABOUT;
        !found
    })
    .await?;
    Ok(found)
}

/// Ends the memories of a user that lost their keys because everything of the user was forgotten at the same time, and writes a receipt
/// for them. Returns how many.
///
/// # Errors
/// If they could not be ended.
pub async fn mend(host: &Host, tenant: &str, owner: &str) -> Result<u64, MemoryError> {
    let input = json!({"lost": true});
    let request = Request::new(tenant, owner, consent_id(tenant, owner, None), input).this(MEMORY_EXPIRE).who("host");
    let output = host.execute(request).await?.result?;
    Ok(output.get("memories").and_then(Value::as_u64).unwrap_or_default())
}

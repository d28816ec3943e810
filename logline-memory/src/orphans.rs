//! Keys without a text, and texts without a key.
//!
//! A key is durable before the span that has its text is written. If the text is refused, or the process dies in between, the key stays
//! behind: an orphan, which [`reap`] deletes after a time of grace. The other way round, a memory that is begun while everything of its
//! user is forgotten may be committed right after its key was destroyed. Such a memory is ended by
//! [`mend`](crate::mend).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logline_core::contract::{Reader, RecordKey};
use logline_core::ledger::{Ledger, LedgerError};
use logline_core::trust::Authorities;
use logline_core::{Scope, Timestamp};
use uuid::Uuid;

use crate::belief::{self, Believed};
use crate::form::MEMORY;
use crate::kernel::{earlier, key_of, unreadable};
use crate::memories::MemoryError;
use crate::vault::Vault;

/// For how long a key is left alone at least. It is longer than [`MAX_WAIT`](crate::MAX_WAIT) by more than an attempt may take, so that no key is taken from
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
    let before = earlier(vault.now(tenant).await?, grace.max(GRACE));
    let keys = vault.aged(tenant, before, from, KEYS).await?;
    let mut reaped = Reaped { reached: from, more: keys.len() == KEYS, ..Reaped::default() };
    let (mut rows, mut orphans) = (0, Vec::new());
    let mut texts: BTreeMap<Uuid, Texts> = BTreeMap::new();
    for key in keys {
        if rows > ROWS {
            reaped.more = true;
            break;
        }
        let of_span = match texts.entry(key.span) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Texts::of(ledger, tenant, key.span, &mut rows).await?),
        };
        if of_span.is_orphan(&key) {
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
            // A page may end early, because its rows are long: only an empty one is the end.
            match page.last() {
                Some(last) => from = last.seq.saturating_add(1),
                None => return Ok(found),
            }
        }
    }

    fn is_orphan(&self, key: &RecordKey) -> bool {
        !self.is_foreign && !self.keys.contains(&key.id)
    }
}

/// Memories of a tenant that would be found but cannot be read, among the last versions with these ids.
///
/// # Errors
/// If ledger or keys fail.
pub(crate) async fn unreadable_of(
    ledger: &dyn Ledger,
    authorities: &Authorities,
    vault: &Vault,
    tenant: &str,
    ids: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<Believed>, MemoryError> {
    let (reader, mut rows) = (Reader::new(ledger, Scope::runtime(tenant)), Vec::new());
    for id in ids {
        rows.extend(belief::find(&reader, authorities, tenant, id).await?);
    }
    Ok(unreadable(vault, tenant, rows).await?)
}

//! What a host keeps in memory of one user's encrypted memories, or of those that a tenant shares: an index, and what is needed to decide
//! who may find what. It follows the ledger: a search first reads the versions that were appended since the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use logline_core::contract::Reader;
use logline_core::ledger::{Cursor, LedgerError, Query, Versions};
use logline_core::trust::Authorities;
use logline_core::{Timestamp, VerifiedSpan, Verifier, Visibility};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::{CONTENT, Refusal, accepted};
use crate::form::{Body, Content, MEMORY, Stored, Terms};
use crate::index::{Index, IndexLimits};
use crate::vault::{Sealed, Vault, VaultError};

/// A memory that can be found.
pub(super) struct Live {
    pub(super) seq: u32,
    pub(super) terms: Terms,
}

/// Whose memories a shelf has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// One user's.
    Owner(String),
    /// Those that the tenant's users share, and that are encrypted.
    Shared,
}

/// The memories of one user, or those that a tenant shares.
pub(super) struct Shelf {
    index: Index,
    live: HashMap<Uuid, Live>,
    cursor: Option<Cursor>,
    /// Whether there was no room for some memories, so that they are not found.
    pub(super) is_full: bool,
}

impl Shelf {
    fn new(limits: IndexLimits) -> Result<Self, Refusal> {
        let index = Index::new(limits).map_err(|_| super::refused("the system gave no random bytes: try again later"))?;
        Ok(Self { index, live: HashMap::new(), cursor: None, is_full: false })
    }

    /// Reads what was appended since the last look.
    pub(super) async fn update(
        &mut self,
        reader: &Reader<'_>,
        authorities: &Authorities,
        vault: &Vault,
        tenant: &str,
        whose: &Whose,
    ) -> Result<(), Refusal> {
        let query = Query::new().tenant(tenant).entity_type(MEMORY).versions(Versions::All);
        let query = match whose {
            Whose::Owner(owner) => query.owner(owner),
            Whose::Shared => query,
        };
        loop {
            let page = reader.scan(&query, self.cursor.as_ref()).await?;
            let last = page.rows.last().map(|row| row.cursor.clone());
            let rows = page.rows.into_iter().map(|row| row.span).collect::<Result<Vec<_>, _>>().map_err(LedgerError::from)?;
            let mut verifier = Verifier::new();
            // A row that nobody may have signed changes nothing.
            let rows = rows.into_iter().filter_map(|row| accepted(authorities, &mut verifier, row)).collect();
            self.take(vault, tenant, whose, rows).await?;
            // The place after the last row, from which the next look goes on.
            self.cursor = page.next.clone().or(last).or(self.cursor.take());
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes new versions, in append order.
    async fn take(&mut self, vault: &Vault, tenant: &str, whose: &Whose, rows: Vec<VerifiedSpan>) -> Result<(), Refusal> {
        let mut new: HashMap<Uuid, (VerifiedSpan, Terms, Vec<u8>)> = HashMap::new();
        for row in rows {
            self.remove(row.id);
            new.remove(&row.id);
            let Ok(stored) = Stored::read(&row) else { continue };
            let is_mine = match whose {
                Whose::Owner(_) => row.visibility == Visibility::Private,
                Whose::Shared => row.visibility != Visibility::Private,
            };
            if let (true, true, Content::Sealed(envelope)) =
                (is_mine && !row.is_deleted, stored.status.is_found(), stored.content)
            {
                new.insert(row.id, (row, stored.terms, envelope));
            }
        }
        let mut of_owner: HashMap<String, Vec<(VerifiedSpan, Terms, Vec<u8>)>> = HashMap::new();
        for entry in new.into_values() {
            of_owner.entry(entry.0.owner_id.clone()).or_default().push(entry);
        }
        for (owner, entries) in of_owner {
            let texts: Vec<_> =
                entries.iter().map(|(row, _, envelope)| Sealed { span: row.id, field: CONTENT, envelope }).collect();
            let opened = vault.open(tenant, &owner, &texts).await?;
            for ((row, terms, _), text) in entries.iter().zip(opened) {
                let body = match text {
                    Ok(text) => Body::parse(&text),
                    // Its key is gone, or it was damaged: it is not found. `logline fsck` finds damaged rows.
                    Err(VaultError::Erased | VaultError::Envelope(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                let Ok(body) = body else { continue };
                let text = zeroize::Zeroizing::new(body.text);
                if self.index.add(row.id, &text).is_err() {
                    self.is_full = true;
                    continue;
                }
                self.live.insert(row.id, Live { seq: row.seq, terms: terms.clone() });
            }
        }
        Ok(())
    }

    fn remove(&mut self, id: Uuid) {
        self.live.remove(&id);
        self.index.remove(id);
    }

    /// The memories that have a word of the query and that `admits` admits, with their versions and scores, the best first.
    pub(super) fn search(
        &self,
        query: &str,
        now: Timestamp,
        limit: usize,
        admits: impl Fn(&Terms) -> bool,
    ) -> Vec<(Uuid, u32, f64)> {
        let is_live = |live: &&Live| live.terms.ttl_at.is_none_or(|at| now < at) && admits(&live.terms);
        let found = self.index.search(query, limit, |id| self.live.get(&id).as_ref().is_some_and(is_live));
        found.into_iter().filter_map(|(id, score)| self.live.get(&id).map(|live| (id, live.seq, score))).collect()
    }
}

/// The key of a shelf: tenant, and whose memories.
type Key = (String, Whose);

/// A shelf that several searches share, one at a time.
type Shared = Arc<AsyncMutex<Shelf>>;

/// The shelves of a host. If there are too many, the one that was not used for the longest time is dropped, and made again when it is needed.
#[derive(Clone)]
pub(super) struct Shelves {
    kept: Arc<Mutex<HashMap<Key, (u64, Shared)>>>,
    most: usize,
    limits: IndexLimits,
}

impl Shelves {
    pub(super) fn new(most: usize, limits: IndexLimits) -> Self {
        Self { kept: Arc::default(), most: most.max(2), limits }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (u64, Shared)>> {
        // No code panics while it holds this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, tenant: &str, whose: &Whose) -> Result<Shared, Refusal> {
        let mut kept = self.lock();
        let clock = kept.values().map(|(used, _)| *used).max().unwrap_or_default() + 1;
        let key = (tenant.to_owned(), whose.clone());
        if let Some((used, shelf)) = kept.get_mut(&key) {
            *used = clock;
            return Ok(Arc::clone(shelf));
        }
        while kept.len() >= self.most {
            let Some(oldest) = kept.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone()) else { break };
            kept.remove(&oldest);
        }
        let shelf = Arc::new(AsyncMutex::new(Shelf::new(self.limits)?));
        kept.insert(key, (clock, Arc::clone(&shelf)));
        Ok(shelf)
    }

    /// Drops what a user forgets from memory, and waits for searches that have it. Other hosts drop it when they read the receipt's rows;
    /// until then they find an id whose text opens nowhere.
    pub(super) async fn forget(&self, tenant: &str, owner: &str, ids: &[Uuid]) {
        let shelves: Vec<_> = {
            let kept = self.lock();
            let keys = [(tenant.to_owned(), Whose::Owner(owner.to_owned())), (tenant.to_owned(), Whose::Shared)];
            keys.iter().filter_map(|key| kept.get(key).map(|(_, shelf)| Arc::clone(shelf))).collect()
        };
        for shelf in shelves {
            let mut shelf = shelf.lock().await;
            ids.iter().for_each(|id| shelf.remove(*id));
        }
    }
}

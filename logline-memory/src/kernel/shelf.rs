//! What a host keeps in memory of one user's encrypted memories, or of those that a tenant shares: an index, and what is needed to decide
//! who may find what. It follows the ledger: a search first reads the versions that were appended since the last one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use logline_core::contract::Reader;
use logline_core::ledger::search::Vector;
use logline_core::ledger::{Cursor, LedgerError, Query, Versions};
use logline_core::trust::Authorities;
use logline_core::{Timestamp, VerifiedSpan, Verifier, Visibility};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::vectors::{PER_LOOK, Vectors};
use super::{CONTENT, Refusal};
use crate::belief::{self, accepted};
use crate::embed::Embedder;
use crate::form::{Body, Content, MEMORY, Stored, Terms};
use crate::index::{Index, IndexLimits};
use crate::vault::{Sealed, Vault};

/// A memory that can be found.
pub(super) struct Live {
    pub(super) seq: u32,
    pub(super) terms: Terms,
    owner: String,
    bytes: usize,
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
    /// How many memories were removed since there was no room.
    freed: usize,
    /// What each owner has here, in the order of the memories.
    shares: BTreeMap<String, Share>,
    limits: IndexLimits,
    vectors: Vectors,
    /// How many texts this look may still embed.
    to_embed: usize,
}

/// What a shelf is filled from.
pub(super) struct Source<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) authorities: &'a Authorities,
    pub(super) vault: &'a Vault,
    /// Makes vectors of what is on the shelf; `None` if it may not, or there is none.
    pub(super) embedder: Option<&'a dyn Embedder>,
    pub(super) tenant: &'a str,
}

/// What a memory takes beside its text, about: many small ones are a share as well.
const ENTRY_BYTES: usize = 256;

/// The part of a shelf that one owner has.
#[derive(Default)]
struct Share {
    bytes: usize,
    /// Its memories, the oldest first, and some that were removed meanwhile.
    ids: VecDeque<Uuid>,
}

impl Shelf {
    fn new(limits: IndexLimits) -> Result<Self, Refusal> {
        let index = Index::new(limits).map_err(|_| super::refused("the system gave no random bytes: try again later"))?;
        Ok(Self {
            index,
            live: HashMap::new(),
            cursor: None,
            is_full: false,
            freed: 0,
            shares: BTreeMap::new(),
            limits,
            vectors: Vectors::default(),
            to_embed: 0,
        })
    }

    /// Makes room for a memory of `owner` of this size: takes the oldest memories of who has most here, if that is more than `owner` would
    /// have. So nobody fills what all share.
    fn make_room(&mut self, owner: &str, bytes: usize) -> bool {
        let own = self.shares.get(owner).map_or(0, |share| share.bytes).saturating_add(bytes);
        let Some((most, _)) = self.shares.iter().max_by_key(|(_, share)| share.bytes).filter(|(_, share)| share.bytes > own)
        else {
            return false;
        };
        let most = most.clone();
        while let Some(oldest) = self.shares.get_mut(&most).and_then(|share| share.ids.pop_front()) {
            if self.remove(oldest) {
                return true;
            }
        }
        false
    }

    /// Adds a memory, if there is room for it. False if there is none.
    fn add(&mut self, row: &VerifiedSpan, terms: &Terms, text: &str) -> bool {
        let (owner, bytes) = (row.owner_id.as_str(), text.len() + ENTRY_BYTES);
        while self.index.add(row.id, text).is_err() {
            self.is_full = true;
            if !self.make_room(owner, bytes) {
                return false;
            }
        }
        let share = self.shares.entry(owner.to_owned()).or_default();
        share.bytes = share.bytes.saturating_add(bytes);
        share.ids.push_back(row.id);
        if share.ids.len() > 64 + 2 * self.live.len() {
            share.ids.retain(|id| self.live.contains_key(id));
            share.ids.push_back(row.id);
        }
        self.live.insert(row.id, Live { seq: row.seq, terms: terms.clone(), owner: owner.to_owned(), bytes });
        true
    }

    /// Whether so much was removed from a full shelf that what found no room may find it now.
    fn has_room_again(&self) -> bool {
        self.is_full && self.freed > self.live.len() / 20
    }

    /// Reads what was appended since the last look.
    pub(super) async fn update(&mut self, source: &Source<'_>, whose: &Whose) -> Result<(), Refusal> {
        let Source { reader, authorities, tenant, .. } = *source;
        let query = Query::new().tenant(tenant).entity_type(MEMORY).versions(Versions::All);
        // Each of the two has an index, so that nobody else's memories are read.
        let query = match whose {
            Whose::Owner(owner) => query.owner(owner),
            Whose::Shared => query.shared(),
        };
        if self.has_room_again() {
            *self = Self::new(self.limits)?;
        }
        if let (None, Some(embedder)) = (&self.cursor, source.embedder) {
            self.vectors = Vectors::new(embedder, self.limits.bytes);
        }
        self.to_embed = PER_LOOK;
        loop {
            let page = reader.scan(&query, self.cursor.as_ref()).await?;
            let last = page.rows.last().map(|row| row.cursor.clone());
            let rows = page.rows.into_iter().map(|row| row.span).collect::<Result<Vec<_>, _>>().map_err(LedgerError::from)?;
            let mut verifier = Verifier::new();
            // A row that nobody may have signed changes nothing.
            let rows = rows.into_iter().filter_map(|row| accepted(authorities, &mut verifier, row)).collect();
            self.take(source, whose, rows).await?;
            // The place after the last row, from which the next look goes on.
            self.cursor = page.next.clone().or(last).or(self.cursor.take());
            if page.next.is_none() {
                break;
            }
        }
        self.embed_waiting(source).await
    }

    /// Makes vectors of memories that had to wait for them.
    async fn embed_waiting(&mut self, source: &Source<'_>) -> Result<(), Refusal> {
        let Some(embedder) = source.embedder else { return Ok(()) };
        let mut texts = Vec::new();
        for id in self.vectors.next(self.to_embed) {
            match text_of(source, id).await? {
                Some(text) => texts.push((id, text)),
                None => self.vectors.remove(id),
            }
        }
        self.vectors.embed(embedder, texts).await;
        Ok(())
    }

    /// Takes new versions, in append order.
    async fn take(&mut self, source: &Source<'_>, whose: &Whose, rows: Vec<VerifiedSpan>) -> Result<(), Refusal> {
        let mut to_embed = Vec::new();
        let mut new: HashMap<Uuid, (VerifiedSpan, Terms, Vec<u8>)> = HashMap::new();
        for row in rows {
            self.freed += usize::from(self.remove(row.id) && self.is_full);
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
            let opened = source.vault.open(source.tenant, &owner, &texts).await?;
            for ((row, terms, _), text) in entries.iter().zip(opened) {
                let body = match text {
                    Ok(text) => Body::parse(&text),
                    // Its key is gone, or it was damaged: it is not found. `logline fsck` finds damaged rows.
                    Err(error) if error.is_of_text() => {
                        tracing::warn!(memory = %row.id, %error, "a memory cannot be read, and is not found");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let Ok(body) = body else { continue };
                let text = zeroize::Zeroizing::new(body.text);
                if !self.add(row, terms, &text) || source.embedder.is_none() {
                    continue;
                }
                if to_embed.len() < self.to_embed {
                    to_embed.push((row.id, text));
                } else {
                    self.vectors.wait(row.id);
                }
            }
        }
        self.to_embed -= to_embed.len();
        if let Some(embedder) = source.embedder {
            self.vectors.embed(embedder, to_embed).await;
        }
        Ok(())
    }

    fn remove(&mut self, id: Uuid) -> bool {
        let Some(gone) = self.live.remove(&id) else { return false };
        self.index.remove(id);
        self.vectors.remove(id);
        if let Some(share) = self.shares.get_mut(&gone.owner) {
            share.bytes = share.bytes.saturating_sub(gone.bytes);
        }
        true
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

impl Shelf {
    /// The memories nearest to a vector that `admits` admits, as [`Shelf::search`].
    pub(super) fn nearest(
        &self,
        query: &Vector,
        now: Timestamp,
        limit: usize,
        admits: impl Fn(&Terms) -> bool,
    ) -> Vec<(Uuid, u32, f64)> {
        let is_live = |live: &&Live| live.terms.ttl_at.is_none_or(|at| now < at) && admits(&live.terms);
        let found = self.vectors.nearest(query, limit, |id| self.live.get(&id).as_ref().is_some_and(is_live));
        found.into_iter().filter_map(|(id, score)| self.live.get(&id).map(|live| (id, live.seq, score))).collect()
    }

    /// How many memories wait for a vector.
    pub(super) fn waiting(&self) -> usize {
        self.vectors.waiting()
    }
}

/// The text of an encrypted memory that is found now.
async fn text_of(source: &Source<'_>, id: Uuid) -> Result<Option<zeroize::Zeroizing<String>>, Refusal> {
    let found = belief::find(source.reader, source.authorities, source.tenant, id).await?;
    let Some(row) = found else { return Ok(None) };
    let Ok(Stored { content: Content::Sealed(envelope), status, .. }) = Stored::read(&row) else { return Ok(None) };
    let text = Sealed { span: id, field: CONTENT, envelope: &envelope };
    match source.vault.open(source.tenant, &row.owner_id, &[text]).await?.pop() {
        Some(Ok(text)) if status.is_found() => Ok(Body::parse(&text).ok().map(|body| zeroize::Zeroizing::new(body.text))),
        Some(Err(error)) if !error.is_of_text() => Err(error.into()),
        _ => Ok(None),
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
            for id in ids {
                shelf.freed += usize::from(shelf.remove(*id) && shelf.is_full);
            }
        }
    }
}

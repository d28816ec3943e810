//! An index in this process over texts that no store may index: private memories, decrypted for one owner.
//!
//! It keeps no words. Of each it keeps the stem's keyed hash, under a key of its own that is wiped when the index is dropped, as is the
//! rest of its memory. It is bounded in entries and bytes, and forgets at once what it is told to.

mod porter;
mod terms;

use std::collections::HashMap;

use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroize as _;

use logline_core::ledger::search::{Match, best, words};

use terms::Terms;

/// How much an index may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLimits {
    /// The most memories. Default 20,000.
    pub entries: usize,
    /// The most bytes of its own memory, about. Default 64 MiB.
    pub bytes: usize,
}

impl Default for IndexLimits {
    fn default() -> Self {
        Self { entries: 20_000, bytes: 64 << 20 }
    }
}

/// The index is full: nothing was added. A retry helps after something was removed, or with other [`IndexLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the index of this owner is full ({entries} memories, {bytes} bytes): raise its limits, or forget memories")]
pub struct IndexFull {
    /// How many memories it has.
    pub entries: usize,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// A word of one memory.
#[derive(Debug, Clone, Copy)]
struct Posting {
    slot: u32,
    times: u32,
}

#[derive(Debug)]
struct Entry {
    id: Uuid,
    /// The number of its words.
    length: u32,
    /// The hashes of its words, to remove them again.
    terms: Vec<u64>,
}

/// The index of one owner's memories. `Debug` shows its size.
pub struct Index {
    limits: IndexLimits,
    terms: Terms,
    postings: HashMap<u64, Vec<Posting>>,
    entries: Vec<Option<Entry>>,
    /// INVARIANT: the slot of every entry, and of nothing else.
    slots: HashMap<Uuid, u32>,
    /// Slots without an entry.
    free: Vec<u32>,
    bytes: usize,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// About what an entry and a posting take, with the tables around them.
const ENTRY_BYTES: usize = 160;
const TERM_BYTES: usize = 40;

impl Index {
    /// An empty index.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub fn new(limits: IndexLimits) -> Result<Self, getrandom::Error> {
        Ok(Self {
            limits,
            terms: Terms::new()?,
            postings: HashMap::new(),
            entries: Vec::new(),
            slots: HashMap::new(),
            free: Vec::new(),
            bytes: 0,
        })
    }

    /// How many memories it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the text of a memory, in place of an earlier one. Of a long text the first
    /// [`MAX_INDEXED`](logline_core::ledger::search::MAX_INDEXED) characters are indexed.
    ///
    /// # Errors
    /// [`IndexFull`]. An earlier version is gone then as well: it must not be found any more.
    pub fn add(&mut self, id: Uuid, text: &str) -> Result<(), IndexFull> {
        self.remove(id);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        let mut length = 0_u32;
        self.terms.of(text, |term| {
            length = length.saturating_add(1);
            let count = counts.entry(term).or_default();
            *count = count.saturating_add(1);
        });
        let bytes = ENTRY_BYTES + TERM_BYTES * counts.len();
        let slot = self.free.last().copied().or_else(|| u32::try_from(self.entries.len()).ok());
        let (Some(slot), true) =
            (slot, self.len() < self.limits.entries && self.bytes.saturating_add(bytes) <= self.limits.bytes)
        else {
            return Err(IndexFull { entries: self.len(), bytes: self.bytes });
        };
        for (term, times) in &counts {
            self.postings.entry(*term).or_default().push(Posting { slot, times: *times });
        }
        let entry = Some(Entry { id, length, terms: counts.into_keys().collect() });
        match self.free.pop().and_then(|slot| self.entries.get_mut(slot as usize)) {
            Some(empty) => *empty = entry,
            None => self.entries.push(entry),
        }
        self.slots.insert(id, slot);
        self.bytes += bytes;
        Ok(())
    }

    /// Removes a memory. False if it was not there.
    pub fn remove(&mut self, id: Uuid) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        let Some(mut entry) = self.entries.get_mut(slot as usize).and_then(Option::take) else { return false };
        for term in &entry.terms {
            if let Some(postings) = self.postings.get_mut(term) {
                if let Some(at) = postings.iter().position(|posting| posting.slot == slot) {
                    postings.swap_remove(at);
                }
                if postings.is_empty() {
                    self.postings.remove(term);
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(ENTRY_BYTES + TERM_BYTES * entry.terms.len());
        entry.terms.zeroize();
        self.free.push(slot);
        true
    }

    /// Removes memories that a receipt says are forgotten. Returns how many were there.
    pub fn forget(&mut self, ids: &[Uuid]) -> usize {
        ids.iter().filter(|id| self.remove(**id)).count()
    }

    /// Finds the memories that have any word of `query`, the best `limit` first, with their scores: BM25, as
    /// [`Search::search_text`](logline_core::ledger::Search::search_text) has it. Memories that `admits` refuses take no part: not in
    /// what is found, and not in the numbers that scores are made from.
    pub fn search(&self, query: &str, limit: usize, admits: impl Fn(Uuid) -> bool) -> Vec<(Uuid, f64)> {
        let mut wanted: Vec<u64> = Vec::new();
        for mut word in words(query) {
            self.terms.of(&word, |term| {
                if !wanted.contains(&term) {
                    wanted.push(term);
                }
            });
            word.zeroize();
        }
        if wanted.is_empty() || limit == 0 {
            return Vec::new();
        }
        let admitted: Vec<bool> =
            self.entries.iter().map(|entry| entry.as_ref().is_some_and(|entry| admits(entry.id))).collect();
        let is_admitted = |slot: u32| admitted.get(slot as usize).copied().unwrap_or_default();
        let mut found: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
        for (number, term) in wanted.iter().enumerate() {
            for posting in self.postings.get(term).into_iter().flatten().filter(|posting| is_admitted(posting.slot)) {
                found.entry(posting.slot).or_default().push((number, posting.times as usize));
            }
        }
        let matches = found.into_iter().filter_map(|(slot, words)| {
            let entry = self.entries.get(slot as usize)?.as_ref()?;
            Some(Match { key: entry.id, length: entry.length as usize, words })
        });
        let entries = admitted.iter().filter(|admitted| **admitted).count();
        best(matches.collect(), entries, wanted.len(), limit)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        for (_, mut postings) in self.postings.drain() {
            postings.iter_mut().for_each(|posting| *posting = Posting { slot: 0, times: 0 });
        }
        for entry in self.entries.iter_mut().flatten() {
            entry.terms.zeroize();
        }
    }
}

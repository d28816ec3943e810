//! Entries and vectors of the in-memory ledger. It compares words as they are: it has no stemmer.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::ledger::search::{
    Hit, MAX_PENDING, Match, Pending, Place, SearchEntry, SearchQuery, Searched, Vector, VectorModel, best, words,
};
use crate::span::SignedSpan;

type Key = (String, Uuid);

#[derive(Debug, Default)]
pub(super) struct Memories {
    entries: BTreeMap<Key, Entry>,
    /// INVARIANT: lists each entry at its places, and nothing else.
    places: BTreeMap<Place, BTreeSet<Key>>,
}

#[derive(Debug)]
struct Entry {
    entry: SearchEntry,
    words: Vec<String>,
    vectors: BTreeMap<VectorModel, Vec<u8>>,
}

impl Entry {
    fn places(&self) -> impl Iterator<Item = Place> {
        self.entry.place().into_iter().chain(self.entry.session_place())
    }

    fn hit(&self, score: f64) -> Hit {
        let SearchEntry { tenant_id, id, seq, curr_hash, .. } = &self.entry;
        Hit { tenant_id: tenant_id.clone(), id: *id, seq: *seq, curr_hash: *curr_hash, score }
    }
}

impl Memories {
    /// Updates the entries for `span`. The caller passes all rows in append order.
    pub(super) fn update(&mut self, span: &SignedSpan) {
        if !SearchEntry::concerns(span) {
            return;
        }
        let key = (span.tenant_id.clone(), span.id);
        if let Some(old) = self.entries.remove(&key) {
            for place in old.places() {
                if let Some(keys) = self.places.get_mut(&place) {
                    keys.remove(&key);
                }
            }
        }
        if let Some(entry) = SearchEntry::of(span) {
            let words = entry.text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            let words = words.map(str::to_lowercase).collect();
            let entry = Entry { entry, words, vectors: BTreeMap::new() };
            for place in entry.places() {
                self.places.entry(place).or_default().insert(key.clone());
            }
            self.entries.insert(key, entry);
        }
    }

    fn at<'m>(&'m self, searched: &Searched, query: &'m SearchQuery) -> impl Iterator<Item = &'m Entry> {
        let keys = self.places.get(&searched.place).into_iter().flatten();
        keys.filter_map(|key| self.entries.get(key)).filter(|entry| query.admits(&entry.entry))
    }

    pub(super) fn by_text(&self, searched: &Searched, query: &SearchQuery) -> Vec<Hit> {
        let wanted = words(&query.text);
        let matches = self.at(searched, query).filter_map(|entry| {
            let times = |word: &String| entry.words.iter().filter(|found| *found == word).count();
            let words: Vec<_> = wanted.iter().map(times).enumerate().filter(|(_, times)| *times > 0).collect();
            let key = (entry.entry.id, entry.entry.tenant_id.clone());
            (!words.is_empty()).then_some(Match { key, length: entry.words.len(), words })
        });
        let entries = self.places.get(&searched.place).map_or(0, BTreeSet::len);
        let found = best(matches.collect(), entries, wanted.len(), query.most());
        found.into_iter().filter_map(|((id, tenant), score)| Some(self.entries.get(&(tenant, id))?.hit(score))).collect()
    }

    pub(super) fn by_vector(&self, searched: &Searched, query: &SearchQuery, vector: &Vector) -> Vec<Hit> {
        let compared = self.at(searched, query).filter_map(|entry| {
            let cosine = vector.cosine(entry.vectors.get(vector.model())?)?;
            Some(entry.hit(cosine))
        });
        let mut hits: Vec<_> = compared.collect();
        hits.sort_by(|left, right| right.score.total_cmp(&left.score).then(right.id.cmp(&left.id)));
        hits.truncate(query.most());
        hits
    }

    pub(super) fn put(&mut self, tenant: &str, id: Uuid, seq: u32, vector: &Vector) -> bool {
        let entry = self.entries.get_mut(&(tenant.to_owned(), id)).filter(|entry| entry.entry.seq == seq);
        let Some(entry) = entry else { return false };
        entry.vectors.insert(vector.model().clone(), vector.to_bytes());
        true
    }

    pub(super) fn pending(&self, tenant: &str, model: &VectorModel, after: Option<Uuid>, limit: usize) -> Vec<Pending> {
        let first = (tenant.to_owned(), after.unwrap_or_default());
        let of_tenant = self.entries.range(first..).take_while(|((of, _), _)| of == tenant).map(|(_, entry)| entry);
        let waiting = of_tenant.filter(|entry| Some(entry.entry.id) > after && !entry.vectors.contains_key(model));
        let waiting = waiting.take(limit.min(MAX_PENDING)).map(|entry| &entry.entry);
        waiting.map(|entry| Pending { id: entry.id, seq: entry.seq, curr_hash: entry.curr_hash }).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

//! A bounded map of the newest entries.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keeps up to `most` entries. When it is full, a new entry replaces the one that was added first.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    most: usize,
    entries: HashMap<K, V>,
    /// INVARIANT: the keys of `entries`, oldest first.
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn find(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn keep(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

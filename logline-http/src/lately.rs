//! What was true a moment ago, so that a server that gets many calls need not read it before each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// For how long something is believed.
const BELIEVED: Duration = Duration::from_secs(2);

/// How many things are remembered.
const MAX_KNOWN: usize = 4096;

/// Things that were true when they were last read.
#[derive(Debug)]
pub(crate) struct Lately<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Lately<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Lately<K> {
    /// Whether it was true within the last two seconds.
    pub(crate) fn was_true(&self, thing: &K) -> bool {
        let known = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.get(thing).is_some_and(|read| read.elapsed() < BELIEVED)
    }

    /// Remembers that it was true at `read`.
    pub(crate) fn is_true(&self, thing: K, read: Instant) {
        let mut known = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(thing, read);
    }
}

//! The indexes of several owners, of which the least used goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::{Index, IndexLimits};

/// Whose memories an index holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The tenant.
    pub tenant: String,
    /// The owner of the memories.
    pub owner: String,
}

impl Subject {
    /// The owner `owner` in `tenant`.
    pub fn new(tenant: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), owner: owner.into() }
    }
}

/// Indexes in this process, one for each owner. No search crosses from one to another. Clones share them.
#[derive(Debug, Clone)]
pub struct Subjects {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    limits: IndexLimits,
    /// Counts the uses.
    clock: u64,
    indexes: HashMap<Subject, (u64, Arc<Mutex<Index>>)>,
}

impl Subjects {
    /// Room for the indexes of `most` owners (at least one), with these limits each.
    #[must_use]
    pub fn new(most: usize, limits: IndexLimits) -> Self {
        let shared = Shared { most: most.max(1), limits, clock: 0, indexes: HashMap::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The index of an owner, an empty one if there was none. If there is no room, the index that was not used for the longest time is
    /// dropped: it will be made again.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub fn index(&self, subject: &Subject) -> Result<Arc<Mutex<Index>>, getrandom::Error> {
        let mut shared = self.lock();
        shared.clock += 1;
        let now = shared.clock;
        if let Some((used, index)) = shared.indexes.get_mut(subject) {
            *used = now;
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(Mutex::new(Index::new(shared.limits)?));
        while shared.indexes.len() >= shared.most {
            let oldest = shared.indexes.iter().min_by_key(|(_, (used, _))| *used).map(|(subject, _)| subject.clone());
            match oldest {
                Some(oldest) => drop(shared.indexes.remove(&oldest)),
                None => break,
            }
        }
        shared.indexes.insert(subject.clone(), (now, Arc::clone(&index)));
        Ok(index)
    }

    /// Forgets memories of an owner: call it with what a receipt names, before the receipt is given out. A search that begins later does
    /// not find them; it waits for one that runs.
    pub fn forget(&self, subject: &Subject, ids: &[Uuid]) -> usize {
        let index = self.lock().indexes.get(subject).map(|(_, index)| Arc::clone(index));
        index.map_or(0, |index| index.lock().unwrap_or_else(std::sync::PoisonError::into_inner).forget(ids))
    }

    /// Forgets an owner. False if there was no index.
    pub fn forget_subject(&self, subject: &Subject) -> bool {
        let removed = self.lock().indexes.remove(subject);
        // A search that still runs has a handle of it: empty it under that search's lock, so that no later one finds anything.
        if let Some((_, index)) = &removed {
            let mut index = index.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            index.clear();
        }
        removed.is_some()
    }

    /// How many owners have an index.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().indexes.len()
    }

    /// Whether no owner has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics while it holds this lock.
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

//! Compiled modules that are kept in memory, and which code was refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use logline_core::Failure;
use logline_core::Hash;

use crate::compiled::Compiled;

/// What came of compiling a module: it is kept either way, so that a refusal costs the compiler once.
pub(crate) type Verdict = Result<Arc<Compiled>, Failure>;

/// Modules at most, whatever their size: each takes some mappings of memory, of which a process has 65,530.
const MAX_MODULES: usize = 4096;

/// Counted for a module besides its machine code, and for a refusal.
const OVERHEAD: usize = 4096;

/// Versions of functions whose code is known.
const MAX_VERSIONS: usize = 4 * MAX_MODULES;

/// Of the bytes, what one entry may have at most.
const LARGEST: usize = 4;

/// Verdicts by the hash of the code, bounded in number and bytes. The longest unused goes, of the tenant whose modules take the most: one
/// tenant's do not drive out the others'.
pub(crate) struct Cache {
    max_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Hash, Entry>,
    /// The hash of the code of a function's version, by the version's.
    versions: HashMap<Hash, Hash>,
    clock: u64,
    bytes: usize,
    /// By the tenant that was first to need a module: entries and bytes.
    tenants: HashMap<Arc<str>, (usize, usize)>,
}

struct Entry {
    tenant: Arc<str>,
    used: u64,
    bytes: usize,
    verdict: Verdict,
}

impl Cache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn code_of(&self, version: &Hash) -> Option<Hash> {
        self.lock().versions.get(version).copied()
    }

    pub(crate) fn remember(&self, version: Hash, code: Hash) {
        let mut inner = self.lock();
        if inner.versions.len() >= MAX_VERSIONS {
            inner.versions.clear();
        }
        inner.versions.insert(version, code);
    }

    pub(crate) fn get(&self, code: &Hash) -> Option<Verdict> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let entry = inner.entries.get_mut(code)?;
        entry.used = now;
        Some(entry.verdict.clone())
    }

    pub(crate) fn insert(&self, code: Hash, tenant: &Arc<str>, verdict: Verdict) {
        let bytes = OVERHEAD + verdict.as_ref().map_or(0, |module| module.image_bytes);
        if bytes > self.max_bytes / LARGEST {
            return;
        }
        let mut inner = self.lock();
        inner.remove(&code);
        inner.clock += 1;
        let entry = Entry { tenant: Arc::clone(tenant), used: inner.clock, bytes, verdict };
        inner.bytes += bytes;
        let held = inner.tenants.entry(Arc::clone(tenant)).or_default();
        (held.0, held.1) = (held.0 + 1, held.1 + bytes);
        inner.entries.insert(code, entry);
        while inner.entries.len() > MAX_MODULES || inner.bytes > self.max_bytes {
            let too_many = inner.entries.len() > MAX_MODULES;
            let most = |held: &(usize, usize)| if too_many { held.0 } else { held.1 };
            let largest = inner.tenants.iter().max_by_key(|(_, held)| most(held)).map(|(tenant, _)| Arc::clone(tenant));
            let of_largest = inner.entries.iter().filter(|(_, entry)| Some(&entry.tenant) == largest.as_ref());
            let Some(oldest) = of_largest.min_by_key(|(_, entry)| entry.used).map(|(code, _)| *code) else { break };
            inner.remove(&oldest);
        }
    }
}

impl Inner {
    fn remove(&mut self, code: &Hash) {
        let Some(Entry { tenant, bytes, .. }) = self.entries.remove(code) else { return };
        self.bytes -= bytes;
        if let Some(held) = self.tenants.get_mut(&tenant) {
            (held.0, held.1) = (held.0 - 1, held.1 - bytes);
            if held.0 == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_modules_do_not_drive_out_the_others() {
        let cache = Cache::new(1 << 30);
        let (few, many) = (Arc::from("few"), Arc::from("many"));
        let refusal = || Err(Failure::new("invalid_module", "it is none"));
        for n in 0..1000_u32 {
            cache.insert(Hash::of(&n.to_be_bytes()), &few, refusal());
        }
        for n in 0..2 * MAX_MODULES {
            cache.insert(Hash::of(&n.to_be_bytes()), &many, refusal());
        }
        assert!((0..1000_u32).all(|n| cache.get(&Hash::of(&n.to_be_bytes())).is_some()));
        let inner = cache.lock();
        assert_eq!(inner.entries.len(), MAX_MODULES);
        assert_eq!(inner.bytes, MAX_MODULES * OVERHEAD);
        assert_eq!(inner.tenants.values().map(|held| held.1).sum::<usize>(), inner.bytes);
    }
}

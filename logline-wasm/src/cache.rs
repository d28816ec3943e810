//! A cache in memory of compiled modules, and of the refusals of code that cannot be compiled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use logline_core::Failure;
use logline_core::Hash;

use crate::compiled::Compiled;

/// The result of compiling a module. A refusal is kept as well, so that the same code is not compiled twice.
pub(crate) type Verdict = Result<Arc<Compiled>, Failure>;

/// The most modules, whatever their size. Each takes several memory mappings, and Linux allows a process 65,530 by default.
const MAX_MODULES: usize = 4096;

/// Bytes that are counted for each entry: for a module besides its machine code, for a refusal alone.
const OVERHEAD: usize = 4096;

/// The most function versions whose code hash is remembered.
const MAX_VERSIONS: usize = 4 * MAX_MODULES;

/// One entry may have at most this fraction (1/4) of the bytes of the cache.
const LARGEST: usize = 4;

/// Verdicts by the hash of the code, bounded in number and bytes. If the cache is full, the tenant that takes the most loses
/// the verdict that was not used for the longest time. So one tenant does not evict the modules of the others.
pub(crate) struct Cache {
    max_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Hash, Entry>,
    /// From the hash of a function's version to the hash of its code.
    versions: HashMap<Hash, Hash>,
    clock: u64,
    bytes: usize,
    /// The number of entries and their bytes for each tenant. An entry counts for the tenant that compiled it.
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
        let refusal = || Err(Failure::new("invalid_module", "it is not a module"));
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

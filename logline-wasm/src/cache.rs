//! Compiled modules that are kept in memory, and which code was refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use logline_core::Hash;
use logline_core::sandbox::Failure;

use crate::module::Compiled;

/// What came of compiling a module: it is kept either way, so that a refusal costs the compiler once.
pub(crate) type Verdict = Result<Arc<Compiled>, Failure>;

/// Modules at most, whatever their size: each takes some mappings of memory, of which a process has 65,530.
const MAX_MODULES: usize = 4096;

/// Counted for a module besides its machine code, and for a refusal.
const OVERHEAD: usize = 4096;

/// Versions of functions whose code is known.
const MAX_VERSIONS: usize = 4 * MAX_MODULES;

/// Verdicts by the hash of the code, bounded in number and bytes; the longest unused goes.
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
}

struct Entry {
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

    pub(crate) fn insert(&self, code: Hash, verdict: Verdict) {
        let bytes = OVERHEAD + verdict.as_ref().map_or(0, |module| module.image_bytes);
        let mut inner = self.lock();
        inner.clock += 1;
        let entry = Entry { used: inner.clock, bytes, verdict };
        inner.bytes += bytes;
        if let Some(before) = inner.entries.insert(code, entry) {
            inner.bytes -= before.bytes;
        }
        while inner.entries.len() > 1 && (inner.entries.len() > MAX_MODULES || inner.bytes > self.max_bytes) {
            let oldest = inner.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(code, _)| *code);
            let Some(removed) = oldest.and_then(|oldest| inner.entries.remove(&oldest)) else { break };
            inner.bytes -= removed.bytes;
        }
    }
}

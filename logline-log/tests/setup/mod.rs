//! A ledger, a store in memory that fails where it is told to, and what must hold of a log whatever happened.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Query};
use logline_core::{
    Draft, Hash, KeyPair, MemoryLedger, PublicKey, Scope, SignError, Signature, SignedSpan, Signer, SystemClock, SystemIds,
};
use logline_log::note::{KeyKind, Note, NoteKey};
use logline_log::store::{LockStore, StoreError, TileStore};
use logline_log::tile::{Bundle, Growth, TileKind, TilePath};
use logline_log::{Checkpoint, Entry, Integrator, Leaf, LogSite, Step};

pub(crate) const TENANT: &str = "acme";

pub(crate) fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub(crate) fn note(n: usize) -> Draft {
    Draft::new("note").tenant(TENANT).owner("alice").who("user:alice").this("note.trial").name(n.to_string())
}

pub(crate) async fn append(ledger: &MemoryLedger, count: usize) {
    let mut batch = Vec::new();
    for n in 0..count {
        let span = note(n).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
        let next = Draft::next_version(&span).status("final").stamp(&SystemClock, &SystemIds);
        batch.push(span);
        if n % 5 == 4 {
            batch.push(next.seal_local(&key(7)).unwrap());
        }
    }
    batch.truncate(count);
    for part in batch.chunks(100) {
        ledger.append(&Scope::Operator, part.to_vec(), &AppendOptions::default()).await.unwrap();
    }
}

pub(crate) async fn rows(ledger: &MemoryLedger) -> Vec<SignedSpan> {
    ledger.collect(&Scope::runtime(TENANT), &Query::timeline().tenant(TENANT), usize::MAX).await.unwrap()
}

/// What the next write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing is written.
    Before,
    /// It fails, and everything was written.
    After,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    writes: usize,
    fault: Option<(usize, Fault)>,
    is_full: bool,
    flip: Option<String>,
}

/// Both stores in memory.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<State>>);

impl Store {
    /// The write after `count` others fails.
    pub(crate) fn fail(&self, count: usize, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.fault = Some((state.writes + count, fault));
    }

    /// From now on nothing more can be written, until there is room again.
    pub(crate) fn is_full(&self, is_full: bool) {
        self.0.lock().unwrap().is_full = is_full;
    }

    /// One bit of the objects with this text in their names is read wrong.
    pub(crate) fn flip(&self, part: Option<&str>) {
        self.0.lock().unwrap().flip = part.map(str::to_owned);
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn set(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut state = self.0.lock().unwrap();
        match bytes {
            Some(bytes) => state.objects.insert(name.to_owned(), bytes),
            None => state.objects.remove(name),
        };
    }

    fn write<T>(
        &self,
        name: &str,
        write: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap();
        let unavailable = |reason: &str| Err(StoreError::Unavailable { name: name.to_owned(), reason: reason.to_owned() });
        if state.is_full {
            return unavailable("no space left on device");
        }
        let number = state.writes;
        state.writes += 1;
        match state.fault.filter(|(at, _)| *at == number) {
            Some((_, Fault::Before)) => unavailable("the power went off"),
            Some((_, Fault::After)) => write(&mut state.objects).and_then(|_| unavailable("the power went off")),
            None => write(&mut state.objects),
        }
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let mut bytes = state.objects.get(name).cloned()?;
        if state.flip.as_ref().is_some_and(|part| name.contains(part.as_str())) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
        Some(bytes)
    }
}

#[async_trait]
impl TileStore for Store {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        tokio::task::yield_now().await;
        Ok(self.get(name))
    }

    async fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.write(name, |objects| match objects.get(name) {
            Some(found) if found != bytes => Err(StoreError::Different { name: name.to_owned() }),
            _ => {
                objects.insert(name.to_owned(), bytes.to_vec());
                Ok(())
            }
        })
    }

    async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.write(name, |objects| {
            objects.insert(name.to_owned(), bytes.to_vec());
            Ok(())
        })
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let objects = self.objects();
        let below = objects.keys().filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/')?.split('/').next());
        let names: std::collections::BTreeSet<_> = below.map(str::to_owned).collect();
        Ok(names.into_iter().collect())
    }

    async fn remove(&self, folder: &str) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        let below = format!("{folder}/");
        self.write(folder, |objects| {
            objects.retain(|name, _| name != folder && !name.starts_with(&below));
            Ok(())
        })
    }
}

#[async_trait]
impl LockStore for Store {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        tokio::task::yield_now().await;
        Ok(self.get(name))
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        // The tiles lie in folders, and the locks do not.
        Ok(self.objects().keys().all(|name| name.contains('/')))
    }

    async fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        self.write(name, |objects| {
            let is_same = objects.get(name).map(Vec::as_slice) == old;
            if is_same {
                objects.insert(name.to_owned(), new.to_vec());
            }
            Ok(is_same)
        })
    }
}

/// Remembers everything that it has signed.
#[derive(Clone)]
pub(crate) struct Recorder {
    key: KeyPair,
    pub(crate) signed: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { key: key(1), signed: Arc::default() }
    }
}

#[async_trait]
impl Signer for Recorder {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        self.signed.lock().unwrap().push(String::from_utf8(message.to_vec()).unwrap());
        tokio::task::yield_now().await;
        self.key.sign(message).await
    }

    fn local(&self) -> Option<&KeyPair> {
        None
    }
}

/// A ledger and its log.
pub(crate) struct World {
    pub(crate) ledger: MemoryLedger,
    pub(crate) store: Store,
    pub(crate) signer: Recorder,
    pub(crate) batch: usize,
}

impl World {
    pub(crate) fn new(batch: usize) -> Self {
        Self { ledger: MemoryLedger::new(), store: Store::default(), signer: Recorder::new(), batch }
    }

    pub(crate) fn site(&self) -> LogSite {
        LogSite::new(Arc::new(self.store.clone()), Arc::new(self.store.clone()), Arc::new(self.signer.clone()))
            .batch(self.batch)
    }

    /// A process that has just been started.
    pub(crate) fn integrator(&self) -> Integrator {
        Integrator::new(Arc::new(self.ledger.clone()), self.site(), TENANT)
    }

    pub(crate) fn lock_name() -> String {
        Hash::of(TENANT.as_bytes()).to_string()
    }

    /// The origin of the last signed checkpoint.
    pub(crate) fn signed(&self) -> Checkpoint {
        let bytes = self.store.objects()[&Self::lock_name()].clone();
        let text = String::from_utf8(bytes).unwrap();
        Checkpoint::of(&Note::parse(text.split_once("\n\n").unwrap().1.as_bytes()).unwrap()).unwrap()
    }

    pub(crate) fn log_key(&self) -> NoteKey {
        NoteKey::new(self.signed().origin, KeyKind::Log, self.signer.public_key()).unwrap()
    }

    /// What a reader without the ledger sees: the published checkpoint and its entries, all hashed again.
    pub(crate) fn published(&self) -> Option<(Checkpoint, Vec<Entry>)> {
        let objects = self.store.objects();
        let origin = self.signed().origin;
        let note = Note::parse(objects.get(&format!("{origin}/checkpoint"))?).unwrap();
        let (checkpoint, _) = Checkpoint::verify(&note, &self.log_key(), &[]).unwrap();
        let (mut growth, mut entries) = (Growth::new(), Vec::new());
        let read = |path: TilePath| {
            let narrow = objects.get(&format!("{origin}/{path}"));
            narrow
                .or_else(|| objects.get(&format!("{origin}/{}", path.full())))
                .unwrap_or_else(|| panic!("{path} of {checkpoint} is not there"))
        };
        for path in TilePath::added(0, checkpoint.size) {
            if path.kind == TileKind::Entries {
                for entry in Bundle::parse(path, read(path)).unwrap().entries() {
                    growth.push(entry, |_| ());
                    entries.push(Entry::parse(entry).unwrap());
                }
            } else {
                logline_log::tile::TileContent::parse(path, read(path)).unwrap();
            }
        }
        assert_eq!((growth.size(), growth.root()), (checkpoint.size, checkpoint.root), "the tiles are those of the checkpoint");
        Some((checkpoint, entries))
    }

    /// Whatever has happened: everything that was ever signed is a beginning of the ledger's rows in their order, so no two checkpoints
    /// contradict each other, and what is published is whole.
    pub(crate) async fn check(&self) {
        let rows = rows(&self.ledger).await;
        let mut roots = vec![logline_log::tree::Frontier::new().root()];
        let mut frontier = logline_log::tree::Frontier::new();
        for row in &rows {
            frontier.push(Leaf::of(row).hash());
            roots.push(frontier.root());
        }
        for text in self.signer.signed.lock().unwrap().iter() {
            let checkpoint = Checkpoint::of(&Note::new(text.clone()).unwrap()).unwrap();
            assert_eq!(roots[usize::try_from(checkpoint.size).unwrap()], checkpoint.root, "signed was {checkpoint}");
        }
        if let Some((checkpoint, entries)) = self.published() {
            assert!(checkpoint.size <= self.signed().size);
            let expected = rows.iter().take(entries.len()).map(|row| Entry::Span(Leaf::of(row)));
            assert!(entries.iter().cloned().eq(expected), "the entries are the rows in their order");
        }
    }

    /// Runs a new process until it has nothing to do.
    pub(crate) async fn settle(&self) {
        let mut integrator = self.integrator();
        for _ in 0..1000 {
            if integrator.step().await.unwrap() == Step::Idle {
                return;
            }
        }
        panic!("it does not come to an end");
    }
}

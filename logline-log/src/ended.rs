//! The ends of keys: which rows of a key are leaves before its end, from the files of the logs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use logline_core::trust::{Before, Ended, LogEnd, Logs};
use logline_core::{Hash, PublicKey};

use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::leaf::Entry;
use crate::note::Note;
use crate::store::TileStore;
use crate::tile::{Bundle, TileKind, TilePath, WIDTH};
use crate::tree::Frontier;

/// Logs whose files are in a store, each in the folder that its origin names.
///
/// Every entry before an end is read and hashed, and the root must be the one that the manifest names. So the store need not be trusted:
/// it can withhold an end, and then nothing of that key counts, but it cannot move it. The time is that of hashing the log; the memory
/// is 32 bytes for each row of the key. What a log says of an end never changes, so it is read once.
#[derive(Debug, Clone)]
pub struct StoredLogs<S> {
    store: S,
    known: Arc<Mutex<Known>>,
}

/// The rows of keys that ended, for each place where one did.
#[derive(Debug, Default)]
struct Known {
    places: HashMap<(PublicKey, LogEnd), Vec<Hash>>,
    rows: usize,
}

/// The most rows that are kept in memory (32 bytes each) for the next time that the ends are asked for.
const MAX_KNOWN: usize = 1 << 20;

impl<S: TileStore> StoredLogs<S> {
    /// The logs in this store.
    pub fn new(store: S) -> Self {
        Self { store, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let read = self.store.read(name).await.map_err(|error| error.to_string())?;
        read.ok_or_else(|| format!("`{name}` is not there"))
    }

    async fn before_one(&self, ended: &Ended, end: &LogEnd) -> Result<Vec<Hash>, String> {
        let checkpoint = self.file(&format!("{}/checkpoint", end.origin)).await?;
        let note = Note::parse(&checkpoint).map_err(|error| error.to_string())?;
        // It only says which files there are. The root is what counts, and it is computed.
        let now = Checkpoint::of(&note).map_err(|error| error.to_string())?;
        if now.size < end.size {
            return Err(format!("it has {} leaves, and the end is at {}", now.size, end.size));
        }
        let (mut tree, mut found) = (Frontier::new(), Vec::new());
        while tree.size() < end.size {
            let path = TilePath::of(TileKind::Entries, tree.size() / WIDTH, now.size).ok_or("its size is out of range")?;
            let bytes = self.file(&format!("{}/{path}", end.origin)).await?;
            let bundle = Bundle::parse(path, &bytes).map_err(|error| error.to_string())?;
            let left = usize::try_from(end.size - tree.size()).unwrap_or(usize::MAX);
            for entry in bundle.entries().iter().take(left) {
                if let Entry::Span(leaf) = Entry::parse(entry).map_err(|error| error.to_string())?
                    && leaf.public_key == ended.key
                {
                    found.push(leaf.curr_hash);
                }
                tree.push(TreeHash::leaf(entry));
            }
        }
        match tree.root() == TreeHash(end.root.0) {
            true => Ok(found),
            false => Err(format!("its tree of {} leaves has another root than the manifest names", end.size)),
        }
    }
}

#[async_trait]
impl<S: TileStore + 'static> Logs for StoredLogs<S> {
    async fn before(&self, ended: &Ended) -> Before {
        let mut before = Before::default();
        for end in &ended.logs {
            let place = (ended.key, end.clone());
            if let Some(rows) = self.known().places.get(&place) {
                before.rows.extend(rows);
                continue;
            }
            match self.before_one(ended, end).await {
                Err(reason) => before.unread.push(format!("log `{}`: {reason}", end.origin.escape_debug())),
                Ok(rows) => {
                    before.rows.extend(&rows);
                    let mut known = self.known();
                    if known.rows + rows.len() < MAX_KNOWN {
                        known.rows += rows.len() + 1;
                        known.places.insert(place, rows);
                    }
                }
            }
        }
        before
    }
}

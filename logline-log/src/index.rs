//! Which leaf a span is: derived from the entries of a log, and made anew from them at any time.

use std::collections::HashMap;

use thiserror::Error;
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::leaf::{Entry, EntryError, Leaf};
use crate::note::Note;
use crate::proof::LogProof;
use crate::tile::{Bundle, ProveError, TileError, TileKind, TilePath, TileSet, WIDTH};
use crate::tree::ProofPlan;
use crate::witness::AddCheckpoint;

/// A way to read the files of one log by their names. `None` stands for a file that is not there, an error for one that cannot be read.
///
/// [`read_tile`] asks it for a tile, and for the full one where a narrow one was deleted.
pub type ReadFile<'a> = dyn FnMut(&str) -> Result<Option<Vec<u8>>, String> + 'a;

/// Why the files of a log cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogFileError {
    /// A file could not be read. A retry may help.
    #[error("`{path}` could not be read: {reason}")]
    Unreadable {
        /// The file.
        path: TilePath,
        /// What happened.
        reason: String,
    },
    /// A file is missing, or no proof can be made from the files.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// An entry is of an unknown kind or length.
    #[error("entry {index}: {source}")]
    Entry {
        /// The number of the entry.
        index: u64,
        /// What is wrong.
        source: EntryError,
    },
    /// A checkpoint is malformed, or of another log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log does not have the row.
    #[error(
        "row {id}/{seq} is not among the {size} leaves of the log: wait for the next checkpoint, or check that the row is as it was signed"
    )]
    NotInLog {
        /// The row's id.
        id: Uuid,
        /// The row's version.
        seq: u32,
        /// The number of leaves.
        size: u64,
    },
}

impl From<TileError> for LogFileError {
    fn from(error: TileError) -> Self {
        Self::Prove(error.into())
    }
}

/// Reads a tile or a bundle of a tree.
///
/// # Errors
/// If it cannot be read, or is missing.
pub fn read_tile(path: TilePath, read: &mut ReadFile<'_>) -> Result<Vec<u8>, LogFileError> {
    let unreadable = |reason| LogFileError::Unreadable { path, reason };
    if let Some(bytes) = read(&path.to_string()).map_err(unreadable)? {
        return Ok(bytes);
    }
    let full = if path.is_full() { None } else { read(&path.full().to_string()).map_err(unreadable)? };
    full.ok_or(LogFileError::Prove(ProveError::Missing { path }))
}

/// The leaves of a log by id and version, in memory: about 50 bytes for each.
#[derive(Debug, Clone, Default)]
pub struct LeafIndex {
    size: u64,
    leaves: HashMap<(Uuid, u32), u64>,
}

impl LeafIndex {
    /// An index of no leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of entries that the index knows.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The leaf of this version of a span; `None` if the index does not have it.
    #[must_use]
    pub fn leaf_of(&self, id: Uuid, seq: u32) -> Option<u64> {
        self.leaves.get(&(id, seq)).copied()
    }

    /// Reads the entries up to `size` that the index does not have yet.
    ///
    /// # Errors
    /// If a bundle is missing, truncated, or has an entry of an unknown kind. What was read before stays in the index.
    pub fn grow(&mut self, size: u64, read: &mut ReadFile<'_>) -> Result<(), LogFileError> {
        while self.size < size {
            let Some(path) = TilePath::of(TileKind::Entries, self.size / WIDTH, size) else { return Ok(()) };
            let bundle = Bundle::parse(path, &read_tile(path, read)?)?;
            let known = usize::try_from(self.size % WIDTH).unwrap_or(0);
            for entry in bundle.entries().iter().skip(known) {
                let entry = Entry::parse(entry).map_err(|source| LogFileError::Entry { index: self.size, source })?;
                if let Entry::Span(leaf) = entry {
                    // The first one counts; the audit reports the second.
                    self.leaves.entry((leaf.id, leaf.seq)).or_insert(self.size);
                }
                self.size += 1;
            }
        }
        Ok(())
    }
}

/// Makes the proof that a row is in the log of this checkpoint, which must be the one that the files belong to. Without an index the
/// bundles are searched, the newest first.
///
/// # Errors
/// [`LogFileError::NotInLog`] if it is not; otherwise what is wrong with the files.
pub fn prove(
    leaf: &Leaf,
    note: &Note,
    checkpoint: &Checkpoint,
    index: Option<&LeafIndex>,
    read: &mut ReadFile<'_>,
) -> Result<LogProof, LogFileError> {
    let missing = LogFileError::NotInLog { id: leaf.id, seq: leaf.seq, size: checkpoint.size };
    let known = index.and_then(|index| index.leaf_of(leaf.id, leaf.seq)).filter(|index| *index < checkpoint.size);
    let at = match known {
        Some(at) => at,
        None => search(leaf, checkpoint.size, read)?.ok_or(missing)?,
    };
    let plan = ProofPlan::inclusion(at, checkpoint.size).map_err(ProveError::from)?;
    let mut tiles = TileSet::new(checkpoint.size);
    for path in tiles.needed(&plan) {
        tiles.insert(path, &read_tile(path, read)?)?;
    }
    let hashes = tiles.inclusion(leaf.hash(), at, checkpoint)?;
    Ok(LogProof::new(at, hashes, note.clone()))
}

/// Makes the proof that the log continues an older checkpoint of itself, in the form of the call `add-checkpoint`: it has the older size, the
/// hashes and the newer checkpoint, and so everything that whoever knows the older one needs. The files must belong to the newer one.
///
/// # Errors
/// If the files do not lead from the older root to the newer one: then the log has two histories, or the files were changed.
pub fn prove_continues(old: &Checkpoint, note: &Note, read: &mut ReadFile<'_>) -> Result<AddCheckpoint, LogFileError> {
    let checkpoint = Checkpoint::of(note)?;
    if old.origin != checkpoint.origin {
        return Err(CheckpointError::Origin { found: old.origin.clone(), expected: checkpoint.origin }.into());
    }
    let plan = ProofPlan::consistency(old.size, checkpoint.size).map_err(ProveError::from)?;
    let mut tiles = TileSet::new(checkpoint.size);
    for path in tiles.needed(&plan) {
        tiles.insert(path, &read_tile(path, read)?)?;
    }
    let proof = tiles.consistency((old.size, old.root), &checkpoint)?;
    Ok(AddCheckpoint { old_size: old.size, proof, checkpoint: note.clone() })
}

fn search(leaf: &Leaf, size: u64, read: &mut ReadFile<'_>) -> Result<Option<u64>, LogFileError> {
    let entry = leaf.to_bytes();
    for index in (0..size.div_ceil(WIDTH)).rev() {
        let Some(path) = TilePath::of(TileKind::Entries, index, size) else { continue };
        let bundle = Bundle::parse(path, &read_tile(path, read)?)?;
        if let Some(at) = bundle.entries().iter().position(|other| *other == entry) {
            return Ok(Some(index * WIDTH + at as u64));
        }
    }
    Ok(None)
}

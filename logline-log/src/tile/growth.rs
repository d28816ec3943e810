//! Appending to a tree that lies in tiles: which files a tree gets when it grows.

use thiserror::Error;

use crate::hash::TreeHash;
use crate::leaf::MAX_ENTRY;
use crate::tile::content::{Bundle, TileContent, TileError};
use crate::tile::path::{TileKind, TilePath};
use crate::tile::{HEIGHT, WIDTH};
use crate::tree::Frontier;

/// A file of a grown tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Its name.
    pub path: TilePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a tree cannot be continued from its tiles.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GrowthError {
    /// A tile is truncated.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A tile or a bundle is missing.
    #[error(
        "`{path}` is missing: make the files again (`logline log rebuild`), or put them back from a copy that is as new as the last signed checkpoint"
    )]
    Missing {
        /// The file.
        path: TilePath,
    },
    /// An entry does not have the hash that its tile has.
    #[error(
        "entry {index} does not have the hash that is in its tile: one of them was changed; make the files again (`logline log rebuild`)"
    )]
    Entry {
        /// The number of the entry.
        index: u64,
    },
    /// The tiles have another root than the checkpoint.
    #[error(
        "the tiles of {size} leaves have root {found}, and the checkpoint has {expected}: they were changed; make them again (`logline log rebuild`)"
    )]
    Root {
        /// The number of leaves.
        size: u64,
        /// The root of the tiles.
        found: TreeHash,
        /// The root of the checkpoint.
        expected: TreeHash,
    },
}

/// The last tile of each level and the last bundle: at most 2,048 hashes and 256 entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Growth {
    frontier: Frontier,
    levels: Vec<Vec<TreeHash>>,
    entries: Vec<u8>,
}

impl Growth {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The files from which [`Growth::resume`] continues a tree of `size` leaves.
    #[must_use]
    pub fn needed(size: u64) -> Vec<TilePath> {
        let last = |kind, level: u8| {
            let hashes = size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
            TilePath::of(kind, hashes / WIDTH, size)
        };
        let levels = (0..HEIGHT).filter_map(|level| last(TileKind::Hashes(level), level));
        last(TileKind::Entries, 0).into_iter().chain(levels).collect()
    }

    /// Continues the tree of `size` leaves with this root. `read` gives the bytes of the files that are [needed](Growth::needed).
    ///
    /// Everything that is read is hashed again, up to the root. So a tile that was truncated or replaced is noticed before anything is
    /// built on it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn resume(size: u64, root: TreeHash, read: impl Fn(&TilePath) -> Option<Vec<u8>>) -> Result<Self, GrowthError> {
        let get = |path: TilePath| read(&path).ok_or(GrowthError::Missing { path });
        let mut levels: Vec<Vec<TreeHash>> = Vec::new();
        let mut entries = Vec::new();
        for path in Self::needed(size) {
            match path.kind {
                TileKind::Entries => {
                    let bundle = Bundle::parse(path, &get(path)?)?;
                    for entry in bundle.entries() {
                        Bundle::write(entry, &mut entries);
                    }
                }
                TileKind::Hashes(level) => {
                    levels.resize(usize::from(level) + 1, Vec::new());
                    if let Some(hashes) = levels.last_mut() {
                        *hashes = TileContent::parse(path, &get(path)?)?.hashes().to_vec();
                    }
                }
            }
        }
        let frontier = Self::frontier(size, &levels);
        let found = frontier.as_ref().map_or(TreeHash::EMPTY, Frontier::root);
        let Some(frontier) = frontier.filter(|_| found == root) else {
            return Err(GrowthError::Root { size, found, expected: root });
        };
        let growth = Self { frontier, levels, entries };
        growth.check_entries()?;
        Ok(growth)
    }

    /// The perfect subtrees, from the hashes of the last tile of each level: a tile of width w has those of the bits of w.
    fn frontier(size: u64, levels: &[Vec<TreeHash>]) -> Option<Frontier> {
        let mut nodes = Vec::new();
        for hashes in levels.iter().rev() {
            let mut of_level = Frontier::new();
            hashes.iter().for_each(|hash| of_level.push(*hash));
            nodes.extend_from_slice(of_level.nodes());
        }
        Frontier::from_nodes(size, nodes)
    }

    fn check_entries(&self) -> Result<(), GrowthError> {
        let hashes = self.levels.first().map(Vec::as_slice).unwrap_or_default();
        let start = self.size() - hashes.len() as u64;
        let path = TilePath { kind: TileKind::Entries, index: start / WIDTH, width: u16::try_from(hashes.len()).unwrap_or(0) };
        let bundle = Bundle::parse(path, &self.entries)?;
        let changed = bundle.entries().iter().zip(hashes).position(|(entry, hash)| TreeHash::leaf(entry) != *hash);
        changed.map_or(Ok(()), |at| Err(GrowthError::Entry { index: start + at as u64 }))
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.frontier.root()
    }

    /// Appends an entry, and calls `full` with each file that is full now. Returns false, and appends nothing, if the entry has more
    /// than [`MAX_ENTRY`] bytes.
    pub fn push(&mut self, entry: &[u8], mut full: impl FnMut(Written)) -> bool {
        if entry.len() > MAX_ENTRY || !Bundle::write(entry, &mut self.entries) {
            return false;
        }
        let levels = &mut self.levels;
        let index = self.frontier.size();
        self.frontier.push_with(TreeHash::leaf(entry), |level, hash| {
            if level.is_multiple_of(HEIGHT) {
                let level = usize::from(level / HEIGHT);
                if levels.len() <= level {
                    levels.resize(level + 1, Vec::new());
                }
                if let Some(hashes) = levels.get_mut(level) {
                    hashes.push(*hash);
                }
            }
        });
        for (level, hashes) in (0_u8..).zip(levels.iter_mut()) {
            if (hashes.len() as u64) < WIDTH {
                break;
            }
            let at = index.checked_shr((u32::from(level) + 1) * u32::from(HEIGHT)).unwrap_or(0);
            if level == 0 {
                let path = TilePath { kind: TileKind::Entries, index: at, width: 256 };
                full(Written { path, bytes: std::mem::take(&mut self.entries) });
            }
            let path = TilePath { kind: TileKind::Hashes(level), index: at, width: 256 };
            full(Written { path, bytes: std::mem::take(hashes).concat_bytes() });
        }
        true
    }

    /// The files that are not full: the last bundle, and the last tile of each level.
    #[must_use]
    pub fn partial(&self) -> Vec<Written> {
        let size = self.size();
        let files = Self::needed(size).into_iter().filter_map(|path| {
            let bytes = match path.kind {
                TileKind::Entries => self.entries.clone(),
                TileKind::Hashes(level) => self.levels.get(usize::from(level))?.concat_bytes(),
            };
            Some(Written { path, bytes })
        });
        files.collect()
    }
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for Vec<TreeHash> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|hash| hash.0).collect()
    }
}

//! What is in tiles and bundles.

use thiserror::Error;

use crate::hash::TreeHash;
use crate::leaf::MAX_ENTRY;
use crate::tile::{HEIGHT, TilePath, WIDTH};
use crate::tree::NodeId;

/// Why the bytes of a file are not the tile or bundle of that name. A retry helps only if the file was being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TileError {
    /// It has too few or too many bytes.
    #[error("`{path}` has {found} bytes, not those of {width} hashes or entries: it is truncated, or another file", width = path.width)]
    Length {
        /// The file.
        path: TilePath,
        /// The bytes that it has.
        found: usize,
    },
    /// A tile of this tree does not have this node.
    #[error("`{path}` does not have node {index} of level {level}", index = node.index, level = node.level)]
    Node {
        /// The file.
        path: TilePath,
        /// The node.
        node: NodeId,
    },
}

/// The hashes of a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileContent {
    path: TilePath,
    hashes: Vec<TreeHash>,
}

impl TileContent {
    /// Reads a tile. The full tile may be read in the place of the narrower one that `path` names: a log deletes narrow tiles.
    ///
    /// # Errors
    /// [`TileError::Length`].
    pub fn parse(path: TilePath, bytes: &[u8]) -> Result<Self, TileError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let is_whole = rest.is_empty() && (hashes.len() == usize::from(path.width) || hashes.len() as u64 == WIDTH);
        if !is_whole {
            return Err(TileError::Length { path, found: bytes.len() });
        }
        let hashes = hashes.iter().take(usize::from(path.width)).map(|hash| TreeHash(*hash)).collect();
        Ok(Self { path, hashes })
    }

    /// The hashes, from left to right.
    #[must_use]
    pub fn hashes(&self) -> &[TreeHash] {
        &self.hashes
    }

    /// The hash of a node in the tile, or above its hashes.
    ///
    /// # Errors
    /// [`TileError::Node`] if the tile does not have all of the node's leaves.
    pub fn node(&self, node: NodeId) -> Result<TreeHash, TileError> {
        let missing = TileError::Node { path: self.path, node };
        let above = node.level % HEIGHT;
        let first = node.index.checked_mul(1 << above).map(|first| first % WIDTH).and_then(|first| usize::try_from(first).ok());
        let part = first.and_then(|first| self.hashes.get(first..first + (1 << above))).ok_or(missing)?;
        let mut level = part.to_vec();
        while level.len() > 1 {
            level = level.as_chunks::<2>().0.iter().map(|[left, right]| TreeHash::node(left, right)).collect();
        }
        level.first().copied().ok_or(TileError::Node { path: self.path, node })
    }
}

/// The entries of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    entries: Vec<Vec<u8>>,
}

impl Bundle {
    /// Reads a bundle: each entry after its length, two bytes, big-endian. A full bundle may be read in the place of the narrower one.
    ///
    /// # Errors
    /// [`TileError::Length`] if it does not end with an entry, or has too few or too many.
    pub fn parse(path: TilePath, bytes: &[u8]) -> Result<Self, TileError> {
        let wrong = || TileError::Length { path, found: bytes.len() };
        let (mut entries, mut rest) = (Vec::new(), bytes);
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            // Millions of empty entries have room in a file, and would cost ten times its size.
            if entries.len() as u64 == WIDTH {
                return Err(wrong());
            }
            let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(wrong)?;
            entries.push(entry.to_vec());
            rest = after;
        }
        let is_whole = entries.len() == usize::from(path.width) || entries.len() as u64 == WIDTH;
        if !rest.is_empty() || !is_whole {
            return Err(wrong());
        }
        entries.truncate(usize::from(path.width));
        Ok(Self { entries })
    }

    /// The entries, from left to right.
    #[must_use]
    pub fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// Appends an entry to the bytes of a bundle. Returns false, and appends nothing, if the entry is too long.
    pub(crate) fn write(entry: &[u8], bundle: &mut Vec<u8>) -> bool {
        let Some(length) = u16::try_from(entry.len()).ok().filter(|_| entry.len() <= MAX_ENTRY) else { return false };
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
        true
    }
}

//! The tiles that a proof needs, fetched first, so that proofs are made in one way whether tiles lie in a folder or behind a network.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::tile::content::{TileContent, TileError};
use crate::tile::path::TilePath;
use crate::tree::{NodeId, ProofError, ProofPlan, verify_consistency, verify_inclusion};

/// Why no proof can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProveError {
    /// There is no such proof, or the tiles do not lead to the root of the checkpoint: they were changed.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A tile is truncated.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A tile is not there.
    #[error("tile `{path}` is missing: get the tiles of this checkpoint, or restore them from a copy")]
    Missing {
        /// The file.
        path: TilePath,
    },
}

/// Tiles of a tree of one size.
#[derive(Debug, Clone)]
pub struct TileSet {
    size: u64,
    tiles: BTreeMap<TilePath, TileContent>,
}

impl TileSet {
    /// An empty set of tiles of a tree of `size` leaves.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, tiles: BTreeMap::new() }
    }

    /// The tiles that `plan` needs and that are not in the set yet.
    #[must_use]
    pub fn needed(&self, plan: &ProofPlan) -> Vec<TilePath> {
        let mut paths: Vec<_> = plan.nodes().filter_map(|node| TilePath::with_node(node, self.size)).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| !self.tiles.contains_key(path));
        paths
    }

    /// Adds a tile by its bytes.
    ///
    /// # Errors
    /// If it is truncated.
    pub fn insert(&mut self, path: TilePath, bytes: &[u8]) -> Result<(), TileError> {
        self.tiles.insert(path, TileContent::parse(path, bytes)?);
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<TreeHash, ProveError> {
        let outside = ProveError::Proof(ProofError::OutOfTree { index: node.index, size: self.size });
        let path = TilePath::with_node(node, self.size).ok_or(outside)?;
        Ok(self.tiles.get(&path).ok_or(ProveError::Missing { path })?.node(node)?)
    }

    /// Proves that the leaf with hash `leaf` is leaf `index` of the tree of `checkpoint`. The proof is verified before it is handed out:
    /// one from a damaged tile would only be noticed by whoever receives it.
    ///
    /// # Errors
    /// [`ProveError`].
    pub fn inclusion(&self, leaf: TreeHash, index: u64, checkpoint: &Checkpoint) -> Result<Vec<TreeHash>, ProveError> {
        let proof = ProofPlan::inclusion(index, checkpoint.size)?.build(|node| self.node(node))?;
        verify_inclusion(leaf, index, checkpoint.size, checkpoint.root, &proof)?;
        Ok(proof)
    }

    /// Proves that `new` continues `old`. The proof is verified before it is handed out.
    ///
    /// # Errors
    /// [`ProveError`].
    pub fn consistency(&self, old: (u64, TreeHash), new: &Checkpoint) -> Result<Vec<TreeHash>, ProveError> {
        let proof = ProofPlan::consistency(old.0, new.size)?.build(|node| self.node(node))?;
        verify_consistency(old, (new.size, new.root), &proof)?;
        Ok(proof)
    }

    /// The proof that the tree of `checkpoint` continues its first `old` leaves, not verified: for a witness that knows their root.
    ///
    /// # Errors
    /// [`ProveError`].
    pub fn from_size(&self, old: u64, checkpoint: &Checkpoint) -> Result<Vec<TreeHash>, ProveError> {
        ProofPlan::consistency(old, checkpoint.size)?.build(|node| self.node(node))
    }
}

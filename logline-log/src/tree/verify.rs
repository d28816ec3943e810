//! Verifying proofs. Every hash of a proof must be used, and none may be missing: a verifier that overlooks a hash can be shown two
//! proofs of one fact, and one that stops early can be shown a proof of nothing.

use thiserror::Error;

use crate::hash::TreeHash;

/// The most hashes of a proof: one for each level of the largest tree.
pub const MAX_PROOF: usize = 64;

/// Why a proof proves nothing. A retry cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The tree has no such leaf.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutOfTree {
        /// The index of the leaf.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The newer tree is smaller.
    #[error("a tree of {new} leaves cannot continue one of {old}")]
    Shrunk {
        /// The size of the older tree.
        old: u64,
        /// The size of the newer tree.
        new: u64,
    },
    /// The proof has too few or too many hashes for these sizes.
    #[error("the proof has {found} hashes, and a proof for these sizes has another number")]
    Length {
        /// The hashes that the proof has.
        found: usize,
    },
    /// The hashes lead to another root than that of the tree.
    #[error("the proof leads to root {computed}, and the tree has {expected}")]
    Root {
        /// The root that the proof leads to.
        computed: TreeHash,
        /// The root of the tree.
        expected: TreeHash,
    },
}

/// Verifies that the leaf with hash `leaf` is leaf `index` of the tree of `size` leaves with this root.
///
/// # Errors
/// [`ProofError`], with the reason.
pub fn verify_inclusion(leaf: TreeHash, index: u64, size: u64, root: TreeHash, proof: &[TreeHash]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let mut walk = Walk { node: index, last: size - 1 };
    let mut hash = leaf;
    for sibling in proof {
        hash = match walk.step().ok_or(ProofError::Length { found: proof.len() })? {
            Side::Left => TreeHash::node(sibling, &hash),
            Side::Right => TreeHash::node(&hash, sibling),
        };
    }
    walk.end(proof.len())?;
    same(hash, root)
}

/// Verifies that the tree of `old_size` leaves with root `old_root` is the beginning of the tree of `new_size` leaves with root
/// `new_root`. The empty tree has one root only.
///
/// # Errors
/// [`ProofError`], with the reason.
pub fn verify_consistency(
    (old_size, old_root): (u64, TreeHash),
    (new_size, new_root): (u64, TreeHash),
    proof: &[TreeHash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Shrunk { old: old_size, new: new_size });
    }
    let is_trivial = old_size == 0 || old_size == new_size;
    if is_trivial {
        if !proof.is_empty() {
            return Err(ProofError::Length { found: proof.len() });
        }
        if old_size == 0 {
            same(old_root, TreeHash::EMPTY)?;
        }
        return if old_size == new_size { same(old_root, new_root) } else { Ok(()) };
    }
    let found = proof.len();
    let mut walk = Walk { node: old_size - 1, last: new_size - 1 };
    // The old tree's right edge, below which both trees are the same.
    let shared = walk.node.trailing_ones();
    walk = Walk { node: walk.node.checked_shr(shared).unwrap_or(0), last: walk.last.checked_shr(shared).unwrap_or(0) };
    let (first, rest) = if old_size.is_power_of_two() {
        (&old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length { found })?
    };
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        match walk.step().ok_or(ProofError::Length { found })? {
            Side::Left => (old, new) = (TreeHash::node(sibling, &old), TreeHash::node(sibling, &new)),
            Side::Right => new = TreeHash::node(&new, sibling),
        }
    }
    walk.end(found)?;
    same(old, old_root)?;
    same(new, new_root)
}

fn same(computed: TreeHash, expected: TreeHash) -> Result<(), ProofError> {
    if computed == expected { Ok(()) } else { Err(ProofError::Root { computed, expected }) }
}

/// On which side the sibling stands.
enum Side {
    Left,
    Right,
}

/// The way from a node to the root, beside the way from the last node of its level (RFC 9162, sections 2.1.3.2 and 2.1.4.2).
struct Walk {
    node: u64,
    last: u64,
}

impl Walk {
    /// Goes up to the next node that has a sibling. `None` at the root.
    fn step(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // A node at the right edge without a sibling is its own parent.
            let lonely = self.node.trailing_zeros();
            self.up(lonely);
            Side::Left
        } else {
            Side::Right
        };
        self.up(1);
        Some(side)
    }

    fn up(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }

    fn end(&self, found: usize) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::Length { found }) }
    }
}

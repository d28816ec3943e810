//! Which nodes a proof consists of. The nodes are fetched by the caller, from tiles or from memory.

use crate::hash::TreeHash;
use crate::tree::verify::ProofError;

/// The root of a perfect subtree: that of the leaves `index * 2^level ..` to the next multiple of `2^level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The height above the leaves, which have level 0.
    pub level: u8,
    /// The number of the node on its level, from the left.
    pub index: u64,
}

impl NodeId {
    /// The perfect subtrees that the leaves `start..end` consist of, the largest first, where `start` is a multiple of the largest.
    pub(crate) fn cover(start: u64, end: u64) -> Vec<Self> {
        let mut nodes = Vec::new();
        let mut at = start;
        while let Some(rest) = end.checked_sub(at).filter(|rest| *rest > 0) {
            let level = rest.ilog2();
            nodes.push(Self { level: u8::try_from(level).unwrap_or(u8::MAX), index: at >> level });
            at += 1 << level;
        }
        nodes
    }
}

/// A proof before its nodes are fetched: each hash of the proof is the root of some leaves, made from perfect subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofPlan {
    /// For each hash of the proof, the perfect subtrees from left to right.
    hashes: Vec<Vec<NodeId>>,
}

impl ProofPlan {
    /// The proof that leaf `index` is in the tree of `size` leaves (RFC 6962, section 2.1.1).
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if the tree has no such leaf.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, ProofError> {
        if index >= size {
            return Err(ProofError::OutOfTree { index, size });
        }
        let (mut start, mut end, mut hashes) = (0, size, Vec::new());
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                hashes.push(NodeId::cover(middle, end));
                end = middle;
            } else {
                hashes.push(NodeId::cover(start, middle));
                start = middle;
            }
        }
        // A proof begins at the leaf.
        hashes.reverse();
        Ok(Self { hashes })
    }

    /// The proof that the tree of `old` leaves is the beginning of the tree of `new` leaves (RFC 6962, section 2.1.2). Nothing needs to
    /// be proved of the empty tree, and of a tree and itself.
    ///
    /// # Errors
    /// [`ProofError::Shrunk`] if the new tree is smaller.
    pub fn consistency(old: u64, new: u64) -> Result<Self, ProofError> {
        if old > new {
            return Err(ProofError::Shrunk { old, new });
        }
        let (mut start, mut end, mut hashes) = (0, new, Vec::new());
        if old == 0 {
            return Ok(Self { hashes });
        }
        while end != old {
            let middle = start + split(end - start);
            if old <= middle {
                hashes.push(NodeId::cover(middle, end));
                end = middle;
            } else {
                hashes.push(NodeId::cover(start, middle));
                start = middle;
            }
        }
        // If the old tree is a perfect subtree on the left, its root is known.
        if start != 0 {
            hashes.push(NodeId::cover(start, end));
        }
        hashes.reverse();
        Ok(Self { hashes })
    }

    /// The nodes that are needed, in the order of [`ProofPlan::build`].
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.hashes.iter().flatten().copied()
    }

    /// The number of hashes in the proof: at most 64.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether nothing needs to be proved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Makes the proof. `node` gives the hash of each node.
    ///
    /// # Errors
    /// The first error of `node`.
    pub fn build<E>(&self, mut node: impl FnMut(NodeId) -> Result<TreeHash, E>) -> Result<Vec<TreeHash>, E> {
        let mut proof = Vec::with_capacity(self.hashes.len());
        for parts in &self.hashes {
            let mut root = None;
            for part in parts.iter().rev() {
                let left = node(*part)?;
                root = Some(root.map_or(left, |right| TreeHash::node(&left, &right)));
            }
            proof.extend(root);
        }
        Ok(proof)
    }
}

/// The largest power of two below `size`, which is at least 2: where RFC 6962 splits a tree.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

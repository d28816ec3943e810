//! The right edge of a tree: all that is needed to append to it, and to know its root.

use crate::hash::TreeHash;
use crate::tree::prove::NodeId;

/// The roots of the perfect subtrees that a tree consists of, the largest first: one for each bit that is set in its size. At most 64
/// hashes, however large the tree is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<TreeHash>,
}

impl Frontier {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves whose perfect subtrees have these roots, the largest first. `None` if their number is wrong. (Whether
    /// the hashes are right shows [`Frontier::root`].)
    #[must_use]
    pub fn from_nodes(size: u64, nodes: Vec<TreeHash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// The nodes that [`Frontier::from_nodes`] takes for a tree of `size` leaves.
    #[must_use]
    pub fn nodes_of(size: u64) -> Vec<NodeId> {
        NodeId::cover(0, size)
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, the largest first.
    #[must_use]
    pub fn nodes(&self) -> &[TreeHash] {
        &self.nodes
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: TreeHash) {
        self.push_with(leaf, |_, _| {});
    }

    /// Appends a leaf, and shows each node that is complete now, from the leaf upwards, by its level: leaves have level 0.
    ///
    /// A tree has fewer than 2^64 leaves. One more changes nothing: at a million a second that is half a million years away.
    pub fn push_with(&mut self, leaf: TreeHash, mut completed: impl FnMut(u8, &TreeHash)) {
        let Some(size) = self.size.checked_add(1) else { return };
        let mut node = leaf;
        completed(0, &node);
        for level in 1..=self.size.trailing_ones() {
            let Some(left) = self.nodes.pop() else { break };
            node = TreeHash::node(&left, &node);
            completed(u8::try_from(level).unwrap_or(u8::MAX), &node);
        }
        self.nodes.push(node);
        self.size = size;
    }

    /// The root: what a checkpoint signs.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return TreeHash::EMPTY };
        nodes.fold(*last, |right, left| TreeHash::node(left, &right))
    }
}

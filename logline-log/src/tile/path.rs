//! The names of tiles and bundles.

use std::fmt;

use crate::tile::{HEIGHT, WIDTH};
use crate::tree::NodeId;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this level of tiles: leaves have level 0, and a hash of level `n + 1` is the root of a full tile of level `n`.
    Hashes(u8),
    /// The entries whose hashes are in the tile of level 0.
    Entries,
}

/// A tile or a bundle of a tree of some size. As text it is the path below the log's address: `tile/0/x001/234.p/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    /// What the file holds.
    pub kind: TileKind,
    /// The number of the tile on its level, from the left.
    pub index: u64,
    /// The number of hashes or entries: 256 in a full tile, 1 to 255 in the last one.
    pub width: u16,
}

impl TilePath {
    /// The tile in a tree of `size` leaves. `None` if that tree has no such tile.
    #[must_use]
    pub fn of(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let level = match kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let hashes = size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
        let left = hashes.checked_sub(index.checked_mul(WIDTH)?).filter(|left| *left > 0)?;
        Some(Self { kind, index, width: u16::try_from(left.min(WIDTH)).ok()? })
    }

    /// The tile that has the node's hash, or the hashes that it is made from, in a tree of `size` leaves.
    #[must_use]
    pub fn with_node(node: NodeId, size: u64) -> Option<Self> {
        let (level, above) = (node.level / HEIGHT, node.level % HEIGHT);
        let first = node.index.checked_mul(1 << above)?;
        Self::of(TileKind::Hashes(level), first / WIDTH, size)
    }

    /// All tiles and bundles of a tree of `size` leaves that a tree of `old` leaves does not have, or not so wide.
    pub fn added(old: u64, size: u64) -> impl Iterator<Item = Self> {
        let kinds = std::iter::once(TileKind::Entries).chain((0..HEIGHT).map(TileKind::Hashes));
        kinds.flat_map(move |kind| {
            let level = if let TileKind::Hashes(level) = kind { level } else { 0 };
            let shift = u32::from(level) * u32::from(HEIGHT);
            let from = (old >> shift) / WIDTH;
            let to = (size >> shift).div_ceil(WIDTH);
            (from..to).filter_map(move |index| {
                Self::of(kind, index, size).filter(|tile| Self::of(kind, index, old).is_none_or(|was| was != *tile))
            })
        })
    }

    /// Whether it has all 256 hashes or entries, and will never be another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The same tile when it is full.
    #[must_use]
    pub fn full(mut self) -> Self {
        self.width = 256;
        self
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => write!(f, "tile/entries/")?,
        }
        // Groups of three digits, the last one without an `x`.
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        write!(f, "{}", groups.join("/"))?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

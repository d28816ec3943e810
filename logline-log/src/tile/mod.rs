//! Tiles and entry bundles: how a tree lies in files, after C2SP `tlog-tiles`.
//!
//! Why an implementation of our own: the crate `tlog_tiles` names paths as Go's checksum database does (`tile/8/L/N`), where the
//! specification wants `tile/L/N`, and refuses a tree without leaves.

mod content;
mod growth;
mod path;
mod set;

pub use content::{Bundle, TileContent, TileError};
pub use growth::{Growth, GrowthError, Written};
pub use path::{TileKind, TilePath};
pub use set::{ProveError, TileSet};

/// The number of hashes in a full tile, and of entries in a full bundle.
pub const WIDTH: u64 = 256;

/// The levels of the tree in one tile.
pub(crate) const HEIGHT: u8 = 8;

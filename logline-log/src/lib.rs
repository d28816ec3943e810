#![doc = include_str!("../README.md")]

mod checkpoint;
mod hash;
mod leaf;
pub mod note;
mod policy;
mod proof;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, random_origin};
pub use hash::{HashTextError, TreeHash};
pub use leaf::{Entry, EntryError, LEAF_BYTES, Leaf, MAX_ENTRY};
pub use policy::{Accepted, Policy, PolicyError, PolicyTextError};
pub use proof::{LogProof, LogProofError, MAX_PROOF_FILE};

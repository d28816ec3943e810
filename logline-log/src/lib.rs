#![doc = include_str!("../README.md")]

mod checkpoint;
mod hash;
#[cfg(feature = "integrator")]
mod integrator;
mod leaf;
pub mod note;
mod policy;
mod proof;
pub mod store;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, random_origin};
pub use hash::{HashTextError, TreeHash};
#[cfg(feature = "integrator")]
pub use integrator::{IntegrateError, Integrator, LogSite, Step};
pub use leaf::{Entry, EntryError, LEAF_BYTES, Leaf, MAX_ENTRY};
pub use policy::{Accepted, Policy, PolicyError, PolicyTextError};
pub use proof::{LogProof, LogProofError, MAX_PROOF_FILE};

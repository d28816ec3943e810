#![doc = include_str!("../README.md")]

pub mod audit;
mod checkpoint;
mod ended;
mod hash;
mod index;
#[cfg(feature = "integrator")]
mod integrator;
mod leaf;
pub mod note;
mod policy;
mod proof;
#[cfg(feature = "integrator")]
mod service;
pub mod store;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, random_origin};
pub use ended::StoredLogs;
pub use hash::{HashTextError, TreeHash};
pub use index::{LeafIndex, LogFileError, ReadFile, prove, prove_continues, read_tile};
#[cfg(feature = "integrator")]
pub use integrator::{IntegrateError, Integrator, LogSite, Missing, Rebuilt, Step, last_signed};
pub use leaf::{Entry, EntryError, LEAF_BYTES, Leaf, MAX_ENTRY};
pub use policy::{Accepted, Policy, PolicyError, PolicyTextError};
pub use proof::{LogProof, LogProofError, MAX_PROOF_FILE};
#[cfg(feature = "integrator")]
pub use service::{LOG_KEEPER, LogKeeper, LogReport, all};

//! Merkle trees of RFC 6962: what a root is, and how a short proof shows that a leaf is in a tree, or that one tree is the beginning of
//! another. Pure functions over hashes, for any place where nodes are kept.

mod frontier;
mod prove;
mod verify;

pub use frontier::Frontier;
pub use prove::{NodeId, ProofPlan};
pub use verify::{MAX_PROOF, ProofError, verify_consistency, verify_inclusion};

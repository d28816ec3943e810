//! From what several searches have found to the few memories that a prompt gets, with the reason for each: pure functions.
//!
//! The order is strict: memories of the session first, then private ones (temporary before permanent), then those of the tenant, then
//! public ones. A better score never moves a memory past another scope. Within a scope the lists of text and vectors are fused by
//! reciprocal ranks ([`fuse`]). Equal scores are decided by promotion (a memory that a reviewer has approved comes first), then by
//! recency (the newer comes first), then by id.

mod candidate;
mod choose;
mod fuse;

pub use candidate::{Candidate, Key, Out, Tier, tokens};
pub use choose::{Budget, Explained, List, ListKind, Ranking, Verdict, rank};
pub use fuse::{K, fuse};

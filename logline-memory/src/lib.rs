//! Memories: what an agent may remember of a person, with consent, encrypted, found again in a strict order, and forgotten for good.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")
)]

pub mod embed;
pub mod index;
pub mod rank;

//! Memories: what an agent may remember of a person, with consent, encrypted, found again in a strict order, and forgotten for good.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")
)]

pub mod envelope;
mod local;
pub mod rank;
mod vault;
mod wrap;

pub use local::LocalKeys;
pub use vault::{Closed, Forget, Forgotten, Sealed, Text, Vault, VaultError};

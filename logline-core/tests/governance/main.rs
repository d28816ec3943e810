//! What a quorum must approve: every known way to get something into force without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod attacks;
mod audit;
mod in_force;
mod members;
mod votes;
mod world;

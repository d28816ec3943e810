//! Policies: what they decide, that it happens once, and what they cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../../../logline-kernels/tests/setup/mod.rs"]
mod setup;

mod attacks;
mod decisions;
mod due;
mod world;

//! The tool as an operator uses it: real processes on real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod export;
mod import;
mod reading;
mod world;

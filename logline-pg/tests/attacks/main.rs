//! What somebody with a login and any SQL client tries. The identity is fixed first: row-level security contains wrong queries
//! and stolen queries, not somebody who may claim any identity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]
#![allow(unreachable_pub, reason = "the parts of one test")]

#[path = "../server/mod.rs"]
mod server;

mod audit;
mod identity;
mod logins;
mod rows;
mod setup;

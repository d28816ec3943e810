//! Calls to providers: what is recorded of them, and what happens if a provider, a budget or a host fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod budgets;
mod failures;
mod listeners;
mod prices;
mod records;
mod refusals;
#[path = "../setup/mod.rs"]
mod setup;
mod site;
mod telemetry;

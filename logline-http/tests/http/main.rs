//! The router by real sockets: what callers can do, and what attackers cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod attacks;
mod crowd;
mod governed;
mod hostile;
mod issuing;
mod keys;
mod metrics_page;
mod minds;
mod openapi;
mod page;
mod repeats;
mod reports;
mod rolling;
mod round_trip;
mod stage;
mod standing;
mod streams;
mod tenants;
mod tokens;

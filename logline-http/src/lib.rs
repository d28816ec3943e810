#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")
)]

mod auth;
mod bodies;
mod cursor;
mod described;
mod idempotency;
mod identity;
mod lately;
mod openapi;
mod options;
#[cfg(feature = "page")]
mod page;
mod params;
mod peers;
mod problem;
mod queue;
mod rates;
mod ready;
mod receive;
mod refusals;
mod router;
mod routes;
mod rows;
mod serve;
mod service;
mod slots;
mod tail;
mod wire;

pub use auth::{ApiKeys, AuthError, Authenticator, IssuedKey, Jwt, JwtError, JwtOptions, KeyError, KeySource, NewKey};
pub use cursor::ServiceKey;
pub use described::describe_metrics;
pub use identity::{Identity, Permission};
pub use openapi::openapi;
#[cfg(feature = "log")]
pub use options::LogFolders;
pub use options::{Drain, Options, Rate, RenderMetrics};
pub use peers::Peer;
pub use problem::{Code, PAGE, Problem};
pub use router::router;
pub use serve::{Plain, Secure, ServeOptions, serve, serve_secure};

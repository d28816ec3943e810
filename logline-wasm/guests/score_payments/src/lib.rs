//! Scores a payment event against the rule table in the function's `config`.
//!
//! The rules are data in a signed span, so changing one is a new version of that span and not a new build. This
//! crate only interprets them, and every decision names the table's version and the rules that made it.
//!
//! Everything but `abi` is plain Rust over the [`Host`] trait, so `cargo test` proves the scoring on the build
//! machine, without a sandbox.

#[cfg(target_arch = "wasm32")]
#[allow(
    unsafe_code,
    reason = "the boundary with the host is raw pointers; nothing else in the crate needs them"
)]
mod abi;
mod alerts;
mod condition;
mod event;
mod failure;
mod host;
mod rules;
mod score;
#[cfg(test)]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation is how a test fails"
)]
mod tests;

pub use failure::Failure;
pub use host::{Host, Op};

use serde_json::Value;

/// Answers one call: `{"function", "request", "config", "input"}` in, the scored decision out.
///
/// # Errors
/// `invalid_input` when the bytes are not JSON, `invalid_config` for a bad rule table, `invalid_event` for a bad
/// payment event, and whatever code the host answered with when a host call is refused.
pub fn handle(call: &[u8], host: &mut dyn Host) -> Result<Value, Failure> {
    let call: Value = serde_json::from_slice(call)
        .map_err(|error| Failure::new("invalid_input", format!("the call is not JSON: {error}")))?;
    let table = rules::Table::parse(call.get("config"))?;
    let event = event::Event::parse(call.get("input"))?;

    let verdict = score::score(&table, &event, host)?;
    let now = host::now(host)?;
    if verdict.decision != score::Decision::Allow {
        alerts::raise(&event, &verdict, host)?;
    }
    Ok(verdict.into_output(&table.version, &now))
}

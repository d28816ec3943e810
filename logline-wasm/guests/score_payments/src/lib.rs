//! Scores a payment event against the rule table in the function's `config`.
//!
//! The rules are data in a signed span, so changing one is a new version of that span and not a new build. This
//! crate only interprets them, and every decision names the table's version and the rules that made it.
//!
//! All of it is plain Rust over [`Host`], so `cargo test` proves the scoring on the build machine, without a sandbox.

mod alerts;
mod condition;
mod event;
mod found;
mod rules;
mod score;
#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a failed expectation is how a test fails")]
mod tests;

use logline_guest::{Call, Failure, Host, HostExt as _, Value};

logline_guest::export!(score_payment);

/// The scored decision about the payment in the call's `input`, by the rule table in its `config`.
///
/// # Errors
/// `invalid_config` for a bad rule table, `invalid_event` for a bad payment event, and whatever code the host answered with when a
/// host call is refused.
pub fn score_payment(call: Call, host: &mut dyn Host) -> Result<Value, Failure> {
    let table = rules::Table::parse(Some(&call.config))?;
    let event = event::Event::parse(Some(&call.input))?;

    let verdict = score::score(&table, &event, host)?;
    let now = host.now()?;
    if verdict.decision != score::Decision::Allow {
        alerts::raise(&event, &verdict, host)?;
    }
    Ok(verdict.into_output(&table.version, &now))
}

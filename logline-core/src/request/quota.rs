//! What a tenant may use in a day, counted in the append that uses it.
//!
//! A claim, the version of a request with which a worker takes it, names its day and the quotas of which it uses one unit each. The
//! version that ends an attempt names what was used of others, which is known only then. That makes every counter a sum over rows of the ledger: a counter that is lost or doubted is computed again. A ledger counts
//! its present day only, so counters do not grow with time.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};

use crate::request::state::{self, ends_attempt, is_claim};
use crate::span::Span;

/// Quotas that one claim uses, at most.
pub const MAX_KEYS: usize = 16;

/// Bytes in the name of a quota, at most.
pub const MAX_KEY_BYTES: usize = 128;

/// The most units that one version uses of a quota: what every JSON number can hold.
pub const MAX_UNITS: u64 = (1 << 53) - 1;

/// What a claim uses, one unit of each named quota of its tenant, or what an attempt has used when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charges {
    /// The UTC day, which must be the ledger's when limits apply.
    pub day: NaiveDate,
    /// Units by the name of the quota: at least one and at most [`MAX_KEYS`] names, each of 1 to [`MAX_KEY_BYTES`] bytes; up to
    /// [`MAX_UNITS`].
    pub units: BTreeMap<String, u64>,
}

impl Charges {
    /// One unit of each of `keys`: a claim's.
    pub fn new(day: NaiveDate, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { day, units: keys.into_iter().map(|key| (key.into(), 1)).collect() }
    }

    /// What an attempt has used of one quota.
    pub fn of_attempt(day: NaiveDate, key: impl Into<String>, units: u64) -> Self {
        Self { day, units: BTreeMap::from([(key.into(), units.min(MAX_UNITS))]) }
    }

    fn day_text(&self) -> String {
        self.day.format("%Y-%m-%d").to_string()
    }

    /// What a claim has in `metadata.quota`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"day": self.day_text(), "keys": self.units.keys().collect::<Vec<_>>()})
    }

    /// What the version that ends an attempt has in `metadata.quota`.
    #[must_use]
    pub fn to_used(&self) -> Value {
        json!({"day": self.day_text(), "units": self.units})
    }

    /// What `span` uses: nothing unless it is a claim, or ends an attempt. What cannot be read uses
    /// nothing either; where a limit applies, [`check_limits`](crate::ledger::quota::check_limits) refuses it.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let is_claim = is_claim(span);
        if !is_claim && !ends_attempt(span) {
            return None;
        }
        let quota = state::quota(span)?;
        let day = quota.get("day")?.as_str()?;
        // The exact form, so that every backend reads the same days.
        let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|d| d.format("%Y-%m-%d").to_string() == day)?;
        let units: Option<BTreeMap<_, _>> = if is_claim {
            quota.get("keys")?.as_array()?.iter().map(|key| Some((key.as_str()?.to_owned(), 1))).collect()
        } else {
            let units = |units: &Value| units.as_u64().filter(|units| *units <= MAX_UNITS);
            quota.get("units")?.as_object()?.iter().map(|(key, used)| Some((key.clone(), units(used)?))).collect()
        };
        let units = units?;
        let fits = (1..=MAX_KEYS).contains(&units.len()) && units.keys().all(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        fits.then_some(Self { day, units })
    }
}

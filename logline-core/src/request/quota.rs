//! What a tenant may use in a day. Each append counts the units that its rows use.
//!
//! A claim (the version of a request with which a worker takes it) names its day and the quotas of which it uses one unit each.
//! The version that ends an attempt names the units of other quotas, which are known only then. Every counter is therefore a
//! sum over rows of the ledger, and can be computed again if it is lost or in doubt. A ledger counts only its current day, so
//! the counters do not grow with time.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};

/// The most quotas that one version may name.
pub const MAX_KEYS: usize = 16;

/// The longest name of a quota, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// The most units of a quota that one version may use: 2^53 − 1, the largest integer on which all JSON readers agree.
pub const MAX_UNITS: u64 = (1 << 53) - 1;

/// The quota units that one version uses. A claim uses one unit of each quota that it names. The version that ends an attempt
/// uses the units that were spent in the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charges {
    /// The UTC day on which the units count. If a limit applies, it must be the current day of the ledger.
    pub day: NaiveDate,
    /// Units by the name of the quota: 1 to [`MAX_KEYS`] names, each of 1 to [`MAX_KEY_BYTES`] bytes and with at most
    /// [`MAX_UNITS`].
    pub units: BTreeMap<String, u64>,
}

impl Charges {
    /// The charges of a claim: one unit of each quota in `keys`.
    pub fn new(day: NaiveDate, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { day, units: keys.into_iter().map(|key| (key.into(), 1)).collect() }
    }

    /// The charges of an attempt that ends: `units` of the quota `key`, at most [`MAX_UNITS`].
    pub fn of_attempt(day: NaiveDate, key: impl Into<String>, units: u64) -> Self {
        Self { day, units: BTreeMap::from([(key.into(), units.min(MAX_UNITS))]) }
    }

    fn day_text(&self) -> String {
        self.day.format("%Y-%m-%d").to_string()
    }

    /// The value of `metadata.quota` in a claim: `day` and `keys`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"day": self.day_text(), "keys": self.units.keys().collect::<Vec<_>>()})
    }

    /// The value of `metadata.quota` in the version that ends an attempt: `day` and `units`.
    #[must_use]
    pub fn to_used(&self) -> Value {
        json!({"day": self.day_text(), "units": self.units})
    }

    /// Reads `metadata.quota` of a claim, or of the end of an attempt. `None` if it cannot be read.
    pub(crate) fn read(quota: &Value, is_claim: bool) -> Option<Self> {
        let day = quota.get("day")?.as_str()?;
        // Only the exact form counts, so that every backend reads the same day.
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

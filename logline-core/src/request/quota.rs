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

/// A call is charged at most this many times what it reserved, whatever the service says that it used.
const MAX_OVERRUN: u64 = 8;

/// The quota units that one version uses. A claim uses one unit of each quota that it names. The version that ends an attempt
/// uses the units that were spent in the attempt. The intent of a call to the outside reserves units, and the outcome of the call
/// gives back what was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charges {
    /// The UTC day on which the units count. If a limit applies, it must be the current day of the ledger.
    pub day: NaiveDate,
    /// Units by the name of the quota: 1 to [`MAX_KEYS`] names, each of 1 to [`MAX_KEY_BYTES`] bytes and with at most
    /// [`MAX_UNITS`]. Only an outcome has negative numbers: units that it gives back.
    pub units: BTreeMap<String, i64>,
}

impl Charges {
    /// The charges of a claim: one unit of each quota in `keys`.
    pub fn new(day: NaiveDate, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { day, units: keys.into_iter().map(|key| (key.into(), 1)).collect() }
    }

    /// The charges of an attempt that ends: `units` of the quota `key`, at most [`MAX_UNITS`].
    pub fn of_attempt(day: NaiveDate, key: impl Into<String>, units: u64) -> Self {
        Self::of_call(day, [(key, units)])
    }

    /// What a call to the outside reserves, each at most [`MAX_UNITS`]. Reservations of the same quota are added up.
    pub fn of_call(day: NaiveDate, units: impl IntoIterator<Item = (impl Into<String>, u64)>) -> Self {
        let mut charges = Self { day, units: BTreeMap::new() };
        for (key, units) in units {
            let sum = charges.units.entry(key.into()).or_default();
            *sum = bounded(i128::from(*sum).saturating_add(units.into()));
        }
        charges
    }

    /// What the outcome of a call adds to the counters, if these charges were reserved and `used` was used.
    pub(crate) fn settle(&self, used: &BTreeMap<String, u64>) -> Self {
        let rest = |(key, reserved): (&String, &i64)| {
            // A service that states something absurd must not use up the whole day.
            let most = reserved.unsigned_abs().saturating_mul(MAX_OVERRUN);
            let used = used.get(key).copied().unwrap_or(0).min(most);
            (key.clone(), bounded(i128::from(used).saturating_sub((*reserved).into())))
        };
        Self { day: self.day, units: self.units.iter().map(rest).collect() }
    }

    fn day_text(&self) -> String {
        self.day.format("%Y-%m-%d").to_string()
    }

    /// The value of `metadata.quota` in a claim: `day` and `keys`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"day": self.day_text(), "keys": self.units.keys().collect::<Vec<_>>()})
    }

    /// The value of `metadata.quota` in the version that ends an attempt, in an intent or an outcome: `day` and `units`.
    #[must_use]
    pub fn to_used(&self) -> Value {
        json!({"day": self.day_text(), "units": self.units})
    }

    /// Reads `metadata.quota` of a span. `None` if it cannot be read.
    pub(crate) fn read(quota: &Value, charged: Charged) -> Option<Self> {
        let day = quota.get("day")?.as_str()?;
        // Only the exact form counts, so that every backend reads the same day.
        let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|d| d.format("%Y-%m-%d").to_string() == day)?;
        let most = MAX_UNITS.cast_signed();
        let range = match charged {
            Charged::Keys => None,
            Charged::Units => Some(0..=most),
            Charged::Settled => Some(-most..=most),
        };
        let units: Option<BTreeMap<_, _>> = match range {
            None => quota.get("keys")?.as_array()?.iter().map(|key| Some((key.as_str()?.to_owned(), 1))).collect(),
            Some(range) => {
                let units = |units: &Value| units.as_i64().filter(|units| range.contains(units));
                quota.get("units")?.as_object()?.iter().map(|(key, used)| Some((key.clone(), units(used)?))).collect()
            }
        };
        let units = units?;
        let fits = (1..=MAX_KEYS).contains(&units.len()) && units.keys().all(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        fits.then_some(Self { day, units })
    }
}

/// The form that the charges of a span have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charged {
    /// Names of quotas: one unit each.
    Keys,
    /// Units by quota.
    Units,
    /// Units by quota, negative if they are given back.
    Settled,
}

/// The number as units of a quota.
fn bounded(units: i128) -> i64 {
    let most = i128::from(MAX_UNITS);
    i64::try_from(units.clamp(-most, most)).unwrap_or(0)
}

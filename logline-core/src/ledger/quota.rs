//! What a tenant may use in a day, counted in the append that uses it.
//!
//! A claim, the version of a request with which a worker takes it, names its day and the quotas of which it uses one unit each. The
//! version that ends an attempt names what was used of others, which is known only then. That makes every counter a sum over rows of the ledger: a counter that is lost or doubted is computed again. A ledger counts
//! its present day only, so counters do not grow with time.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};

use crate::ledger::error::LedgerError;
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

/// What a tenant may use of one quota in a day. An append brings the limits that hold at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The tenant.
    pub tenant: String,
    /// The name of the quota.
    pub key: String,
    /// Units in one UTC day.
    pub per_day: u64,
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

    /// What `span` uses: nothing unless it is a claim, or ends an attempt. What is no list of names, no object of units, or too many, is
    /// nothing too; where a limit applies, [`check_limits`] refuses it.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let is_claim = is_claim(span);
        if !is_claim && !ends_attempt(span) {
            return None;
        }
        let quota = span.meta("quota")?;
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

/// Whether this is the version with which an attempt of a request ends that came to a result, or was cancelled. Only the runtime writes
/// such.
pub(crate) fn ends_attempt(span: &Span) -> bool {
    const ENDS: &[&str] = &["completed", "failed", "gave_up", "cancelled"];
    let ends = span.did.as_deref().is_some_and(|did| ENDS.contains(&did));
    span.entity_type == "request" && span.prev_hash.is_some() && !span.is_deleted && ends && !is_claim(span)
}

/// Whether this is the version with which a worker takes a request. Only the runtime writes such.
pub(crate) fn is_claim(span: &Span) -> bool {
    span.entity_type == "request" && span.prev_hash.is_some() && !span.is_deleted && span.status.as_deref() == Some("running")
}

/// Refuses limits that would hold nothing back, because no claim of the batch names their quota.
///
/// # Errors
/// [`LedgerError::Refused`], naming the quota.
pub fn check_limits<'a>(limits: &[Limit], batch: impl Iterator<Item = &'a Span> + Clone) -> Result<(), LedgerError> {
    for limit in limits {
        let mut claims = batch.clone().filter(|span| span.tenant_id == limit.tenant).filter_map(Charges::of);
        if !claims.any(|charges| charges.units.contains_key(&limit.key)) {
            return Err(LedgerError::Refused {
                reason: format!(
                    "a limit for quota `{}` of tenant `{}`, but no claim of the batch names it in metadata.quota",
                    limit.key, limit.tenant
                ),
            });
        }
    }
    Ok(())
}

/// What the new rows of one append use, until they are stored.
#[derive(Debug, Clone)]
pub struct Uses {
    today: NaiveDate,
    units: BTreeMap<(String, String), u64>,
}

impl Uses {
    /// Nothing yet, on the ledger's day.
    #[must_use]
    pub fn on(today: NaiveDate) -> Self {
        Self { today, units: BTreeMap::new() }
    }

    /// Adds what a row that is to be stored uses. `stored` tells what its tenant has used of a quota today, apart from this append.
    ///
    /// # Errors
    /// [`LedgerError::QuotaExceeded`]; [`LedgerError::WrongDay`] for a claim that was made for another day; errors of `stored`.
    pub fn add(
        &mut self,
        span: &Span,
        limits: &[Limit],
        stored: impl Fn(&str) -> Result<u64, LedgerError>,
    ) -> Result<(), LedgerError> {
        let Some(charges) = Charges::of(span) else { return Ok(()) };
        let of = |key: &str| (span.tenant_id.clone(), key.to_owned());
        for limit in limits.iter().filter(|limit| limit.tenant == span.tenant_id && charges.units.contains_key(&limit.key)) {
            if charges.day != self.today {
                return Err(LedgerError::WrongDay { key: span.key(), claimed: charges.day, today: self.today });
            }
            let here = self.units.get(&of(&limit.key)).copied().unwrap_or(0);
            if stored(&limit.key)?.saturating_add(here) >= limit.per_day {
                let Limit { tenant, key, per_day } = limit.clone();
                return Err(LedgerError::QuotaExceeded { tenant, key, per_day, day: self.today });
            }
        }
        // Of other days no account is kept.
        if charges.day == self.today {
            for (key, units) in &charges.units {
                let used = self.units.entry(of(key)).or_default();
                *used = used.saturating_add(*units);
            }
        }
        Ok(())
    }

    /// The ledger's day.
    #[must_use]
    pub fn today(&self) -> NaiveDate {
        self.today
    }

    /// Units by tenant and quota, in this order: who locks counters does it in the order of their names.
    #[must_use]
    pub fn units(&self) -> &BTreeMap<(String, String), u64> {
        &self.units
    }
}

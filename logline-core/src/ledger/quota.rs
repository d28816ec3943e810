//! Limits that an append brings along, held against what is stored and what the batch itself uses.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::ledger::error::LedgerError;
use crate::request::quota::Charges;
use crate::span::Span;

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

//! Quota limits of an append. They are compared with the units that are stored and the units that the batch itself uses.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::ledger::error::LedgerError;
use crate::request::quota::Charges;
use crate::span::Span;

/// How much a tenant may use of one quota in a day. The caller passes the current limits with each append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The tenant whose claims are limited.
    pub tenant: String,
    /// The name of the quota, as claims name it in `metadata.quota`.
    pub key: String,
    /// The units that the tenant may use in one UTC day.
    pub per_day: u64,
}

/// Refuses limits without effect. A limit has no effect if no claim of the batch names its quota, which is an error of the
/// host.
///
/// # Errors
/// [`LedgerError::Refused`], with the name of the quota.
pub fn check_limits<'a>(limits: &[Limit], batch: impl Iterator<Item = &'a Span> + Clone) -> Result<(), LedgerError> {
    for limit in limits {
        let mut claims = batch.clone().filter(|span| span.tenant_id == limit.tenant).filter_map(Charges::of);
        if !claims.any(|charges| charges.units.contains_key(&limit.key)) {
            return Err(LedgerError::Refused {
                reason: format!(
                    "there is a limit for quota `{}` of tenant `{}`, but no claim of the batch names it in metadata.quota",
                    limit.key, limit.tenant
                ),
            });
        }
    }
    Ok(())
}

/// The units that the new rows of one append use, added up before the rows are stored.
#[derive(Debug, Clone)]
pub struct Uses {
    today: NaiveDate,
    units: BTreeMap<(String, String), i64>,
}

impl Uses {
    /// No units yet. `today` is the ledger's UTC day.
    #[must_use]
    pub fn on(today: NaiveDate) -> Self {
        Self { today, units: BTreeMap::new() }
    }

    /// Adds the units of a row that is about to be stored. `stored` returns the units of a quota that the row's tenant has used
    /// today, without this append.
    ///
    /// # Errors
    /// [`LedgerError::QuotaExceeded`] if the row needs more than is left of a limit of its tenant. [`LedgerError::WrongDay`] if a limit applies
    /// and the row is charged to another day. Errors of `stored`.
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
            let wanted = charges.units.get(&limit.key).copied().unwrap_or(0);
            let after = i128::from(stored(&limit.key)?).saturating_add(here.into()).saturating_add(wanted.into());
            if after > limit.per_day.into() {
                let Limit { tenant, key, per_day } = limit.clone();
                return Err(LedgerError::QuotaExceeded { tenant, key, per_day, day: self.today });
            }
        }
        // Only units of the present day are counted. Rows of other days come with imports.
        if charges.day == self.today {
            for (key, units) in &charges.units {
                let used = self.units.entry(of(key)).or_default();
                *used = used.saturating_add(*units);
            }
        }
        Ok(())
    }

    /// The ledger's UTC day.
    #[must_use]
    pub fn today(&self) -> NaiveDate {
        self.today
    }

    /// Units by (tenant, quota), sorted; negative if more is given back than used. Writers must lock counters in this order, so that they cannot deadlock.
    #[must_use]
    pub fn units(&self) -> &BTreeMap<(String, String), i64> {
        &self.units
    }
}

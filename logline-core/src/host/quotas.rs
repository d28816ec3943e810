//! The daily quotas of tenants: a request that finds none left is parked, and is offered again when the manifest allows more.

use chrono::NaiveDate;

use crate::host::driver::{AdmitError, Driver};
use crate::host::{Host, HostError};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, LedgerError, MAX_ACTIVE, Parking, WorkQueue as _};
use crate::request::NotRunnable;
use crate::request::lifecycle::Open;
use crate::span::Visibility;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::trust::Throttle;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The key of the quota of attempts per tenant and UTC day, which a manifest may limit.
pub const EXECUTIONS_QUOTA: &str = "exec.per_tenant.daily";

/// The key of the quota of fuel per tenant and UTC day, which a manifest may limit.
pub const FUEL_QUOTA: &str = "fuel.per_tenant.daily";

/// The daily quotas that a manifest limits.
fn limits(throttle: &Throttle) -> [(&'static str, Option<u64>); 2] {
    [(EXECUTIONS_QUOTA, throttle.per_tenant_daily_exec_limit), (FUEL_QUOTA, throttle.per_tenant_daily_fuel)]
}

/// How the reason of a request begins that is parked because its tenant has used a quota.
const USED: &str = "the tenant has used its ";

/// Why a request is parked. [`is_raised`] reads it again.
fn used_up(per_day: u64, key: &str, day: NaiveDate) -> String {
    format!("{USED}{per_day} of {key} of {day}")
}

/// Whether a request is parked because of a limit that is higher by now, or is gone.
fn is_raised(reason: &str, throttle: &Throttle) -> bool {
    let mut said = reason.strip_prefix(USED).into_iter().flat_map(|said| said.splitn(3, " of "));
    let (Some(Ok(then)), Some(key)) = (said.next().map(str::parse::<u64>), said.next()) else { return false };
    limits(throttle).iter().any(|(name, now)| *name == key && now.is_none_or(|now| now > then))
}

impl Host {
    /// Whether `function` may run once more today: the manifest sets no limit, the function is exempt, or its tenant has not
    /// reached the limit. A refusal is recorded once a day. Only the claim decides, because the quota may be used up by then.
    ///
    /// # Errors
    /// If the ledger fails, or the refusal cannot be recorded.
    pub async fn is_within_quota(&self, function: &VerifiedSpan) -> Result<bool, HostError> {
        let (trusted, ledger, tenant) = (self.trusted(), &self.inner.ledger, &function.tenant_id);
        if trusted.manifest.is_forced(function) {
            return Ok(true);
        }
        for (key, per_day) in limits(&trusted.manifest.throttle) {
            let Some(per_day) = per_day else { continue };
            if ledger.used(tenant, key).await? >= per_day {
                let (driver, now) = (self.driver(&trusted), ledger.now().await?);
                self.record_denial(&driver, &Scope::runtime(tenant), tenant, (key, per_day), now.day(), now).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records, once a day, that a tenant has used up a quota.
    async fn record_denial(
        &self,
        driver: &Driver<'_>,
        scope: &Scope,
        tenant: &str,
        (key, per_day): (&str, u64),
        day: NaiveDate,
        now: Timestamp,
    ) -> Result<(), HostError> {
        let violation = quota_violation(tenant, key, per_day, day).at(now);
        match driver.write(scope, vec![violation], self.inner.signer.as_ref(), &AppendOptions::keep()).await {
            // The first record of the day stays, even if the limit was another one then.
            Ok(_) | Err(AdmitError::Ledger(LedgerError::KeepMismatch { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records, once a day, that too little is left of a tenant's quota for a call.
    pub(super) async fn record_used_up(&self, tenant: &str, quota: (&str, u64), day: NaiveDate) -> Result<(), HostError> {
        let (trusted, scope) = (self.trusted(), Scope::runtime(tenant));
        let now = self.inner.ledger.now().await?;
        self.record_denial(&self.driver(&trusted), &scope, tenant, quota, day, now).await
    }

    /// Records that a tenant has used up a quota, and parks the request until the next day.
    pub(super) async fn deny(
        &self,
        driver: &Driver<'_>,
        scope: &Scope,
        request: &Open<'_>,
        (key, per_day): (&str, u64),
        day: NaiveDate,
        now: Timestamp,
    ) -> Result<NotRunnable, HostError> {
        let span = request.span;
        self.record_denial(driver, scope, &span.tenant_id, (key, per_day), day, now).await?;
        let until = Timestamp::start_of_day_after(day);
        self.inner.ledger.park(&[Parking::of(span, Some(until), used_up(per_day, key, day))]).await?;
        Ok(NotRunnable::Deferred { key: span.key(), until })
    }

    /// Offers the requests again that wait for the next day because of a quota which the manifest in force has raised or removed.
    /// Returns how many there were. A worker calls this when it begins and when the host obeys another manifest. It reads all open
    /// requests of the host's tenants, a page at a time.
    ///
    /// # Errors
    /// If the ledger fails. Some of the requests may be offered then.
    pub async fn offer_deferred(&self) -> Result<u64, HostError> {
        let (trusted, tenants, ledger) = (self.trusted(), self.tenants(), &self.inner.ledger);
        let mut last = None;
        let mut offered = 0;
        loop {
            let after = last.as_ref().map(|(tenant, id): &(String, _)| (tenant.as_str(), *id));
            let page = ledger.open_requests(&tenants, after, MAX_ACTIVE).await?;
            let Some(end) = page.last() else { return Ok(offered) };
            last = Some((end.work.tenant_id.clone(), end.work.id));
            let waits = page.iter().filter_map(|waiting| Some((waiting, waiting.parked.as_ref()?)));
            let raised = waits.filter(|(_, reason)| is_raised(reason, &trusted.manifest.throttle));
            let now = ledger.now().await?;
            let parkings: Vec<_> = raised
                .map(|(waiting, reason)| Parking {
                    tenant_id: waiting.work.tenant_id.clone(),
                    id: waiting.work.id,
                    seq: waiting.work.seq,
                    until: Some(now),
                    reason: reason.clone(),
                })
                .collect();
            if !parkings.is_empty() {
                ledger.park(&parkings).await?;
                offered += parkings.len() as u64;
            }
        }
    }
}

/// Drafts the span that tells a tenant, once a day, that it has used up a quota.
fn quota_violation(tenant: &str, key: &str, per_day: u64, day: NaiveDate) -> Draft {
    let day = day.to_string();
    Draft::new("policy_violation")
        .id(ids::derive("policy_violation", &[tenant, key, &day]))
        .tenant(tenant)
        .owner("runtime")
        .visibility(Visibility::Tenant)
        .who("runtime")
        .did("denied")
        .this(format!("quota.{key}"))
        .status("open")
        .metadata(serde_json::json!({"key": key, "day": day, "limit": per_day}))
        .deterministic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_raised_by_a_higher_limit_of_its_own_quota_alone() {
        let day = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
        let throttle = |executions, fuel| Throttle {
            per_tenant_daily_exec_limit: executions,
            per_tenant_daily_fuel: fuel,
            ..Throttle::default()
        };
        let reason = used_up(3, EXECUTIONS_QUOTA, day);
        assert!(is_raised(&reason, &throttle(Some(4), Some(1))) && is_raised(&reason, &throttle(None, Some(1))));
        assert!(!is_raised(&reason, &throttle(Some(3), None)) && !is_raised(&reason, &throttle(Some(2), None)));
        for other in ["", USED, "the tenant has used its x of exec.per_tenant.daily of", "its row cannot be read"] {
            assert!(!is_raised(other, &throttle(None, None)), "{other}");
        }
    }
}

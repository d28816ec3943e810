//! Cancels, gives back and revives requests.

use uuid::Uuid;

use crate::host::quotas::FUEL_QUOTA;
use crate::host::{Host, HostError};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger as _, WorkQueue as _};
use crate::request::lifecycle;
use crate::request::{Charges, Phase};
use crate::span::seal::VerifiedSpan;

impl Host {
    /// Gives back a claimed request that will not be finished. Its attempt ends without a result, and the next may begin at
    /// once.
    ///
    /// # Errors
    /// A conflict if the attempt has ended in the meantime.
    pub async fn hand_back(&self, running: &VerifiedSpan) -> Result<VerifiedSpan, HostError> {
        let checked = self.check(running).await?;
        let mut drafts = self.unknown_outcomes(running).await?;
        drafts.extend(lifecycle::hand_back(&checked.open(), &self.key(), self.inner.ledger.now().await?));
        self.write_last(&running.tenant_id, drafts).await
    }

    /// Cancels a request that has not ended. If it is running, its attempt is recorded as cancelled. The worker stops at its
    /// next heartbeat, and a result that it still returns is refused. `who` is recorded as the one who asked for it.
    ///
    /// # Errors
    /// [`NotRunnable::Ended`](crate::request::NotRunnable::Ended); a conflict if the request changed in the meantime.
    pub async fn cancel(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let ledger = &self.inner.ledger;
        let checked = self.check(&ledger.get(&Scope::runtime(tenant), tenant, request).await?).await?;
        let now = ledger.now().await?;
        let open = checked.open();
        let used = open.state.fuel_allowed.map(|fuel| Charges::of_attempt(now.day(), FUEL_QUOTA, fuel));
        let drafts = lifecycle::cancel(&open, who, &self.key(), used.as_ref(), now)?;
        if checked.state.phase != Phase::Running {
            return self.write_last(tenant, drafts).await;
        }
        let mut batch = self.unknown_outcomes(&checked.span).await?;
        batch.extend(drafts);
        let cancelled = self.write_last(tenant, batch).await?;
        self.close_late_calls(&checked.span).await;
        Ok(cancelled)
    }

    /// Schedules a request again that is dead, cancelled or ended in error. It gets as many attempts as at first, and no
    /// deadline. A request that was refused is refused again. `who` is recorded as the one who asked for it.
    ///
    /// # Errors
    /// [`NotRunnable::NotEnded`](crate::request::NotRunnable::NotEnded); the reason if the request is refused; a conflict if it
    /// changed in the meantime.
    pub async fn revive(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let ledger = &self.inner.ledger;
        let checked = self.check(&ledger.get(&Scope::runtime(tenant), tenant, request).await?).await?;
        let draft = lifecycle::revive(&checked.open(), who, ledger.now().await?)?;
        self.write_last(tenant, vec![draft]).await
    }
}

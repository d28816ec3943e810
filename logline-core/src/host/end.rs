//! Ending, giving back and reviving requests.

use uuid::Uuid;

use crate::host::claim::FUEL_QUOTA;
use crate::host::{Host, HostError};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger as _, WorkQueue as _};
use crate::request::lifecycle;
use crate::request::{Charges, Phase};
use crate::span::seal::VerifiedSpan;

impl Host {
    /// Gives back what was claimed and will not be finished: its attempt ends without a result, and the next may begin at once.
    ///
    /// # Errors
    /// A conflict where the attempt has ended meanwhile.
    pub async fn hand_back(&self, running: &VerifiedSpan) -> Result<VerifiedSpan, HostError> {
        let checked = self.check(running).await?;
        let drafts = lifecycle::hand_back(&checked.open(), &self.key(), self.inner.ledger.now().await?);
        let handed_back = self.write_last(&running.tenant_id, drafts).await?;
        self.close_open_calls(running).await?;
        Ok(handed_back)
    }

    /// Ends a request that has not ended. If it is running its attempt is recorded as cancelled; the worker stops at its next
    /// heartbeat, and what it still returns is refused.
    ///
    /// # Errors
    /// [`NotRunnable::Ended`](crate::request::NotRunnable::Ended); a conflict where it changed meanwhile.
    pub async fn cancel(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let ledger = &self.inner.ledger;
        let checked = self.check(&ledger.get(&Scope::runtime(tenant), tenant, request).await?).await?;
        let now = ledger.now().await?;
        let open = checked.open();
        let used = open.state.fuel_allowed.map(|fuel| Charges::of_attempt(now.day(), FUEL_QUOTA, fuel));
        let cancelled = self.write_last(tenant, lifecycle::cancel(&open, who, &self.key(), used.as_ref(), now)?).await?;
        if checked.state.phase == Phase::Running {
            self.close_open_calls(&checked.span).await?;
        }
        Ok(cancelled)
    }

    /// Schedules a request again that is dead, cancelled or ended in error, with as many attempts as it had at first and
    /// without its deadline. One that was refused stays refused.
    ///
    /// # Errors
    /// [`NotRunnable::NotEnded`](crate::request::NotRunnable::NotEnded); why it was refused; a conflict where it changed meanwhile.
    pub async fn revive(&self, tenant: &str, request: Uuid, who: &str) -> Result<VerifiedSpan, HostError> {
        let ledger = &self.inner.ledger;
        let checked = self.check(&ledger.get(&Scope::runtime(tenant), tenant, request).await?).await?;
        let draft = lifecycle::revive(&checked.open(), who, ledger.now().await?)?;
        self.write_last(tenant, vec![draft]).await
    }
}

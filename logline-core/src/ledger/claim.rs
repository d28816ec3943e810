//! The claim for which a batch is appended.

use std::time::Duration;

use crate::ledger::error::{Conflict, LedgerError};
use crate::ledger::scope::Scope;
use crate::ledger::work::Work;
use crate::request::MAX_LEASE;
use crate::span::{SignedSpan, SpanKey};

/// The claim of a request that must be held when a batch is stored: the `running` version that is still the last one. The append extends
/// its lease, as a [heartbeat](crate::ledger::WorkQueue::heartbeat) does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    work: Work,
    lease: Duration,
}

impl HeldClaim {
    /// The claim that `running` began, whose lease then ends `lease` (at most [`MAX_LEASE`]) after the append.
    #[must_use]
    pub fn of(running: &SignedSpan, lease: Duration) -> Self {
        Self { work: Work::of(running), lease: lease.min(MAX_LEASE) }
    }

    /// The claim.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// How long the lease is then.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Checks that `scope` is that of the runtime of the request's tenant: nobody else holds claims.
    ///
    /// # Errors
    /// [`LedgerError::Refused`].
    pub fn check_scope(&self, scope: &Scope) -> Result<(), LedgerError> {
        if *scope == Scope::runtime(&self.work.tenant_id) {
            return Ok(());
        }
        let reason = "an append for a claim needs the scope of the runtime of the request's tenant".to_owned();
        Err(LedgerError::Refused { reason })
    }

    /// The error if the claim is not held.
    #[must_use]
    pub fn lost(&self) -> Conflict {
        let Work { tenant_id, id, seq, .. } = &self.work;
        Conflict::ClaimLost { key: SpanKey { tenant_id: tenant_id.clone(), id: *id, seq: *seq } }
    }
}

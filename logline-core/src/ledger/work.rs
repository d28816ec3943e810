//! The work that a ledger holds open.
//!
//! Which requests are open, and which schedules and policies stand, follows from their last versions alone. Backends keep them in a table of their own, so that finding
//! work costs the same however long the history is; nothing else writes that table, and it can be made anew from the rows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::ledger::error::LedgerError;
use crate::ledger::{ActiveKind, Ledger, Signal};
use crate::span::SignedSpan;
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// Items that [`WorkQueue::claimable`] returns, at most.
pub const MAX_CLAIMABLE: usize = 100;

/// The longest that requests are held for who has taken them and may claim them.
pub const MAX_HOLD: Duration = Duration::from_secs(10);

/// A span that hosts attend to: enough to read it and to append its next version, and nothing of what it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Work {
    /// Its tenant.
    pub tenant_id: String,
    /// Its owner.
    pub owner_id: String,
    /// Its id.
    pub id: Uuid,
    /// Its last version.
    pub seq: u32,
    /// The hash of that version.
    pub curr_hash: Hash,
}

/// What one look may read: any number of small requests, and large ones up to some megabytes, whatever others have appended. What finds
/// no room is not due again for as long as what was taken.
#[derive(Debug, Default)]
pub struct PollBudget {
    large: usize,
}

impl PollBudget {
    /// Rows up to this [`weight`](crate::ledger::weight) are small.
    const SMALL: usize = 256 << 10;

    /// The weight of all large rows together.
    const LARGE: usize = 32 << 20;

    /// Whether there is room for a row of this weight. There is for the first.
    pub fn takes(&mut self, weight: usize) -> bool {
        if weight <= Self::SMALL {
            return true;
        }
        let before = self.large;
        self.large += weight;
        before == 0 || self.large <= Self::LARGE
    }
}

/// A look at the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// The ledger's time.
    pub now: Timestamp,
    /// What is due.
    pub due: Vec<Due>,
}

/// A due request with what a worker reads before it claims it.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its last version.
    pub request: SignedSpan,
    /// The last version of the span that it asks, which is its `parent_id` in its tenant, whoever may see that; `None` where
    /// there is none, or a tombstone.
    pub function: Option<Hash>,
}

/// What [`WorkQueue::rebuild`] found in the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Open requests.
    pub open: u64,
    /// ActiveKind schedules and policies.
    pub active: u64,
    /// Counters of today that are above zero.
    pub counters: u64,
}

/// A ledger that says which requests wait for a worker and counts what tenants use.
///
/// # Contract
/// - A request is open while its last version is `scheduled`, or `running` and not the first. A scheduled one is due at
///   `metadata.due_at` (at once where that is missing or no time), a running one again when its lease has ended:
///   `metadata.lease_ms` after its append, or the last [`WorkQueue::heartbeat`], by the ledger's clock.
/// - Claiming is appending the next version: of any number of workers one wins. The queue decides nothing, it only tells.
/// - Open work, what stands, and counters change in the append that changes them, or not at all. They hold nothing that is not in the rows,
///   except heartbeats.
/// - [`AppendOptions::limits`](crate::ledger::AppendOptions::limits) hold under any number of writers.
///
/// The queue belongs to hosts: it spans tenants, and shows ids and owners only.
#[async_trait]
pub trait WorkQueue: Ledger {
    /// The ledger's time, by which leases and days run.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn now(&self) -> Result<Timestamp, LedgerError>;

    /// Up to `limit` (at most [`MAX_CLAIMABLE`]) due requests that nobody has leased, in turns: the first of each tenant, then the
    /// second of each. Tenants come in order of their names, beginning after `after`, which a worker sets to the last tenant that
    /// it served, so that no tenant's backlog delays another's first request. Within a tenant by priority, then by due time.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn claimable(&self, limit: usize, after: Option<&str>) -> Result<Vec<Work>, LedgerError>;

    /// As [`WorkQueue::claimable`], with the rows: all that a poll of a worker asks, in one call. What it gets is not due for others
    /// for `hold` (at most [`MAX_HOLD`]), so that workers do not all run for the same requests; who claims in that time wins, as
    /// ever. Within a tenant the order may differ from `claimable`'s where others look at the same time. A row that cannot be read,
    /// or finds no [`PollBudget`], is left out.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn take(&self, limit: usize, after: Option<&str>, hold: Duration) -> Result<Polled, LedgerError>;

    /// Whether the request with this last version is due and not leased.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError>;

    /// A signal that changes soon after requests were appended by whatever host, and may change for nothing. It makes polls
    /// early; none may depend on it.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError>;

    /// Up to `limit` (at most [`MAX_ACTIVE`](crate::ledger::MAX_ACTIVE)) spans that stand for `kind`, of all tenants, in the
    /// order of (tenant, id), after one of them.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn active(&self, kind: ActiveKind, after: Option<&Work>, limit: usize) -> Result<Vec<Work>, LedgerError>;

    /// Extends the lease of a claim, [`Work::of`] the version that took the request, to `lease` (at most [`MAX_LEASE`]) from now. False where the request has another last version
    /// than `held`, or is not running: then the claim is lost and its work should stop.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError>;

    /// What `tenant` has used today of the quota `key`.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError>;

    /// Makes open work, what stands, and counters anew from the rows. Leases begin again. Reads every request; a repair, not routine.
    ///
    /// # Errors
    /// Where the store cannot be asked, or refuses; nothing has changed then.
    async fn rebuild(&self) -> Result<Rebuilt, LedgerError>;
}

impl Work {
    /// What the queue tells of `span`.
    #[must_use]
    pub fn of(span: &SignedSpan) -> Self {
        Self {
            tenant_id: span.tenant_id.clone(),
            owner_id: span.owner_id.clone(),
            id: span.id,
            seq: span.seq,
            curr_hash: span.seal.curr_hash,
        }
    }
}

/// One of each tenant, then another of each, up to `limit`.
pub fn in_turns<T>(tenants: impl IntoIterator<Item = impl IntoIterator<Item = T>>, limit: usize) -> Vec<T> {
    let mut tenants: VecDeque<_> = tenants.into_iter().map(IntoIterator::into_iter).collect();
    let mut turns = Vec::new();
    while turns.len() < limit
        && let Some(mut tenant) = tenants.pop_front()
    {
        if let Some(item) = tenant.next() {
            turns.push(item);
            tenants.push_back(tenant);
        }
    }
    turns
}

/// Forwards every call, so that a shared queue is a queue.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Q: WorkQueue + ?Sized> WorkQueue for Arc<Q> {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        (**self).now().await
    }

    async fn claimable(&self, limit: usize, after: Option<&str>) -> Result<Vec<Work>, LedgerError> {
        (**self).claimable(limit, after).await
    }

    async fn take(&self, limit: usize, after: Option<&str>, hold: Duration) -> Result<Polled, LedgerError> {
        (**self).take(limit, after, hold).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        (**self).is_due(work).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        (**self).arrivals().await
    }

    async fn active(&self, kind: ActiveKind, after: Option<&Work>, limit: usize) -> Result<Vec<Work>, LedgerError> {
        (**self).active(kind, after, limit).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        (**self).heartbeat(held, lease).await
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        (**self).used(tenant, key).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        (**self).rebuild().await
    }
}

//! The work queue: open requests, active schedules and policies, and quota counters.
//!
//! The last version of a span alone decides whether a request is open and whether a schedule or policy is active. Backends keep
//! the result in separate tables, so that the cost of finding work does not grow with the history. Only the backend writes
//! these tables, and [`WorkQueue::rebuild`] makes them again from the rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::ledger::error::LedgerError;
use crate::ledger::{ActiveKind, Cursor, DamagedRow, Ledger, Signal};
use crate::span::SignedSpan;
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// The largest number of items that [`WorkQueue::claimable`] returns.
pub const MAX_CLAIMABLE: usize = 100;

/// The longest time for which [`WorkQueue::take`] holds requests for the worker that took them.
pub const MAX_HOLD: Duration = Duration::from_secs(10);

/// A reference to the last version of a request, schedule or policy: enough to read it and to append its next version. It has
/// nothing of the content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Work {
    /// The tenant of the span.
    pub tenant_id: String,
    /// The owner of the span.
    pub owner_id: String,
    /// The id of the span.
    pub id: Uuid,
    /// The `seq` of its last version.
    pub seq: u32,
    /// The `curr_hash` of that version.
    pub curr_hash: Hash,
}

/// How much one poll may return: every small request, and large requests up to 32 MiB together. This limits the memory of a
/// worker, however large the requests of others are. A request that does not fit is left out of the poll, and is held like
/// those that were returned.
#[derive(Debug, Default)]
pub struct PollBudget {
    large: usize,
}

impl PollBudget {
    /// The largest [`weight`](crate::ledger::weight) of a small row, in bytes.
    const SMALL: usize = 256 << 10;

    /// The largest weight of all large rows together, in bytes.
    const LARGE: usize = 32 << 20;

    /// Whether a row of this weight fits, and counts it. The first large row always fits.
    pub fn takes(&mut self, weight: usize) -> bool {
        if weight <= Self::SMALL {
            return true;
        }
        let before = self.large;
        self.large += weight;
        before == 0 || self.large <= Self::LARGE
    }
}

/// The tenants that a call of the queue looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Tenants {
    /// All of them.
    #[default]
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Tenants {
    /// Whether `tenant` is one of them.
    #[must_use]
    pub fn contains(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(tenants) => tenants.contains(tenant),
        }
    }

    /// Their names in order; `None` for all tenants.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        match self {
            Self::All => None,
            Self::Only(tenants) => Some(tenants.iter().map(String::as_str).collect()),
        }
    }
}

/// The tenants that have new rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The tenants.
    pub tenants: Tenants,
    /// Where the next call goes on.
    pub cursor: Cursor,
}

/// The most rows that one call of [`WorkQueue::touched`] looks at.
pub const MAX_TOUCHED: usize = 1000;

/// What a worker asks the queue for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Poll {
    /// The most requests, at most [`MAX_CLAIMABLE`].
    pub limit: usize,
    /// The tenants of the requests.
    pub tenants: Tenants,
    /// The tenant after which the poll begins, usually the last one that the worker served.
    pub after: Option<String>,
    /// For how long the requests are not offered to other workers, at most [`MAX_HOLD`].
    pub hold: Duration,
    /// The most requests of one tenant, together with those in `running`. `None`: only `limit` applies.
    pub per_tenant: Option<usize>,
    /// How many requests of each tenant the worker is carrying out already.
    pub running: BTreeMap<String, usize>,
}

impl Poll {
    /// A poll for up to `limit` requests of all tenants, which holds nothing.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.min(MAX_CLAIMABLE), ..Self::default() }
    }

    /// Sets the most requests of one tenant, and how many of them the worker is carrying out already.
    #[must_use]
    pub fn per_tenant(mut self, most: usize, running: BTreeMap<String, usize>) -> Self {
        (self.per_tenant, self.running) = (Some(most), running);
        self
    }

    /// How many requests of `tenant` the poll may return.
    #[must_use]
    pub fn room_of(&self, tenant: &str) -> usize {
        let most = self.per_tenant.unwrap_or(usize::MAX);
        most.saturating_sub(self.running.get(tenant).copied().unwrap_or(0)).min(self.limit)
    }

    /// Sets the tenants.
    #[must_use]
    pub fn tenants(mut self, tenants: Tenants) -> Self {
        self.tenants = tenants;
        self
    }

    /// Sets the tenant after which the poll begins.
    #[must_use]
    pub fn after(mut self, tenant: impl Into<Option<String>>) -> Self {
        self.after = tenant.into();
        self
    }

    /// Sets for how long the requests are not offered to other workers.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold.min(MAX_HOLD);
        self
    }
}

/// The result of a poll.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// The time of the ledger's clock.
    pub now: Timestamp,
    /// The requests that are due and were taken.
    pub due: Vec<Due>,
    /// Requests that were taken, but whose rows cannot be read. A worker parks them.
    pub unreadable: Vec<DamagedRow>,
}

impl Polled {
    /// How many requests were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.due.len() + self.unreadable.len()
    }
}

/// Keeps a request from being offered, although its last version is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// The tenant of the request.
    pub tenant_id: String,
    /// The id of the request.
    pub id: Uuid,
    /// The last version of the request.
    pub seq: u32,
    /// When it is due again. `None`: not before it has another version, or the queue is rebuilt.
    pub until: Option<Timestamp>,
    /// Why, for people. Longer texts are cut to [`Parking::MAX_REASON`] bytes.
    pub reason: String,
}

impl Parking {
    /// Parks the request whose last version is `span`.
    #[must_use]
    pub fn of(span: &SignedSpan, until: Option<Timestamp>, reason: String) -> Self {
        Self { tenant_id: span.tenant_id.clone(), id: span.id, seq: span.seq, until, reason }
    }

    /// Parks a request whose last version cannot be read. `None` if its key cannot be read either.
    #[must_use]
    pub fn of_damaged(row: DamagedRow) -> Option<Self> {
        let reason = format!("its row cannot be read: {}", row.reason);
        Some(Self { id: row.id.parse().ok()?, seq: row.seq.parse().ok()?, tenant_id: row.tenant_id, until: None, reason })
    }

    /// The longest reason, in bytes.
    pub const MAX_REASON: usize = 500;

    /// The reason, cut to [`Parking::MAX_REASON`] bytes.
    #[must_use]
    pub fn short_reason(&self) -> &str {
        &self.reason[..self.reason.floor_char_boundary(Self::MAX_REASON)]
    }
}

/// What the queue knows of an open request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Its last version.
    pub work: Work,
    /// When it is due: its due time, the end of its lease or of a hold, or the end of its parking. `None` if it is parked
    /// without an end.
    pub due: Option<Timestamp>,
    /// Whether a worker has claimed it.
    pub is_leased: bool,
    /// Why it is parked; `None` if it is not.
    pub parked: Option<String>,
}

impl Waiting {
    /// What a queue knows of a request. Only backends need this.
    #[must_use]
    pub fn new(work: Work, due: Option<Timestamp>, is_leased: bool, parked: Option<String>) -> Self {
        Self { work, due, is_leased, parked }
    }
}

/// A due request, with what a worker needs before it claims it.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// The last version of the request.
    pub request: SignedSpan,
    /// The `curr_hash` of the last version of the function that the request asks for, whatever its visibility. The function is
    /// the span whose id is the request's `parent_id`, in the same tenant. `None` if it does not exist or is a tombstone.
    pub function: Option<Hash>,
}

/// The numbers of entries that [`WorkQueue::rebuild`] made from the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Open requests, including leased ones.
    pub open: u64,
    /// Active schedules and policies.
    pub active: u64,
    /// Quota counters of today.
    pub counters: u64,
    /// Memories that can be found. Their vectors are gone: they are pending again.
    pub memories: u64,
}

/// A ledger that lists the requests that wait for a worker, and counts the quota that tenants use.
///
/// # Contract
/// - A request is open if its last version is `scheduled`, or is `running` and not the first version. A tombstone is not
///   open, nor is a version with the largest possible `seq`, because it cannot have a next version.
/// - A scheduled request is due at `metadata.due_at`, or at once if that is missing or not a valid time. A running request is
///   due again when its lease ends, by the ledger's clock: `metadata.lease_ms` after its append, or later if a
///   [`WorkQueue::heartbeat`] extended it.
/// - A worker claims a request by appending its next version. If several workers try, one wins. The append decides this, not
///   the queue: the queue only lists requests.
/// - A parked request is not offered before its parking ends ([`WorkQueue::park`]), or before it has another version.
/// - Open requests, active spans and counters change in the same transaction as the rows. They can be computed from the rows,
///   except for heartbeats, holds and parking.
/// - [`AppendOptions::limits`](crate::ledger::AppendOptions::limits) hold with any number of writers.
///
/// The queue is for hosts: it covers all tenants. Except for [`WorkQueue::take`], it shows ids, owners and hashes only, and why a
/// request is parked.
#[async_trait]
pub trait WorkQueue: Ledger {
    /// The time of the ledger's clock. Leases, due times and quota days follow this clock.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn now(&self) -> Result<Timestamp, LedgerError>;

    /// Up to [`Poll::limit`] due requests that no worker leases or holds. Tenants take turns: the first request of each tenant,
    /// then the second of each. Tenants are ordered by name and begin after [`Poll::after`]. A worker passes the last tenant
    /// that it served, so that the backlog of one tenant does not delay the first request of another. The requests of one
    /// tenant are ordered by priority, then by due time. Nothing is held.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError>;

    /// As [`WorkQueue::claimable`], but with the rows: everything that a worker needs for one poll, in one call.
    ///
    /// The requests are not due again for [`Poll::hold`], so that workers do not all try to claim the same ones. A hold is not
    /// a lock: any worker may still claim a held request, and the first claim wins. If other workers poll at the same time, the
    /// order of the requests of one tenant may differ from that of `claimable`. A row that does not fit into the
    /// [`PollBudget`] is left out.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError>;

    /// Parks requests: the queue does not offer them before the given times. The ledger's rows do not change, and
    /// [`WorkQueue::rebuild`] forgets it. A request that has another last version than the one named is left alone.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached. Some of the requests may be parked then.
    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError>;

    /// What the queue knows of a request. `None` if it is not open.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError>;

    /// Up to `limit` (at most [`MAX_ACTIVE`](crate::ledger::MAX_ACTIVE)) open requests of these tenants, ordered by (tenant, id):
    /// those that are due, leased, held, parked, or due later. Begins after `after`, a (tenant, id), or with the first request.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError>;

    /// Whether the request is due and neither leased nor held. False if `work` is not its last version.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError>;

    /// A signal that changes soon after any host has appended requests. It may also change without a reason, and it may miss
    /// changes. Use it to poll earlier, but always poll at intervals as well.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError>;

    /// Up to `limit` (at most [`MAX_ACTIVE`](crate::ledger::MAX_ACTIVE)) active spans of this kind and these tenants, ordered by
    /// (tenant, id), without those that were refused. Begins after `after`, a (tenant, id), or with the first span.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError>;

    /// Takes active spans off the list, because their signers may not sign them: everybody can write such rows. They are listed
    /// again after [`WorkQueue::offer_active`], a rebuild, or another version.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached. Some of the spans may be off the list then.
    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError>;

    /// Lists the refused spans of these tenants again. A host calls this when it obeys another manifest, because that may name
    /// their signers.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError>;

    /// The tenants that have rows after `after`, a cursor of an earlier call or of append order, as far as append order is final.
    /// All tenants without a cursor, or if there are too many rows to look at.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError>;

    /// Extends the lease of a claim, so that it ends `lease` (at most [`MAX_LEASE`](crate::request::MAX_LEASE)) from now.
    /// `held` is [`Work::of`] the claim. False if the claim is lost: the last version of the request is no longer `held`, or is
    /// not running. The worker should then stop its work.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError>;

    /// The units of the quota `key` that `tenant` has used today, on the ledger's UTC day.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached.
    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError>;

    /// Makes open requests, active spans, counters and the index of memories again from the rows. Leases begin again at their full
    /// length, holds end, and memories have no vectors. It reads every request, function, policy and memory: use it for repair only.
    ///
    /// # Errors
    /// [`LedgerError`] if the store cannot be reached or refuses. Nothing has changed then.
    async fn rebuild(&self) -> Result<Rebuilt, LedgerError>;
}

impl Work {
    /// The reference to `span`, which should be a last version.
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

/// Takes the first item of each tenant, then the second of each, and so on, up to `limit` items in all.
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

/// Forwards every call, so that an `Arc` of a queue can be used as a queue.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Q: WorkQueue + ?Sized> WorkQueue for Arc<Q> {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        (**self).now().await
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        (**self).claimable(poll).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        (**self).take(poll).await
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        (**self).park(parkings).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        (**self).waiting(tenant, id).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        (**self).open_requests(tenants, after, limit).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        (**self).is_due(work).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        (**self).arrivals().await
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        (**self).active(kind, tenants, after, limit).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        (**self).refuse_active(kind, refused).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        (**self).offer_active(kind, tenants).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        (**self).touched(after).await
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

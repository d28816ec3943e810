//! The in-memory ledger. It is a store for tests, and the model with which the conformance suite compares every other backend.

mod queue;
mod search;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use self::queue::Queue;
use self::search::Memories;
use crate::ledger::chain::{self, Decision, Head};
use crate::ledger::quota::{self, Uses};
use crate::ledger::scope::Scope;
use crate::ledger::search::{Hit, Pending, Search, SearchQuery, Vector, VectorModel, VectorSupport, runtime_of};
use crate::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Conflict, Cursor, Due, HeldClaim, Inspection, Ledger, LedgerError,
    MAX_ACTIVE, Order, Outcome, Page, Parking, Poll, Polled, Position, Premise, Query, Row, Signal, Tenants, Touched, Versions,
    Waiting, Watch, WatchFrom, Work, WorkQueue, tail, weight, work,
};
use crate::request::MAX_LEASE;
use crate::span::SignedSpan;
use crate::span::seal::VerifiedSpan;
use crate::value::clock::{Clock, SystemClock};
use crate::value::timestamp::Timestamp;

/// A ledger in memory. All clones use the same ledger, and it is gone when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryLedger {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    signal: Arc<Signal>,
    clock: Arc<dyn Clock>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), signal: Arc::default(), clock: Arc::new(SystemClock) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Rows in append order. Row number `n` is at index `n - 1`.
#[derive(Debug, Default)]
struct State {
    rows: Vec<Arc<SignedSpan>>,
    /// INVARIANT: each chain lists the indexes of its versions in ascending, gapless `seq`.
    chains: BTreeMap<(String, Uuid), Vec<usize>>,
    queue: Queue,
    memories: Memories,
}

const MAX_BATCH: usize = 10_000;
const MAX_PAGE: usize = 1000;

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty ledger whose leases, due times and quota days follow `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { clock, ..Shared::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock. If it did, the rows would still be complete, so poisoning is ignored.
        self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn chain(&self, tenant: &str, id: Uuid) -> &[usize] {
        self.chains.get(&(tenant.to_owned(), id)).map_or(&[], Vec::as_slice)
    }

    fn row(&self, index: usize) -> Option<&Arc<SignedSpan>> {
        self.rows.get(index)
    }

    fn head(&self, span: &SignedSpan) -> Option<&Arc<SignedSpan>> {
        self.last(&span.tenant_id, span.id)
    }

    fn last(&self, tenant: &str, id: Uuid) -> Option<&Arc<SignedSpan>> {
        self.chain(tenant, id).last().and_then(|index| self.row(*index))
    }

    /// The first premise that does not hold.
    fn broken(&self, premises: &[Premise]) -> Option<Conflict> {
        let head = |premise: &Premise| self.last(&premise.key().tenant_id, premise.key().id).map(|row| &row.seal.curr_hash);
        premises.iter().find_map(|premise| premise.check(head(premise)).err())
    }

    /// Extends the lease of a claim, or says that it is lost.
    fn lost(&mut self, claim: Option<&HeldClaim>, now: Timestamp) -> Option<Conflict> {
        let claim = claim?;
        let is_held = self.queue.extend(claim.work(), now.saturating_add(claim.lease()));
        (!is_held).then(|| claim.lost())
    }

    fn version(&self, span: &SignedSpan) -> Option<&Arc<SignedSpan>> {
        let chain = self.chain(&span.tenant_id, span.id);
        chain.iter().filter_map(|index| self.row(*index)).find(|row| row.seq == span.seq)
    }

    fn append(&mut self, span: VerifiedSpan, options: &AppendOptions, uses: &mut Uses) -> Result<AppendReceipt, LedgerError> {
        let head = self.head(&span).cloned();
        let view = head.as_deref().map(|h| Head {
            seq: h.seq,
            curr_hash: &h.seal.curr_hash,
            owner_id: &h.owner_id,
            entity_type: &h.entity_type,
        });
        match chain::decide(&span, view)? {
            Decision::Insert => {
                let today = uses.today();
                uses.add(&span, &options.limits, |key| Ok(self.queue.used(today, &span.tenant_id, key)))?;
                let receipt = AppendReceipt::new(span.key(), span.seal.curr_hash, Outcome::Appended);
                self.chains.entry((span.tenant_id.clone(), span.id)).or_default().push(self.rows.len());
                self.rows.push(Arc::new(span.into_signed()));
                Ok(receipt)
            }
            Decision::LookUp => {
                let existing = self.version(&span).map(Arc::as_ref);
                let outcome = chain::decide_existing(&span, head.map_or(0, |h| h.seq), existing, options)?;
                let hash = existing.map_or(span.seal.curr_hash, |e| e.seal.curr_hash);
                Ok(AppendReceipt::new(span.key(), hash, outcome))
            }
        }
    }

    /// Removes all rows after the first `len`.
    fn rollback(&mut self, len: usize) {
        for row in self.rows.drain(len..) {
            let key = (row.tenant_id.clone(), row.id);
            if let Some(chain) = self.chains.get_mut(&key) {
                chain.pop();
                if chain.is_empty() {
                    self.chains.remove(&key);
                }
            }
        }
    }

    /// Whether a scan returns `row`. Its position is not checked.
    fn shows(&self, row: &SignedSpan, scope: &Scope, query: &Query) -> bool {
        if !query.matches(row) || !scope.may_read(row, query.tenant.as_deref()) {
            return false;
        }
        match query.versions {
            Versions::All => true,
            Versions::Latest => !row.is_deleted && self.is_last(row),
            Versions::Last => self.is_last(row),
        }
    }

    fn is_last(&self, row: &SignedSpan) -> bool {
        self.head(row).is_some_and(|head| head.seq == row.seq)
    }

    /// The indexes of the rows after `after`, in `order`.
    fn ordered(&self, order: Order, after: Option<&Position>) -> Box<dyn Iterator<Item = usize> + '_> {
        match (order, after) {
            (Order::Append, Some(Position::Append(number))) => Box::new(index_of(number.saturating_add(1))..self.rows.len()),
            (Order::Newest, Some(Position::Append(number))) => Box::new((0..index_of(*number).min(self.rows.len())).rev()),
            (Order::Newest, _) => Box::new((0..self.rows.len()).rev()),
            (Order::Chain, after) => {
                let after = match after {
                    Some(Position::Chain { tenant_id, id, seq, .. }) => Some((tenant_id.clone(), id.clone(), *seq)),
                    _ => None,
                };
                Box::new(self.chains.values().flatten().copied().filter(move |index| {
                    let (Some(after), Some(row)) = (&after, self.row(*index)) else { return true };
                    (row.tenant_id.as_str(), row.id.to_string().as_str(), i64::from(row.seq))
                        > (after.0.as_str(), after.1.as_str(), after.2)
                }))
            }
            (_, _) => Box::new(0..self.rows.len()),
        }
    }
}

/// The index of a row number. Numbers start at 1. A number from a forged cursor may be anything.
fn index_of(number: i64) -> usize {
    usize::try_from(number.saturating_sub(1)).unwrap_or(0)
}

fn number_of(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for MemoryLedger {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        if batch.len() > MAX_BATCH {
            return Err(LedgerError::BatchTooLarge { spans: batch.len(), max: MAX_BATCH });
        }
        for span in &batch {
            scope.check_append(span)?;
        }
        quota::check_limits(&options.limits, batch.iter().map(|span| &***span))?;
        options.held.as_ref().map_or(Ok(()), |held| held.check_scope(scope))?;
        let receipts = {
            let mut state = self.state();
            let now = self.shared.clock.now();
            let mut uses = Uses::on(now.day());
            let rows_before = state.rows.len();
            let mut receipts = Vec::with_capacity(batch.len());
            let broken = state.broken(&options.premises).or_else(|| state.lost(options.held.as_ref(), now));
            for span in batch {
                let admitted = state.append(span, options, &mut uses);
                let relied = admitted.and_then(|receipt| match &broken {
                    Some(broken) if receipt.outcome == Outcome::Appended => Err(broken.clone().into()),
                    _ => Ok(receipt),
                });
                match relied {
                    Ok(receipt) => receipts.push(receipt),
                    Err(e) => {
                        state.rollback(rows_before);
                        return Err(e);
                    }
                }
            }
            let State { rows, queue, memories, .. } = &mut *state;
            rows.iter().skip(rows_before).for_each(|row| {
                queue.update(row, now);
                memories.update(row);
            });
            queue.charge(&uses);
            receipts
        };
        self.shared.signal.notify();
        Ok(receipts)
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        let state = self.state();
        let head = state.chain(tenant, id).last().and_then(|index| state.row(*index));
        head.filter(|row| !row.is_deleted && scope.may_read(row, Some(tenant)))
            .map(|row| row.as_ref().clone())
            .ok_or_else(|| LedgerError::NotFound { tenant: tenant.to_owned(), id })
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        let state = self.state();
        let versions = state.chain(tenant, id).iter().filter_map(|index| state.row(*index));
        Ok(versions
            .filter(|row| row.seq >= from_seq && scope.may_read(row, Some(tenant)))
            .take(limit.min(MAX_PAGE))
            .map(|row| row.as_ref().clone())
            .collect())
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        let after = cursor.map(|c| Position::of(c, query.order)).transpose()?;
        let mut until = match query.until.as_ref().map(|c| Position::of(c, Order::Append)).transpose()? {
            Some(Position::Append(number)) => number,
            _ => i64::MAX,
        };
        let mut since = i64::MIN;
        let size = query.page_size(MAX_PAGE);
        let state = self.state();
        let mut visited = None;
        if let Some(most) = query.visits().filter(|_| !scope.is_nobody()) {
            let looked_at = state
                .ordered(query.order, after.as_ref())
                .filter(|index| number_of(*index) <= until)
                .filter(|index| state.row(*index).is_some_and(|row| query.looks_at(scope, row, state.is_last(row))));
            let (count, last) = looked_at.take(most).fold((0, None), |(count, _), index| (count + 1, Some(number_of(index))));
            let end = last.filter(|_| count == most);
            match query.order {
                Order::Newest => since = end.unwrap_or(since),
                _ => until = end.unwrap_or(until),
            }
            visited = Some((count, end.map(|number| Position::Append(number).to_cursor())));
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let max_bytes = query.page_bytes(usize::MAX);
        let mut matching = state
            .ordered(query.order, after.as_ref())
            .filter(|index| (since..=until).contains(&number_of(*index)))
            .filter_map(|index| state.row(index).map(|row| (index, row)))
            .filter(|(_, row)| state.shows(row, scope, query));
        while rows.len() < size
            && bytes < max_bytes
            && let Some((index, row)) = matching.next()
        {
            if max_bytes < usize::MAX {
                bytes += weight(&crate::span::canonical::payload(&row.span, &row.seal.public_key));
            }
            let position = match query.order {
                Order::Append | Order::Newest => Position::Append(number_of(index)),
                Order::Chain => Position::Chain {
                    tenant_id: row.tenant_id.clone(),
                    id: row.id.to_string(),
                    seq: row.seq.into(),
                    number: number_of(index),
                },
            };
            rows.push(Row { cursor: position.to_cursor(), span: Ok(row.as_ref().clone()) });
        }
        let more = matching.next().is_some();
        let next = rows.last().map(|row| row.cursor.clone()).filter(|_| more);
        let page = Page::new(rows, next);
        let end = number_of(state.rows.len()).saturating_sub(1);
        let page = if more || query.order != Order::Append { page } else { page.reached(Position::Append(end).to_cursor()) };
        Ok(match visited {
            Some((count, end)) => page.visited(count, end),
            None => page,
        })
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        tail(self.clone(), scope.clone(), from, Arc::clone(&self.shared.signal)).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        Ok(Inspection::new(self.state().rows.len() as u64, Vec::new()))
    }

    fn capability(&self) -> Capability {
        Capability::new("memory", "none: rows exist only while the process runs", MAX_BATCH, MAX_PAGE)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for MemoryLedger {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        Ok(self.shared.clock.now())
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        Ok(self.state().queue.claimable(poll, self.shared.clock.now()))
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        let mut state = self.state();
        let now = self.shared.clock.now();
        let found = state.queue.claimable(poll, now);
        if !poll.hold.is_zero() {
            let until = now.saturating_add(poll.hold.min(work::MAX_HOLD));
            found.iter().for_each(|work| state.queue.hold(work, until));
        }
        let mut room = work::PollBudget::default();
        let due = found.into_iter().filter_map(|work| {
            let request = state.last(&work.tenant_id, work.id)?;
            if !room.takes(weight(&crate::span::canonical::payload(&request.span, &request.seal.public_key))) {
                return None;
            }
            let function = request.parent_id.and_then(|id| state.last(&work.tenant_id, id)).filter(|span| !span.is_deleted);
            Some(Due { request: request.as_ref().clone(), function: function.map(|span| span.seal.curr_hash) })
        });
        Ok(Polled { now, due: due.collect(), unreadable: Vec::new() })
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        let mut state = self.state();
        parkings.iter().for_each(|parking| state.queue.park(parking));
        Ok(())
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        Ok(self.state().queue.waiting(tenant, id))
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        Ok(self.state().queue.open_requests(tenants, after, limit.min(MAX_ACTIVE)))
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        Ok(self.state().queue.is_due(work, self.shared.clock.now()))
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        Ok(Arc::clone(&self.shared.signal))
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        Ok(self.state().queue.active(kind, tenants, after, limit.min(MAX_ACTIVE)))
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        let mut state = self.state();
        refused.iter().for_each(|work| state.queue.refuse_active(kind, work));
        Ok(())
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        self.state().queue.offer_active(kind, tenants);
        Ok(())
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        let state = self.state();
        let end = Position::Append(number_of(state.rows.len()).saturating_sub(1));
        let first = match after.map(|cursor| Position::of(cursor, Order::Append)).transpose()? {
            Some(Position::Append(number)) => Some(index_of(number.saturating_add(1))),
            _ => None,
        };
        let tenants = match first.map(|first| state.rows.get(first..).unwrap_or_default()) {
            Some(rows) if rows.len() <= work::MAX_TOUCHED => {
                Tenants::Only(rows.iter().map(|row| row.tenant_id.clone()).collect())
            }
            _ => Tenants::All,
        };
        Ok(Touched { tenants, cursor: end.to_cursor() })
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        let until = self.shared.clock.now().saturating_add(lease.min(MAX_LEASE));
        Ok(self.state().queue.extend(held, until))
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        Ok(self.state().queue.used(self.shared.clock.now().day(), tenant, key))
    }

    async fn rebuild(&self) -> Result<work::Rebuilt, LedgerError> {
        let mut state = self.state();
        let now = self.shared.clock.now();
        let State { rows, queue, memories, .. } = &mut *state;
        (*queue, *memories) = (Queue::default(), Memories::default());
        let mut uses = Uses::on(now.day());
        for row in rows.iter() {
            queue.update(row, now);
            memories.update(row);
            uses.add(row, &[], |_| Ok(0))?;
        }
        queue.charge(&uses);
        Ok(queue.size(memories.len()))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Search for MemoryLedger {
    async fn search_text(&self, scope: &Scope, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError> {
        let searched = query.searched(scope)?;
        Ok(searched.map_or_else(Vec::new, |searched| self.state().memories.by_text(&searched, query)))
    }

    async fn search_vector(&self, scope: &Scope, query: &SearchQuery, vector: &Vector) -> Result<Vec<Hit>, LedgerError> {
        let searched = query.searched(scope)?;
        Ok(searched.map_or_else(Vec::new, |searched| self.state().memories.by_vector(&searched, query, vector)))
    }

    async fn put_vector(&self, scope: &Scope, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError> {
        Ok(self.state().memories.put(runtime_of(scope)?, id, seq, vector))
    }

    async fn pending(
        &self,
        scope: &Scope,
        model: &VectorModel,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Pending>, LedgerError> {
        Ok(self.state().memories.pending(runtime_of(scope)?, model, after, limit))
    }

    async fn vector_support(&self) -> Result<VectorSupport, LedgerError> {
        Ok(VectorSupport::Flat)
    }
}

//! Open requests, active spans and quota counters of the in-memory ledger.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use uuid::Uuid;

use crate::ledger::quota::Uses;
use crate::ledger::work::{MAX_CLAIMABLE, Parking, Poll, Rebuilt, Waiting, in_turns};
use crate::ledger::{ActiveKind, Activity, Tenants, Work};
use crate::request::QueueEntry;
use crate::span::SignedSpan;
use crate::value::timestamp::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Queue {
    open: BTreeMap<(String, Uuid), Open>,
    active: BTreeMap<(ActiveKind, String, Uuid), Work>,
    /// Active spans that are not listed.
    refused: BTreeMap<(ActiveKind, String, Uuid), Work>,
    day: NaiveDate,
    /// INVARIANT: has units of `day` only.
    used: BTreeMap<(String, String), i64>,
}

#[derive(Debug)]
struct Open {
    work: Work,
    /// `None` if it is parked without an end.
    ready: Option<Timestamp>,
    priority: u8,
    leased: bool,
    /// Why it is parked.
    parked: Option<String>,
}

impl Open {
    fn waiting(&self) -> Waiting {
        Waiting::new(self.work.clone(), self.ready, self.leased, self.parked.clone())
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.ready.is_some_and(|ready| ready <= now)
    }
}

impl Queue {
    /// Updates open requests and active spans for `span`. The caller passes all rows in append order.
    pub(super) fn update(&mut self, span: &SignedSpan, now: Timestamp) {
        let key = || (span.tenant_id.clone(), span.id);
        let activity = Activity::of(span);
        if activity != Activity::Never {
            for kind in [ActiveKind::Schedule, ActiveKind::Policy] {
                let key = (kind, span.tenant_id.clone(), span.id);
                self.active.remove(&key);
                self.refused.remove(&key);
            }
        }
        if let Activity::Active(kind) = activity {
            self.active.insert((kind, span.tenant_id.clone(), span.id), Work::of(span));
        }
        let (ready, priority, leased) = match QueueEntry::of(span, now) {
            None => return,
            Some(QueueEntry::Closed) => {
                self.open.remove(&key());
                return;
            }
            Some(QueueEntry::Scheduled { due, priority }) => (due, priority, false),
            Some(QueueEntry::Leased { lease, priority }) => (now.saturating_add(lease), priority, true),
        };
        self.open.insert(key(), Open { work: Work::of(span), ready: Some(ready), priority, leased, parked: None });
    }

    pub(super) fn claimable(&self, poll: &Poll, now: Timestamp) -> Vec<Work> {
        let (limit, after) = (poll.limit.min(MAX_CLAIMABLE), poll.after.as_deref());
        let mut tenants: BTreeMap<&str, Vec<&Open>> = BTreeMap::new();
        for ((tenant, _), open) in self.open.iter().filter(|(_, open)| open.is_due(now)) {
            if poll.tenants.contains(tenant) && poll.room_of(tenant) > 0 {
                tenants.entry(tenant).or_default().push(open);
            }
        }
        // Tenants after `after` come first, then the others.
        let (before, behind): (Vec<_>, Vec<_>) =
            tenants.into_iter().partition(|(tenant, _)| after.is_some_and(|a| *tenant <= a));
        let tenants = behind.into_iter().chain(before).take(limit).map(|(tenant, mut open)| {
            open.sort_by_key(|open| (std::cmp::Reverse(open.priority), open.ready, open.work.id));
            open.into_iter().take(poll.room_of(tenant)).map(|open| open.work.clone())
        });
        in_turns(tenants, limit)
    }

    pub(super) fn active(&self, kind: ActiveKind, tenants: &Tenants, after: Option<(&str, Uuid)>, limit: usize) -> Vec<Work> {
        let listed = self.active.iter().filter(|((of, tenant, id), _)| {
            *of == kind && tenants.contains(tenant) && after.is_none_or(|after| (tenant.as_str(), *id) > after)
        });
        listed.take(limit).map(|(_, work)| work.clone()).collect()
    }

    pub(super) fn refuse_active(&mut self, kind: ActiveKind, refused: &Work) {
        let key = (kind, refused.tenant_id.clone(), refused.id);
        if self.active.get(&key) == Some(refused) {
            self.active.remove(&key);
            self.refused.insert(key, refused.clone());
        }
    }

    pub(super) fn offer_active(&mut self, kind: ActiveKind, tenants: &Tenants) {
        let offered = self.refused.extract_if(.., |(of, tenant, _), _| *of == kind && tenants.contains(tenant));
        self.active.extend(offered);
    }

    /// Makes a request not due again before `until`.
    pub(super) fn hold(&mut self, work: &Work, until: Timestamp) {
        if let Some(open) = self.open.get_mut(&(work.tenant_id.clone(), work.id)) {
            open.ready = Some(until);
        }
    }

    pub(super) fn park(&mut self, parking: &Parking) {
        let open = self.open.get_mut(&(parking.tenant_id.clone(), parking.id));
        if let Some(open) = open.filter(|open| open.work.seq == parking.seq) {
            open.ready = parking.until;
            open.parked = Some(parking.short_reason().to_owned());
        }
    }

    pub(super) fn waiting(&self, tenant: &str, id: Uuid) -> Option<Waiting> {
        self.open.get(&(tenant.to_owned(), id)).map(Open::waiting)
    }

    pub(super) fn open_requests(&self, tenants: &Tenants, after: Option<(&str, Uuid)>, limit: usize) -> Vec<Waiting> {
        let listed = self
            .open
            .iter()
            .filter(|((tenant, id), _)| tenants.contains(tenant) && after.is_none_or(|after| (tenant.as_str(), *id) > after));
        listed.take(limit).map(|(_, open)| open.waiting()).collect()
    }

    pub(super) fn is_due(&self, work: &Work, now: Timestamp) -> bool {
        let open = self.open.get(&(work.tenant_id.clone(), work.id));
        open.is_some_and(|open| open.work == *work && open.is_due(now))
    }

    pub(super) fn extend(&mut self, held: &Work, until: Timestamp) -> bool {
        let open = self.open.get_mut(&(held.tenant_id.clone(), held.id));
        let Some(open) = open.filter(|open| open.leased && open.work == *held) else { return false };
        (open.ready, open.parked) = (Some(until), None);
        true
    }

    pub(super) fn used(&self, day: NaiveDate, tenant: &str, key: &str) -> u64 {
        let used = || self.used.get(&(tenant.to_owned(), key.to_owned())).copied();
        if self.day == day { used().and_then(|used| used.try_into().ok()).unwrap_or(0) } else { 0 }
    }

    pub(super) fn charge(&mut self, uses: &Uses) {
        if self.day != uses.today() {
            self.day = uses.today();
            self.used.clear();
        }
        for (key, units) in uses.units() {
            let used = self.used.entry(key.clone()).or_default();
            *used = used.saturating_add(*units);
        }
    }

    /// The numbers of entries, with this many memories.
    pub(super) fn size(&self, memories: usize) -> Rebuilt {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Rebuilt {
            open: count(self.open.len()),
            active: count(self.active.len() + self.refused.len()),
            counters: count(self.used.len()),
            memories: count(memories),
        }
    }
}

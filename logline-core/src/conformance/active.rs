//! Trials of active spans, and of what tells loops where to look.

use std::collections::BTreeSet;
use std::time::Duration;

use super::working::open;
use super::{Expect as _, OTHER, TENANT, USER, append, append_all, at, fail, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::work::MAX_TOUCHED;
use crate::ledger::{ActiveKind, Cursor, LedgerExt as _, Query, Tenants, Touched, Work, WorkQueue};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

/// A refused span is off the list until it is offered again, has another version, or the queue is rebuilt.
pub async fn a_refused_span_is_not_listed<Q: WorkQueue>(queue: &Q) {
    let policy = |tenant: &str, n| {
        let mut draft = note(n).tenant(tenant).owner("publisher").status("active");
        draft.columns_mut().entity_type = "policy".to_owned();
        seal(draft)
    };
    let (mine, theirs) = ([policy(TENANT, 1), policy(TENANT, 2), policy(TENANT, 3)], policy(OTHER, 4));
    append_all(queue, mine.to_vec()).await.or_fail("policies");
    append(queue, theirs.clone()).await;
    let kind = ActiveKind::Policy;
    let listed = async |tenants: &[&str]| {
        let tenants = Tenants::Only(tenants.iter().map(|tenant| (*tenant).to_owned()).collect());
        let works = queue.active(kind, &tenants, None, 10).await.or_fail("active");
        works.into_iter().map(|work| work.id).collect::<BTreeSet<_>>()
    };
    let ids = |spans: &[&VerifiedSpan]| spans.iter().map(|span| span.id).collect::<BTreeSet<_>>();
    let [one, two, three] = &mine;
    same(&listed(&[TENANT]).await, &ids(&[one, two, three]), "the policies of one tenant");
    same(&listed(&[]).await, &ids(&[]), "the policies of no tenant");
    let all = queue.active(kind, &Tenants::All, None, 10).await.or_fail("active");
    let page = Tenants::Only([OTHER, TENANT].map(str::to_owned).into());
    let second = all.first().map(|work| (work.tenant_id.as_str(), work.id));
    let rest = queue.active(kind, &page, second, 2).await.or_fail("active");
    same(&Some(rest.as_slice()), &all.get(1..3), "the second page of two tenants");
    queue.refuse_active(kind, &[Work::of(one), Work::of(two), Work::of(&theirs)]).await.or_fail("refuse");
    same(&listed(&[TENANT, OTHER]).await, &ids(&[three]), "policies that were not refused");
    queue.refuse_active(ActiveKind::Schedule, &[Work::of(three)]).await.or_fail("refuse");
    let upgraded = open(queue, next(two)).await;
    queue.refuse_active(kind, &[Work::of(two)]).await.or_fail("refuse an older version");
    same(&listed(&[TENANT, OTHER]).await, &ids(&[&upgraded, three]), "another version is listed again");
    queue.offer_active(kind, &Tenants::Only([OTHER.to_owned()].into())).await.or_fail("offer");
    same(&listed(&[TENANT, OTHER]).await, &ids(&[&upgraded, three, &theirs]), "what was offered again for one tenant");
    queue.offer_active(kind, &Tenants::All).await.or_fail("offer");
    same(&listed(&[TENANT]).await, &ids(&[one, &upgraded, three]), "what was offered again");
    queue.refuse_active(kind, &[Work::of(one)]).await.or_fail("refuse");
    same(&queue.rebuild().await.or_fail("rebuild").active, &4, "refused spans are active too");
    same(&listed(&[TENANT]).await, &ids(&[one, &upgraded, three]), "after a rebuild");
}

/// The queue tells which tenants have new rows, so that loops look only there.
pub async fn touched_tenants_are_told<Q: WorkQueue>(queue: &Q) {
    append(queue, seal(note(1))).await;
    let first = settled(queue, None, 1).await;
    same(&first.tenants, &Tenants::All, "without a cursor");
    same(&settled(queue, Some(&first.cursor), 1).await.tenants, &Tenants::Only(BTreeSet::new()), "nothing is new");
    append(queue, seal(note(2).tenant(OTHER))).await;
    let second = settled(queue, Some(&first.cursor), 2).await;
    same(&second.tenants, &Tenants::Only([OTHER.to_owned()].into()), "one tenant has a new row");
    append(queue, seal(note(3))).await;
    let third = settled(queue, Some(&second.cursor), 3).await;
    same(&third.tenants, &Tenants::Only([TENANT.to_owned()].into()), "the other has one");
    let both = settled(queue, Some(&first.cursor), 3).await;
    same(&both.tenants, &Tenants::Only([TENANT, OTHER].map(str::to_owned).into()), "both since the first call");
    let many: Vec<_> = (10..10 + MAX_TOUCHED as u128 + 1).map(|n| seal(note(n))).collect();
    let all = 3 + many.len();
    append_all(queue, many).await.or_fail("many notes");
    same(&settled(queue, Some(&third.cursor), all).await.tenants, &Tenants::All, "too many rows to tell");
    hold(queue.touched(Some(&Cursor::from_text("not a cursor"))).await.is_err(), "a forged cursor is refused");
}

/// What was touched when the place of so many rows in append order is final: a transaction of another test may hold it up.
async fn settled<Q: WorkQueue>(queue: &Q, after: Option<&Cursor>, rows: usize) -> Touched {
    let began = queue.now().await.or_fail("now");
    loop {
        let found = queue.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.or_fail("the timeline");
        if found.len() >= rows {
            return queue.touched(after).await.or_fail("touched");
        }
        let waited = queue.now().await.or_fail("now").since(began);
        hold(waited < Duration::from_secs(60), "rows come into append order within a minute");
    }
}

/// The queue lists the functions with status `scheduled` and the policies with status `active` of all tenants, page by page.
/// The last version of each decides.
pub async fn schedules_and_policies_are_active_until_their_last_version_says_otherwise<Q: WorkQueue>(queue: &Q) {
    let of = |tenant: &str, n: u128, entity_type: &str, status: &str| {
        Draft::new(entity_type).id(id(n)).tenant(tenant).owner(USER).who("user:alice").this("trial").at(at(n)).status(status)
    };
    let active = async |kind: ActiveKind, after: Option<&Work>, limit: usize| {
        let after = after.map(|work| (work.tenant_id.as_str(), work.id));
        queue.active(kind, &Tenants::All, after, limit).await.or_fail("active")
    };
    append(queue, seal(of(TENANT, 1, "function", "active"))).await;
    append(queue, seal(of(TENANT, 2, "policy", "scheduled"))).await;
    append(queue, seal(of(TENANT, 3, "note", "scheduled"))).await;
    for kind in [ActiveKind::Schedule, ActiveKind::Policy] {
        hold(active(kind, None, 10).await.is_empty(), "spans that are neither scheduled nor active must not be listed");
    }
    let mut scheduled = Vec::new();
    for (n, tenant) in [(6, TENANT), (5, OTHER), (4, TENANT)] {
        scheduled.push(open(queue, of(tenant, n, "function", "scheduled")).await);
    }
    let policy = open(queue, of(OTHER, 5 + 100, "policy", "active")).await;
    let works = |spans: &[&VerifiedSpan]| spans.iter().map(|span| Work::of(span)).collect::<Vec<_>>();
    let [six, five, four] = scheduled.as_slice() else { fail("there must be three schedules") };
    same(&active(ActiveKind::Schedule, None, 10).await, &works(&[four, six, five]), "schedules, by tenant and then by id");
    same(&active(ActiveKind::Policy, None, 10).await, &works(&[&policy]), "active policies");
    let page = active(ActiveKind::Schedule, None, 1).await;
    same(&page, &works(&[four]), "the first page of schedules");
    same(&active(ActiveKind::Schedule, page.last(), 1).await, &works(&[six]), "the next page of schedules");
    same(&active(ActiveKind::Schedule, Some(&Work::of(five)), 10).await, &Vec::new(), "schedules after the last one");
    let upgraded = open(queue, next(six).name("upgraded")).await;
    open(queue, next(four).deleted()).await;
    open(queue, next(five).status("active")).await;
    same(&active(ActiveKind::Schedule, None, 10).await, &works(&[&upgraded]), "schedules after new versions");
    let refused = append_all(queue, vec![seal(next(&upgraded).deleted()), seal(next(four).name("a fork"))]).await;
    hold(refused.is_err(), "a batch with a conflict must be refused");
    same(&active(ActiveKind::Schedule, None, 10).await, &works(&[&upgraded]), "schedules after a refused batch");
    let rebuilt = queue.rebuild().await.or_fail("rebuild");
    same(&(rebuilt.open, rebuilt.active), &(0, 2), "open requests and active spans that a rebuild found");
    same(&active(ActiveKind::Schedule, None, 10).await, &works(&[&upgraded]), "schedules after a rebuild");
}

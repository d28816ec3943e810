//! Trials of the work queue: which requests are open, and which of them a poll finds.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join;
use serde_json::json;

use super::counters::today;
use super::{Expect as _, OTHER, TENANT, USER, append, append_all, at, hold, id, next, note, same, seal};
use crate::keys::Verifier;
use crate::ledger::work::MAX_CLAIMABLE;
use crate::ledger::{Parking, Poll, Tenants, Waiting, Work, WorkQueue};
use crate::request::Charges;
use crate::span::draft::Draft;
use crate::span::rules::MAX_INTEGER;
use crate::span::seal::VerifiedSpan;
use crate::value::timestamp::Timestamp;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn request(tenant: &str, n: u128) -> Draft {
    Draft::new("request")
        .id(id(n))
        .tenant(tenant)
        .owner(USER)
        .who("user:alice")
        .this("function.run")
        .at(at(n))
        .status("scheduled")
}

pub(super) fn claim(before: &VerifiedSpan, lease: Duration) -> Draft {
    next(before).status("running").meta("lease_ms", u32::try_from(lease.as_millis()).unwrap_or(u32::MAX))
}

pub(super) async fn open<Q: WorkQueue>(queue: &Q, draft: Draft) -> VerifiedSpan {
    let span = seal(draft);
    append(queue, span.clone()).await;
    span
}

pub(super) async fn claimable<Q: WorkQueue>(queue: &Q, limit: usize, after: Option<&str>) -> Vec<Work> {
    let poll = Poll::new(limit).after(after.map(str::to_owned));
    let found = queue.claimable(&poll).await.or_fail("claimable");
    let polled = queue.take(&poll).await.or_fail("take");
    hold(polled.unreadable.is_empty(), "every row can be read");
    let due: Vec<_> = polled.due.iter().map(|due| Work::of(&due.request)).collect();
    same(&due, &found, "take and claimable must find the same requests");
    for due in polled.due {
        hold(queue.is_due(&Work::of(&due.request)).await.or_fail("is due"), "a request that was found must be due");
        due.request.check(&mut Verifier::new()).or_fail("verify the row that was found");
    }
    found
}

pub(super) async fn is_claimable<Q: WorkQueue>(queue: &Q, span: &VerifiedSpan) -> bool {
    let found = claimable(queue, MAX_CLAIMABLE, None).await;
    hold(found.iter().filter(|work| work.id == span.id).count() <= 1, "a request must be listed only once");
    found.contains(&Work::of(span))
}

/// A request from its first version to its end. It is due only while no worker has a lease on it.
pub async fn a_request_is_claimable_until_somebody_claims_it<Q: WorkQueue>(queue: &Q) {
    append(queue, seal(note(1))).await;
    let waiting = open(queue, request(TENANT, 2)).await;
    same(&claimable(queue, 10, None).await, &vec![Work::of(&waiting)], "the only open request");
    let claimed = open(queue, claim(&waiting, HOUR)).await;
    hold(claimable(queue, 10, None).await.is_empty(), "a leased request must not be due");
    let back = open(queue, next(&claimed).status("scheduled")).await;
    same(&claimable(queue, 10, None).await, &vec![Work::of(&back)], "a request that was scheduled again");
    let claimed = open(queue, claim(&back, Duration::ZERO)).await;
    same(&claimable(queue, 10, None).await, &vec![Work::of(&claimed)], "a request whose lease has ended");
    open(queue, next(&claimed).status("complete")).await;
    hold(claimable(queue, 10, None).await.is_empty(), "a completed request must not be due");
}

/// A request is not open if it has ended, was deleted, or has an unknown status.
pub async fn a_request_that_ends_leaves_the_queue<Q: WorkQueue>(queue: &Q) {
    for (n, status) in (0..).zip(["complete", "error", "dead", "cancelled", "somehow"]) {
        let waiting = open(queue, request(TENANT, n)).await;
        hold(is_claimable(queue, &waiting).await, "a scheduled request must be due");
        let ended = open(queue, next(&waiting).status(status)).await;
        hold(claimable(queue, 10, None).await.is_empty(), status);
        // A request that has ended can be scheduled again, for example a dead one that is revived.
        let revived = open(queue, next(&ended).status("scheduled")).await;
        hold(is_claimable(queue, &revived).await, "a revived request must be due");
        open(queue, next(&revived).deleted()).await;
        hold(claimable(queue, 10, None).await.is_empty(), "a deleted request must not be due");
    }
    // The first version of a request cannot be a claim.
    open(queue, request(TENANT, 99).status("running").meta("lease_ms", 0)).await;
    hold(claimable(queue, 10, None).await.is_empty(), "a running first version must not be open");
}

/// A poll returns the hash of the function's last version, so that a worker reads the function only if it has changed.
pub async fn a_poll_tells_the_last_version_of_the_function<Q: WorkQueue>(queue: &Q) {
    let function = |tenant: &str| note(7).tenant(tenant).owner("publisher");
    // The same id in another tenant is another function.
    append(queue, seal(function(OTHER))).await;
    let waiting = open(queue, request(TENANT, 1).parent(id(7))).await;
    let told = async || queue.take(&Poll::new(10)).await.or_fail("take").due.into_iter().next().or_fail("the request").function;
    same(&told().await, &None, "the hash of a function that does not exist");
    let first = seal(function(TENANT));
    let second = seal(next(&first));
    append_all(queue, vec![first, second.clone()]).await.or_fail("two versions");
    same(&told().await, &Some(second.seal.curr_hash), "the hash of the last version, although it is private");
    append(queue, seal(next(&second).deleted())).await;
    same(&told().await, &None, "the hash of a deleted function");
    let claimed = open(queue, claim(&waiting, HOUR)).await;
    for work in [Work::of(&waiting), Work::of(&claimed), Work { tenant_id: OTHER.to_owned(), ..Work::of(&waiting) }] {
        hold(!queue.is_due(&work).await.or_fail("is due"), "an old version, a leased one or another tenant must not be due");
    }
}

/// A request that one worker has taken is not offered to others while the hold lasts. A rebuild ends the hold.
pub async fn what_is_taken_is_held_for_a_while<Q: WorkQueue>(queue: &Q) {
    let mut spans = BTreeSet::new();
    for n in 0..6 {
        spans.insert(open(queue, request(if n < 4 { TENANT } else { OTHER }, n)).await.id);
    }
    let take = async |limit| {
        let polled = queue.take(&Poll::new(limit).hold(HOUR)).await.or_fail("take");
        polled.due.into_iter().map(|due| due.request).collect::<Vec<_>>()
    };
    // Three workers poll one after the other. No two of them get the same request, and tenants take turns.
    let [first, second, third] = [take(2).await, take(3).await, take(10).await];
    same(&[first.len(), second.len(), third.len()], &[2, 3, 1], "the number of requests for each worker");
    let tenants: BTreeSet<_> = first.iter().map(|request| request.tenant_id.as_str()).collect();
    same(&tenants.len(), &2, "the tenants of the first two requests");
    let taken: BTreeSet<_> = first.iter().chain(&second).chain(&third).map(|request| request.id).collect();
    same(&taken, &spans, "the requests that workers got together");
    hold(claimable(queue, 10, None).await.is_empty(), "a held request must not be claimable");
    let held = first.into_iter().next().or_fail("a request");
    hold(!queue.is_due(&Work::of(&held)).await.or_fail("is due"), "a held request must not be due");
    // Any worker can claim a held request.
    let held = held.verify(&mut Verifier::new()).or_fail("verify the row");
    let claimed = open(queue, claim(&held, Duration::ZERO)).await;
    same(&claimable(queue, 10, None).await, &vec![Work::of(&claimed)], "the claim, whose lease has ended");
    // After a rebuild, no request is held.
    queue.rebuild().await.or_fail("rebuild");
    hold(claimable(queue, 10, None).await.len() >= 5, "requests must not be held after a rebuild");
}

/// A due time means the same on every backend: what the library's parser reads, or at once if it reads nothing.
pub async fn a_due_time_is_what_the_library_reads<Q: WorkQueue>(queue: &Q) {
    let days = ["2031-01-02", "2028-02-29", "2031-02-29", "0001-01-01", "9999-12-31", "0000-12-31", "2031-13-01", "2031-00-10"];
    let times =
        ["00:00:00", "23:59:59", "23:59:60", "24:00:00", "12:60:00", "00:00:00.0000009", "00:00:00.9999999", "00:00:00."];
    let offsets = ["Z", "z", "+00:00", "-00:00", "+15:59", "+16:00", "-23:59", "+23:59", "+24:00", "+05:60", "+0530", " Z", ""];
    let dates = days.iter().flat_map(|day| offsets.iter().map(move |offset| format!("{day}T12:30:00{offset}")));
    let clocks = times.iter().flat_map(|time| ["Z", "-23:59", "+16:00"].map(|offset| format!("2031-01-02T{time}{offset}")));
    let others = [
        "2031-01-02 12:00:00Z",
        "2031-01-02t12:00:00Z",
        "2031-01-02_12:00:00Z",
        "2031-01-02",
        "20310102T120000Z",
        "infinity",
        "now",
        "",
        "2031-01-02T12:00:00Z ",
        "+2031-01-02T12:00:00Z",
        "12031-01-02T12:00:00Z",
        "2031-01-02T12:00:00.123456789012345678901234567890Z",
        "2031-01-02T12:00:00,5Z",
        "2031-01-02T12:00:00\u{2212}01:00",
        "\u{0662}031-01-02T12:00:00Z",
        "2031-01-02T12:00:00+1:00",
    ];
    let texts: Vec<_> = dates.chain(clocks).chain(others.map(str::to_owned)).collect();
    let requests: Vec<_> = (0..).zip(&texts).map(|(n, text)| seal(request(TENANT, n).meta("due_at", text.as_str()))).collect();
    let before = queue.now().await.or_fail("now");
    append_all(queue, requests.clone()).await.or_fail("requests with due times");
    for (span, text) in requests.iter().zip(&texts) {
        let known = queue.waiting(TENANT, span.id).await.or_fail("waiting").or_fail("an open request");
        match text.parse::<Timestamp>() {
            Ok(time) if time > before.saturating_add(HOUR) => {
                same(&known.due, &Some(time), &format!("when a request with due_at `{text}` is due"));
            }
            // A time in the past is now. An earlier one would put the request before those that wait already.
            _ => {
                let now = queue.now().await.or_fail("now");
                let is_now = known.due.is_some_and(|due| before <= due && due <= now);
                hold(is_now, &format!("a request with due_at `{text}` is due at once"));
            }
        }
    }
}

/// Neither a due time in the past nor a false time of its own puts a request before those that wait already.
pub async fn a_request_that_is_dated_back_waits_behind_the_others<Q: WorkQueue>(queue: &Q) {
    let first = open(queue, request(TENANT, 9)).await;
    let backdated = open(queue, request(TENANT, 2).meta("due_at", "0001-01-01T00:00:00Z")).await;
    let false_time = open(queue, request(TENANT, 1).at(Timestamp::EPOCH)).await;
    let found: Vec<_> = claimable(queue, 10, None).await.into_iter().map(|work| work.id).collect();
    same(&found, &vec![first.id, backdated.id, false_time.id], "requests in their order");
}

/// Every open request is listed, in the order of (tenant, id), with what `waiting` knows of it; and no other.
pub async fn open_requests_are_listed_in_pages<Q: WorkQueue>(queue: &Q) {
    let mut expected = Vec::new();
    for (tenant, n) in [(TENANT, 3), (TENANT, 1), (OTHER, 2)] {
        expected.push(open(queue, request(tenant, n)).await);
    }
    let later = open(queue, request(TENANT, 5).meta("due_at", "9000-01-01T00:00:00Z")).await;
    let parked = open(queue, request(OTHER, 6)).await;
    queue.park(&[Parking::of(&parked, None, "why".to_owned())]).await.or_fail("park");
    let claimed = open(queue, request(TENANT, 7)).await;
    let claimed = open(queue, claim(&claimed, HOUR)).await;
    let ended = open(queue, request(TENANT, 8)).await;
    open(queue, next(&ended).status("cancelled")).await;
    expected.extend([later, parked, claimed]);
    expected.sort_by(|a, b| (&a.tenant_id, a.id).cmp(&(&b.tenant_id, b.id)));
    let mut listed: Vec<Waiting> = Vec::new();
    loop {
        let after = listed.last().map(|waiting| (waiting.work.tenant_id.clone(), waiting.work.id));
        let after = after.as_ref().map(|(tenant, id)| (tenant.as_str(), *id));
        let page = queue.open_requests(&Tenants::All, after, 2).await.or_fail("open requests");
        if page.is_empty() {
            break;
        }
        hold(page.len() <= 2, "a page has no more than it may have");
        listed.extend(page);
    }
    let works: Vec<_> = listed.iter().map(|waiting| waiting.work.clone()).collect();
    same(&works, &expected.iter().map(|span| Work::of(span)).collect::<Vec<_>>(), "all open requests");
    for waiting in &listed {
        let known = queue.waiting(&waiting.work.tenant_id, waiting.work.id).await.or_fail("waiting");
        same(&known.as_ref(), &Some(waiting), "what is known of it");
    }
    let only = Tenants::Only([OTHER.to_owned()].into());
    let theirs = queue.open_requests(&only, None, 10).await.or_fail("open requests");
    hold(theirs.len() == 2 && theirs.iter().all(|waiting| waiting.work.tenant_id == OTHER), "of one tenant");
    let none = queue.open_requests(&Tenants::Only(BTreeSet::new()), None, 10).await.or_fail("open requests");
    hold(none.is_empty(), "of no tenant");
}

/// A poll sees only the tenants that it names, however many requests the others have.
pub async fn a_poll_sees_only_its_tenants<Q: WorkQueue>(queue: &Q) {
    for n in 0..30 {
        open(queue, request(&format!("other{n:02}"), n)).await;
    }
    let mine = open(queue, request(TENANT, 30)).await;
    let theirs = open(queue, request(OTHER, 31)).await;
    let only = |tenants: &[&str]| Tenants::Only(tenants.iter().map(|tenant| (*tenant).to_owned()).collect());
    let of = async |tenants: &[&str], after: Option<&str>| {
        let poll = Poll::new(10).tenants(only(tenants)).after(after.map(str::to_owned));
        let found = queue.claimable(&poll).await.or_fail("claimable");
        let taken = queue.take(&poll).await.or_fail("take").due;
        same(&taken.iter().map(|due| Work::of(&due.request)).collect::<Vec<_>>(), &found, "take and claimable");
        found
    };
    same(&of(&[TENANT], None).await, &vec![Work::of(&mine)], "requests of one tenant");
    same(&of(&[TENANT], Some(TENANT)).await, &vec![Work::of(&mine)], "a tenant that was served last is served again");
    let mut both = vec![Work::of(&mine), Work::of(&theirs)];
    both.sort_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
    same(&of(&[OTHER, TENANT, "nobody"], None).await, &both, "requests of two tenants");
    both.reverse();
    let first = both.last().or_fail("two requests").tenant_id.clone();
    same(&of(&[OTHER, TENANT], Some(&first)).await, &both, "the tenant that was served last comes last");
    same(&of(&[], None).await, &Vec::new(), "a poll of no tenant");
}

/// A parked request is not offered, whether it waits for its time or its lease has ended. A new version, or a rebuild, ends the
/// parking.
pub async fn a_parked_request_is_not_offered<Q: WorkQueue>(queue: &Q) {
    let waiting = open(queue, request(TENANT, 1)).await;
    let other = open(queue, request(TENANT, 2)).await;
    let now = queue.now().await.or_fail("now");
    let park = async |span: &VerifiedSpan, until| {
        queue.park(&[Parking::of(span, until, format!("no reason {}", "é".repeat(400)))]).await.or_fail("park");
    };
    let ids = async || claimable(queue, 10, None).await.iter().map(|work| work.id).collect::<Vec<_>>();
    park(&waiting, None).await;
    same(&ids().await, &vec![other.id], "requests that are not parked");
    let known = queue.waiting(TENANT, waiting.id).await.or_fail("waiting").or_fail("an open request");
    same(
        &(known.work, known.due, known.is_leased),
        &(Work::of(&waiting), None, false),
        "a request that is parked without an end",
    );
    let reason = known.parked.or_fail("a reason");
    hold(reason.starts_with("no reason é") && reason.len() <= Parking::MAX_REASON, "the reason is cut at a character");
    park(&waiting, Some(now.saturating_add(HOUR))).await;
    same(&ids().await, &vec![other.id], "requests that are not parked for an hour");
    hold(
        queue.waiting(TENANT, waiting.id).await.or_fail("waiting").is_some_and(|known| known.due > Some(now)),
        "the end of the hour",
    );
    // The time has come.
    park(&waiting, Some(now)).await;
    same(&ids().await.len(), &2, "requests after the parking");
    park(&waiting, None).await;
    let claimed = open(queue, claim(&waiting, Duration::ZERO)).await;
    same(&claimable(queue, 10, None).await.contains(&Work::of(&claimed)), &true, "a new version ends the parking");
    // An older version, or another tenant, parks nothing.
    park(&waiting, None).await;
    park(&seal(next(&claimed).tenant(OTHER)), None).await;
    same(&ids().await.len(), &2, "requests after parkings that name other versions");
    park(&claimed, None).await;
    same(&ids().await, &vec![other.id], "a claim whose lease has ended is parked");
    // The worker is alive after all.
    hold(queue.heartbeat(&Work::of(&claimed), Duration::ZERO).await.or_fail("heartbeat"), "the heartbeat of a parked claim");
    same(&ids().await.len(), &2, "a heartbeat ends the parking");
    park(&claimed, None).await;
    park(&other, Some(now.saturating_add(HOUR))).await;
    queue.rebuild().await.or_fail("rebuild");
    same(&ids().await.len(), &2, "a rebuild forgets parking");
    let ended = open(queue, next(&claimed).status("complete")).await;
    same(&queue.waiting(TENANT, ended.id).await.or_fail("waiting"), &None, "a request that has ended");
    same(
        &queue.waiting(OTHER, other.id).await.or_fail("waiting").map(|known: Waiting| known.work),
        &None,
        "another tenant's id",
    );
}

/// A poll returns large requests up to some megabytes only, but every small request.
pub async fn a_poll_reads_a_few_large_requests_and_every_small_one<Q: WorkQueue>(queue: &Q) {
    // Large by weight: each request has 8000 small objects.
    let large = serde_json::Value::Array(vec![json!({"": 0}); 8000]);
    for n in 0..72 {
        open(queue, request(TENANT, n).input(large.clone())).await;
    }
    for n in 72..80 {
        open(queue, request(OTHER, n)).await;
    }
    let polled = queue.take(&Poll::new(MAX_CLAIMABLE)).await.or_fail("take");
    let of = |tenant: &str| polled.due.iter().filter(|due| due.request.tenant_id == tenant).count();
    same(&of(OTHER), &8, "small requests in the poll");
    hold((20..70).contains(&of(TENANT)), "the poll must have some large requests, but not all");
    same(&claimable_without_rows(queue).await, &80, "requests that are due, without their rows");
}

async fn claimable_without_rows<Q: WorkQueue>(queue: &Q) -> usize {
    queue.claimable(&Poll::new(MAX_CLAIMABLE)).await.or_fail("claimable").len()
}

/// A new request wakes a worker that waits for the signal, whenever the request is appended.
pub async fn an_arrival_wakes_whoever_waits<Q: WorkQueue>(queue: &Q) {
    let arrivals = queue.arrivals().await.or_fail("arrivals");
    for n in 0_u128..5 {
        let seen = arrivals.seen();
        let found = async {
            let mut seen = seen;
            // The signal may also change without a new request.
            while queue.take(&Poll::new(10)).await.or_fail("take").due.len() <= n as usize {
                arrivals.changed(seen).await;
                seen = arrivals.seen();
            }
        };
        join(found, open(queue, request(TENANT, n))).await;
    }
}

/// A batch that is refused does not change the queue. Of several versions of one id in a batch, only the last one counts.
pub async fn the_queue_changes_with_the_batch_or_not_at_all<Q: WorkQueue>(queue: &Q) {
    let first = seal(request(TENANT, 1));
    let second = seal(request(TENANT, 2));
    let stranger = seal(next(&seal(note(9))));
    append_all(queue, vec![first.clone(), stranger]).await.err().or_fail("a version without a predecessor must be refused");
    hold(claimable(queue, 10, None).await.is_empty(), "a refused batch must not open a request");
    let claimed = seal(claim(&second, HOUR));
    let closed = seal(next(&claimed).status("complete"));
    append_all(queue, vec![first.clone(), second, claimed, closed]).await.or_fail("a batch");
    same(&claimable(queue, 10, None).await, &vec![Work::of(&first)], "the open requests after the batch");
    // Append the same version again: identical bytes are stored once, and the ended request is not opened again.
    let ended = open(queue, next(&first).status("complete")).await;
    append_all(queue, vec![first, ended]).await.or_fail("the same again");
    hold(claimable(queue, 10, None).await.is_empty(), "an old version must not open a request again");
}

/// A request with the largest `seq` cannot have a next version. No worker could claim or close it, so it must not be listed.
pub async fn a_request_without_a_successor_is_never_offered<Q: WorkQueue>(queue: &Q) {
    let mut last = request(TENANT, 1);
    last = last.seq(MAX_INTEGER);
    let last = open(queue, last).await;
    let other = open(queue, request(TENANT, 2)).await;
    hold(!is_claimable(queue, &last).await, "a request that cannot have a next version must not be due");
    hold(is_claimable(queue, &other).await, "another request must be due");
    let rebuilt = queue.rebuild().await.or_fail("rebuild");
    same(&rebuilt.open, &1, "open requests after a rebuild");
    hold(!is_claimable(queue, &last).await, "it must not be due after a rebuild");
}

/// A request is due at `due_at`. If that is missing or not a valid time, the request is due at once.
pub async fn a_request_is_claimable_when_it_is_due<Q: WorkQueue>(queue: &Q) {
    let due = |n: u128, due: serde_json::Value| request(TENANT, n).metadata(json!({ "due_at": due }));
    open(queue, due(1, json!("9999-12-31T00:00:00Z"))).await;
    open(queue, due(2, json!("2999-01-01T01:30:00+01:00"))).await;
    hold(claimable(queue, 10, None).await.is_empty(), "a request with a due time in the future must not be due");
    let past = open(queue, due(3, json!("1999-12-31T23:59:59.5Z"))).await;
    let offset = open(queue, due(4, json!("2001-01-01T01:00:00+02:00"))).await;
    let mut expected = vec![Work::of(&past), Work::of(&offset)];
    same(&claimable(queue, 10, None).await, &expected, "the due requests, by due time");
    // A `due_at` that is not a valid time must not hide the request for ever.
    let odd = [json!("soon"), json!(12), json!(null), json!("2001-13-01T00:00:00Z"), json!("infinity"), json!("2999-01-01")];
    for (n, value) in (10..).zip(odd) {
        let span = open(queue, due(n, value)).await;
        expected.push(Work::of(&span));
    }
    let found: BTreeSet<_> = claimable(queue, 100, None).await.iter().map(|work| work.id).collect();
    same(&found, &expected.iter().map(|work| work.id).collect(), "the requests with an invalid due time and those due before");
    // If the clock of the host is ahead, its request is not delayed.
    let ahead = open(queue, request(OTHER, 1).at("2999-01-01T00:00:00Z".parse().or_fail("a time"))).await;
    hold(is_claimable(queue, &ahead).await, "a request without due_at must be due even if its `at` is in the future");
}

/// The highest priority comes first. An invalid priority counts as the default, one that is too high or too low as the highest
/// or the lowest.
pub async fn a_higher_priority_comes_first<Q: WorkQueue>(queue: &Q) {
    let with = |n: u128, value: serde_json::Value| request(TENANT, n).metadata(json!({ "priority": value }));
    let values = [
        json!(0),
        json!(9),
        json!(4),
        json!(6),
        json!("high"),
        json!(1000),
        json!(-3),
        json!(6.5),
        json!(4_000_000_000_000_u64),
    ];
    for (n, value) in (0..).zip(values) {
        open(queue, with(n, value)).await;
    }
    let found: Vec<_> = claimable(queue, 100, None).await.iter().map(|work| work.id).collect();
    same(&found, &[1, 5, 8, 3, 7, 4, 2, 0, 6].map(id).to_vec(), "all requests, by priority and then by due time");
    same(&claimable(queue, 3, None).await.iter().map(|w| w.id).collect(), &[1, 5, 8].map(id).to_vec(), "the first three");
}

/// The backlog of one tenant does not delay the first request of another tenant.
pub async fn tenants_take_turns<Q: WorkQueue>(queue: &Q) {
    let backlog: Vec<_> = (0..300).map(|n| seal(request("b-loud", n).meta("priority", 9))).collect();
    append_all(queue, backlog).await.or_fail("a backlog");
    for tenant in ["a-quiet", "c-quiet", "d-quiet"] {
        for n in 0..2 {
            open(queue, request(tenant, n)).await;
        }
    }
    let tenants = async |limit, after| -> Vec<String> {
        claimable(queue, limit, after).await.into_iter().map(|work| work.tenant_id).collect()
    };
    same(
        &tenants(5, None).await,
        &["a-quiet", "b-loud", "c-quiet", "d-quiet", "a-quiet"].map(str::to_owned).to_vec(),
        "the tenants of the first five requests",
    );
    same(&tenants(2, None).await, &["a-quiet", "b-loud"].map(str::to_owned).to_vec(), "the tenants of the first two requests");
    same(&tenants(2, Some("b-loud")).await, &["c-quiet", "d-quiet"].map(str::to_owned).to_vec(), "after `b-loud`");
    same(&tenants(2, Some("d")).await, &["d-quiet", "a-quiet"].map(str::to_owned).to_vec(), "around the end of the list");
    same(&tenants(1, Some("zzz")).await, &["a-quiet".to_owned()].to_vec(), "after the last tenant");
    let all = tenants(1000, None).await;
    same(&all.len(), &MAX_CLAIMABLE, "requests in one list");
    same(&all.iter().filter(|t| *t != "b-loud").count(), &6, "requests of the other tenants");
    same(&claimable(queue, 0, None).await, &vec![], "requests with a limit of zero");
}

/// A worker that may carry out no more of a tenant does not take its requests either: held, they would be due for nobody, and lose
/// their place.
pub async fn a_poll_takes_no_more_of_a_tenant_than_it_may<Q: WorkQueue>(queue: &Q) {
    for n in 0..20 {
        open(queue, request("b-loud", n).meta("priority", if n < 3 { 9 } else { 5 })).await;
    }
    open(queue, request("a-quiet", 0)).await;
    open(queue, request("c-quiet", 0)).await;
    let running = |some: &[(&str, usize)]| some.iter().map(|(tenant, n)| ((*tenant).to_owned(), *n)).collect();
    let count = |found: &[String]| (found.len(), found.iter().filter(|tenant| *tenant == "b-loud").count());
    for (most, some, expected) in [
        (4, running(&[]), (6, 4)),
        (4, running(&[("b-loud", 3)]), (3, 1)),
        (4, running(&[("b-loud", 4)]), (2, 0)),
        (4, running(&[("b-loud", 9)]), (2, 0)),
        (1, running(&[("a-quiet", 1)]), (2, 1)),
        (100, running(&[("b-loud", 1)]), (10, 8)),
    ] {
        let poll = Poll::new(10).per_tenant(most, some);
        let listed: Vec<_> = queue.claimable(&poll).await.or_fail("claimable").into_iter().map(|work| work.tenant_id).collect();
        same(&count(&listed), &expected, &format!("requests, and of `b-loud`, in {poll:?}"));
    }
    let poll = Poll::new(10).per_tenant(4, running(&[("b-loud", 2)])).hold(Duration::from_secs(5));
    let taken = queue.take(&poll).await.or_fail("take");
    let taken: Vec<_> = taken.due.into_iter().map(|due| due.request.span.tenant_id).collect();
    same(&count(&taken), &(4, 2), "requests taken, and of `b-loud`");
    let left: Vec<_> =
        queue.claimable(&Poll::new(100)).await.or_fail("claimable").into_iter().map(|work| work.tenant_id).collect();
    same(&count(&left), &(18, 18), "requests that are still due");
}

/// A rebuild makes the same open requests and counters from the rows as the appends made.
pub async fn a_rebuild_finds_what_was_there<Q: WorkQueue>(queue: &Q) {
    let charges = Charges::new(today(queue).await, ["runs", "cpu"]);
    for (n, tenant) in (0..30).zip([TENANT, OTHER, "initech"].into_iter().cycle()) {
        let waiting = open(queue, request(tenant, n).meta("priority", (n % 11) as u32)).await;
        if n % 3 == 0 {
            let claimed =
                seal(claim(&waiting, if n % 2 == 0 { Duration::ZERO } else { HOUR }).meta("quota", charges.to_value()));
            append(queue, claimed.clone()).await;
            if n % 4 == 0 {
                open(queue, next(&claimed).status("complete")).await;
            }
        }
    }
    let seen = async || {
        let mut used = Vec::new();
        for tenant in [TENANT, OTHER, "initech"] {
            used.push(queue.used(tenant, "runs").await.or_fail("used"));
        }
        (claimable(queue, 100, None).await, claimable(queue, 7, Some(TENANT)).await, used)
    };
    let before = seen().await;
    hold(before.0.len() > 10, "the trial must have more than ten due requests");
    let rebuilt = queue.rebuild().await.or_fail("rebuild");
    same(&seen().await, &before, "due requests and used units after a rebuild");
    same(&rebuilt.counters, &2, "counters: two quotas of the only tenant whose requests were claimed");
    hold(rebuilt.open >= before.0.len() as u64, "the open requests must include the leased ones");
}

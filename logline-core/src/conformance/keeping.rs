//! Trials of [`KeyStore`].

use std::time::Duration;

use uuid::Uuid;

use super::Expect as _;
use crate::contract::{
    Epoch, Forgetting, Kept, KeyStore, MAX_KEY_PAGE, MAX_WRAPPED_BYTES, MAX_WRAPS, RecordKey, Replacement, SubjectKey,
};
use crate::ledger::LedgerError;
use crate::value::timestamp::Timestamp;

const ACME: &str = "acme";

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn subject(number: u128, owner: &str, epoch: u64) -> SubjectKey {
    SubjectKey { id: id(number), subject: owner.to_owned(), epoch, wrapped: vec![7; 60], added: 0 }
}

fn record(number: u128, subject_key: u128) -> RecordKey {
    let tag = Some([9; 32]).filter(|_| number.is_multiple_of(2));
    RecordKey {
        id: id(number),
        subject_key: id(subject_key),
        span: id(number + 1000),
        wrapped: vec![8; 60],
        tag,
        note: None,
        added_at: Timestamp::EPOCH,
    }
}

/// The record without the time, which the store sets.
fn timeless(record: RecordKey) -> RecordKey {
    RecordKey { added_at: Timestamp::EPOCH, ..record }
}

async fn ok(outcome: impl Future<Output = Result<Kept, LedgerError>>) {
    assert_eq!(outcome.await.or_fail("the store must answer"), Kept::Stored);
}

async fn stale(outcome: impl Future<Output = Result<Kept, LedgerError>>) {
    assert_eq!(outcome.await.or_fail("the store must answer"), Kept::Stale);
}

/// A tenant in epoch 1 where alice has the key 1 with the records 11 to 14.
async fn alice(store: &impl KeyStore) {
    ok(store.open_epoch(ACME, 1)).await;
    ok(store.add_subject_key(ACME, &subject(1, "alice", 1))).await;
    for number in 11..=14 {
        ok(store.add_record_key(ACME, &record(number, 1))).await;
    }
}

async fn added(store: &impl KeyStore, owner: &str) -> u64 {
    store.subject_key(ACME, owner).await.or_fail("an answer").or_fail("the subject must have a key").added
}

/// Epochs are numbered without gaps, and a number never comes back.
pub async fn epochs_begin_one_after_the_other_and_end_in_order(store: &impl KeyStore) {
    assert_eq!(store.epoch(ACME).await.or_fail("an answer"), None);
    stale(store.open_epoch(ACME, 2)).await;
    ok(store.open_epoch(ACME, 1)).await;
    stale(store.open_epoch(ACME, 1)).await;
    stale(store.drop_epoch(ACME, 1)).await;
    ok(store.open_epoch(ACME, 2)).await;
    ok(store.open_epoch(ACME, 3)).await;
    stale(store.drop_epoch(ACME, 2)).await;
    ok(store.drop_epoch(ACME, 1)).await;
    assert_eq!(store.epoch(ACME).await.or_fail("an answer"), Some(Epoch::new(2, 3)));
    // A number never comes back.
    stale(store.open_epoch(ACME, 1)).await;
}

/// An epoch ends after its last key was wrapped again.
pub async fn an_epoch_that_still_wraps_a_key_is_not_dropped(store: &impl KeyStore) {
    alice(store).await;
    ok(store.open_epoch(ACME, 2)).await;
    stale(store.drop_epoch(ACME, 1)).await;
    let key = store.subject_keys(ACME, 1, 10).await.or_fail("an answer").pop().or_fail("alice's key is under epoch 1");
    let renewed = SubjectKey { epoch: 2, wrapped: vec![6; 40], ..key };
    ok(store.rewrap_subject_key(ACME, 1, &renewed)).await;
    stale(store.rewrap_subject_key(ACME, 1, &renewed)).await;
    ok(store.drop_epoch(ACME, 1)).await;
    let found = store.subject_key(ACME, "alice").await.or_fail("an answer").or_fail("a key");
    assert_eq!((found.epoch, found.wrapped, found.added), (2, vec![6; 40], 4));
}

/// What is added is wrapped under the newest epoch.
pub async fn a_key_under_an_old_epoch_is_not_added(store: &impl KeyStore) {
    stale(store.add_subject_key(ACME, &subject(1, "alice", 1))).await;
    alice(store).await;
    ok(store.open_epoch(ACME, 2)).await;
    stale(store.add_subject_key(ACME, &subject(2, "bob", 1))).await;
    ok(store.add_subject_key(ACME, &subject(2, "bob", 2))).await;
    let old = Replacement { key: subject(3, "alice", 1), records: Vec::new() };
    let forgetting = Forgetting { subject_key: id(1), added: added(store, "alice").await, replacement: Some(old) };
    stale(store.forget(ACME, id(90), &[forgetting])).await;
    assert_eq!(
        store.record_keys(ACME, &[id(11)]).await.or_fail("an answer").len(),
        1,
        "a stale forgetting destroyed something"
    );
}

/// The second key of a subject is not added.
pub async fn a_subject_has_one_key(store: &impl KeyStore) {
    alice(store).await;
    stale(store.add_subject_key(ACME, &subject(2, "alice", 1))).await;
    assert_eq!(store.subject_key(ACME, "alice").await.or_fail("an answer").or_fail("a key").id, id(1));
}

/// A tenant neither reads nor destroys the keys of another one.
pub async fn another_tenant_finds_nothing(store: &impl KeyStore) {
    alice(store).await;
    let other = "globex";
    assert_eq!(store.epoch(other).await.or_fail("an answer"), None);
    assert_eq!(store.subject_key(other, "alice").await.or_fail("an answer"), None);
    assert_eq!(store.record_keys(other, &[id(11)]).await.or_fail("an answer"), Vec::new());
    assert_eq!(store.records(other, id(1), None, 10).await.or_fail("an answer"), Vec::new());
    assert_eq!(store.tagged(other, id(1), &[9; 32]).await.or_fail("an answer"), None);
    stale(store.add_record_key(other, &record(15, 1))).await;
    stale(store.forget(other, id(90), &[Forgetting { subject_key: id(1), added: 4, replacement: None }])).await;
    assert_eq!(store.records(ACME, id(1), None, 10).await.or_fail("an answer").len(), 4, "another tenant destroyed keys");
    // The same ids are free there.
    ok(store.open_epoch(other, 1)).await;
    ok(store.add_subject_key(other, &subject(1, "alice", 1))).await;
    ok(store.add_record_key(other, &record(11, 1))).await;
}

/// A writer that read a key before it was destroyed adds nothing under it.
pub async fn a_record_under_a_key_that_is_gone_is_not_added(store: &impl KeyStore) {
    alice(store).await;
    stale(store.add_record_key(ACME, &record(15, 2))).await;
    let all = Forgetting { subject_key: id(1), added: 4, replacement: None };
    ok(store.forget(ACME, id(90), &[all])).await;
    stale(store.add_record_key(ACME, &record(15, 1))).await;
    assert_eq!(store.record_keys(ACME, &[id(15)]).await.or_fail("an answer"), Vec::new());
}

/// Of the records of a destroyed key those stay that were wrapped again.
pub async fn what_is_forgotten_is_gone_and_what_stays_is_there(store: &impl KeyStore) {
    alice(store).await;
    assert_eq!(store.tagged(ACME, id(1), &[9; 32]).await.or_fail("an answer").or_fail("a key").id, id(12));
    let kept = RecordKey { wrapped: vec![5; 50], subject_key: id(2), ..record(14, 1) };
    let replacement = Replacement { key: subject(2, "alice", 1), records: vec![kept.clone()] };
    let forgetting = Forgetting { subject_key: id(1), added: 4, replacement: Some(replacement) };
    ok(store.forget(ACME, id(90), &[forgetting])).await;
    let left = store.record_keys(ACME, &[id(11), id(12), id(13), id(14)]).await.or_fail("an answer");
    assert_eq!(left.into_iter().map(timeless).collect::<Vec<_>>(), vec![kept.clone()]);
    assert_eq!(store.records(ACME, id(1), None, 10).await.or_fail("an answer"), Vec::new());
    assert_eq!(store.tagged(ACME, id(1), &[9; 32]).await.or_fail("an answer"), None);
    assert_eq!(store.tagged(ACME, id(2), &[9; 32]).await.or_fail("an answer").map(timeless), Some(kept));
    let key = store.subject_key(ACME, "alice").await.or_fail("an answer").or_fail("a key");
    assert_eq!((key.id, key.added), (id(2), 1));
}

/// A record that was added after the others were read is not lost.
pub async fn a_record_that_comes_in_between_stops_the_forgetting(store: &impl KeyStore) {
    alice(store).await;
    let before = added(store, "alice").await;
    ok(store.add_record_key(ACME, &record(15, 1))).await;
    stale(store.forget(ACME, id(90), &[Forgetting { subject_key: id(1), added: before, replacement: None }])).await;
    assert_eq!(store.records(ACME, id(1), None, 10).await.or_fail("an answer").len(), 5);
    assert_eq!(store.not_forgotten(ACME, &[id(90)]).await.or_fail("an answer"), vec![id(90)]);
}

/// The second of two that destroy the same key finds it gone.
pub async fn of_two_forgettings_one_is_stale(store: &impl KeyStore) {
    alice(store).await;
    let all = [Forgetting { subject_key: id(1), added: 4, replacement: None }];
    ok(store.forget(ACME, id(90), &all)).await;
    stale(store.forget(ACME, id(91), &all)).await;
    assert_eq!(store.not_forgotten(ACME, &[id(90), id(91)]).await.or_fail("an answer"), vec![id(91)]);
}

/// Several keys are destroyed together, or none is.
pub async fn a_forgetting_that_is_stale_destroys_nothing_of_the_others(store: &impl KeyStore) {
    alice(store).await;
    ok(store.add_subject_key(ACME, &subject(2, "bob", 1))).await;
    let both = [
        Forgetting { subject_key: id(1), added: 4, replacement: None },
        Forgetting { subject_key: id(2), added: 3, replacement: None },
    ];
    stale(store.forget(ACME, id(90), &both)).await;
    assert_eq!(store.records(ACME, id(1), None, 10).await.or_fail("an answer").len(), 4);
    assert!(store.subject_key(ACME, "bob").await.or_fail("an answer").is_some());
}

/// What was destroyed is known by its receipt.
pub async fn receipts_are_remembered(store: &impl KeyStore) {
    ok(store.forget(ACME, id(90), &[])).await;
    ok(store.forget(ACME, id(90), &[])).await;
    assert_eq!(store.not_forgotten(ACME, &[id(91), id(90), id(92)]).await.or_fail("an answer"), vec![id(91), id(92)]);
    assert_eq!(store.not_forgotten("globex", &[id(90)]).await.or_fail("an answer"), vec![id(90)]);
}

/// Pages follow each other without gap or repeat.
pub async fn records_come_in_pages(store: &impl KeyStore) {
    alice(store).await;
    let ids = |page: Vec<RecordKey>| page.into_iter().map(|key| key.id).collect::<Vec<_>>();
    let first = ids(store.records(ACME, id(1), None, 3).await.or_fail("an answer"));
    assert_eq!(first, vec![id(11), id(12), id(13)]);
    assert_eq!(ids(store.records(ACME, id(1), first.last().copied(), 3).await.or_fail("an answer")), vec![id(14)]);
    assert_eq!(ids(store.records(ACME, id(1), Some(id(14)), 3).await.or_fail("an answer")), Vec::<Uuid>::new());
}

/// Records are listed by their age, across subjects and within the tenant, and page by page.
pub async fn records_are_listed_by_their_age(store: &impl KeyStore) {
    alice(store).await;
    ok(store.add_subject_key(ACME, &subject(2, "bob", 1))).await;
    ok(store.add_record_key(ACME, &record(5, 2))).await;
    let now = store.now(ACME).await.or_fail("an answer").saturating_add(Duration::from_secs(1));
    let all = store.aged_records(ACME, now, None, 10).await.or_fail("an answer");
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by_key(|record| (record.added_at, record.id)), "{all:?}");
    assert!(all.iter().all(|record| record.added_at < now && record.added_at > Timestamp::EPOCH), "{all:?}");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = store.aged_records(ACME, now, after, 2).await.or_fail("an answer");
        let Some(last) = page.last() else { break };
        after = Some((last.added_at, last.id));
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(store.aged_records(ACME, Timestamp::EPOCH, None, 10).await.or_fail("an answer"), Vec::new());
    assert_eq!(store.aged_records("globex", now, None, 10).await.or_fail("an answer"), Vec::new());
}

/// A record is dropped alone, in its own tenant, and only if it is old enough.
pub async fn a_record_that_is_too_young_is_not_dropped(store: &impl KeyStore) {
    alice(store).await;
    let young = Timestamp::EPOCH.saturating_add(Duration::from_secs(1));
    assert_eq!(store.drop_records(ACME, &[id(11), id(12)], young).await.or_fail("an answer"), 0);
    let now = store.now(ACME).await.or_fail("an answer").saturating_add(Duration::from_secs(1));
    assert_eq!(store.drop_records("globex", &[id(11), id(12)], now).await.or_fail("an answer"), 0);
    assert_eq!(store.drop_records(ACME, &[id(11), id(12), id(99)], now).await.or_fail("an answer"), 2);
    let left: Vec<_> = store.records(ACME, id(1), None, 10).await.or_fail("an answer").iter().map(|key| key.id).collect();
    assert_eq!(left, vec![id(13), id(14)]);
    // The subject's key stays, and what was dropped is not in the way of a forgetting.
    let rest = Forgetting { subject_key: id(1), added: added(store, "alice").await, replacement: None };
    ok(store.forget(ACME, id(90), &[rest])).await;
}

/// Limits are held, and what is refused is not counted.
pub async fn what_is_too_large_is_refused(store: &impl KeyStore) {
    alice(store).await;
    for wrapped in [Vec::new(), vec![0; MAX_WRAPPED_BYTES + 1]] {
        let refused = store.add_record_key(ACME, &RecordKey { wrapped: wrapped.clone(), ..record(15, 1) }).await;
        assert!(matches!(refused, Err(LedgerError::Refused { .. })), "{refused:?}");
        let refused = store.add_subject_key(ACME, &SubjectKey { wrapped, ..subject(2, "bob", 1) }).await;
        assert!(matches!(refused, Err(LedgerError::Refused { .. })), "{refused:?}");
    }
    let many = vec![id(1); MAX_KEY_PAGE + 1];
    assert!(matches!(store.record_keys(ACME, &many).await, Err(LedgerError::Refused { .. })));
    assert_eq!(added(store, "alice").await, 4, "what was refused was counted");
}

/// A key of which [`a_key_wraps_no_more_than_it_may`] wants to be told that it has wrapped many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrapping {
    /// The newest epoch of the tenant.
    Epoch,
    /// The key of a subject.
    Subject,
}

/// No key wraps more than [`MAX_WRAPS`]. Nobody can wrap so many in a trial, so this one is not in the suite: `set` sets how many keys the
/// stored key of the tenant `acme` has wrapped.
pub async fn a_key_wraps_no_more_than_it_may(store: &impl KeyStore, set: impl AsyncFn(Wrapping, u64)) {
    let refused =
        |outcome: Result<Kept, LedgerError>| assert!(matches!(outcome, Err(LedgerError::Refused { .. })), "{outcome:?}");
    alice(store).await;
    set(Wrapping::Epoch, MAX_WRAPS - 1).await;
    ok(store.add_subject_key(ACME, &subject(2, "bob", 1))).await;
    refused(store.add_subject_key(ACME, &subject(3, "carol", 1)).await);
    set(Wrapping::Subject, MAX_WRAPS - 1).await;
    ok(store.add_record_key(ACME, &record(15, 1))).await;
    refused(store.add_record_key(ACME, &record(16, 1)).await);
    // A new epoch has wrapped nothing yet.
    ok(store.open_epoch(ACME, 2)).await;
    ok(store.add_subject_key(ACME, &subject(3, "carol", 2))).await;
}

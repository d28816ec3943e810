//! Trials of watches.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::future::join;

use super::{Expect as _, OTHER, TENANT, USER, append, append_all, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, Watch, WatchFrom, Watched};

async fn take(watch: &mut Watch, rows: usize) -> Vec<Watched> {
    let mut taken = Vec::new();
    while taken.len() < rows {
        taken.push(watch.next().await.or_fail("a watch must not end").or_fail("a row"));
    }
    taken
}

/// A watch from the beginning yields every version of every span, in append order.
pub async fn a_watch_yields_every_version_in_order<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    let second = seal(next(&first));
    append_all(ledger, vec![first.clone(), seal(note(2)), second.clone()]).await.or_fail("append");
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.or_fail("watch");
    let seen: Vec<_> = take(&mut watch, 3).await.into_iter().map(|w| w.span.key()).collect();
    same(&seen, &vec![first.key(), seal(note(2)).key(), second.key()], "rows in append order");
}

/// A watch from now yields no old row. It yields a new row that is appended while the watch already waits.
pub async fn a_watch_from_now_yields_what_comes<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1))).await;
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Now).await.or_fail("watch");
    let (seen, _) = join(take(&mut watch, 1), append(ledger, seal(note(2)))).await;
    same(&seen.first().map(|w| w.span.id), &Some(id(2)), "the first row after now");
}

/// A watch from a cursor that was stored as text continues with the row directly after it.
pub async fn a_watch_resumes_after_a_cursor<L: Ledger>(ledger: &L) {
    append_all(ledger, (0..5).map(|n| seal(note(n))).collect()).await.or_fail("append");
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.or_fail("watch");
    let seen = take(&mut watch, 3).await;
    drop(watch);
    let cursor = Cursor::from_text(seen.last().or_fail("a row").cursor.to_string());
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::After(cursor)).await.or_fail("watch");
    let ids: Vec<_> = take(&mut watch, 2).await.into_iter().map(|w| w.span.id).collect();
    same(&ids, &vec![id(3), id(4)], "rows after the cursor");
    let garbage = ledger.watch(&Scope::Operator, WatchFrom::After(Cursor::from_text("garbage"))).await;
    hold(garbage.is_err(), "a watch from an invalid cursor must be refused when it starts");
}

/// Many writers commit in any order. The watch yields every row once, and the versions of one id in order.
pub async fn a_watch_never_skips_under_concurrent_writers<L: Ledger>(ledger: &L) {
    const IDS: u128 = 40;
    const VERSIONS: u32 = 5;
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Now).await.or_fail("watch");
    let writers = (0..IDS).map(|n| async move {
        let mut span = seal(note(n));
        append(ledger, span.clone()).await;
        for _ in 1..VERSIONS {
            span = seal(next(&span));
            append(ledger, span.clone()).await;
        }
    });
    let expected = IDS as usize * VERSIONS as usize;
    let (seen, _) = join(take(&mut watch, expected), futures_util::future::join_all(writers)).await;
    let mut versions = HashMap::new();
    for row in &seen {
        let next = versions.entry(row.span.id).or_insert(0);
        same(&row.span.seq, next, "the next seq of an id, in order and without gaps or repeats");
        *next += 1;
    }
    same(&versions.len(), &(IDS as usize), "ids");
}

/// A watch has the same read rules as a scan.
pub async fn a_watch_shows_only_what_its_scope_may_see<L: Ledger>(ledger: &L) {
    let mut watch = ledger.watch(&Scope::user(TENANT, USER), WatchFrom::Beginning).await.or_fail("watch");
    let rows = vec![
        seal(note(1).tenant(OTHER)),
        seal(note(2).owner("bob")),
        seal(note(3)),
        seal(note(4).tenant(OTHER).visibility(crate::span::Visibility::Public)),
        seal(note(5)),
    ];
    append_all(ledger, rows).await.or_fail("append");
    let ids: Vec<_> = take(&mut watch, 2).await.into_iter().map(|w| w.span.id).collect();
    same(&ids, &vec![id(3), id(5)], "rows the user may see");
}

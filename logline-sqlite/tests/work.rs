//! Open work and counters in a file: what the suite cannot do because it has no hands in the tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use futures_util::future::join_all;
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerError, Limit, Poll, Work, WorkQueue as _};
use logline_core::request::Charges;
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_sqlite::SqliteLedger;
use rusqlite::Connection;

fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

fn request() -> VerifiedSpan {
    seal(Draft::new("request").tenant("acme").owner("alice").who("user:alice").this("function.run").status("scheduled"))
}

fn claim(request: &VerifiedSpan, charges: &Charges) -> VerifiedSpan {
    seal(Draft::next_version(request).status("running").meta("lease_ms", 60_000).meta("quota", charges.to_value()))
}

/// Two open requests, a claimed one, and one unit used.
async fn filled(ledger: &SqliteLedger) -> Vec<Work> {
    // Requests that are due at the same time are offered in the order of their ids, which is not the order in which they were made.
    let mut open = [request(), request()];
    open.sort_by_key(|request| request.id);
    let claimed = request();
    let charges = Charges::new(ledger.now().await.unwrap().day(), ["runs"]);
    let batch = open.iter().cloned().chain([claimed.clone(), claim(&claimed, &charges)]).collect();
    ledger.append(&Scope::runtime("acme"), batch, &AppendOptions::default()).await.unwrap();
    let work = ledger.claimable(&Poll::new(10)).await.unwrap();
    assert_eq!(work, open.iter().map(|span| Work::of(span)).collect::<Vec<_>>());
    work
}

#[tokio::test]
async fn a_rebuild_repairs_what_somebody_did_to_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let work = filled(&ledger).await;
    for vandalism in [
        "DELETE FROM work",
        "UPDATE work SET seq = 7, ready_at = 9223372036854775807",
        "UPDATE quota SET used = 1000000",
        "DELETE FROM quota",
        "INSERT INTO work SELECT 'globex', id, seq, owner_id, curr_hash, 9, 0, 0, NULL FROM work",
    ] {
        Connection::open(&path).unwrap().execute_batch(vandalism).unwrap();
        let rebuilt = ledger.rebuild().await.unwrap();
        assert_eq!((rebuilt.open, rebuilt.counters), (3, 1), "{vandalism}");
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap(), work, "{vandalism}");
        assert_eq!(ledger.used("acme", "runs").await.unwrap(), 1, "{vandalism}");
    }
    Connection::open(&path).unwrap().execute_batch("UPDATE work SET curr_hash = 'not a hash'").unwrap();
    let error = ledger.claimable(&Poll::new(10)).await.unwrap_err();
    assert!(!matches!(error, LedgerError::Closed), "{error}");
}

#[tokio::test]
async fn a_quota_holds_between_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    // A handle has its own writer and its own connections, as another process would.
    let handles = [SqliteLedger::open(&path).unwrap(), SqliteLedger::open(&path).unwrap()];
    let requests: Vec<_> = (0..20).map(|_| request()).collect();
    handles[0].append(&Scope::runtime("acme"), requests.clone(), &AppendOptions::default()).await.unwrap();
    let charges = Charges::new(handles[0].now().await.unwrap().day(), ["runs"]);
    let limit = Limit { tenant: "acme".to_owned(), key: "runs".to_owned(), per_day: 7 };
    let options = AppendOptions::default().limits(vec![limit]);
    let scope = Scope::runtime("acme");
    let claims = requests
        .iter()
        .zip(handles.iter().cycle())
        .map(|(request, handle)| handle.append(&scope, vec![claim(request, &charges)], &options));
    let results = join_all(claims).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
    assert_eq!(handles[1].used("acme", "runs").await.unwrap(), 7);
}

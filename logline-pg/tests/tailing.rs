//! No reader of append order skips a committed row, whatever commits late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{AppendOptions, Cursor, Ledger as _, LedgerExt as _, Order, Query, Versions, Watch, WatchFrom};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_pg::{PgLedger, create_roles, migrate_to_new_epoch};
use server::{block_on, connection, empty_database, ledger, options, server};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

/// More than anything here takes; a row that has not come by then was skipped.
const LONG: Duration = Duration::from_secs(120);

fn scope() -> Scope {
    Scope::user("acme", "alice")
}

fn note() -> VerifiedSpan {
    let draft = Draft::new("note").tenant("acme").owner("alice").who("w").this("note.trial");
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

/// Begins a transaction that has written and not committed; its row is nobody's of acme.
async fn late_writer(database: &str) -> PgConnection {
    let mut writer = connection("host", database).await;
    writer.execute("BEGIN").await.unwrap();
    late_row(&mut writer).await;
    writer
}

async fn late_row(writer: &mut PgConnection) -> Uuid {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{:?}", std::time::Instant::now()).as_bytes());
    let sql = format!(
        "SELECT ledger.identify('logline_runtime', 'acme', '', '');
         INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility,
            is_deleted, curr_hash, signature, public_key)
         VALUES ('{id}', 0, 'note', 'w', 't', now(), 'alice', 'acme', 'private', false, repeat('a', 64), repeat('b', 128),
            repeat('c', 64))"
    );
    writer.execute(AssertSqlSafe(sql)).await.unwrap();
    id
}

async fn next(watch: &mut Watch) -> Uuid {
    timeout(LONG, watch.next()).await.expect("a row was skipped").unwrap().unwrap().span.id
}

async fn append(ledger: &PgLedger) -> Uuid {
    let span = note();
    ledger.append_one(&scope(), span.clone()).await.unwrap();
    span.id
}

#[test]
fn a_row_that_commits_late_comes_before_those_that_overtook_it() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut watch = ledger.watch(&scope(), WatchFrom::Beginning).await.unwrap();
        let first = append(&ledger).await;
        assert_eq!(next(&mut watch).await, first);
        let mut writer = connection("host", &database).await;
        writer.execute("BEGIN").await.unwrap();
        let late = late_row(&mut writer).await;
        let overtaking = [append(&ledger).await, append(&ledger).await];
        // They are there for whoever asks for them, and not yet in append order.
        assert!(ledger.find(&scope(), "acme", overtaking[0]).await.unwrap().is_some());
        let newest = Query::new().versions(Versions::All).order(Order::Newest).limit(1);
        let newest = ledger.scan(&scope(), &newest, None).await.unwrap();
        assert_eq!(newest.rows[0].span.as_ref().unwrap().id, overtaking[1]);
        let impatient = PgLedger::connect(options("host", &database).settle(Duration::ZERO)).await.unwrap();
        let page = impatient.scan(&scope(), &Query::timeline(), None).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        let holders = ledger.holders().await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut writer).await.unwrap();
        assert_eq!(holders.iter().map(|h| h.pid).collect::<Vec<_>>(), [Some(pid)]);
        writer.execute("COMMIT").await.unwrap();
        for expected in [late, overtaking[0], overtaking[1]] {
            assert_eq!(next(&mut watch).await, expected);
        }
        // A cursor taken from a row that was not final leads to everything as well.
        let after = newest.rows[0].cursor.clone();
        let seen = ledger.scan(&scope(), &Query::timeline(), Some(&after)).await.unwrap();
        let seen: Vec<_> = seen.rows.into_iter().map(|row| row.span.unwrap().id).collect();
        assert!(seen.contains(&late), "{seen:?}");
    });
}

#[test]
fn a_killed_writer_holds_nothing_up() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut watch = ledger.watch(&scope(), WatchFrom::Now).await.unwrap();
        let mut writer = late_writer(&database).await;
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut writer).await.unwrap();
        let id = append(&ledger).await;
        let mut superuser = connection("postgres", &database).await;
        sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut superuser).await.unwrap();
        assert_eq!(next(&mut watch).await, id);
    });
}

#[test]
fn a_long_transaction_in_another_database_holds_nothing_up() {
    block_on(async {
        let (_database, ledger) = ledger().await;
        let elsewhere = empty_database().await;
        let mut other = connection("postgres", &elsewhere).await;
        other.execute("BEGIN; CREATE TABLE t (x integer); INSERT INTO t VALUES (1)").await.unwrap();
        let mut watch = ledger.watch(&scope(), WatchFrom::Now).await.unwrap();
        let id = append(&ledger).await;
        assert_eq!(next(&mut watch).await, id);
        assert!(ledger.holders().await.unwrap().is_empty());
        other.execute("COMMIT").await.unwrap();
    });
}

#[test]
fn a_prepared_transaction_is_named_as_what_holds_rows_up() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut writer = late_writer(&database).await;
        writer.execute("PREPARE TRANSACTION 'forgotten'").await.unwrap();
        let mut watch = ledger.watch(&scope(), WatchFrom::Beginning).await.unwrap();
        let id = append(&ledger).await;
        let holders = ledger.holders().await.unwrap();
        assert_eq!(holders.iter().map(|h| h.pid).collect::<Vec<_>>(), [None]);
        connection("postgres", &database).await.execute("ROLLBACK PREPARED 'forgotten'").await.unwrap();
        assert_eq!(next(&mut watch).await, id);
    });
}

#[test]
fn thousands_of_small_transactions_beside_long_ones_all_come_in_one_order() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let watching = ledger.watch(&scope(), WatchFrom::Beginning).await.unwrap();
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for _ in 0..250 {
                        ids.push(append(&ledger).await);
                    }
                    ids
                })
            })
            .collect();
        // Transactions that write, stay open while hundreds of others commit, and commit late.
        let mut expected = BTreeSet::new();
        for _ in 0..10 {
            let mut writer = connection("host", &database).await;
            writer.execute("BEGIN").await.unwrap();
            expected.insert(late_row(&mut writer).await);
            append(&ledger).await;
            append(&ledger).await;
            writer.execute("COMMIT").await.unwrap();
            writer.close().await.unwrap();
        }
        for writer in writers {
            expected.extend(writer.await.unwrap());
        }
        let total = expected.len() + 20;
        let watched: Vec<_> = watching.take(total).map(|row| row.unwrap().span.id).collect().await;
        assert!(expected.iter().all(|id| watched.contains(id)));
        assert_eq!(watched.iter().collect::<BTreeSet<_>>().len(), total, "nothing came twice");
        let again = ledger.collect(&scope(), &Query::timeline(), usize::MAX).await.unwrap();
        assert_eq!(again.iter().map(|span| span.id).collect::<Vec<_>>(), watched, "everybody reads the same order");
    });
}

#[test]
fn a_version_never_comes_before_the_one_it_follows() {
    block_on(async {
        let (database, ledger) = ledger().await;
        // This transaction gets its number first, and writes the successor of what a later one commits.
        let mut early = late_writer(&database).await;
        let first = note();
        ledger.append_one(&scope(), first.clone()).await.unwrap();
        let sql = format!(
            "INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility,
                is_deleted, curr_hash, signature, public_key, prev_hash)
             VALUES ('{}', 1, 'note', 'w', 't', now(), 'alice', 'acme', 'private', false, repeat('a', 64),
                repeat('b', 128), repeat('c', 64), '{}')",
            first.id, first.seal.curr_hash
        );
        let error = early.execute(AssertSqlSafe(sql)).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001");
    });
}

#[test]
fn a_watch_goes_on_after_its_listener_was_killed() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut watch = ledger.watch(&scope(), WatchFrom::Now).await.unwrap();
        let before = append(&ledger).await;
        assert_eq!(next(&mut watch).await, before);
        let other = PgLedger::connect(options("host", &database)).await.unwrap();
        let mut superuser = connection("postgres", &database).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'";
        assert!(superuser.execute(kill).await.unwrap().rows_affected() > 0);
        for _ in 0..3 {
            let id = append(&other).await;
            assert_eq!(next(&mut watch).await, id);
        }
    });
}

#[test]
fn a_watch_works_through_a_transaction_pooler() {
    block_on(async {
        let (database, writing) = ledger().await;
        let ledger = PgLedger::connect(options("host", &database).through_pooler()).await.unwrap();
        let mut watch = ledger.watch(&scope(), WatchFrom::Now).await.unwrap();
        let id = append(&writing).await;
        assert_eq!(next(&mut watch).await, id);
        let listening: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = $1")
                .bind(&database)
                .fetch_one(&mut connection("postgres", &database).await)
                .await
                .unwrap();
        assert_eq!(listening, 0);
    });
}

#[test]
fn a_hundred_watchers_share_one_listener() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut watches = Vec::new();
        for n in 0..100 {
            let scope = Scope::user(format!("tenant-{}", n % 10), "alice");
            watches.push(ledger.watch(&scope, WatchFrom::Now).await.unwrap());
        }
        let other = PgLedger::connect(options("host", &database)).await.unwrap();
        let span = |n: usize| {
            let draft = Draft::new("note").tenant(format!("tenant-{n}")).owner("alice").who("w").this("t");
            draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
        };
        let spans: Vec<_> = (0..10).map(span).collect();
        other.append(&Scope::Operator, spans.clone(), &AppendOptions::default()).await.unwrap();
        for (n, watch) in watches.iter_mut().enumerate() {
            assert_eq!(next(watch).await, spans[n % 10].id);
        }
        let listening: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = $1")
                .bind(&database)
                .fetch_one(&mut connection("postgres", &database).await)
                .await
                .unwrap();
        assert_eq!(listening, 1);
    });
}

/// A dump restored into another cluster: transaction ids mean nothing there, and nothing vanishes.
#[test]
fn a_restore_into_a_new_cluster_opens_an_epoch() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut expected = Vec::new();
        for _ in 0..20 {
            expected.push(append(&ledger).await);
        }
        let page = ledger.scan(&scope(), &Query::timeline().limit(12), None).await.unwrap();
        let cursor = page.next.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dump = server().program("pg_dump").args(["--format=plain", &database]).output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let file = folder.path().join("dump.sql");
        std::fs::write(&file, dump.stdout).unwrap();

        // A cluster whose transaction ids begin anew.
        let elsewhere = logline_pg_testing::PrivateServer::start(&Default::default()).unwrap();
        let mut superuser = PgConnection::connect(&elsewhere.url("postgres", "postgres")).await.unwrap();
        create_roles(&logline_pg::PgOptions::new(&elsewhere.url("postgres", "postgres")).unwrap()).await.unwrap();
        superuser.execute("CREATE ROLE host LOGIN; GRANT logline_operator TO host").await.unwrap();
        superuser.execute("CREATE DATABASE restored").await.unwrap();
        let input = std::fs::File::open(&file).unwrap();
        let restore =
            elsewhere.program("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "restored"]).stdin(input).output().unwrap();
        assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));

        let url = elsewhere.url("host", "restored");
        let restored = PgLedger::connect(logline_pg::PgOptions::new(&url).unwrap()).await.unwrap();
        expected.push(append(&restored).await);
        let all = restored.collect(&scope(), &Query::timeline(), 100).await.unwrap();
        assert_eq!(all.iter().map(|span| span.id).collect::<Vec<_>>(), expected);
        // A reader goes on where it was.
        let rest = restored.scan(&scope(), &Query::timeline(), Some(&cursor)).await.unwrap();
        let rest: Vec<_> = rest.into_spans().unwrap().iter().map(|span| span.id).collect();
        assert_eq!(rest, expected[12..]);
        let report = fsck(&restored, Audit::default(), &mut |_| {}).await.unwrap();
        assert_eq!((report.rows, report.problems), (21, 0));
    });
}

/// A replica knows of no running transaction, and must not take that for there being none.
#[test]
fn a_replica_skips_no_row_that_commits_late() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let first = append(&ledger).await;
        let replica = server().replica().unwrap();
        let options = logline_pg::PgOptions::new(&replica.url("host", &database)).unwrap();
        let following =
            PgLedger::connect(options.settle(Duration::ZERO).poll_interval(Duration::from_millis(20))).await.unwrap();
        let mut watch = following.watch(&scope(), WatchFrom::Beginning).await.unwrap();
        assert_eq!(next(&mut watch).await, first);
        let mut late = late_writer(&database).await;
        let held = late_row(&mut late).await;
        let overtaking = append(&ledger).await;
        // It has come to the replica, where it shows by its id, and not yet in append order.
        while following.find(&scope(), "acme", overtaking).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let page = following.scan(&scope(), &Query::timeline(), None).await.unwrap();
        assert_eq!(page.into_spans().unwrap().iter().map(|span| span.id).collect::<Vec<_>>(), [first]);
        late.execute("COMMIT").await.unwrap();
        let rest = [next(&mut watch).await, next(&mut watch).await, next(&mut watch).await];
        assert_eq!(rest[1..], [held, overtaking]);
        let refused = following.append_one(&scope(), note()).await.unwrap_err();
        assert!(matches!(refused, logline_core::ledger::LedgerError::ReadOnly { .. }), "{refused}");
    });
}

/// After a recovery to a point in time readers may hold cursors of rows that are gone; new rows come after those.
#[test]
fn a_new_epoch_comes_after_cursors_of_a_lost_history() {
    block_on(async {
        let (database, ledger) = ledger().await;
        append(&ledger).await;
        let page = ledger.scan(&scope(), &Query::timeline(), None).await.unwrap();
        let lost_future = page.rows[0].cursor.as_str().replace("p:1:", "p:1:99999");
        let migrated = migrate_to_new_epoch(&options("postgres", &database)).await.unwrap();
        assert_eq!((migrated.from, migrated.to, migrated.epoch), (4, 4, 2));
        let id = append(&ledger).await;
        let after = logline_core::ledger::Cursor::from_text(lost_future);
        let rest = ledger.scan(&scope(), &Query::timeline(), Some(&after)).await.unwrap().into_spans().unwrap();
        assert_eq!(rest.iter().map(|span| span.id).collect::<Vec<_>>(), [id]);
    });
}

/// A transaction of another database that ends while the horizon is computed counts as one of this database. So the horizon may go back
/// between two statements, and a page that counts its rows by one and reads them by the other must not go on behind rows that it left
/// out.
#[test]
fn a_page_that_counts_its_rows_skips_none_while_another_database_is_busy() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let elsewhere = empty_database().await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut busy = Vec::new();
        for _ in 0..8 {
            let (mut connection, stop) = (connection("postgres", &elsewhere).await, Arc::clone(&stop));
            busy.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    connection.execute("SELECT pg_current_xact_id(), pg_sleep(0.002)").await.unwrap();
                }
            }));
        }
        let reader = PgLedger::connect(options("host", &database).settle(Duration::ZERO)).await.unwrap();
        let writing = async {
            let mut written = BTreeSet::new();
            for _ in 0..300 {
                written.insert(append(&ledger).await);
            }
            written
        };
        let mut cursor = None;
        let mut found = BTreeSet::new();
        let query = Query::new().tenant("acme").limit(100).max_visited(1000);
        let mut writing = std::pin::pin!(writing);
        let mut written = None;
        loop {
            if written.is_none() {
                // A little of both, in turns.
                written = timeout(Duration::from_micros(200), &mut writing).await.ok();
            }
            let page = reader.scan(&scope(), &query, cursor.as_ref()).await.unwrap();
            let is_last = page.rows.is_empty() && written.is_some();
            found.extend(page.rows.iter().map(|row| row.span.as_ref().unwrap().id));
            cursor = page.next.or(page.reached).or(cursor);
            if is_last && found.len() >= written.as_ref().unwrap().len() {
                break;
            }
            assert!(
                !is_last || settled(&reader, &query, cursor.as_ref()).await,
                "rows were skipped: {} of {}",
                found.len(),
                300
            );
        }
        stop.store(true, Ordering::Relaxed);
        for connection in busy {
            connection.await.unwrap();
        }
        assert_eq!(Some(found), written);
    });
}

/// Whether rows still come after `cursor`. They may be held back for a moment, until transactions that began before them have ended.
async fn settled(reader: &PgLedger, query: &Query, cursor: Option<&Cursor>) -> bool {
    let deadline = tokio::time::Instant::now() + LONG;
    while tokio::time::Instant::now() < deadline {
        if !reader.scan(&scope(), query, cursor).await.unwrap().rows.is_empty() {
            return true;
        }
    }
    false
}

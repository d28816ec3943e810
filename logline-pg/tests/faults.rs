//! Connections that break, servers that restart, pools that are empty: errors say whether to retry, a retry never appends twice,
//! and nothing that was acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerError, LedgerExt as _, Outcome, Query, Retry};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_pg::{PgLedger, PgOptions, Severity, doctor, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use server::{block_on, connection, database, ledger, options};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

fn scope() -> Scope {
    Scope::user("acme", "alice")
}

fn note() -> VerifiedSpan {
    let draft = Draft::new("note").tenant("acme").owner("alice").who("w").this("note.trial");
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

/// Appends until `stop`, retrying as the errors advise; returns what was acknowledged and how often a retry was needed.
async fn load(ledger: PgLedger, stop: Arc<AtomicBool>) -> (Vec<VerifiedSpan>, usize) {
    let (mut acknowledged, mut retries) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let span = note();
        loop {
            match ledger.append_one(&scope(), span.clone()).await {
                Ok(_) => break,
                Err(error) => {
                    assert_eq!(error.retry(), Retry::Later, "{error:?}");
                    retries += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        acknowledged.push(span);
    }
    (acknowledged, retries)
}

async fn check(ledger: &PgLedger, acknowledged: &[VerifiedSpan]) {
    let stored = ledger.collect(&scope(), &Query::timeline(), usize::MAX).await.unwrap();
    let ids: BTreeSet<_> = stored.iter().map(|span| span.id).collect();
    assert_eq!(ids.len(), stored.len(), "nothing is there twice");
    assert!(acknowledged.iter().all(|span| ids.contains(&span.id)), "nothing acknowledged is lost");
    let report = fsck(ledger, Audit::default(), &mut |_| {}).await.unwrap();
    assert_eq!(report.problems, 0);
}

#[test]
fn a_server_that_crashes_under_load_loses_nothing_acknowledged() {
    block_on(async {
        let server = PrivateServer::start(&ServerOptions { durable: true, ..Default::default() }).unwrap();
        let mut superuser = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
        superuser.execute("CREATE DATABASE ledger").await.unwrap();
        superuser.close().await.unwrap();
        let options = PgOptions::new(&server.url("postgres", "ledger")).unwrap();
        migrate(&options).await.unwrap();
        let ledger = PgLedger::connect(options.acquire_timeout(Duration::from_secs(2))).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..8).map(|_| tokio::spawn(load(ledger.clone(), Arc::clone(&stop)))).collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| server.crash_and_restart()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        // How many callers had to retry depends on how soon the server was back: the writer tries another connection by itself.
        let mut acknowledged = Vec::new();
        for load in loads {
            let (spans, _) = load.await.unwrap();
            assert!(!spans.is_empty(), "each caller has appended something");
            acknowledged.extend(spans);
        }
        check(&ledger, &acknowledged).await;
    });
}

#[test]
fn killed_backends_lose_and_repeat_nothing() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..8).map(|_| tokio::spawn(load(ledger.clone(), Arc::clone(&stop)))).collect();
        let mut superuser = connection("postgres", &database).await;
        let mut acknowledged = Vec::new();
        for _ in 0..20 {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
            superuser.execute(kill).await.unwrap();
            // Between any two kills something is written.
            let span = note();
            while let Err(error) = ledger.append_one(&scope(), span.clone()).await {
                assert_eq!(error.retry(), Retry::Later, "{error:?}");
            }
            acknowledged.push(span);
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            acknowledged.extend(load.await.unwrap().0);
        }
        check(&ledger, &acknowledged).await;
    });
}

#[test]
fn a_retry_after_an_unknown_outcome_stores_nothing_twice() {
    block_on(async {
        let (_database, ledger) = ledger().await;
        let first = note();
        let next =
            Draft::next_version(&first).stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap();
        let batch = vec![first, next];
        for expected in [Outcome::Appended, Outcome::Existing, Outcome::Existing] {
            let receipts = ledger.append(&scope(), batch.clone(), &AppendOptions::default()).await.unwrap();
            assert!(receipts.iter().all(|receipt| receipt.outcome == expected), "{receipts:?}");
        }
        assert_eq!(ledger.collect(&scope(), &Query::timeline(), 10).await.unwrap().len(), 2);
    });
}

#[test]
fn a_statement_that_takes_too_long_is_given_up_and_can_be_retried() {
    block_on(async {
        let database = database().await;
        let ledger = PgLedger::connect(options("host", &database).statement_timeout(Duration::from_millis(500))).await.unwrap();
        let mut blocker = connection("postgres", &database).await;
        blocker.execute("BEGIN; LOCK TABLE ledger.universal_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let span = note();
        let writing = ledger.append_one(&scope(), span.clone()).await.unwrap_err();
        let reading = ledger.get(&scope(), "acme", span.id).await.unwrap_err();
        for error in [writing, reading] {
            assert!(error.to_string().contains("statement timeout"), "{error}");
            assert_eq!(error.retry(), Retry::Later);
        }
        blocker.execute("ROLLBACK").await.unwrap();
        // On a busy machine it may take too long once more.
        let written = async {
            while let Err(error) = ledger.append_one(&scope(), span.clone()).await {
                assert_eq!(error.retry(), Retry::Later, "{error}");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is written when the lock has gone");
    });
}

/// The pool waits for a connection that it cannot make. What it waits for is the server, not another caller.
#[test]
fn a_server_that_died_is_not_reported_as_a_busy_pool() {
    block_on(async {
        let server = PrivateServer::start(&ServerOptions::default()).unwrap();
        let options = PgOptions::new(&server.url("postgres", "postgres")).unwrap();
        migrate(&options).await.unwrap();
        let ledger = PgLedger::connect(options.acquire_timeout(Duration::from_secs(2))).await.unwrap();
        ledger.append_one(&scope(), note()).await.unwrap();
        server.stop_hard().unwrap();
        for _ in 0..2 {
            let get = ledger.get(&scope(), "acme", uuid::Uuid::from_u128(1)).await.unwrap_err();
            let append = ledger.append_one(&scope(), note()).await.unwrap_err();
            for error in [get, append] {
                assert!(matches!(error, LedgerError::Unavailable { .. }), "{error}");
                assert!(!error.to_string().contains("max_connections"), "{error}");
            }
        }
    });
}

#[test]
fn an_exhausted_pool_says_so() {
    block_on(async {
        let database = database().await;
        let small = options("host", &database).max_connections(2).writers(1).acquire_timeout(Duration::from_secs(3));
        let ledger = PgLedger::connect(small).await.unwrap();
        ledger.append_one(&scope(), note()).await.unwrap();
        let mut blocker = connection("postgres", &database).await;
        blocker.execute("BEGIN; LOCK TABLE ledger.universal_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
        // The writer keeps one connection, and the first reader waits on the other.
        let second = async {
            let error = ledger.scan(&scope(), &Query::timeline(), None).await.unwrap_err();
            blocker.execute("ROLLBACK").await.unwrap();
            error
        };
        let (first, query) = (scope(), Query::timeline());
        let (first, error) = futures_util::future::join(ledger.scan(&first, &query, None), second).await;
        assert!(matches!(&error, LedgerError::Unavailable { reason, .. } if reason.contains("max_connections")), "{error}");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(first.unwrap().rows.len(), 1);
        let error = PgLedger::connect(options("host", &database).max_connections(2).writers(2)).await.map(drop).unwrap_err();
        assert!(matches!(error, LedgerError::Refused { .. }), "{error}");
    });
}

#[test]
fn one_members_refusal_is_not_its_neighbours() {
    block_on(async {
        let database = database().await;
        let api = PgLedger::connect(options("api", &database).writers(1)).await.unwrap();
        let appends = (0..64).map(|n| {
            let api = api.clone();
            tokio::spawn(async move {
                // One in eight asks for a role that the login has not.
                let scope = if n % 8 == 0 { Scope::Operator } else { scope() };
                (n, api.append_one(&scope, note()).await)
            })
        });
        for append in appends.collect::<Vec<_>>() {
            let (n, result) = append.await.unwrap();
            assert_eq!(result.is_ok(), n % 8 != 0, "{result:?}");
        }
        assert_eq!(api.collect(&scope(), &Query::timeline(), 100).await.unwrap().len(), 56);
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_a_wrong_login_is_refused() {
    block_on(async {
        let nobody = PgOptions::new("postgres://host@127.0.0.1:1/ledger").unwrap().acquire_timeout(Duration::from_millis(300));
        let error = PgLedger::connect(nobody).await.map(drop).unwrap_err();
        assert_eq!(error.retry(), Retry::Later, "{error}");
        let database = database().await;
        let error = PgLedger::connect(options("nobody_here", &database)).await.map(drop).unwrap_err();
        assert!(matches!(&error, LedgerError::Refused { reason } if reason.contains("pg_hba.conf")), "{error}");
    });
}

#[test]
fn the_doctor_finds_what_was_broken() {
    block_on(async {
        let database = database().await;
        let options = options("postgres", &database);
        let worst = |findings: &[logline_pg::Finding]| findings.iter().map(|f| f.severity).max().unwrap();
        let healthy = doctor(&options).await.unwrap();
        assert_eq!(worst(&healthy), Severity::Warning, "fsync is off here: {healthy:#?}");
        let breakages = [
            ("row-level security", "ALTER TABLE ledger.universal_registry NO FORCE ROW LEVEL SECURITY"),
            ("policies", "CREATE POLICY backdoor ON ledger.universal_registry FOR SELECT USING (true)"),
            ("view", "ALTER VIEW ledger.visible_timeline RESET (security_invoker)"),
            ("triggers", "ALTER TABLE ledger.universal_registry DISABLE TRIGGER ur_no_change"),
            ("indexes", "DROP INDEX ledger.ur_first_version"),
            ("grants", "GRANT DELETE ON ledger.universal_registry TO logline_app"),
            ("functions with the owner's rights", "ALTER FUNCTION ledger.last_seq(text, uuid) RESET search_path"),
            ("who may create in the schemas", "GRANT CREATE ON SCHEMA app TO logline_runtime"),
            ("cluster", "UPDATE ledger.epochs SET cluster = 'another'"),
            ("members of the owner", "CREATE ROLE intruder LOGIN; GRANT logline_owner TO intruder"),
        ];
        for (check, sql) in breakages {
            connection("postgres", &database).await.execute(AssertSqlSafe(sql)).await.unwrap();
            let findings = doctor(&options).await.unwrap();
            let finding = findings.iter().find(|finding| finding.check == check).unwrap();
            assert_eq!(finding.severity, Severity::Failure, "{check}: {finding:?}");
            assert!(!finding.advice.is_empty());
        }
    });
}

/// What protects the ledger cannot be changed behind the doctor's back, one definition at a time.
#[test]
fn the_doctor_sees_every_changed_definition() {
    block_on(async {
        for sql in [
            "ALTER POLICY app_reads ON ledger.universal_registry USING (true)",
            "ALTER POLICY operator_reads ON ledger.universal_registry USING (tenant_id <> 'acme')",
            "CREATE OR REPLACE FUNCTION ledger.check_link() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
               SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'",
            "CREATE OR REPLACE FUNCTION ledger.is_reserved(entity_type text, is_first boolean) RETURNS boolean LANGUAGE sql IMMUTABLE
               PARALLEL SAFE RETURN false",
            "ALTER TABLE ledger.universal_registry DISABLE TRIGGER ur_active",
            "ALTER TABLE ledger.active DISABLE ROW LEVEL SECURITY",
            "CREATE RULE quiet AS ON INSERT TO ledger.quota DO INSTEAD NOTHING",
            "ALTER TABLE ledger.universal_registry DROP CONSTRAINT ck_append_only",
            "ALTER FUNCTION ledger.check_link() OWNER TO CURRENT_USER",
            "GRANT EXECUTE ON FUNCTION ledger.open_epoch(boolean) TO logline_app",
            "GRANT USAGE ON SCHEMA ledger TO PUBLIC",
            "ALTER TABLE ledger.quota ALTER COLUMN used SET DEFAULT 5",
            "CREATE FUNCTION app.helpful() RETURNS text LANGUAGE sql RETURN 'x'",
        ] {
            let database = database().await;
            let options = options("postgres", &database);
            let definitions = async || {
                let findings = doctor(&options).await.unwrap();
                let finding = findings.into_iter().find(|finding| finding.check == "definitions").unwrap();
                (finding.severity, finding.found)
            };
            assert_eq!(definitions().await.0, Severity::Ok);
            connection("postgres", &database).await.execute(AssertSqlSafe(sql)).await.unwrap();
            let (severity, found) = definitions().await;
            assert_eq!(severity, Severity::Failure, "{sql}: {found}");
            // Migrating again does not accept it; an operator who means it does.
            migrate(&options).await.unwrap();
            assert_eq!(definitions().await.0, Severity::Failure, "{sql}");
            logline_pg::accept_definitions(&options).await.unwrap();
            assert_eq!(definitions().await.0, Severity::Ok, "{sql}");
        }
    });
}

/// The server notices that a client has gone only when it has something to send. Without help, callers with a short patience
/// would leave one busy backend each.
#[test]
fn a_scan_that_nobody_waits_for_ends_on_the_server() {
    block_on(async {
        let (database, ledger) = ledger().await;
        ledger.append_one(&scope(), note()).await.unwrap();
        let ledger = {
            drop(ledger);
            PgLedger::connect(options("host", &database).max_connections(3).writers(1)).await.unwrap()
        };
        let mut other = connection("postgres", &database).await;
        other.execute("BEGIN; LOCK TABLE ledger.universal_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut watching = connection("postgres", &database).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'";
        let mut most = 0;
        for _ in 0..12 {
            let scope = scope();
            let query = Query::timeline();
            let mut scan = std::pin::pin!(ledger.scan(&scope, &query, None));
            // The caller goes when its scan is waiting on the server.
            loop {
                let _ = tokio::time::timeout(Duration::from_millis(5), &mut scan).await;
                let busy: i64 = sqlx::query_scalar(waiting).fetch_one(&mut watching).await.unwrap();
                most = most.max(busy);
                if busy > 0 {
                    break;
                }
            }
        }
        assert!(most <= 3, "{most} backends were busy for a pool of 3");
        let ended = async {
            while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching).await.unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("statements of callers that have gone have ended");
        other.execute("COMMIT").await.unwrap();
        assert_eq!(ledger.collect(&scope(), &Query::timeline(), 10).await.unwrap().len(), 1, "the pool still works");
    });
}

/// After a failover the old connections may stay silent for ever. The statements of callers that have gone cannot be stopped then,
/// and their connections must not count for ever.
#[test]
fn a_server_that_falls_silent_does_not_keep_the_pool() {
    block_on(async {
        let database = database().await;
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, target) = (proxy.local_addr().unwrap().port(), server::server().port());
        // Connections of an earlier generation are silent.
        let (silence, generation) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = proxy.accept().await.unwrap();
                let mut generation = generation.clone();
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                    generation.mark_unchanged();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = generation.changed() => std::future::pending::<()>().await,
                    }
                });
            }
        });
        let through = options("host", &database);
        let through = PgOptions::from_connect(through.connect.host("127.0.0.1").port(port)).max_connections(3).writers(1);
        let ledger = PgLedger::connect(through.acquire_timeout(Duration::from_secs(5))).await.unwrap();
        ledger.append_one(&scope(), note()).await.unwrap();
        let mut lock = connection("postgres", &database).await;
        lock.execute("BEGIN; LOCK TABLE ledger.universal_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut watching = connection("postgres", &database).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'";
        let (query, scope) = (Query::timeline(), scope());
        {
            let scans = futures_util::future::join(ledger.scan(&scope, &query, None), ledger.scan(&scope, &query, None));
            let both_wait = async {
                while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching).await.unwrap() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            // Both callers go when the server has fallen silent.
            tokio::select! {
                _ = scans => panic!("the table is locked"),
                () = both_wait => silence.send_replace(1),
            };
        }
        lock.execute("ROLLBACK").await.unwrap();
        let works = async { while ledger.scan(&scope, &query, None).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(90), works).await.expect("the pool works again");
    });
}

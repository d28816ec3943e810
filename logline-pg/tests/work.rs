//! The queue and the counters in the database: what the suite cannot do because it has one host and no hands in the tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../../logline-kernels/tests/outside/open_calls.rs"]
mod open_calls;
mod server;

use std::time::Duration;

use futures_util::future::join_all;
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerError, LedgerExt as _, Limit, Poll, Query, Work, WorkQueue as _};
use logline_core::request::Charges;
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use logline_pg::{PgLedger, Severity, doctor, migrate};
use server::{block_on, connection, database, ledger, options, superuser};
use sqlx::{AssertSqlSafe, Executor as _};

fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

fn request(tenant: &str) -> VerifiedSpan {
    seal(Draft::new("request").tenant(tenant).owner("alice").who("user:alice").this("function.run").status("scheduled"))
}

fn claim(request: &VerifiedSpan, charges: &Charges) -> VerifiedSpan {
    seal(Draft::next_version(request).status("running").meta("lease_ms", 60_000).meta("quota", charges.to_value()))
}

/// Two open requests, a claimed one, and one unit used.
async fn filled(ledger: &PgLedger) -> Vec<Work> {
    // Requests that are due at the same time are offered in the order of their ids, which is not the order in which they were made.
    let mut open = [request("acme"), request("acme")];
    open.sort_by_key(|request| request.id);
    let claimed = request("acme");
    let charges = Charges::new(ledger.now().await.unwrap().day(), ["runs"]);
    let batch = open.iter().cloned().chain([claimed.clone(), claim(&claimed, &charges)]).collect();
    ledger.append(&Scope::runtime("acme"), batch, &AppendOptions::default()).await.unwrap();
    let work = ledger.claimable(&Poll::new(10)).await.unwrap();
    assert_eq!(work, open.iter().map(|span| Work::of(span)).collect::<Vec<_>>());
    work
}

async fn open_work_finding(database: &str) -> (Severity, String) {
    let findings = doctor(&options("api", database)).await.unwrap();
    let finding = findings.into_iter().find(|finding| finding.check == "open work").unwrap();
    (finding.severity, finding.found)
}

#[test]
fn a_database_of_version_1_is_migrated_and_its_open_work_found() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let work = filled(&ledger).await;
        superuser(
            &database,
            "DROP TABLE memory.epochs, memory.subject_keys, memory.record_keys, memory.receipts CASCADE; DROP TABLE ledger.memories CASCADE; DROP TRIGGER ur_memories ON ledger.universal_registry; DROP TEXT SEARCH CONFIGURATION ledger.memory;
             DROP TEXT SEARCH DICTIONARY ledger.stems;
             DROP FUNCTION IF EXISTS ledger.plain, ledger.place, ledger.memory_entry, ledger.keep_memories, ledger.searched_place, ledger.is_searched,
               ledger.search_text, ledger.search_similar, ledger.has_trigrams, ledger.rebuild_memories, ledger.stray_memories CASCADE;
             DROP TABLE ledger.work, ledger.active, ledger.quota; DROP TRIGGER ur_work ON ledger.universal_registry; DROP TRIGGER ur_counters ON ledger.universal_registry;
             DROP FUNCTION IF EXISTS ledger.today, ledger.number_in, ledger.time_in, ledger.is_claim, ledger.ends_attempt, ledger.ready_at, ledger.charges,
               ledger.keep_work, ledger.keep_counters, ledger.charged_as, ledger.claimable, ledger.hold_due, ledger.take, ledger.is_due, ledger.hold_claims, ledger.used, ledger.hold_counters, ledger.rebuild_work,
               ledger.stray_work, ledger.next_tenant, ledger.park, ledger.waiting, ledger.list_open, ledger.active_as, ledger.keep_active, ledger.list_active, ledger.refuse_active, ledger.offer_active, ledger.touched CASCADE;
             DELETE FROM ledger.migrations WHERE version >= 2",
        )
        .await;
        let error = PgLedger::connect(options("worker", &database)).await.map(drop).unwrap_err();
        assert!(matches!(error, LedgerError::SchemaVersion { found: 1, supported: 4, .. }), "{error}");
        let migrated = migrate(&options("postgres", &database)).await.unwrap();
        assert_eq!((migrated.from, migrated.to), (1, 4));
        let ledger = PgLedger::connect(options("worker", &database)).await.unwrap();
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap(), work);
        assert_eq!(ledger.used("acme", "runs").await.unwrap(), 1);
        assert_eq!(open_work_finding(&database).await.0, Severity::Ok);
    });
}

#[test]
fn doctor_sees_what_somebody_did_to_the_queue_and_a_rebuild_repairs_it() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let work = filled(&ledger).await;
        for (vandalism, is_seen) in [
            ("DELETE FROM ledger.work", true),
            ("UPDATE ledger.work SET seq = 7", true),
            (
                "INSERT INTO ledger.work SELECT 'globex', id, seq, owner_id, curr_hash, 9, ready_at, leased FROM ledger.work",
                true,
            ),
            // An hour more or less is a heartbeat, a unit more or less a claim that nobody reads again but a rebuild.
            ("UPDATE ledger.work SET ready_at = ready_at + interval '1 hour' WHERE NOT leased", false),
            ("UPDATE ledger.quota SET used = 1000000", false),
            ("DELETE FROM ledger.quota", false),
        ] {
            superuser(&database, vandalism).await;
            let (severity, found) = open_work_finding(&database).await;
            assert_eq!(severity == Severity::Failure, is_seen, "{vandalism}: {found}");
            let rebuilt = ledger.rebuild().await.unwrap();
            assert_eq!((rebuilt.open, rebuilt.counters), (3, 1), "{vandalism}");
            assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap(), work, "{vandalism}");
            assert_eq!(ledger.used("acme", "runs").await.unwrap(), 1, "{vandalism}");
            assert_eq!(open_work_finding(&database).await.0, Severity::Ok);
        }
    });
}

#[test]
fn a_quota_holds_between_hosts_that_name_quotas_in_any_order() {
    block_on(async {
        let database = database().await;
        let mut hosts = Vec::new();
        for _ in 0..4 {
            hosts.push(PgLedger::connect(options("worker", &database)).await.unwrap());
        }
        let tenants = ["acme", "globex", "initech"];
        let mut requests = Vec::new();
        for tenant in tenants {
            let of_tenant: Vec<_> = (0..40).map(|_| request(tenant)).collect();
            hosts[0].append(&Scope::runtime(tenant), of_tenant.clone(), &AppendOptions::default()).await.unwrap();
            requests.push(of_tenant);
        }
        let day = hosts[0].now().await.unwrap().day();
        let charges = Charges::new(day, ["z", "runs", "a"]);
        // Every host takes requests of every tenant, in another order, some of them in batches; so each meets each.
        let tries = (0..40).flat_map(|n| (0..3).map(move |t| (n, t))).map(|(n, t)| {
            let tenant = tenants[(t + n) % 3];
            let span = claim(&requests[(t + n) % 3][n], &charges);
            let limit = |key: &str, per_day| Limit { tenant: tenant.to_owned(), key: key.to_owned(), per_day };
            let options = AppendOptions::default().limits(vec![limit("runs", 25), limit("a", 1000), limit("z", 1000)]);
            let host = &hosts[n % hosts.len()];
            async move { host.append(&Scope::runtime(tenant), vec![span], &options).await }
        });
        let results = join_all(tries).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 75);
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(&error, LedgerError::QuotaExceeded { key, .. } if key == "runs"), "{error}");
        }
        for tenant in tenants {
            for key in ["a", "runs", "z"] {
                assert_eq!(hosts[1].used(tenant, key).await.unwrap(), 25);
            }
        }
        assert_eq!(hosts[2].claimable(&Poll::new(100)).await.unwrap().len(), 45);
    });
}

#[test]
fn nobody_reads_or_writes_the_queues_tables_past_its_functions() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let work = filled(&ledger).await;
        let tables = [
            "SELECT * FROM ledger.work",
            "SELECT * FROM ledger.quota",
            "DELETE FROM ledger.work",
            "UPDATE ledger.work SET ready_at = 'infinity'",
            "UPDATE ledger.quota SET used = 0",
            "INSERT INTO ledger.quota VALUES ('acme', 'runs', current_date, 0)",
            "TRUNCATE ledger.work",
        ];
        let calls_for_hosts = [
            "SELECT * FROM ledger.claimable('', 10, NULL, 10, '{}')",
            "SELECT * FROM ledger.waiting('acme', gen_random_uuid())",
            "SELECT ledger.park('acme', ARRAY[gen_random_uuid()], ARRAY[0], ARRAY[now()], ARRAY[''])",
            "SELECT ledger.used('acme', 'runs')",
            "SELECT * FROM ledger.touched(1, '0')",
            "SELECT ledger.offer_active('policy', NULL)",
            "SELECT ledger.refuse_active('policy', 'acme', ARRAY[gen_random_uuid()], ARRAY[0])",
            "SELECT * FROM ledger.hold_counters(ARRAY['acme'], ARRAY['runs'])",
        ];
        let call_for_operators = ["SELECT * FROM ledger.rebuild_work()"];
        let refused = async |login: &str, statements: &[&str]| {
            let mut session = connection(login, &database).await;
            session
                .execute("SELECT set_config('app.tenant_id', 'acme', false), set_config('app.user_id', 'alice', false)")
                .await
                .unwrap();
            for sql in statements {
                let error = session.execute(AssertSqlSafe((*sql).to_owned())).await.map(drop).unwrap_err();
                let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
                assert_eq!(code, "42501", "{login}: {sql}: {error}");
            }
        };
        for login in ["api", "worker", "auditor", "stranger"] {
            refused(login, &tables).await;
        }
        refused("api", &calls_for_hosts).await;
        refused("api", &call_for_operators).await;
        refused("worker", &call_for_operators).await;
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap(), work);
        let api = PgLedger::connect(options("api", &database)).await.unwrap();
        let error = api.claimable(&Poll::new(10)).await.unwrap_err();
        assert!(matches!(error, LedgerError::Refused { .. }), "{error}");
    });
}

#[test]
fn another_tenants_worker_learns_and_changes_nothing_of_my_counters_and_leases() {
    block_on(async {
        let (database, ledger) = ledger().await;
        filled(&ledger).await;
        let running = Query::new().tenant("acme").entity_type("request");
        let running = ledger.collect(&Scope::Operator, &running, 10).await.unwrap();
        let running = running.iter().find(|span| span.status.as_deref() == Some("running")).unwrap();
        let mut session = connection("worker", &database).await;
        session.execute("SET ROLE logline_runtime; SELECT set_config('app.tenant_id', 'globex', false)").await.unwrap();
        let used: i64 = sqlx::query_scalar("SELECT ledger.used('acme', 'runs')").fetch_one(&mut session).await.unwrap();
        assert_eq!(used, 0);
        let held = sqlx::query("SELECT * FROM ledger.hold_counters(ARRAY['acme', 'globex'], ARRAY['runs', 'runs'])");
        assert_eq!(held.fetch_all(&mut session).await.unwrap().len(), 1);
        let steal: bool =
            sqlx::query_scalar("SELECT ledger.hold_claims('acme', ARRAY[$1::uuid], ARRAY[1], ARRAY[$2], ARRAY[0::bigint])")
                .bind(running.id)
                .bind(running.seal.curr_hash.to_string())
                .fetch_one(&mut session)
                .await
                .unwrap();
        assert!(!steal);
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap().len(), 2);
        assert!(ledger.heartbeat(&Work::of(running), Duration::ZERO).await.unwrap());
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap().len(), 3);
    });
}

#[test]
fn calls_that_no_attempt_closes_are_closed_once() {
    block_on(async {
        open_calls::of_many_reapers_one_closes_a_call(&ledger().await.1).await;
        open_calls::a_late_answer_and_a_reaper_write_one_outcome(&ledger().await.1).await;
        open_calls::calls_of_attempts_that_are_over_are_closed(&ledger().await.1).await;
    });
}

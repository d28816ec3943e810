//! Logins, roles and connections: what they change, take or carry on.

use logline_core::Scope;
use logline_core::ledger::{Cursor, Ledger as _, LedgerError, LedgerExt as _, Order, Query};
use logline_pg::PgLedger;
use sqlx::Executor as _;
use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::server::{block_on, ledger, options, server};
use crate::setup::{insert, note, refusal, seal, session, with_secrets};

#[test]
fn no_role_changes_what_was_written() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let statements = [
            "UPDATE ledger.universal_registry SET content = '1'",
            "DELETE FROM ledger.universal_registry",
            "TRUNCATE ledger.universal_registry",
            "UPDATE ledger.visible_timeline SET content = '1'",
            "DELETE FROM ledger.visible_timeline",
            "ALTER TABLE ledger.universal_registry DISABLE TRIGGER ur_no_change",
            "ALTER TABLE ledger.universal_registry DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE ledger.universal_registry ADD COLUMN x text",
            "DROP TABLE ledger.universal_registry",
            "DROP POLICY app_reads ON ledger.universal_registry",
            "CREATE POLICY mine ON ledger.universal_registry USING (true)",
            "CREATE OR REPLACE FUNCTION app.current_tenant_id() RETURNS text LANGUAGE sql AS $$ SELECT 'acme' $$",
            "CREATE TABLE ledger.mine (x text)",
            "INSERT INTO ledger.epochs VALUES (7, 'x')",
            "SELECT ledger.open_epoch(true)",
            "SET ROLE logline_owner",
            "SET session_replication_role = replica",
        ];
        for login in ["api", "worker", "auditor", "host"] {
            let mut session = session(login, &database, "acme", "alice").await;
            for sql in statements {
                let refused = refusal(&mut session, sql).await;
                assert!(refused.starts_with("42501"), "{login}: {sql}: {refused}");
            }
        }
        // The owner may alter the table, and still changes no row.
        let mut owner = session("postgres", &database, "acme", "alice").await;
        owner.execute("SET ROLE logline_owner").await.unwrap();
        for sql in &statements[..3] {
            assert!(refusal(&mut owner, sql).await.starts_with("23001"), "{sql}");
        }
        assert!(refusal(&mut owner, &insert(Uuid::from_u128(9), 0, "note", "alice", "acme", None)).await.starts_with("42501"));
        // Nor does a superuser by the ways that leave no trace in the schema.
        let mut superuser = session("postgres", &database, "acme", "alice").await;
        superuser.execute("SET session_replication_role = replica").await.unwrap();
        for sql in &statements[..3] {
            assert!(refusal(&mut superuser, sql).await.starts_with("23001"), "{sql}");
        }
    });
}

#[test]
fn a_superuser_login_through_the_library_is_confined() {
    block_on(async {
        let (database, _ledger, [private, _]) = with_secrets().await;
        let ledger = PgLedger::connect(options("postgres", &database)).await.unwrap();
        let mallory = Scope::user("globex", "mallory");
        assert!(ledger.find(&mallory, "acme", private.id).await.unwrap().is_none());
        assert!(ledger.collect(&mallory, &Query::timeline(), 10).await.unwrap().is_empty());
        assert_eq!(ledger.collect(&Scope::user("acme", "bob"), &Query::timeline(), 10).await.unwrap().len(), 1);
    });
}

#[test]
fn a_login_takes_no_role_it_was_not_granted() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let api = PgLedger::connect(options("api", &database)).await.unwrap();
        for scope in [Scope::Operator, Scope::runtime("acme")] {
            let error = api.scan(&scope, &Query::timeline(), None).await.unwrap_err();
            assert!(matches!(&error, LedgerError::Refused { reason } if reason.contains("grant logline_app")), "{error}");
            let span = seal(note("acme", "alice"));
            let error = api.append_one(&scope, span).await.unwrap_err();
            assert!(matches!(error, LedgerError::Refused { .. }), "{error}");
        }
        api.append_one(&Scope::user("acme", "bob"), seal(note("acme", "bob"))).await.unwrap();
        // A worker may read as the users whose functions it runs; an operator may do all that there is.
        let worker = PgLedger::connect(options("worker", &database)).await.unwrap();
        assert_eq!(worker.collect(&Scope::user("acme", "bob"), &Query::timeline(), 10).await.unwrap().len(), 2);
        let error = worker.scan(&Scope::Operator, &Query::timeline(), None).await.unwrap_err();
        assert!(matches!(error, LedgerError::Refused { .. }), "{error}");
        let auditor = PgLedger::connect(options("auditor", &database)).await.unwrap();
        for scope in [Scope::user("acme", "bob"), Scope::runtime("acme"), Scope::Operator] {
            auditor.scan(&scope, &Query::timeline(), None).await.unwrap();
        }
        let error = PgLedger::connect(options("stranger", &database)).await.map(drop).unwrap_err();
        assert!(matches!(error, LedgerError::Refused { .. }), "{error}");
    });
}

#[test]
fn a_forged_cursor_costs_no_more_than_a_page() {
    block_on(async {
        let (_database, ledger, _) = with_secrets().await;
        let acme = Scope::runtime("acme");
        let all = ledger.scan(&acme, &Query::timeline(), None).await.unwrap().rows.len();
        for (cursor, order, seen) in [
            ("p:-2147483648:0:0", Order::Append, all),
            ("p:2147483647:18446744073709551615:9223372036854775807", Order::Append, 0),
            ("p:2147483647:18446744073709551615:9223372036854775807", Order::Newest, all),
            ("p:-2147483648:0:0", Order::Newest, 0),
        ] {
            let query = Query::timeline().order(order);
            let page = ledger.scan(&acme, &query, Some(&Cursor::from_text(cursor.to_owned()))).await.unwrap();
            assert_eq!(page.rows.len(), seen, "{cursor} {order:?}");
        }
    });
}

#[test]
fn a_pooled_connection_carries_no_identity_to_its_next_user() {
    block_on(async {
        let (database, _ledger, [private, _]) = with_secrets().await;
        // One connection reads, whoever asks.
        let ledger = PgLedger::connect(options("host", &database).max_connections(2).writers(1)).await.unwrap();
        let alice = Scope::user("acme", "alice");
        let mallory = Scope::user("globex", "mallory");
        for _ in 0..20 {
            // Cancelled in the middle of alice's read, at whatever point that is.
            let reading = ledger.get(&alice, "acme", private.id);
            let _ = futures_util::future::select(Box::pin(reading), Box::pin(tokio::task::yield_now())).await;
            assert!(ledger.find(&mallory, "acme", private.id).await.unwrap().is_none());
        }
        let panicking = ledger.clone();
        let id = private.id;
        let task = tokio::spawn(async move {
            panicking.get(&Scope::user("acme", "alice"), "acme", id).await.unwrap();
            panic!("a handler that panics");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(ledger.collect(&mallory, &Query::timeline(), 10).await.unwrap().is_empty());
    });
}

#[test]
fn a_notification_carries_nothing() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let mut listener = PgListener::connect(&server().url("api", &database)).await.unwrap();
        listener.listen("logline").await.unwrap();
        ledger.append_one(&Scope::user("acme", "alice"), seal(note("acme", "alice"))).await.unwrap();
        assert_eq!(listener.recv().await.unwrap().payload(), "");
    });
}

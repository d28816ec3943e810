//! Bringing a database to the schema: at once from many hosts, with a login that is no superuser, where something is hidden.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use logline_core::ledger::{Ledger as _, LedgerError, LedgerExt as _, Poll, Query, WorkQueue as _};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds};
use logline_pg::{PgLedger, PgOptions, migrate, migrate_to_new_epoch};
use logline_pg_testing::PrivateServer;
use server::{block_on, connection, database, empty_database, ledger, options, superuser};
use sqlx::{Connection as _, Executor as _, PgConnection};

async fn append(ledger: &PgLedger) {
    let draft = Draft::new("note").tenant("acme").owner("alice").who("w").this("note.trial");
    let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap();
    ledger.append_one(&Scope::user("acme", "alice"), span).await.unwrap();
}

#[test]
fn a_login_that_is_no_superuser_migrates_and_does_not_stay_the_owner() {
    block_on(async {
        let server = PrivateServer::start(&Default::default()).unwrap();
        let mut postgres = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
        postgres.execute("CREATE ROLE dba LOGIN CREATEROLE").await.unwrap();
        postgres.execute("CREATE DATABASE ledger OWNER dba").await.unwrap();
        let options = PgOptions::new(&server.url("dba", "ledger")).unwrap();
        let migrated = migrate(&options).await.unwrap();
        assert_eq!((migrated.from, migrated.epoch), (0, 1));
        // Whoever can read the table as its owner reads everything.
        let mut dba = PgConnection::connect(&server.url("dba", "ledger")).await.unwrap();
        for sql in ["SELECT count(*) FROM ledger.universal_registry", "SET ROLE logline_owner"] {
            let refused = dba.execute(sql).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{sql}");
        }
        let again = migrate(&options).await.unwrap();
        assert_eq!(again.from, again.to);
        dba.execute("CREATE ROLE host LOGIN; GRANT logline_app TO host").await.unwrap();
        append(&PgLedger::connect(PgOptions::new(&server.url("host", "ledger")).unwrap()).await.unwrap()).await;
    });
}

/// Where a service hides which cluster this is, the operator still can say that it is another.
#[test]
fn a_new_epoch_is_opened_where_the_cluster_is_hidden() {
    block_on(async {
        let (database, _ledger) = ledger().await;
        superuser(&database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await;
        let ledger = PgLedger::connect(options("host", &database)).await.unwrap();
        append(&ledger).await;
        assert_eq!(migrate(&options("postgres", &database)).await.unwrap().epoch, 1);
        assert_eq!(migrate_to_new_epoch(&options("postgres", &database)).await.unwrap().epoch, 2);
        append(&ledger).await;
    });
}

#[test]
fn twenty_hosts_migrate_one_empty_database_at_once() {
    block_on(async {
        let _roles = database().await;
        let name = empty_database().await;
        let hosts = (0..20).map(|_| {
            let options = options("postgres", &name);
            tokio::spawn(async move { migrate(&options).await.unwrap() })
        });
        let mut worked = 0;
        for host in hosts.collect::<Vec<_>>() {
            let migrated = host.await.unwrap();
            worked += u32::from(migrated.from == 0);
            assert_eq!(migrated.to, 4);
        }
        assert_eq!(worked, 1);
        append(&PgLedger::connect(options("host", &name)).await.unwrap()).await;
        connection("postgres", &name)
            .await
            .execute("INSERT INTO ledger.migrations (version, name, hash) VALUES (5, 'of the future', '')")
            .await
            .unwrap();
        for error in [
            migrate(&options("postgres", &name)).await.map(drop).unwrap_err(),
            PgLedger::connect(options("host", &name)).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "ledger has schema version 5, this library supports 4: upgrade this library");
        }
    });
}

#[test]
fn a_database_without_a_ledger_says_what_to_do() {
    block_on(async {
        let _roles = database().await;
        let name = empty_database().await;
        let error = PgLedger::connect(options("host", &name)).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("run `logline migrate`"), "{error}");
        let error = PgLedger::connect(options("host", "missing")).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    });
}

/// In a rolling upgrade the first new host migrates while the others still run the code before. What a migration may do is to
/// add: a column with a default, an index, a function, a table.
#[test]
fn hosts_that_are_connected_work_on_under_the_next_schema() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let scope = Scope::user("acme", "alice");
        let queries = [Query::new(), Query::timeline().tenant("acme"), Query::new().max_visited(100), Query::chains()];
        // Often enough that every connection has prepared every statement.
        let use_it = async || {
            for _ in 0..10 {
                append(&ledger).await;
                let request = Draft::new("request").tenant("acme").owner("alice").who("w").this("t").status("scheduled");
                let request = request.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap();
                ledger.append_one(&scope, request.clone()).await.unwrap();
                assert!(ledger.get(&scope, "acme", request.id).await.is_ok());
                assert_eq!(ledger.history(&scope, "acme", request.id, 0, 10).await.unwrap().len(), 1);
                for query in &queries {
                    assert!(!ledger.scan(&scope, query, None).await.unwrap().rows.is_empty());
                }
                assert!(!ledger.claimable(&Poll::new(10)).await.unwrap().is_empty());
                ledger.used("acme", "runs").await.unwrap();
            }
        };
        use_it().await;
        let next = "ALTER TABLE ledger.universal_registry ADD COLUMN of_the_next_version text;
            ALTER TABLE ledger.work ADD COLUMN of_the_next_version text;
            CREATE INDEX of_the_next_version ON ledger.universal_registry (tenant_id, of_the_next_version);
            INSERT INTO ledger.migrations (version, name, hash) SELECT max(version) + 1, 'next', '' FROM ledger.migrations";
        superuser(&database, next).await;
        use_it().await;
        // A host that starts now has the wrong code.
        let refused = PgLedger::connect(options("host", &database)).await.err().unwrap();
        assert!(matches!(refused, LedgerError::SchemaVersion { .. }), "{refused}");
        assert!(refused.to_string().contains("upgrade this library"), "{refused}");
    });
}

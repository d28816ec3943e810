//! What the database has of core's rules, and what somebody changed by hand.

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::LedgerExt as _;
use logline_core::{Draft, Scope, ids, roles};
use logline_pg::PgOptions;
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;

use crate::server::{block_on, connection, database};
use crate::setup::{insert, note, seal, session, with_secrets};

/// The predicates of the database are those of core.
#[test]
fn the_databases_table_of_reserved_types_is_cores() {
    block_on(async {
        let database = database().await;
        let mut session = session("api", &database, "acme", "alice").await;
        // Names of tenants that look like the runtime's are theirs.
        let open =
            "payment Execution run build memoryx policy_ loan_run a_build c_selection d_execution logline logline_ logline_x";
        let known = logline_core::roles::ENTITY_TYPES.iter().map(|row| row.name);
        for entity_type in known.chain(open.split_whitespace()) {
            let mut draft = note("acme", "alice");
            draft.columns_mut().entity_type = entity_type.to_owned();
            let first = seal(draft);
            let second = seal(Draft::next_version(&first));
            for (span, is_first) in [(&first, true), (&second, false)] {
                let sql = "SELECT ledger.is_reserved($1, $2)";
                let theirs: bool =
                    sqlx::query_scalar(sql).bind(entity_type).bind(is_first).fetch_one(&mut session).await.unwrap();
                assert_eq!(theirs, roles::is_reserved_for_runtime(span), "{entity_type}, first: {is_first}");
            }
        }
        let premises: Vec<String> = sqlx::query_scalar("SELECT ledger.premises()").fetch_one(&mut session).await.unwrap();
        assert_eq!(premises, logline_core::ledger::PREMISES);
        let trigger = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'ur_premise'";
        let trigger: String = sqlx::query_scalar(trigger).fetch_one(&mut session).await.unwrap();
        assert!(premises.iter().all(|name| trigger.contains(&format!("'{name}'"))), "{trigger}");
        let sql = "SELECT ledger.idempotent_id('acme', 'alice', 'note', 'k-1')";
        let theirs: Uuid = sqlx::query_scalar(sql).fetch_one(&mut session).await.unwrap();
        assert_eq!(theirs, ids::idempotent("acme", "alice", "note", "k-1"));
    });
}

/// What a superuser does by hand, with triggers dropped, the audit finds.
#[test]
fn fsck_finds_what_a_superuser_changed_by_hand() {
    block_on(async {
        let (database, ledger, [private, shared]) = with_secrets().await;
        let next = seal(Draft::next_version(&shared));
        ledger.append_one(&Scope::Operator, next).await.unwrap();
        let mut superuser = connection("postgres", &database).await;
        superuser.execute("ALTER TABLE ledger.universal_registry DISABLE TRIGGER ALL").await.unwrap();
        let changes = [
            format!("UPDATE ledger.universal_registry SET content = '\"another secret\"' WHERE id = '{}'", private.id),
            format!("DELETE FROM ledger.universal_registry WHERE id = '{}' AND seq = 0", shared.id),
            insert(Uuid::from_u128(5), 0, "note", "alice", "acme", None).replace("repeat('a', 64)", "'h'"),
            "UPDATE ledger.universal_registry SET at = 'infinity' WHERE seq = 1".to_owned(),
        ];
        for change in changes {
            superuser.execute(AssertSqlSafe(change)).await.unwrap();
        }
        let mut problems = Vec::new();
        let mut on_event = |event| match event {
            Event::Problem(problem) => problems.push(problem.to_string()),
            Event::Store(problem) => problems.push(problem),
            _ => {}
        };
        let report = fsck(&ledger, Audit::default(), &mut on_event).await.unwrap();
        assert_eq!((report.rows, report.problems), (3, problems.len() as u64));
        let found = problems.join("\n");
        for (id, what) in [(private.id, "hash"), (shared.id, "damaged: at"), (Uuid::from_u128(5), "damaged: curr_hash")] {
            assert!(problems.iter().any(|p| p.contains(&id.to_string()) && p.contains(what)), "{id} {what}\n{found}");
        }
        assert!(problems.iter().any(|problem| problem.starts_with("definitions:")), "disabled triggers\n{found}");
    });
}

/// The operator's policy hides a row that users see. The audit reads with that policy, and knows how many rows there are.
#[test]
fn a_row_that_is_hidden_from_the_audit_is_missed() {
    block_on(async {
        let (database, ledger, [private, _]) = with_secrets().await;
        let hide = format!("ALTER POLICY operator_reads ON ledger.universal_registry USING (id <> '{}')", private.id);
        connection("postgres", &database).await.execute(AssertSqlSafe(hide)).await.unwrap();
        let mut problems = Vec::new();
        let mut on_event = |event| {
            if let Event::Store(problem) = event {
                problems.push(problem);
            }
        };
        let report = fsck(&ledger, Audit::default(), &mut on_event).await.unwrap();
        assert_eq!(report.problems, 2, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("1 of 2 rows are hidden")), "{problems:?}");
    });
}

#[test]
fn a_password_in_a_url_is_in_no_error() {
    for url in ["postgres://api:hunter2@host:notaport/db", "mysql://api:hunter2@host/db", "api:hunter2@host/db"] {
        let error = PgOptions::new(url).map(drop).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

//! Sessions that read or write what is another user's or another tenant's.

use logline_core::ledger::LedgerExt as _;
use logline_core::{Scope, Visibility, ids};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use crate::server::block_on;
use crate::setup::{count, insert, note, refusal, seal, session, with_secrets};

#[test]
fn another_tenants_session_reads_nothing_by_any_query() {
    block_on(async {
        let (database, _ledger, [private, shared]) = with_secrets().await;
        for (login, user) in [("api", "mallory"), ("api", "alice"), ("worker", "")] {
            let mut mallory = session(login, &database, "globex", user).await;
            for relation in ["ledger.universal_registry", "ledger.visible_timeline"] {
                assert_eq!(count(&mut mallory, &format!("SELECT count(*) FROM {relation}")).await, 0, "{login} {relation}");
                // A function in the query that would show rows before the policy is asked, were it evaluated first.
                let leak = "CREATE FUNCTION pg_temp.show(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
                    $$ BEGIN RAISE EXCEPTION 'seen: %', t; END $$";
                mallory.execute("DROP FUNCTION IF EXISTS pg_temp.show(text)").await.unwrap();
                mallory.execute(leak).await.unwrap();
                let shown = format!("SELECT count(*) FROM {relation} WHERE pg_temp.show(content::text)");
                assert_eq!(count(&mut mallory, &shown).await, 0);
                // An error message with a value in it.
                let cast = format!("SELECT count(*) FROM {relation} WHERE (content #>> '{{}}')::integer > 0");
                assert_eq!(count(&mut mallory, &cast).await, 0);
            }
            for span in [&private, &shared] {
                let last_seq =
                    format!("SELECT count(*) FROM (SELECT ledger.last_seq('acme', '{}') x) q WHERE x IS NOT NULL", span.id);
                assert_eq!(count(&mut mallory, &last_seq).await, 0);
                let heads = format!(
                    "SELECT count(*) FROM ledger.heads(ARRAY['acme'], ARRAY['{}'::uuid], ARRAY[0], ARRAY['alice'])",
                    span.id
                );
                assert_eq!(count(&mut mallory, &heads).await, 0);
            }
            // Naming the tenant shows what is public there, which is nothing.
            mallory.execute("SELECT set_config('app.named_tenant_id', 'acme', false)").await.unwrap();
            assert_eq!(count(&mut mallory, "SELECT count(*) FROM ledger.universal_registry").await, 0);
            assert_eq!(count(&mut mallory, &format!("SELECT count(ledger.last_seq('acme', '{}'))", private.id)).await, 0);
        }
    });
}

#[test]
fn explain_counts_only_visible_rows() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let mut mallory = session("api", &database, "globex", "mallory").await;
        let sql = "EXPLAIN (ANALYZE, FORMAT TEXT, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM ledger.universal_registry";
        let plan = sqlx::query(sql).fetch_all(&mut mallory).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan[0].contains("rows=0"), "{plan:#?}");
        assert!(!plan.join("\n").contains("secret"), "{plan:#?}");
        // The planner's statistics hold values of all tenants; they are not for the group roles.
        let stats = "SELECT count(*) FROM pg_stats WHERE tablename = 'universal_registry'";
        assert_eq!(count(&mut mallory, stats).await, 0);
    });
}

#[test]
fn a_colleagues_private_row_shows_neither_itself_nor_its_hash() {
    block_on(async {
        let (database, _ledger, [private, shared]) = with_secrets().await;
        let mut bob = session("api", &database, "acme", "bob").await;
        assert_eq!(count(&mut bob, "SELECT count(*) FROM ledger.visible_timeline").await, 1, "the tenant-wide one");
        for owner in ["bob", "alice"] {
            let heads = format!(
                "SELECT count(curr_hash) FROM ledger.heads(ARRAY['acme'], ARRAY['{}'::uuid], ARRAY[0], ARRAY['{owner}'])",
                private.id
            );
            assert_eq!(count(&mut bob, &heads).await, 0, "asking as {owner}");
        }
        assert_eq!(count(&mut bob, &format!("SELECT count(ledger.last_seq('acme', '{}'))", private.id)).await, 0);
        assert_eq!(count(&mut bob, &format!("SELECT count(ledger.last_seq('acme', '{}'))", shared.id)).await, 1);
    });
}

#[test]
fn a_session_without_identity_sees_and_writes_nothing() {
    block_on(async {
        let (database, ledger, _) = with_secrets().await;
        let public = seal(note("system", "s").visibility(Visibility::Public));
        ledger.append_one(&Scope::Operator, public).await.unwrap();
        for login in ["api", "worker"] {
            for (tenant, user) in [("", ""), ("", "alice")] {
                let mut nobody = session(login, &database, tenant, user).await;
                assert_eq!(count(&mut nobody, "SELECT count(*) FROM ledger.visible_timeline").await, 0, "{login}");
                let refused = refusal(&mut nobody, &insert(Uuid::from_u128(9), 0, "note", "alice", "acme", None)).await;
                assert!(refused.starts_with("42501"), "{refused}");
            }
        }
        // Every host obeys what stands in `system`, so a login for users writes nothing there, whatever identity it claims.
        let mut system = session("api", &database, "system", "system").await;
        let refused = refusal(&mut system, &insert(Uuid::from_u128(9), 0, "note", "system", "system", None)).await;
        assert!(refused.starts_with("42501"), "{refused}");
        let mut no_user = session("api", &database, "acme", "").await;
        assert_eq!(count(&mut no_user, "SELECT count(*) FROM ledger.visible_timeline").await, 0);
        let mut stranger = session("stranger", &database, "acme", "alice").await;
        assert!(refusal(&mut stranger, "SELECT * FROM ledger.visible_timeline").await.starts_with("42501"));
    });
}

#[test]
fn nobody_writes_as_another() {
    block_on(async {
        let (database, _ledger, [private, _]) = with_secrets().await;
        let hash = private.seal.curr_hash.to_string();
        let new = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001);
        let derived = ids::execution("acme", private.id, 1);
        let of_alice = ids::idempotent("acme", "alice", "note", "k");
        let cases = [
            ("another owner", insert(new, 0, "note", "alice", "acme", None), "42501"),
            ("another tenant", insert(new, 0, "note", "bob", "globex", None), "42501"),
            ("a type of the runtime", insert(new, 0, "execution", "bob", "acme", None), "42501"),
            ("a request's later version", insert(new, 1, "request", "bob", "acme", Some("h")), "42501"),
            ("an id that the runtime derives", insert(derived, 0, "note", "bob", "acme", None), "42501"),
            ("another's derived id", insert(of_alice, 0, "note", "bob", "acme", None), "42501"),
            ("the next version of another's id", insert(private.id, 1, "note", "bob", "acme", Some(&hash)), "LL001"),
            ("a version after a gap", insert(private.id, 5, "note", "bob", "acme", Some(&hash)), "LL001"),
            ("a second beginning", insert(private.id, 3, "note", "bob", "acme", None), "23505"),
        ];
        let mut bob = session("api", &database, "acme", "bob").await;
        for (attack, sql, code) in &cases {
            let refused = refusal(&mut bob, sql).await;
            assert!(refused.starts_with(code), "{attack}: {refused}");
            assert!(!refused.contains(&hash), "{attack}: {refused}");
        }
        // The same by the runtime of another tenant, with RETURNING to read along.
        let mut worker = session("worker", &database, "globex", "").await;
        let sql = insert(private.id, 1, "note", "alice", "acme", Some(&hash)) + " RETURNING *";
        assert!(refusal(&mut worker, &sql).await.starts_with("42501"));
        // Where a row stands in append order is nobody's to choose.
        for column in ["pos", "xid", "epoch"] {
            let sql = insert(new, 0, "note", "bob", "acme", None)
                .replace("(id,", &format!("({column}, id,"))
                .replace("VALUES (", "VALUES (DEFAULT + 1, ");
            let sql = sql.replace("DEFAULT + 1", if column == "xid" { "'1'::xid8" } else { "1" });
            let refused = refusal(&mut bob, &sql).await;
            // An identity column is refused by its nature, before anybody's rights are looked at.
            assert!(refused.starts_with(if column == "pos" { "428C9" } else { "42501" }), "{column}: {refused}");
        }
    });
}

#[test]
fn a_list_of_tenants_gives_no_user_another_tenant() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let insert = |tenant: &str| {
            insert(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0009), 0, "note", "mallory", tenant, None)
        };
        let mut mallory = session("api", &database, "globex", "mallory").await;
        mallory.execute("SELECT set_config('app.append_tenant_ids', '[\"acme\"]', false)").await.unwrap();
        assert!(refusal(&mut mallory, &insert("acme")).await.contains("row-level security"));
        // A host writes for whom it says, and for nobody else; a list that is none is an error.
        let mut worker = session("worker", &database, "globex", "").await;
        worker.execute("SELECT set_config('app.append_tenant_ids', '[\"initech\"]', false)").await.unwrap();
        assert!(refusal(&mut worker, &insert("acme")).await.contains("row-level security"));
        worker.execute("SELECT set_config('app.append_tenant_ids', 'acme', false)").await.unwrap();
        assert!(refusal(&mut worker, &insert("acme")).await.contains("json"));
    });
}

#[test]
fn a_unique_key_tells_nothing_across_tenants() {
    block_on(async {
        let (database, _ledger, [private, _]) = with_secrets().await;
        let mut mallory = session("api", &database, "globex", "mallory").await;
        // In acme: refused whether the id exists or not, in the same words.
        let probe = |id: Uuid| insert(id, 0, "note", "mallory", "acme", None);
        let existing = refusal(&mut mallory, &probe(private.id)).await;
        let missing = refusal(&mut mallory, &probe(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0007))).await;
        assert_eq!(existing, missing);
        let quiet = probe(private.id) + " ON CONFLICT DO NOTHING";
        assert_eq!(refusal(&mut mallory, &quiet).await, existing);
        // At home: the same id is free, whoever else has it.
        mallory.execute(AssertSqlSafe(insert(private.id, 0, "note", "mallory", "globex", None))).await.unwrap();
    });
}

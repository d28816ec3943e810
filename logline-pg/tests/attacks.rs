//! What somebody with a login and any SQL client tries. The identity is fixed first: row-level security contains wrong queries
//! and stolen queries, not somebody who may claim any identity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::{
    AppendOptions, Cursor, Ledger as _, LedgerError, LedgerExt as _, Order, Parking, Poll, Query, WorkQueue as _,
};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan, Visibility, ids, roles};
use logline_pg::{PgLedger, PgOptions};
use server::{block_on, connection, database, ledger, options, server};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

fn note(tenant: &str, owner: &str) -> Draft {
    Draft::new("note").tenant(tenant).owner(owner).who("w").this("note.secret").content("the secret".into())
}

fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

/// A ledger with a private and a tenant-wide row of alice's in acme.
async fn with_secrets() -> (String, PgLedger, [VerifiedSpan; 2]) {
    let (database, ledger) = ledger().await;
    let private = seal(note("acme", "alice"));
    let shared = seal(note("acme", "alice").visibility(Visibility::Tenant));
    ledger
        .append(&Scope::user("acme", "alice"), vec![private.clone(), shared.clone()], &AppendOptions::default())
        .await
        .unwrap();
    (database, ledger, [private, shared])
}

/// A session of a login, in the identity it was given.
async fn session(login: &str, database: &str, tenant: &str, user: &str) -> PgConnection {
    let mut connection = connection(login, database).await;
    let identity = "SELECT set_config('app.tenant_id', $1, false), set_config('app.user_id', $2, false)";
    sqlx::query(identity).bind(tenant).bind(user).execute(&mut connection).await.unwrap();
    connection
}

async fn refusal(connection: &mut PgConnection, sql: &str) -> String {
    match connection.execute(AssertSqlSafe(sql.to_owned())).await {
        Ok(done) => panic!("`{sql}` was allowed: {done:?}"),
        Err(error) => {
            let error = error.into_database_error().unwrap();
            format!("{} {}", error.code().unwrap_or_default(), error.message())
        }
    }
}

async fn count(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap()
}

const ANY_HASH: &str = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// An insert of a note with these columns, everything else filled in somehow.
fn insert(id: Uuid, seq: u32, entity_type: &str, owner: &str, tenant: &str, prev_hash: Option<&str>) -> String {
    // A hash that is none stands for any wrong one.
    let prev = prev_hash.map_or("NULL".to_owned(), |hash| format!("'{}'", if hash == "h" { &ANY_HASH } else { hash }));
    format!(
        "INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility,
            is_deleted, curr_hash, signature, public_key, prev_hash)
         VALUES ('{id}', {seq}, '{entity_type}', 'w', 't', now(), '{owner}', '{tenant}', 'private', false, repeat('a', 64),
            repeat('b', 128), repeat('c', 64), {prev})"
    )
}

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

/// One row that nobody can read would otherwise stop every look at the queue, and every group of appends that touches its id.
#[test]
fn a_row_that_no_reader_could_read_is_refused_whoever_inserts_it() {
    block_on(async {
        let (database, ledger, _) = with_secrets().await;
        let id = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0009);
        let request = insert(id, 0, "request", "bob", "acme", None).replace("is_deleted,", "is_deleted, status,");
        let request = request.replace("false,", "false, 'scheduled',");
        let mut bob = session("api", &database, "acme", "bob").await;
        for (good, bad) in [("'a', 64", "'h', 64"), ("'a', 64", "'a', 63"), ("'b', 128", "'B', 128"), ("'c', 64", "' ', 64")] {
            let refused = refusal(&mut bob, &request.replace(good, bad)).await;
            assert!(["42501", "22023"].iter().any(|code| refused.starts_with(code)), "{bad}: {refused}");
        }
        // A hash that is one, and of nothing: it is found, and whoever reads it sees that it does not verify.
        bob.execute(AssertSqlSafe(request)).await.unwrap();
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap().len(), 1);
    });
}

/// What the insert policy can see at little cost: times that no span can have, and sizes.
#[test]
fn a_row_that_is_too_late_or_too_large_is_refused() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let mut bob = session("api", &database, "acme", "bob").await;
        let row = |n: u128, at: &str, content: &str| {
            let row = insert(Uuid::from_u128((0x0197_u128 << 112) | (7 << 76) | (8 << 60) | n), 0, "note", "bob", "acme", None);
            assert!(row.contains("now()"), "{row}");
            row.replace("now()", at)
                .replace("is_deleted,", "is_deleted, content,")
                .replace("false,", &format!("false, {content},"))
        };
        let bad = [
            ("'infinity'", "'{}'".to_owned()),
            ("'-infinity'", "'{}'".to_owned()),
            ("'0001-01-01 BC'", "'{}'".to_owned()),
            ("'10000-01-01'", "'{}'".to_owned()),
            ("now()", format!("'\"{}\"'", "a".repeat(1 << 20))),
        ];
        for (n, (at, content)) in (0..).zip(&bad) {
            let refused = refusal(&mut bob, &row(n, at, content)).await;
            assert!(refused.starts_with("42501"), "{at} {}: {refused}", content.get(..40).unwrap_or(content));
        }
    });
}

/// `5e-324` has six bytes. `jsonb` would print it with 327, on every read.
#[test]
fn small_numbers_take_no_more_room_than_their_text() {
    block_on(async {
        let (database, ledger, _) = with_secrets().await;
        let draft = Draft::new("note").tenant("acme").owner("bob").who("bob").this("n");
        let small = seal(draft.content(serde_json::Value::Array(vec![5e-324.into(); 50_000])));
        ledger.append_one(&Scope::user("acme", "bob"), small.clone()).await.unwrap();
        assert_eq!(ledger.get(&Scope::user("acme", "bob"), "acme", small.id).await.unwrap(), *small);
        let mut auditor = session("auditor", &database, "acme", "bob").await;
        let sql = "SELECT octet_length(content::text) FROM ledger.universal_registry WHERE id = $1";
        let length: i32 = sqlx::query_scalar(sql).bind(small.id).fetch_one(&mut auditor).await.unwrap();
        assert_eq!(length, 350_001);
    });
}

/// The policy cannot see that a number is not canonical, that an object has a key twice, or that it is too deep. Such requests
/// are offered once. They delay nobody, in their own tenant or in another.
#[test]
fn requests_that_nobody_can_read_are_offered_once() {
    block_on(async {
        let (database, ledger, _) = with_secrets().await;
        let mut bob = session("api", &database, "acme", "bob").await;
        for n in 0..250_u128 {
            let row =
                insert(Uuid::from_u128((0x0197_u128 << 112) | (7 << 76) | (8 << 60) | n), 0, "request", "bob", "acme", None);
            let metadata = match n % 3 {
                0 => r#"{"priority":9,"n":9007199254740993}"#.to_owned(),
                1 => r#"{"priority":9,"a":1,"a":2}"#.to_owned(),
                _ => format!(r#"{{"priority":9,"deep":{}{}}}"#, "[".repeat(200), "]".repeat(200)),
            };
            let row = row.replace("is_deleted,", "is_deleted, status, metadata,");
            bob.execute(AssertSqlSafe(row.replace("false,", &format!("false, 'scheduled', '{metadata}',")))).await.unwrap();
        }
        let request = |tenant: &str| {
            seal(Draft::new("request").tenant(tenant).owner("alice").who("a").this("function.run").status("scheduled"))
        };
        let (mine, theirs) = (request("acme"), request("globex"));
        ledger.append_one(&Scope::runtime("acme"), mine.clone()).await.unwrap();
        ledger.append_one(&Scope::runtime("globex"), theirs.clone()).await.unwrap();
        let (mut polls, mut unreadable, mut found) = (0, 0, Vec::new());
        while found.len() < 2 {
            let polled = ledger.take(&Poll::new(100).hold(std::time::Duration::from_secs(10))).await.unwrap();
            assert!(polled.taken() > 0, "a poll must find something");
            polls += 1;
            unreadable += polled.unreadable.len();
            let parkings: Vec<_> = polled.unreadable.into_iter().filter_map(Parking::of_damaged).collect();
            ledger.park(&parkings).await.unwrap();
            found.extend(polled.due.into_iter().map(|due| due.request.id));
            assert!(polls > 1 || found == [theirs.id], "another tenant's request is in the first poll");
        }
        assert_eq!((unreadable, polls), (250, 3));
        assert_eq!(found, [theirs.id, mine.id]);
        let parked =
            ledger.waiting("acme", Uuid::from_u128((0x0197_u128 << 112) | (7 << 76) | (8 << 60))).await.unwrap().unwrap();
        assert_eq!((parked.due, parked.parked.unwrap().contains("metadata")), (None, true));
    });
}

/// Who holds a key in an open transaction makes those wait who want the same, for a second, and nobody else.
#[test]
fn an_open_transaction_fails_nobody_but_whom_it_holds_up() {
    block_on(async {
        let (database, _ledger, _) = with_secrets().await;
        let ledger = PgLedger::connect(options("host", &database).max_connections(2).writers(1)).await.unwrap();
        let wanted = seal(note("acme", "bob"));
        let mut bob = session("api", &database, "acme", "bob").await;
        bob.execute("BEGIN").await.unwrap();
        bob.execute(AssertSqlSafe(insert(wanted.id, 0, "note", "bob", "acme", None))).await.unwrap();
        let scope = Scope::user("acme", "bob");
        // The writer is busy with the first, so that the rest wait together and make one group.
        let neighbours = (0..15).map(|_| ledger.append_one(&scope, seal(note("acme", "bob"))));
        let (held, others) =
            tokio::join!(ledger.append_one(&scope, wanted.clone()), futures_util::future::join_all(neighbours));
        assert!(matches!(held, Err(LedgerError::Unavailable { .. })), "{held:?}");
        for other in others {
            other.unwrap();
        }
        bob.execute("ROLLBACK").await.unwrap();
        ledger.append_one(&scope, wanted).await.unwrap();
    });
}

/// In one group, a colleague's attempt on my span must not be what my own next version is compared with.
#[test]
fn a_colleagues_attempt_on_my_span_does_not_fail_my_next_version() {
    block_on(async {
        let (database, _ledger, [private, _]) = with_secrets().await;
        let ledger = PgLedger::connect(options("host", &database).max_connections(2).writers(1)).await.unwrap();
        let (alice, bob) = (Scope::user("acme", "alice"), Scope::user("acme", "bob"));
        let mut head = private;
        for _ in 0..20 {
            let mut attempt = Draft::next_version(&head);
            attempt.columns_mut().owner_id = "bob".to_owned();
            let next = seal(Draft::next_version(&head));
            // Something to be busy with while the two come together.
            let (_, refused, accepted) = tokio::join!(
                ledger.append_one(&alice, seal(note("acme", "alice"))),
                ledger.append_one(&bob, seal(attempt)),
                ledger.append_one(&alice, next.clone())
            );
            assert!(refused.is_err());
            accepted.unwrap();
            head = next;
        }
    });
}

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

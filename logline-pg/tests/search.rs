//! The index of memories by SQL: who may call what, which plans it has, and what happens without pgvector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use logline_core::ledger::search::{Search, SearchQuery, SearchScope, Vector, VectorModel, VectorSupport};
use logline_core::ledger::{AppendOptions, Ledger, LedgerError, Retry};
use logline_core::{Draft, KeyPair, Scope, Timestamp, VerifiedSpan, Visibility};
use logline_pg::{Severity, doctor};
use serde_json::json;
use server::{block_on, connection, ledger, options, superuser};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

fn at() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn memory(n: u128, text: &str, visibility: Visibility) -> VerifiedSpan {
    let draft =
        Draft::new("memory").id(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)).tenant("acme").owner("alice");
    let draft = draft.who("runtime").this("memory.fact").at(at()).visibility(visibility).status("active");
    let draft = draft.content(json!({"text": text})).meta("sensitivity", "public").meta("layer", "permanent");
    draft.seal_local(&KeyPair::from_seed(&[4; 32])).unwrap()
}

async fn server_has_pgvector(database: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')";
    sqlx::query_scalar(sql).fetch_one(&mut connection("postgres", database).await).await.unwrap()
}

/// A server without pgvector is no fault: the doctor names it, vectors are refused with what to do, and words are found.
#[test]
fn without_pgvector_memories_are_found_by_their_words() {
    block_on(async {
        let (database, ledger) = ledger().await;
        if server_has_pgvector(&database).await {
            // `tests/vectors.rs` is for such a server.
            assert_eq!(ledger.vector_support().await.unwrap(), VectorSupport::Indexed);
            return;
        }
        assert!(
            matches!(ledger.vector_support().await.unwrap(), VectorSupport::Missing { advice } if advice.contains("pgvector"))
        );
        let runtime = Scope::runtime("acme");
        let stored = memory(1, "the night train", Visibility::Tenant);
        ledger.append(&runtime, vec![stored.clone()], &AppendOptions::default()).await.unwrap();
        let model = VectorModel::new("trial", "1", 2).unwrap();
        let vector = Vector::new(&model, vec![1.0, 0.0]).unwrap();
        let query = SearchQuery::new(SearchScope::Tenant, "train", at(), 10);
        let refusals = [
            ledger.put_vector(&runtime, stored.id, 0, &vector).await.map(drop).unwrap_err(),
            ledger.search_vector(&runtime, &query, &vector).await.map(drop).unwrap_err(),
            ledger.pending(&runtime, &model, None, 10).await.map(drop).unwrap_err(),
        ];
        for refused in refusals {
            assert!(matches!(&refused, LedgerError::Refused { reason } if reason.contains("pgvector")), "{refused}");
            assert_eq!(refused.retry(), Retry::No);
        }
        assert_eq!(ledger.search_text(&runtime, &query).await.unwrap().len(), 1);
        let findings = doctor(&options("postgres", &database)).await.unwrap();
        let vectors = findings.iter().find(|finding| finding.check == "vectors").unwrap();
        assert_eq!(vectors.severity, Severity::Ok);
        assert!(!vectors.advice.is_empty());
    });
}

/// Whoever has a login of the application cannot read the index but by a search in the identity of the transaction, and cannot write it.
#[test]
fn a_login_cannot_go_around_the_search() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let runtime = Scope::runtime("acme");
        let stored = vec![memory(1, "mine alone", Visibility::Private), memory(2, "shared", Visibility::Tenant)];
        ledger.append(&runtime, stored, &AppendOptions::default()).await.unwrap();
        for login in ["api", "worker", "auditor", "stranger"] {
            let attempts = [
                "SELECT * FROM ledger.memories",
                "INSERT INTO ledger.memories SELECT * FROM ledger.memories",
                "UPDATE ledger.memories SET place = 'x'",
                "DELETE FROM ledger.memories",
                "SELECT ledger.place('t', ARRAY['acme'])",
                "SELECT ledger.memory_entry(u) FROM ledger.universal_registry u",
                "SELECT ledger.rebuild_memories()",
            ];
            // An operator may rebuild.
            let most = if login == "auditor" { attempts.len() - 1 } else { attempts.len() };
            for sql in &attempts[..most] {
                let refused = connection(login, &database).await.execute(*sql).await.unwrap_err();
                let code = refused.as_database_error().and_then(|error| error.code()).unwrap().into_owned();
                assert_eq!(code, "42501", "{login}: {sql}: {refused}");
            }
        }
        let search = |scope: &str, owner: &str| {
            format!(
                "SELECT count(*) FROM ledger.search_text('{scope}', 's', '{owner}', ARRAY['mine', 'alone', 'shared'], now(), 10, NULL, NULL, NULL)"
            )
        };
        let as_user = async |tenant: &str, user: &str, sql: String| {
            let mut connection = connection("api", &database).await;
            let identity = format!("BEGIN; SELECT ledger.identify('logline_app', '{tenant}', '{user}', '')");
            connection.execute(AssertSqlSafe(identity)).await.unwrap();
            let row = connection.fetch_one(AssertSqlSafe(sql)).await.unwrap();
            row.get::<i64, _>(0)
        };
        assert_eq!(as_user("acme", "alice", search("private", "")).await, 1);
        assert_eq!(as_user("acme", "bob", search("private", "alice")).await, 0, "naming another owner");
        assert_eq!(as_user("globex", "alice", search("private", "alice")).await, 0, "another tenant");
        assert_eq!(as_user("globex", "alice", search("tenant", "")).await, 0, "another tenant");
        assert_eq!(as_user("", "alice", search("tenant", "")).await, 0, "no tenant");
        assert_eq!(as_user("acme", "", search("tenant", "")).await, 0, "no user");
        assert_eq!(as_user("acme", "bob", search("tenant", "")).await, 1);
        assert_eq!(as_user("acme", "bob", search("everything", "")).await, 0, "an unknown scope");
    });
}

/// A search looks at its place only: of a large table it reads no more pages than of a small one.
#[test]
fn a_search_reads_no_more_of_a_table_that_others_have_filled() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let fill = async |tenant: &str, many: usize| {
            superuser(
                &database,
                &format!(
                    "INSERT INTO ledger.memories (tenant_id, id, seq, owner_id, curr_hash, place, kind, tags, length, lexemes)
                     SELECT '{tenant}', gen_random_uuid(), 1, 'alice', repeat('0', 64), ledger.place('t', ARRAY['{tenant}']), 'fact', '{{}}', 4,
                       to_tsvector('ledger.memory', 'common word' || n % 50 || ' text') || array_to_tsvector(ARRAY[ledger.place('t', ARRAY['{tenant}'])])
                     FROM generate_series(1, {many}) n; ANALYZE ledger.memories"
                ),
            )
            .await;
        };
        let blocks = async || {
            let mut connection = connection("api", &database).await;
            let identity = "BEGIN READ ONLY; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; \
                SET LOCAL plan_cache_mode = force_generic_plan; SELECT ledger.identify('logline_app', 'acme', 'alice', '')";
            connection.execute(identity).await.unwrap();
            let sql = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
                SELECT * FROM ledger.search_text('tenant', NULL, '', ARRAY['word7', 'nothing'], now(), 10, NULL, NULL, NULL)";
            // The first call reads the catalogues as well.
            connection.execute(sql).await.unwrap();
            let row = connection.fetch_one(sql).await.unwrap();
            let text = row.try_get_raw(0).unwrap().as_str().unwrap().to_owned();
            let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
            plan[0]["Plan"]["Shared Hit Blocks"].as_u64().unwrap() + plan[0]["Plan"]["Shared Read Blocks"].as_u64().unwrap()
        };
        fill("acme", 2000).await;
        let small = blocks().await;
        fill("globex", 40_000).await;
        let large = blocks().await;
        assert!(small > 10 && large <= small * 2 + 50, "{small} blocks, then {large}");
        drop(ledger);
    });
}

/// Where the server has pg_trgm, as Debian's has, a typing error finds what is meant: within the scope, after words, and only if asked.
/// Elsewhere the doctor names it, and nothing fails.
#[test]
fn a_typing_error_finds_what_is_meant_where_the_server_has_pg_trgm() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let has = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')";
        let has: bool = sqlx::query_scalar(has).fetch_one(&mut connection("postgres", &database).await).await.unwrap();
        let findings = doctor(&options("postgres", &database)).await.unwrap();
        let trigrams = findings.iter().find(|finding| finding.check == "trigrams").unwrap();
        assert_eq!((trigrams.severity, trigrams.found == "pg_trgm"), (Severity::Ok, has), "{trigrams:?}");
        let runtime = Scope::runtime("acme");
        let shared = memory(1, "The quarterly budget was approved in Lisbon", Visibility::Tenant);
        let private = memory(2, "The budget of Alice is secret, quarterly", Visibility::Private);
        let other = memory(3, "Nothing of the kind", Visibility::Tenant);
        ledger.append(&runtime, vec![shared.clone(), private, other], &AppendOptions::default()).await.unwrap();
        let found = async |tenant: &str, user: &str, query: SearchQuery| {
            let hits = ledger.search_text(&Scope::user(tenant, user), &query).await.unwrap();
            hits.into_iter().map(|hit| hit.id).collect::<Vec<_>>()
        };
        let typed = || SearchQuery::new(SearchScope::Tenant, "quartely budgett", at(), 10);
        assert_eq!(found("acme", "bob", typed().similar()).await, if has { vec![shared.id] } else { Vec::new() });
        assert!(found("acme", "bob", typed()).await.is_empty(), "nobody has asked for it");
        assert!(found("globex", "bob", typed().similar()).await.is_empty(), "another tenant");
        let of_alice = SearchQuery::new(SearchScope::Private, "quartely budgett", at(), 10).similar();
        assert!(found("acme", "bob", of_alice.clone()).await.is_empty(), "another user");
        assert_eq!(found("acme", "alice", of_alice).await.len(), usize::from(has));
        let absent = SearchQuery::new(SearchScope::Tenant, "zeppelin xylophone", at(), 10).similar();
        assert!(found("acme", "bob", absent).await.is_empty(), "there is nothing like it");
    });
}

//! The trials of vectors, on a server that has pgvector: `cargo xtask interop` starts one and runs them. Not part of `cargo test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use logline_core::ledger::search::{Search, SearchQuery, SearchScope, Vector, VectorModel, VectorSupport};
use logline_core::ledger::{AppendOptions, Ledger};
use logline_core::{Draft, KeyPair, Scope, Timestamp, Visibility};
use logline_pg::{Severity, doctor, migrate};
use server::{block_on, connection, database, ledger, options, superuser};
use sqlx::Executor as _;

logline_core::vector_suite!(ledger, block_on);

#[test]
fn the_doctor_names_the_extension_and_finds_nothing_changed() {
    block_on(async {
        let (database, ledger) = ledger().await;
        assert_eq!(ledger.vector_support().await.unwrap(), VectorSupport::Indexed);
        let findings = doctor(&options("postgres", &database)).await.unwrap();
        let found = |check: &str| findings.iter().find(|finding| finding.check == check).unwrap().clone();
        assert!(found("vectors").found.starts_with("pgvector 0."), "{:?}", found("vectors"));
        for check in ["definitions", "row-level security", "grants", "functions with the owner's rights"] {
            assert_eq!(found(check).severity, Severity::Ok, "{:?}", found(check));
        }
    });
}

/// A server that gets pgvector later: the next migration makes the vectors, and the doctor knows them.
#[test]
fn vectors_come_with_the_next_migration_after_the_extension() {
    block_on(async {
        let database = database().await;
        superuser(
            &database,
            "DROP FUNCTION ledger.put_vector, ledger.search_vector; DROP TABLE ledger.memory_vectors; \
            DROP FUNCTION ledger.pending_vectors, ledger.index_vectors, ledger.vector_index; DROP EXTENSION vector",
        )
        .await;
        logline_pg::accept_definitions(&options("postgres", &database)).await.unwrap();
        migrate(&options("postgres", &database)).await.unwrap();
        let findings = doctor(&options("postgres", &database)).await.unwrap();
        assert!(findings.iter().all(|finding| finding.severity != Severity::Failure), "{findings:#?}");
        let ledger = logline_pg::PgLedger::connect(options("host", &database)).await.unwrap();
        assert_eq!(ledger.vector_support().await.unwrap(), VectorSupport::Indexed);
    });
}

/// In a large place the index is asked, and asked on until enough of what it gives is in the place: the nearest are found although the
/// nearest of all belong to others.
#[test]
fn an_iterative_scan_finds_the_nearest_of_a_large_place_behind_those_of_others() {
    block_on(async {
        let (database, ledger) = ledger().await;
        let key = KeyPair::from_seed(&[7; 32]);
        let model = VectorModel::new("trial", "1", 4).unwrap();
        // The entries themselves are made by SQL: signing so many spans takes longer than the test. Those of `globex` are nearest.
        superuser(&database, "
            SELECT setseed(0.5);
            INSERT INTO ledger.memories (tenant_id, id, seq, owner_id, curr_hash, place, kind, tags, length, lexemes)
            SELECT t.name, gen_random_uuid(), 1, 'alice', repeat('0', 64), ledger.place('t', ARRAY[t.name]), 'fact', '{}', 1, ''
            FROM (VALUES ('acme', 21000), ('globex', 4000)) AS t(name, many), generate_series(1, t.many);
            INSERT INTO ledger.memory_vectors
            SELECT m.tenant_id, m.id, 'trial', '1', 4, CASE m.tenant_id WHEN 'globex' THEN '[1,0,0,0]'::vector
                ELSE l2_normalize(ARRAY[0.2 + random() / 2, random(), random(), random()]::real[]::vector) END FROM ledger.memories m;
            ANALYZE ledger.memories; ANALYZE ledger.memory_vectors").await;
        let mut auditor = connection("auditor", &database).await;
        auditor.execute("SET ROLE logline_operator").await.unwrap();
        auditor.execute("SELECT ledger.index_vectors('trial', '1', 4)").await.unwrap();
        let best = Draft::new("memory").tenant("acme").owner("alice").who("runtime").this("memory.fact").status("active");
        let best = best.visibility(Visibility::Tenant).content(serde_json::json!({"text": "the best"}));
        let best = best
            .meta("sensitivity", "public")
            .meta("layer", "permanent")
            .id(uuid::Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001));
        let best = best.at("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()).seal_local(&key).unwrap();
        let runtime = Scope::runtime("acme");
        ledger.append(&runtime, vec![best.clone()], &AppendOptions::default()).await.unwrap();
        let near = Vector::new(&model, vec![1.0, 0.01, 0.0, 0.0]).unwrap();
        assert!(ledger.put_vector(&runtime, best.id, best.seq, &near).await.unwrap());
        let query = SearchQuery::new(SearchScope::Tenant, "", "2026-01-02T00:00:00Z".parse().unwrap(), 10);
        let hits = ledger.search_vector(&Scope::user("acme", "bob"), &query, &near).await.unwrap();
        assert_eq!(hits.len(), 10);
        assert_eq!(hits[0].id, best.id, "{hits:?}");
        assert!(hits.iter().all(|hit| hit.tenant_id == "acme"), "{hits:?}");
        assert!(hits.is_sorted_by(|left, right| left.score >= right.score));
        // A server process tells about its use of indexes when it is idle.
        let sql = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes i JOIN pg_index p ON p.indexrelid = i.indexrelid \
            JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw'";
        let mut superuser = connection("postgres", &database).await;
        let mut uses: i64 = 0;
        for _ in 0..200 {
            uses = sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap();
            if uses > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(uses > 0, "the index was not used");
    });
}

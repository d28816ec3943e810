//! What an audit finds after somebody has changed the file behind the library's back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::io::{BufReader, Cursor};
use std::path::Path;

use logline_core::fsck::{Audit, Event, Problem, ProblemKind, Report, fsck};
use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::ndjson::{export, write_sidecar};
use logline_core::{Draft, KeyPair, Scope, Signer as _, SystemClock, SystemIds, VerifiedSpan, VerifyError, ids};
use logline_sqlite::{SqliteLedger, SqliteOptions};
use serde_json::json;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn note(n: usize, key: &KeyPair) -> VerifiedSpan {
    let draft = Draft::new("note").id(ids::derive("trial", &[&n.to_string()])).tenant("acme").owner("alice").who("w").this("t");
    let draft = draft.content(json!({"payment": {"amount": n, "currency": "EUR"}}));
    draft.stamp(&SystemClock, &SystemIds).seal_local(key).unwrap()
}

/// Ten ids of three versions each.
async fn fill(path: &Path) -> Vec<Vec<VerifiedSpan>> {
    let ledger = SqliteLedger::open(path).unwrap();
    let key = KeyPair::from_seed(&[7; 32]);
    let mut chains = Vec::new();
    for n in 0..10 {
        let mut chain = vec![note(n, &key)];
        for version in 1..3 {
            let next = Draft::next_version(&chain[version - 1]).meta("version", version as u64);
            chain.push(next.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap());
        }
        ledger.append(&Scope::Operator, chain.clone(), &AppendOptions::default()).await.unwrap();
        chains.push(chain);
    }
    chains.sort_by_key(|chain| chain[0].id);
    chains
}

fn sql(path: &Path, statements: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let triggers = "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE type = 'trigger'";
    let triggers: String = connection.query_row(triggers, [], |row| row.get(0)).unwrap();
    connection.execute_batch("DROP TRIGGER ur_no_update; DROP TRIGGER ur_no_delete;").unwrap();
    connection.execute_batch(statements).unwrap();
    // Whoever changes rows puts the triggers back, so that nobody sees that they were gone.
    connection.execute_batch(&triggers).unwrap();
}

async fn audit(path: &Path, sidecar: Option<&[u8]>) -> (Report, Vec<Problem>) {
    let ledger = SqliteLedger::open(path).unwrap();
    let mut problems = Vec::new();
    let mut source = sidecar.map(|bytes| BufReader::new(Cursor::new(bytes.to_vec())));
    let mut audit = Audit::default();
    audit.against = source.as_mut().map(|s| s as &mut (dyn std::io::BufRead + Send));
    let report = fsck(&ledger, audit, &mut |event| {
        if let Event::Problem(problem) = event {
            problems.push(problem);
        }
    })
    .await
    .unwrap();
    (report, problems)
}

/// What an audit says of the store itself.
async fn store_problems(path: &Path) -> Vec<String> {
    let ledger = SqliteLedger::open_with(SqliteOptions::new(path).read_only()).unwrap();
    let mut problems = Vec::new();
    let report = fsck(&ledger, Audit::default(), &mut |event| {
        if let Event::Store(problem) = event {
            problems.push(problem);
        }
    })
    .await
    .unwrap();
    assert_eq!(report.is_clean(), problems.is_empty());
    problems
}

/// A forged row that the scan of an audit does not meet, but that users see: the index of types has it, and the unique index has
/// the honest row.
#[test]
fn a_forged_row_in_one_index_only_is_found() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let chains = fill(&path).await;
        assert_eq!(store_problems(&path).await, Vec::<String>::new());
        let columns = "id, seq, entity_type, who, did, this, at, parent_id, related_to, owner_id, tenant_id, visibility, status,
            is_deleted, name, description, code, language, runtime, input, output, error, content, duration_ms, trace_id, prev_hash,
            curr_hash, signature, public_key, metadata";
        let victim = row(&chains[0][2]);
        let connection = rusqlite::Connection::open(&path).unwrap();
        // The table without its unique index takes a second row with the key. Then the schema says again that the index is unique.
        connection
            .execute_batch(
                "PRAGMA writable_schema = ON;
                 CREATE TABLE kept AS SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex_universal%';
                 DELETE FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex_universal%';
                 UPDATE sqlite_schema SET sql = replace(sql, ',
  UNIQUE (tenant_id, id, seq)', '') WHERE name = 'universal_registry';",
            )
            .unwrap();
        drop(connection);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO universal_registry ({columns}) SELECT {} FROM universal_registry WHERE {victim};
                 PRAGMA writable_schema = ON;
                 INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) SELECT * FROM kept;
                 UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ',
  UNIQUE (tenant_id, id, seq)
) STRICT') WHERE name = 'universal_registry';",
                columns.replace("content", "replace(content, 'EUR', 'USD')")
            ))
            .unwrap();
        drop(connection);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("DROP TABLE kept").unwrap();
        drop(connection);
        let problems = store_problems(&path).await;
        assert!(problems.iter().any(|problem| problem.starts_with("integrity_check:")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("1 of 31 rows are hidden")), "{problems:?}");
    });
}

#[test]
fn a_schema_that_is_not_the_librarys_is_found() {
    let attacks = [
        "DROP TRIGGER ur_no_update",
        "DROP INDEX ur_by_type",
        "DROP INDEX ur_by_type; CREATE INDEX ur_by_type ON universal_registry (tenant_id, entity_type, pos) WHERE seq = 0",
        "CREATE TRIGGER discard BEFORE INSERT ON universal_registry WHEN NEW.owner_id = 'alice' BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW helper AS SELECT * FROM universal_registry",
        "ALTER TABLE work ADD COLUMN note TEXT",
        "DROP TABLE quota",
    ];
    for attack in attacks {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            fill(&path).await;
            rusqlite::Connection::open(&path).unwrap().execute_batch(attack).unwrap();
            let problems = store_problems(&path).await;
            assert!(problems.iter().any(|problem| problem.starts_with("schema:")), "{attack}: {problems:?}");
        });
    }
}

/// Fills a ledger, lets `attack` write SQL about it, and returns what the audit finds.
fn after(attack: impl FnOnce(&[Vec<VerifiedSpan>]) -> String) -> (Vec<Vec<VerifiedSpan>>, Vec<Problem>) {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let chains = fill(&path).await;
        assert!(audit(&path, None).await.0.is_clean());
        sql(&path, &attack(&chains));
        let (_, problems) = audit(&path, None).await;
        (chains, problems)
    })
}

fn row(span: &VerifiedSpan) -> String {
    format!("id = '{}' AND seq = {}", span.id, span.seq)
}

fn names(problem: &Problem, span: &VerifiedSpan) -> bool {
    problem.tenant_id == span.tenant_id && problem.id == span.id.to_string() && problem.seq == span.seq.to_string()
}

#[test]
fn a_nested_value_changed_after_signing_is_named() {
    let (chains, problems) = after(|chains| {
        let set = "content = json_set(content, '$.payment.amount', 1000000)";
        format!("UPDATE universal_registry SET {set} WHERE {}", row(&chains[4][2]))
    });
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(names(&problems[0], &chains[4][2]));
    assert!(matches!(problems[0].kind, ProblemKind::Verify(VerifyError::HashMismatch { .. })));
}

#[test]
fn every_column_is_covered_by_the_hash() {
    let sets = [
        "entity_type = 'not' || 'e2'",
        "who = 'x'",
        "did = 'x'",
        "this = 'x'",
        "at = '2020-01-01T00:00:00.000000Z'",
        "parent_id = '00000000-0000-4000-8000-000000000001'",
        "related_to = '[\"00000000-0000-4000-8000-000000000001\"]'",
        "visibility = 'public'",
        "status = 'x'",
        "is_deleted = 1",
        "name = 'x'",
        "description = 'x'",
        "code = 'x'",
        "language = 'x'",
        "runtime = 'x'",
        "input = '1'",
        "output = '1'",
        "error = '1'",
        "content = '1'",
        "duration_ms = 1",
        "trace_id = 'x'",
        "metadata = '1'",
        "owner_id = 'x'",
        "prev_hash = curr_hash",
    ];
    for set in sets {
        let (chains, problems) = after(|chains| format!("UPDATE universal_registry SET {set} WHERE {}", row(&chains[3][2])));
        assert!(problems.iter().all(|p| names(p, &chains[3][2])), "{set}: {problems:?}");
        let caught = problems.iter().any(|p| matches!(p.kind, ProblemKind::Verify(VerifyError::HashMismatch { .. })));
        assert!(caught, "{set}: {problems:?}");
    }
}

#[test]
fn columns_swapped_between_two_rows_name_both() {
    let (chains, problems) = after(|chains| {
        let (a, b) = (row(&chains[1][0]), row(&chains[2][0]));
        format!(
            "CREATE TEMP TABLE swap AS SELECT content FROM universal_registry WHERE {a};
             UPDATE universal_registry SET content = (SELECT content FROM universal_registry WHERE {b}) WHERE {a};
             UPDATE universal_registry SET content = (SELECT content FROM swap) WHERE {b};"
        )
    });
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(names(&problems[0], &chains[1][0]) && names(&problems[1], &chains[2][0]));
}

#[test]
fn a_seal_moved_from_another_row_does_not_hold() {
    let (chains, problems) = after(|chains| {
        format!(
            "UPDATE universal_registry SET curr_hash = (SELECT curr_hash FROM universal_registry WHERE {a}),
             signature = (SELECT signature FROM universal_registry WHERE {a}) WHERE {b}",
            a = row(&chains[1][0]),
            b = row(&chains[2][2])
        )
    });
    assert!(problems.iter().any(|p| names(p, &chains[2][2])), "{problems:?}");
}

#[test]
fn a_version_removed_from_the_middle_is_a_gap() {
    let (chains, problems) = after(|chains| format!("DELETE FROM universal_registry WHERE {}", row(&chains[5][1])));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(names(&problems[0], &chains[5][2]));
    assert_eq!(problems[0].kind, ProblemKind::Gap { from: 1, to: 1 });
}

#[test]
fn a_removed_first_version_leaves_a_missing_predecessor() {
    let (chains, problems) = after(|chains| format!("DELETE FROM universal_registry WHERE {}", row(&chains[5][0])));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(names(&problems[0], &chains[5][1]));
    assert!(matches!(problems[0].kind, ProblemKind::MissingPredecessor { .. }));
}

#[test]
fn a_forked_chain_is_named() {
    // The attacker rebuilds the table without its unique key and adds a sibling that is signed all right.
    let mut sibling = None;
    let (_, problems) = after(|chains| {
        let draft = Draft::next_version(&chains[6][1]).name("sibling").stamp(&SystemClock, &SystemIds);
        let span = draft.seal_local(&KeyPair::from_seed(&[7; 32])).unwrap();
        let insert = format!(
            "CREATE TABLE copy AS SELECT * FROM universal_registry;
             DROP TABLE universal_registry;
             ALTER TABLE copy RENAME TO universal_registry;
             INSERT INTO universal_registry SELECT * FROM universal_registry WHERE {old};
             UPDATE universal_registry SET pos = 1000, name = 'sibling', at = '{at}', curr_hash = '{hash}', signature = '{signature}'
             WHERE rowid = last_insert_rowid();",
            old = row(&chains[6][2]),
            at = span.at,
            hash = span.seal.curr_hash,
            signature = span.seal.signature,
        );
        let insert = insert.replace("name = 'sibling'", "name = 'sibling', metadata = '{\"version\":1}'");
        sibling = Some(span);
        insert
    });
    let sibling = sibling.unwrap();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(names(&problems[0], &sibling));
    assert_eq!(problems[0].kind, ProblemKind::Fork);
}

#[test]
fn a_damaged_row_is_named_and_the_audit_goes_on() {
    for (column, garbage) in
        [("content", "'{\"a\":1,\"a\":2}'"), ("at", "'yesterday'"), ("id", "'not-a-uuid'"), ("signature", "'00'")]
    {
        let (chains, problems) =
            after(|chains| format!("UPDATE universal_registry SET {column} = {garbage} WHERE {}", row(&chains[7][2])));
        let damaged: Vec<_> = problems.iter().filter(|p| matches!(p.kind, ProblemKind::Damaged(_))).collect();
        assert_eq!(damaged.len(), 1, "{column}: {problems:?}");
        assert!(damaged[0].to_string().contains(column), "{}", damaged[0]);
        assert!(column == "id" || names(damaged[0], &chains[7][2]));
    }
}

#[test]
fn a_signature_by_nobody_is_named() {
    let zeros = "0".repeat(128);
    let (chains, problems) =
        after(|chains| format!("UPDATE universal_registry SET signature = '{zeros}' WHERE {}", row(&chains[0][2])));
    assert!(names(&problems[0], &chains[0][2]) && problems.len() == 1, "{problems:?}");
    assert!(matches!(problems[0].kind, ProblemKind::Verify(VerifyError::Signature { .. })));
}

/// Exports the ledger and returns its sidecar, signed by key 9.
async fn sidecar(path: &Path) -> Vec<u8> {
    let ledger = SqliteLedger::open(path).unwrap();
    let exported = export(&ledger, &Scope::Operator, None, &mut Vec::new(), &mut |_| {}).await.unwrap();
    let mut out = Vec::new();
    let key = KeyPair::from_seed(&[9; 32]);
    let chains = write_sidecar(&ledger, &Scope::Operator, &exported, &key, &SystemClock, &mut out).await.unwrap();
    assert_eq!((exported.spans, chains), (30, 10));
    out
}

#[test]
fn removed_tails_and_ids_show_against_a_sidecar_though_the_ledger_has_grown() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let chains = fill(&path).await;
        let sidecar = sidecar(&path).await;
        {
            let ledger = SqliteLedger::open(&path).unwrap();
            let key = KeyPair::from_seed(&[7; 32]);
            let next = Draft::next_version(&chains[0][2]).stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap();
            let batch = vec![note(500, &key), note(501, &key), next];
            ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
        }
        let (report, problems) = audit(&path, Some(&sidecar)).await;
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(report.heads_checked, Some(10));
        assert_eq!(report.sidecar_key, Some(KeyPair::from_seed(&[9; 32]).public_key()));

        let (tail, first, last) = (&chains[4], &chains[0], &chains[9]);
        let whole = |chain: &[VerifiedSpan]| format!("DELETE FROM universal_registry WHERE id = '{}';", chain[0].id);
        sql(&path, &format!("DELETE FROM universal_registry WHERE {}; {} {}", row(&tail[2]), whole(first), whole(last)));
        assert!(audit(&path, None).await.0.is_clean(), "without the sidecar nothing shows");
        let (_, problems) = audit(&path, Some(&sidecar)).await;
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, chain) in problems.iter().zip([first, tail, last]) {
            assert!(names(problem, &chain[2]) && matches!(problem.kind, ProblemKind::Removed { .. }), "{problem}");
        }
    });
}

#[test]
fn a_replaced_head_shows_against_a_sidecar() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let chains = fill(&path).await;
        let sidecar = sidecar(&path).await;
        // Rewritten by somebody who holds the key: everything in the row verifies.
        sql(&path, &format!("DELETE FROM universal_registry WHERE {}", row(&chains[3][2])));
        let forged = Draft::next_version(&chains[3][1]).name("forged").stamp(&SystemClock, &SystemIds);
        let forged = forged.seal_local(&KeyPair::from_seed(&[7; 32])).unwrap();
        let ledger = SqliteLedger::open(&path).unwrap();
        ledger.append(&Scope::Operator, vec![forged.clone()], &AppendOptions::default()).await.unwrap();
        drop(ledger);
        let (_, problems) = audit(&path, Some(&sidecar)).await;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(names(&problems[0], &forged) && matches!(problems[0].kind, ProblemKind::Replaced { .. }));
    });
}

#[test]
fn a_changed_cut_or_foreign_sidecar_is_refused() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        fill(&path).await;
        let sidecar = sidecar(&path).await;
        let text = String::from_utf8(sidecar).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let refused = async |text: String, key: Option<u8>| {
            let ledger = SqliteLedger::open_with(SqliteOptions::new(&path).read_only()).unwrap();
            let mut source = BufReader::new(Cursor::new(text.into_bytes()));
            let mut audit = Audit::default();
            audit.against = Some(&mut source);
            audit.sidecar_key = key.map(|n| KeyPair::from_seed(&[n; 32]).public_key());
            fsck(&ledger, audit, &mut |_| {}).await.unwrap_err().to_string()
        };
        let without_first = lines[1..].join("\n");
        assert!(refused(without_first, None).await.contains("sidecar was changed"));
        let cut = lines[..lines.len() - 1].join("\n");
        assert!(refused(cut, None).await.contains("cut off"));
        let other_seq = text.replacen("\"seq\":2", "\"seq\":1", 1);
        assert!(refused(other_seq, None).await.contains("sidecar was changed"));
        let counts = text.replace("\"spans\":30", "\"spans\":31");
        assert!(refused(counts, None).await.contains("does not count"));
        assert!(refused(text.clone(), Some(8)).await.contains("is signed by"));
        let swapped = [lines[1], lines[0]].join("\n");
        assert!(refused(swapped, None).await.contains("not in the order"));
        assert!(refused(String::new(), None).await.contains("cut off"));
        assert!(refused("[]\n".to_owned(), None).await.contains("line 1"));
    });
}

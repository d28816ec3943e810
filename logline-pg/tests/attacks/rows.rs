//! Rows that nobody can read, and open transactions: whom they hold up.

use logline_core::ledger::{Ledger as _, LedgerError, LedgerExt as _, Parking, Poll, WorkQueue as _};
use logline_core::{Draft, Scope};
use logline_pg::PgLedger;
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;

use crate::server::{block_on, connection, options};
use crate::setup::{insert, note, refusal, seal, session, with_secrets};

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

/// Somebody relies on a consent, and has not committed yet. Its next version waits until then, so that it comes later for every reader.
#[test]
fn a_version_on_which_an_open_transaction_relies_is_followed_only_afterwards() {
    block_on(async {
        let (database, ledger, _) = with_secrets().await;
        let scope = Scope::runtime("acme");
        let consent = |draft: Draft| seal(draft.tenant("acme").owner("alice").who("host").this("memory"));
        let first = consent(Draft::new("consent").status("granted"));
        ledger.append_one(&scope, first.clone()).await.unwrap();
        let next = consent(Draft::next_version(&first).status("revoked"));
        let mut relies = connection("host", &database).await;
        relies.execute("BEGIN; SELECT ledger.identify('logline_runtime', 'acme', '', '')").await.unwrap();
        let holds = "SELECT holds FROM ledger.hold_premises(ARRAY['acme'], ARRAY[$1], ARRAY[$2])";
        let holds = sqlx::query_scalar::<_, bool>(holds).bind(first.id).bind(first.seal.curr_hash.to_string());
        assert!(holds.fetch_one(&mut relies).await.unwrap());
        let mut watcher = connection("postgres", &database).await;
        let committed = async {
            let waits = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut watcher).await.unwrap() == 0 {
                assert!(std::time::Instant::now() < deadline, "the next version did not wait");
            }
            // What it relies on is still the last version.
            let last = ledger.get(&scope, "acme", first.id).await.unwrap();
            assert_eq!(last.seq, first.seq);
            relies.execute("COMMIT").await.unwrap();
        };
        let (appended, ()) = tokio::join!(ledger.append_one(&scope, next.clone()), committed);
        appended.unwrap();
        // Afterwards the version before holds no more.
        relies.execute("BEGIN; SELECT ledger.identify('logline_runtime', 'acme', '', '')").await.unwrap();
        let held = "SELECT holds FROM ledger.hold_premises(ARRAY['acme', 'acme'], ARRAY[$1, $1], ARRAY[$2, $3]) ORDER BY n";
        let held = sqlx::query_scalar::<_, bool>(held).bind(first.id);
        let held = held.bind(first.seal.curr_hash.to_string()).bind(next.seal.curr_hash.to_string());
        assert_eq!(held.fetch_all(&mut relies).await.unwrap(), [false, true]);
        relies.execute("ROLLBACK").await.unwrap();
    });
}

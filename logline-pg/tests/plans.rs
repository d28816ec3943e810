//! No call reads more rows than it answers with, before the database knows anything about its tables and after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod server;

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use logline_core::ledger::{
    AppendOptions, HeldClaim, Ledger as _, LedgerExt as _, Limit, Order, Poll, Query, Versions, WatchFrom, WorkQueue as _,
};
use logline_core::request::Charges;
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan, Verifier, Visibility};
use logline_pg::PgLedger;
use server::{block_on, connection, ledger, options, superuser};
use uuid::Uuid;

/// Often enough that every statement has been planned without looking at its parameters.
const TIMES: usize = 20;
const TENANTS: [&str; 2] = ["acme", "globex"];
const BATCHES: usize = 3;
/// Open requests of a tenant. More than a call may look at.
const OPEN: usize = 600;

fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

fn note(tenant: &str, n: usize) -> VerifiedSpan {
    let draft = Draft::new("note").tenant(tenant).owner(format!("user_{}", n % 8)).who("user:x").this("note");
    seal(draft.parent(Uuid::from_u128((n / 10) as u128)).trace(format!("trace-{}", n / 10)))
}

fn request(tenant: &str) -> VerifiedSpan {
    seal(Draft::new("request").tenant(tenant).owner("alice").who("user:alice").this("function.run").status("scheduled"))
}

fn next(span: &VerifiedSpan, status: &str) -> VerifiedSpan {
    seal(Draft::next_version(span).status(status).meta("lease_ms", 60_000))
}

/// Notes and requests that have come and gone, and some that are open. The ids of some that have ended.
async fn fill(ledger: &PgLedger, tenant: &str) -> Vec<Uuid> {
    let scope = Scope::runtime(tenant);
    let mut ended = Vec::new();
    for n in 0..BATCHES {
        let mut batch: Vec<_> = (0..700).map(|i| note(tenant, n * 700 + i)).collect();
        for _ in 0..100 {
            let scheduled = request(tenant);
            let running = next(&scheduled, "running");
            let complete = next(&running, "complete");
            ended.push(scheduled.id);
            batch.extend([scheduled, running, complete]);
        }
        ledger.append(&scope, batch, &AppendOptions::default()).await.unwrap();
    }
    // Memories of many, of which one user has a few, and a few are shared.
    let memory = |n: usize| {
        let draft =
            Draft::new("memory").tenant(tenant).owner(if n % 200 == 7 { "alice".to_owned() } else { format!("user_{n}") });
        let visibility = if n % 200 == 9 { Visibility::Tenant } else { Visibility::Private };
        seal(draft.who("host").this("memory.fact").visibility(visibility))
    };
    ledger.append(&scope, (0..2000).map(memory).collect(), &AppendOptions::default()).await.unwrap();
    let mut last = ledger.get(&scope, tenant, ended[0]).await.unwrap().verify(&mut Verifier::new()).unwrap();
    for _ in 0..3 {
        let mut batch: Vec<_> = Vec::new();
        for _ in 0..200 {
            last = next(&last, "complete");
            batch.push(last.clone());
        }
        ledger.append(&scope, batch, &AppendOptions::default()).await.unwrap();
    }
    let open = (0..OPEN).map(|_| request(tenant)).collect();
    ledger.append(&scope, open, &AppendOptions::default()).await.unwrap();
    ended
}

/// Rows and index entries that the server has looked at so far in the ledger's large tables.
async fn looked_at(database: &str) -> i64 {
    let mut connection = connection("postgres", database).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    // A backend reports what it has done when it ends.
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut connection).await.unwrap() > 0 {
        assert!(Instant::now() < deadline, "the ledger's connections have not ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sql = "SELECT ((SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('universal_registry', 'work'))
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('universal_registry', 'work')))::bigint";
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

/// How many rows a call looks at, on average.
async fn cost<F, Fut>(database: &str, call: F) -> i64
where
    F: Fn(PgLedger, usize) -> Fut,
    Fut: Future<Output = ()>,
{
    let before = looked_at(database).await;
    // One connection, so that every call finds the statements of the one before.
    let ledger = PgLedger::connect(options("host", database).max_connections(2).writers(1)).await.unwrap();
    for n in 0..TIMES {
        call(ledger.clone(), n).await;
    }
    drop(ledger);
    (looked_at(database).await - before) / TIMES as i64
}

/// Notes where a call looks at more than `most` rows.
macro_rules! looks_at {
    ($found:ident, $database:expr, $most:expr, |$ledger:ident, $n:ident| $call:expr) => {{
        let cost = cost($database, |$ledger, $n| async move {
            let _ = $call;
        })
        .await;
        if cost > $most {
            $found.push(format!("{cost} rows looked at, not {}: {}", $most, stringify!($call)));
        }
    }};
}

/// Calls that look at too many rows.
async fn extravagant(database: &str, ended: &[Uuid]) -> Vec<String> {
    superuser(database, "VACUUM ledger.work").await;
    let mut found = Vec::new();
    let acme = Scope::runtime("acme");
    let (acme, database) = (&acme, database);
    looks_at!(found, database, 5, |ledger, n| ledger.get(acme, "acme", ended[n]).await.unwrap());
    looks_at!(found, database, 10, |ledger, n| ledger.history(acme, "acme", ended[n], 0, 100).await.unwrap());

    // Somewhere in the middle.
    let ledger = PgLedger::connect(options("host", database)).await.unwrap();
    let page = ledger.scan(acme, &Query::timeline().limit(1000), None).await.unwrap();
    let cursor = &page.rows.last().unwrap().cursor.clone();
    let until = Query::timeline()
        .until(ledger.scan(acme, &Query::timeline().limit(10), Some(cursor)).await.unwrap().rows[9].cursor.clone());
    drop(ledger);
    // A page reads one row more, and each of those twice.
    let pages = [
        Query::timeline().limit(50),
        Query::timeline().limit(50).tenant("acme"),
        Query::timeline().limit(50).order(Order::Newest),
        Query::timeline().limit(50).entity_type("request"),
        Query::timeline().limit(50).entity_type("request").order(Order::Newest),
        Query::timeline().limit(50).parent_id(Uuid::from_u128(80)),
        Query::timeline().limit(50).trace_id("trace-80"),
        Query::timeline().limit(50).id(ended[200]),
        Query::chains().limit(50).id(ended[200]),
        until,
    ];
    for query in &pages {
        for scope in [acme, &Scope::Operator] {
            let after = Some(cursor).filter(|_| query.order == Order::Append);
            // An operator who names nobody has an index for the order only.
            let unserved = scope == &Scope::Operator && query.tenant.is_none();
            if unserved
                && (query.id.is_some() || query.entity_type.is_some() || query.parent_id.is_some() || query.trace_id.is_some())
            {
                continue;
            }
            let cost = cost(database, |ledger, _| async move { drop(ledger.scan(scope, query, after).await.unwrap()) }).await;
            if cost > 150 {
                found.push(format!("{cost} rows looked at as {scope:?} for {query:?}"));
            }
        }
    }
    // A host that searches reads the memories of one user, or those that are shared, whoever else has how many.
    let memories = || Query::timeline().tenant("acme").entity_type("memory");
    for query in [memories().owner("alice"), memories().owner("alice").order(Order::Newest), memories().shared()] {
        let (query, mut rows) = (&query, 0);
        rows += PgLedger::connect(options("host", database)).await.unwrap().scan(acme, query, None).await.unwrap().rows.len();
        let cost = cost(database, |ledger, _| async move { drop(ledger.scan(acme, query, None).await.unwrap()) }).await;
        if rows != 10 || cost > 30 {
            found.push(format!("{cost} rows looked at for {rows}, with {query:?}"));
        }
    }
    // Whether a version is the last takes another look each, and versions that are not take room.
    for query in
        [Query::new().limit(50), Query::new().limit(50).order(Order::Newest), Query::new().limit(50).entity_type("request")]
    {
        let (query, after) = (&query, Some(cursor).filter(|_| query.order == Order::Append));
        looks_at!(found, database, 700, |ledger, _n| ledger.scan(acme, query, after).await.unwrap());
    }
    // Whoever may not read what is there, or filters it, has no more looked at than the query allows: once to count the rows, and
    // once to read them.
    let mallory = &Scope::user("acme", "mallory");
    let bounded = || Query::new().limit(1).max_visited(100);
    let parent = Uuid::from_u128(80);
    for (query, most) in [
        (bounded(), 450),
        (bounded().tenant("acme"), 450),
        (bounded().entity_type("note"), 450),
        (bounded().tenant("acme").status("no such status"), 450),
        (bounded().tenant("acme").parent_id(parent).entity_type("request"), 60),
        (bounded().tenant("globex"), 20),
        (bounded().tenant("globex").entity_type("note"), 20),
        (bounded().tenant("globex").parent_id(parent), 20),
        (bounded().tenant("acme").id(ended[200]), 20),
        (bounded().id(ended[200]), 20),
    ] {
        for scope in [mallory, acme] {
            let query = &query;
            let cost = cost(database, |ledger, _| async move { drop(ledger.scan(scope, query, None).await.unwrap()) }).await;
            if cost > most {
                found.push(format!("{cost} rows looked at, not {most}, as {scope:?} for {query:?}"));
            }
        }
    }
    // The first of them has many versions.
    looks_at!(found, database, 20, |ledger, _n| ledger.find(mallory, "acme", ended[0]).await.unwrap());
    looks_at!(found, database, 20, |ledger, _n| ledger.get(acme, "acme", ended[0]).await.unwrap());
    let versions = &Query::new().id(ended[0]);
    looks_at!(found, database, 30, |ledger, _n| ledger.scan(mallory, versions, None).await.unwrap());
    let chains = &Query::chains().limit(50).versions(Versions::All);
    looks_at!(found, database, 150, |ledger, _n| ledger.scan(acme, chains, None).await.unwrap());

    looks_at!(found, database, 150, |ledger, _n| ledger.claimable(&Poll::new(10).after(String::from("acme"))).await.unwrap());
    // Each leaves old entries in the index, and the next one reads them for as long as any transaction is older than they are.
    looks_at!(found, database, 300, |ledger, _n| ledger
        .take(&Poll::new(10).after("acme".to_owned()).hold(Duration::from_millis(1)))
        .await
        .unwrap());
    looks_at!(found, database, 20, |ledger, n| {
        let span = note("acme", n);
        for _ in 0..2 {
            ledger.append(acme, vec![span.clone()], &AppendOptions::keep()).await.unwrap();
        }
    });
    looks_at!(found, database, 10, |ledger, _n| ledger.used("acme", "runs").await.unwrap());
    looks_at!(found, database, 10, |ledger, n| ledger.append_one(acme, note("acme", n)).await.unwrap());
    looks_at!(found, database, 40, |ledger, _n| {
        let scheduled = request("acme");
        ledger.append_one(acme, scheduled.clone()).await.unwrap();
        let charges = Charges::new(ledger.now().await.unwrap().day(), ["runs"]);
        let limit = Limit { tenant: "acme".to_owned(), key: "runs".to_owned(), per_day: 1000 };
        let claim = Draft::next_version(&scheduled).status("running").meta("quota", charges.to_value());
        let claim = seal(claim.meta("lease_ms", 60_000));
        ledger.append(acme, vec![claim.clone()], &AppendOptions::default().limits(vec![limit])).await.unwrap();
        ledger.append_one(acme, next(&claim, "complete")).await.unwrap();
    });
    // Every row of the other tenant and of one's own, through the poller and the watch.
    looks_at!(found, database, 400, |ledger, n| {
        let mut watch = ledger.watch(acme, WatchFrom::Now).await.unwrap();
        for _ in 0..10 {
            ledger.append_one(&Scope::runtime("globex"), note("globex", n)).await.unwrap();
            ledger.append_one(acme, note("acme", n)).await.unwrap();
            watch.next().await.unwrap().unwrap();
        }
    });
    found
}

#[test]
fn no_call_reads_the_whole_of_a_tenant() {
    block_on(async {
        let (database, ledger) = ledger().await;
        superuser(&database, "ALTER TABLE ledger.universal_registry SET (autovacuum_enabled = false)").await;
        superuser(&database, "ALTER TABLE ledger.work SET (autovacuum_enabled = false)").await;
        let ended = fill(&ledger, TENANTS[0]).await;
        fill(&ledger, TENANTS[1]).await;
        drop(ledger);
        let mut found = vec!["before statistics:".to_owned()];
        found.extend(extravagant(&database, &ended).await);
        superuser(&database, "ANALYZE").await;
        found.push("with statistics:".to_owned());
        found.extend(extravagant(&database, &ended).await);
        // Whether the server plans for the parameters or without them is its choice at each statement.
        superuser(&database, &format!("ALTER DATABASE {database} SET plan_cache_mode = force_generic_plan")).await;
        found.push("planned without parameters:".to_owned());
        found.extend(extravagant(&database, &ended).await);
        assert_eq!(found.len(), 3, "{found:#?}");
    });
}

/// Something that a host does all the time. `None` if there is no such step.
async fn usual(ledger: &PgLedger, first: &VerifiedSpan, n: usize, step: usize) -> Option<String> {
    let acme = &Scope::runtime("acme");
    let (parent, mallory) = (Uuid::from_u128(8), &Scope::user("acme", "mallory"));
    let queries = [
        Query::timeline().limit(50).tenant("acme"),
        Query::timeline().limit(50).order(Order::Newest),
        Query::timeline().limit(50).entity_type("request"),
        Query::timeline().limit(50).entity_type("request").order(Order::Newest),
        Query::timeline().limit(50).parent_id(parent),
        Query::timeline().limit(50).parent_id(parent).entity_type("note").order(Order::Newest),
        Query::timeline().limit(50).trace_id("trace-8"),
        Query::timeline().limit(50).id(first.id),
        Query::chains().limit(50).id(first.id),
        Query::new().limit(1).id(first.id),
        Query::new().limit(1).max_visited(20).tenant("acme").id(first.id),
        Query::new().limit(1).max_visited(20).parent_id(parent),
    ];
    if let Some(query) = queries.get(step) {
        ledger.scan(acme, query, None).await.unwrap();
        return Some(format!("scan {query:?}"));
    }
    Some(
        match step - queries.len() {
            0 => {
                ledger.get(acme, "acme", first.id).await.unwrap();
                "get"
            }
            1 => {
                ledger.find(mallory, "acme", first.id).await.unwrap();
                "find by somebody else"
            }
            2 => {
                ledger.history(acme, "acme", first.id, 0, 100).await.unwrap();
                "history"
            }
            3 => {
                let span = note("acme", n);
                for _ in 0..2 {
                    ledger.append(acme, vec![span.clone()], &AppendOptions::keep()).await.unwrap();
                }
                "append twice"
            }
            4 => {
                let scheduled = request("acme");
                ledger.append_one(acme, scheduled.clone()).await.unwrap();
                let running = next(&scheduled, "running");
                ledger.append_one(acme, running.clone()).await.unwrap();
                let held = AppendOptions::default().held(HeldClaim::of(&running, Duration::from_secs(60)));
                ledger.append(acme, vec![note("acme", n)], &held).await.unwrap();
                ledger.append_one(acme, next(&running, "complete")).await.unwrap();
                "a request"
            }
            5 => {
                ledger.take(&Poll::new(10).after("acme".to_owned()).hold(Duration::from_millis(1))).await.unwrap();
                "take"
            }
            _ => return None,
        }
        .to_owned(),
    )
}

/// How many rows are looked at in all, if a step is made while the ledger is empty and `times` more often by the same connections when it
/// is not. Also what the step is.
async fn looked_at_later(step: usize, times: usize) -> Option<(String, i64)> {
    let (database, filler) = ledger().await;
    superuser(&database, "ALTER TABLE ledger.universal_registry SET (autovacuum_enabled = false)").await;
    let (scope, first) = (Scope::runtime("acme"), note("acme", 0));
    filler.append_one(&scope, first.clone()).await.unwrap();
    let early = PgLedger::connect(options("host", &database).max_connections(2).writers(1)).await.unwrap();
    let mut what = None;
    for n in 0..TIMES {
        what = usual(&early, &first, n, step).await;
    }
    let what = what?;
    let mut rows: Vec<_> = (1..3000).map(|n| note("acme", n)).collect();
    rows.extend((0..100).map(|_| request("acme")));
    filler.append(&scope, rows, &AppendOptions::default()).await.unwrap();
    drop(filler);
    for n in 0..times {
        usual(&early, &first, n, step).await;
    }
    drop(early);
    Some((what, looked_at(&database).await))
}

/// Connections that were used while the ledger was empty keep the plans that they made then, until the server has statistics.
#[test]
fn a_plan_that_was_made_for_an_empty_ledger_reads_no_whole_tenant_later() {
    block_on(async {
        let (_, without) = looked_at_later(0, 0).await.unwrap();
        let mut found = Vec::new();
        for step in 0.. {
            let Some((what, all)) = looked_at_later(step, TIMES).await else { break };
            let cost = (all - without) / i64::try_from(TIMES).unwrap();
            if cost > 400 {
                found.push(format!("{cost} rows looked at: {what}"));
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    });
}

//! Requests that members have made so that no host can carry them out or close them: what another user of the tenant feels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::time::Duration;

use logline_core::ledger::{Ledger as _, Query};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::{
    Clock as _, Draft, IdSource as _, MAX_INTEGER, MemoryLedger, Scope, Signer as _, SystemClock, SystemIds, ids,
};
use logline_kernels::{Worker, WorkerOptions};
use serde_json::{Value, json};
use setup::{HOST, TENANT, USER, block_on, echo, key, run_until, until};
use uuid::Uuid;

const MEMBER: u8 = 70;

/// Arrays in each other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// First versions that a member may sign and that no request can go on from.
fn hostile(function: Uuid, n: usize) -> Vec<Draft> {
    let base = |kind: &str| {
        let id = SystemIds.next_id(SystemClock.now());
        Request::new(TENANT, "mallory", function, json!(1)).into_draft(id).name(format!("{kind} {n}"))
    };
    vec![
        base("no successor").seq(MAX_INTEGER),
        base("little room").seq(MAX_INTEGER - 1),
        base("metadata as deep as it may be").metadata(nested(62)),
        base("members as deep as they may be").meta("x", nested(61)),
        base("no object").metadata(json!([1, 2, 3])),
        base("near the limit of a span").input(json!("x".repeat((1 << 20) - 4096))),
        base("many relations").related((0..20_000).map(|n: u32| ids::derive("relation", &[&n.to_string()]))),
        base("long code").code("x".repeat(900 << 10)),
        base("attempts of the wrong type").meta("max_attempts", "many"),
        base("a time that is none").meta("due_at", "2026-05-01"),
        base("a lease that is none").meta("lease_ms", "x"),
        base("begun already").status("running").meta("attempt", 7),
        base("ended already").status("dead").meta("attempt", 7),
        base("no such status").status("sleeping"),
        base("a null").meta("priority", Value::Null),
        base("tombstone").deleted(),
    ]
}

async fn seal_all(ledger: &MemoryLedger, drafts: Vec<Draft>) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for draft in drafts {
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(MEMBER)).unwrap();
        ids.push(span.id);
        // As the user may: mallory writes only what her scope lets her.
        ledger.append(&Scope::user(TENANT, "mallory"), vec![span], &Default::default()).await.unwrap();
    }
    ids
}

#[test]
fn requests_that_cannot_go_on_are_closed_or_never_offered_and_delay_nobody() {
    block_on(async {
        let manifest =
            setup::manifest().allow_all(&logline_kernels::all()).grant(key(MEMBER).public_key(), Role::Member, [TENANT]);
        let ledger = setup::ledger(&manifest).await;
        let host = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        let mut hostile_ids = Vec::new();
        for n in 0..25 {
            hostile_ids.extend(seal_all(&ledger, hostile(function, n)).await);
        }
        let asked = host.submit(Request::new(TENANT, USER, function, json!("mine")).priority(0)).await.unwrap();
        let worker = || Worker::new(WorkerOptions::default().poll(Duration::from_millis(5)).concurrency(4));
        run_until(&host, worker(), until(&ledger, 1, |row| row.id == asked.id && row.status.as_deref() == Some("complete")))
            .await;

        // What is left is closed without anybody's help.
        let open = async || {
            let query = Query::new().tenant(TENANT).entity_type("request");
            let page = ledger.scan(&Scope::runtime(TENANT), &query, None).await.unwrap();
            let open = page.into_spans().unwrap().into_iter().filter(|span| {
                span.seq < MAX_INTEGER && span.prev_hash.is_none() && span.status.as_deref() == Some("scheduled")
            });
            open.count()
        };
        let closed = async {
            while open().await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        run_until(&host, worker(), closed).await;
        for id in hostile_ids {
            let versions = ledger.history(&Scope::runtime(TENANT), TENANT, id, 0, 10).await.unwrap();
            let last = versions.last().unwrap();
            let is_closed = matches!(last.status.as_deref(), Some("complete" | "error" | "dead"));
            // A first version of another status is no request to anybody.
            let is_inert = last.seq == MAX_INTEGER || last.is_deleted || last.status.as_deref() != Some("scheduled");
            assert!(is_closed || is_inert, "it is open: {last:?}");
            assert!(versions.len() <= 3, "it goes nowhere: {versions:?}");
        }
    });
}

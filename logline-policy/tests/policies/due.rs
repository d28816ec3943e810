//! Policies that wait for a time.

use crate::setup::{HOST, PUBLISHER, TENANT, USER, block_on, key, run_until, spans, until};
use crate::world::*;
use logline_core::ledger::{Ledger as _, WorkQueue as _};
use logline_core::{Draft, Scope, SignedSpan, SystemClock, Timestamp};
use logline_policy::install_policies;
use serde_json::json;

#[test]
fn a_policy_with_a_due_time_acts_at_that_time_on_the_last_version() {
    block_on(async {
        let (ledger, clock) = at_noon().await;
        install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        let host = host_as(&ledger, HOST).await;
        let directive = |ttl: &str| {
            Draft::new("prompt_directive")
                .tenant(TENANT)
                .owner(USER)
                .who("policy")
                .this("x")
                .at("2026-05-01T12:00:00Z".parse().unwrap())
                .metadata(json!({"ttl_at": ttl}))
        };
        let expires = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let extended = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let deleted = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let waits = |row: &SignedSpan| row.this == "policy.due" && row.prev_hash.is_none();
        run_until(&host, agents(), until(&ledger, 3, waits)).await;
        let next =
            Draft::next_version(&extended).meta("ttl_at", "2026-05-01T15:00:00Z").at("2026-05-01T12:30:00Z".parse().unwrap());
        write(&host, next).await;
        write(&host, Draft::next_version(&deleted).deleted()).await;
        run_until(&host, agents(), until(&ledger, 4, waits)).await;
        assert!(spans(&ledger, "status_patch").await.is_empty());
        let looked = |row: &SignedSpan| row.entity_type == "execution" && row.this == "policy.due";
        for (now, looks, archived) in
            [("2026-05-01T13:00:00Z", 3, vec![expires.id]), ("2026-05-01T15:00:00Z", 4, vec![expires.id, extended.id])]
        {
            clock.set(now.parse().unwrap());
            run_until(&host, worker(), until(&ledger, looks, looked)).await;
            let patches: Vec<_> =
                spans(&ledger, "status_patch").await.into_iter().map(|span| span.parent_id.unwrap()).collect();
            assert_eq!(patches, archived, "{now}");
        }
        let patch = spans(&ledger, "status_patch").await.remove(0);
        assert_eq!((patch.status.as_deref(), patch.owner_id.as_str()), (Some("archived"), USER));
        assert_eq!(ledger.used(TENANT, logline_core::EXECUTIONS_QUOTA).await.unwrap(), 0, "looking again is no execution");
    });
}

#[test]
fn a_decision_that_is_put_off_again_and_again_waits_longer_each_time() {
    block_on(async {
        let (ledger, host) = site().await;
        let content = json!({"on": ["note"], "when": "true", "due": "now + duration('1ms')", "then": [{"emit": {"entity_type": "reply"}}]});
        publish(&host, "restless", content).await;
        write(&host, note(json!("x"))).await;
        let is_put_off = |row: &SignedSpan| row.entity_type == "request" && row.this == "policy.due" && row.prev_hash.is_none();
        run_until(&host, everything(), until(&ledger, 4, is_put_off)).await;
        let requests: Vec<_> = spans(&ledger, "request").await.into_iter().filter(|row| row.this == "policy.due").collect();
        let mut delays = Vec::new();
        for request in &requests {
            let first = ledger.history(&Scope::Operator, TENANT, request.id, 0, 1).await.unwrap().remove(0);
            let due: Timestamp = first.meta("due_at").unwrap().as_str().unwrap().parse().unwrap();
            delays.push(due.since(first.at).as_millis());
        }
        delays.sort_unstable();
        delays.dedup();
        assert!(delays[1] >= 900 && delays[2] >= 1900 && delays[3] >= 3900, "{delays:?}");
    });
}

#[test]
fn a_delay_that_is_lengthened_is_waited_for() {
    block_on(async {
        let (ledger, clock) = at_noon().await;
        let host = host_as(&ledger, HOST).await;
        let content = json!({"on": ["note"], "when": "true", "due": "timestamp(span.at) + duration(config.delay)", "then": [{"emit": {"entity_type": "reply"}}]});
        let first = host.publish(policy("later", content).input(json!({"delay": "60s"})), &key(PUBLISHER)).await.unwrap();
        write(&host, note(json!(1)).at("2026-05-01T12:00:00Z".parse().unwrap())).await;
        let asks = |row: &SignedSpan| row.this == "policy.due" && row.entity_type == "request" && row.prev_hash.is_none();
        run_until(&host, agents(), until(&ledger, 1, asks)).await;
        host.publish(Draft::next_version(&first).input(json!({"delay": "3600s"})), &key(PUBLISHER)).await.unwrap();
        clock.set("2026-05-01T12:01:00Z".parse().unwrap());
        run_until(&host, worker(), until(&ledger, 2, asks)).await;
        assert!(spans(&ledger, "reply").await.is_empty());
        clock.set("2026-05-01T13:00:00Z".parse().unwrap());
        run_until(&host, worker(), until(&ledger, 1, of_type("reply"))).await;
    });
}

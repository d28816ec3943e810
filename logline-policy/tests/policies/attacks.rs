//! What users, guests and hostile policies try.

use crate::setup;
use crate::setup::{HOST, PUBLISHER, TENANT, USER, block_on, echo, key, run_until, spans, until};
use crate::world::*;
use logline_core::ledger::AppendOptions;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Ended, LogEnd, Manifest};
use logline_core::{Draft, Hash, Signer as _, SystemClock, Visibility, ids};
use logline_policy::{MAX_DEPTH, Policy};
use serde_json::json;

#[test]
fn what_is_smuggled_past_the_validator_is_reported_once_and_never_run() {
    block_on(async {
        let (ledger, host) = site().await;
        let broken = policy("broken", json!({"on": ["note"], "when": "nonsense(", "then": []}));
        setup::smuggle(&ledger, broken, PUBLISHER).await;
        setup::smuggle(&ledger, policy("forged", echoing()), setup::STRANGER).await;
        write(&host, note(json!(1))).await;
        settle(&ledger, &host, agents()).await;
        settle(&ledger, &host_as(&ledger, OTHER_HOST).await, agents()).await;
        let mut reported: Vec<_> = spans(&ledger, "policy_violation").await.into_iter().map(|span| span.this.clone()).collect();
        reported.sort();
        assert_eq!(reported, ["policy.invalid_policy", "policy.policy_not_authorised"]);
        assert!(spans(&ledger, "policy_violation").await.iter().all(|span| span.who == "kernel:policy_agent"));
        assert!(spans(&ledger, "reply").await.is_empty());
    });
}

#[test]
fn a_policy_of_a_stolen_key_acts_no_more_once_the_key_has_ended() {
    const STOLEN: u8 = 41;
    block_on(async {
        let manifest = manifest().grant(key(STOLEN).public_key(), Role::Publisher, [TENANT]);
        let ledger = setup::ledger_with(&manifest, &behaviours()).await;
        let host = host_as(&ledger, HOST).await;
        host.publish(policy("thief", echoing()), &key(STOLEN)).await.unwrap();
        let stolen = async {
            write(&host, note(json!("before"))).await;
            settled(&ledger, &host).await;
            let log = LogEnd { origin: "log.example/acme".to_owned(), size: 0, root: Hash([7; 32]) };
            let next = Manifest { version: 2, ..manifest.clone() }.end(Ended::of_key(key(STOLEN).public_key(), [log]));
            setup::trust().publish(&ledger, &next, &key(setup::ROOT), &SystemClock).await.unwrap();
            host.refresh().await.unwrap();
            write(&host, note(json!("after"))).await;
            settled(&ledger, &host).await;
        };
        run_until(&host, agents(), stolen).await;
        let replies: Vec<_> = spans(&ledger, "reply").await.into_iter().map(|span| span.content.clone().unwrap()).collect();
        assert_eq!(replies, ["before"]);
    });
}

#[test]
fn policies_that_trigger_each_other_stop_at_the_documented_depth() {
    block_on(async {
        let (ledger, host) = site().await;
        let to = |from: &str, to: &str| json!({"on": [from], "when": "true", "then": [{"emit": {"entity_type": to, "metadata": {"policy": {"depth": 0}}}}]});
        publish(&host, "ping", to("ping", "pong")).await;
        publish(&host, "pong", to("pong", "ping")).await;
        let mut first = note(json!(1));
        first.columns_mut().entity_type = "ping".to_owned();
        write(&host, first).await;
        run_until(&host, agents(), until(&ledger, 1, of_type("policy_violation"))).await;
        settle(&ledger, &host, agents()).await;
        let (pings, pongs) = (spans(&ledger, "ping").await.len(), spans(&ledger, "pong").await.len());
        assert_eq!((pings + pongs) as u64, 1 + MAX_DEPTH, "the first, and so many that followed");
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (violations[0].this.as_str(), violations[0].error.as_ref().unwrap()["code"].as_str()),
            ("policy.depth", Some("policy_loop"))
        );
    });
}

#[test]
fn a_loop_through_functions_stops_as_well() {
    block_on(async {
        let (ledger, host) = site().await;
        // Every execution runs the function again.
        let function = setup::publish(&host, &echo()).await;
        let again = json!({"on": ["execution"], "when": "true", "then": [{"run": {"function": function.to_string(), "input": {"after": "${span.id}"}}}]});
        publish(&host, "again", again).await;
        host.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        run_until(&host, everything(), until(&ledger, 1, of_type("policy_violation"))).await;
        assert_eq!(spans(&ledger, "execution").await.len() as u64, 1 + MAX_DEPTH);
        assert_eq!(spans(&ledger, "policy_violation").await[0].this, "policy.depth");
    });
}

#[test]
fn a_user_cannot_hide_from_policies_by_claiming_a_depth() {
    block_on(async {
        let (ledger, host) = site().await;
        publish(&host, "echo", echoing()).await;
        let manifest_member = key(PUBLISHER);
        let draft = note(json!("mine")).metadata(json!({"policy": {"depth": 99}}));
        host.publish(draft, &manifest_member).await.unwrap();
        run_until(&host, agents(), until(&ledger, 1, of_type("reply"))).await;
    });
}

#[test]
fn a_guest_can_neither_forge_a_depth_nor_ask_a_policy_to_look_again() {
    block_on(async {
        let (ledger, host) = site().await;
        let forged = r#"{"entity_type":"note","this":"x","metadata":{"policy":{"depth":99}}}"#;
        let emitted = setup::run(&host, &setup::ask(5, forged), json!(null)).await;
        assert!(setup::output(&emitted)["id"].is_string());
        let note = spans(&ledger, "note").await.remove(0);
        assert_eq!(note.meta("policy"), None);
        let due = r#"{"entity_type":"request","this":"policy.due","status":"scheduled"}"#;
        let refused = setup::run(&host, &setup::ask(5, due), json!(null)).await;
        assert_eq!(setup::output(&refused)["code"], "not_permitted", "{:?}", refused.result);
        // Whoever may write requests may not either.
        let reaper = publish(
            &host,
            "reaper",
            json!({"on": ["note"], "when": "true", "due": "now", "then": [{"emit": {"entity_type": "reply"}}]}),
        )
        .await;
        let draft = Draft::new("request").tenant(TENANT).owner(USER).who("user:alice").this("policy.due").status("scheduled");
        let request = host.publish(draft.parent(reaper.id).related([note.id]), &key(PUBLISHER)).await.unwrap();
        let loops = worker();
        run_until(&host, loops, until(&ledger, 1, |row| row.id == request.id && row.status.as_deref() == Some("error"))).await;
        let closed = spans(&ledger, "request").await.into_iter().rfind(|row| row.id == request.id).unwrap();
        assert_eq!(closed.error.as_ref().unwrap()["code"], "request_not_permitted");
        assert!(spans(&ledger, "reply").await.is_empty());
    });
}

#[test]
fn a_hostile_policy_never_outlasts_its_bound() {
    block_on(async {
        let (ledger, host) = site().await;
        let twice = "has(span.content) && span.content.all(a, span.content.all(b, a == b || a != b))";
        publish(&host, "twice", json!({"on": ["note"], "when": twice, "then": [{"emit": {"entity_type": "reply"}}]})).await;
        write(&host, note(json!([1, 2, 3]))).await;
        // 20,000 values: 400 million rounds.
        write(&host, note(json!(vec![7; 20_000]))).await;
        write(&host, note(json!([4]))).await;
        run_until(&host, agents(), until(&ledger, 2, of_type("reply"))).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].this, "policy.cost");
        assert!(violations[0].error.as_ref().unwrap()["message"].as_str().unwrap().contains("units, the limit is"));
    });
}

#[test]
fn another_tenants_spans_are_no_business_of_a_policy() {
    block_on(async {
        let (ledger, host) = site().await;
        publish(&host, "echo", echoing()).await;
        let foreign = note(json!("theirs")).tenant("globex").visibility(Visibility::Public);
        host.record("globex", vec![foreign], &AppendOptions::default()).await.unwrap();
        write(&host, note(json!("ours"))).await;
        settle(&ledger, &host, agents()).await;
        let replies = spans(&ledger, "reply").await;
        assert_eq!(replies.iter().map(|span| span.content.clone().unwrap()).collect::<Vec<_>>(), [json!("ours")]);
    });
}

#[test]
fn no_expression_of_the_allowed_length_breaks_the_compiler() {
    let units = [
        "1+",
        "(",
        "[",
        "{'a':",
        "!",
        "-",
        "a.",
        "a?b:",
        "true&&",
        "true||",
        "x[",
        "has(",
        "'",
        "\"\"\"",
        "b'",
        "r'",
        "\\",
        "/*",
        "//",
        "?",
        "span.all(a,",
        "span.map(a,a.map(b,",
        "1 in ",
        "\u{0}",
        "é",
        "${",
        "0x",
        "1e",
        "9",
        "..",
        "a(",
        "\n",
    ];
    for unit in units {
        for tail in ["", "1", ")", "]"] {
            let source = unit.repeat(4096 / unit.len() - 1) + tail;
            let draft =
                policy("hostile", json!({"on": ["note"], "when": source, "then": [{"emit": {"entity_type": "reply"}}]}));
            // It answers, on the stack of a test: the parser, the check, and what takes the expression apart again.
            if let Err(refused) = Policy::of(draft.columns()).map(drop) {
                assert!(["invalid_expression", "too_costly"].contains(&refused.code.as_str()), "{unit}…{tail}: {refused}");
            }
        }
    }
}

#[test]
fn a_request_that_claims_a_depth_does_not_hide_what_follows_from_it() {
    block_on(async {
        let (ledger, host) = site().await;
        let answered = json!({"on": ["execution"], "when": "true", "then": [{"emit": {"entity_type": "reply"}}]});
        publish(&host, "answered", answered).await;
        let function = setup::publish(&host, &echo()).await;
        let draft = Draft::new("request")
            .tenant(TENANT)
            .owner(USER)
            .who("user:alice")
            .this("function.run")
            .parent(function)
            .status("scheduled")
            .metadata(json!({"policy": {"depth": 99}}));
        host.publish(draft.clone(), &key(PUBLISHER)).await.unwrap();
        let cancelled = host.publish(draft, &key(PUBLISHER)).await.unwrap();
        host.cancel(TENANT, cancelled.id, "operator").await.unwrap();
        run_until(&host, everything(), until(&ledger, 1, of_type("reply"))).await;
        let execution = spans(&ledger, "execution").await.remove(0);
        assert_eq!(execution.meta("policy"), None);
        let requests = spans(&ledger, "request").await;
        assert!(requests.iter().all(|row| row.prev_hash.is_none() || row.meta("policy").is_none()), "{requests:?}");
    });
}

#[test]
fn a_members_request_of_another_kernel_stops_no_worker() {
    block_on(async {
        // This manifest does not allow the policy agent at all.
        let ledger = setup::ledger_with(&setup::manifest().allow("request_worker", ids::REQUEST_WORKER), &behaviours()).await;
        let host = host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        let due = |signer| {
            let draft = Draft::new("request").tenant(TENANT).owner(USER).who("user:alice").this("policy.due");
            let draft = draft.status("scheduled").parent(function);
            (draft, signer)
        };
        let forged = host.publish(due(PUBLISHER).0, &key(due(PUBLISHER).1)).await.unwrap();
        // A host's own, for which this one has no kernel: left to another.
        let left = host.publish(due(HOST).0, &key(HOST)).await.unwrap();
        host.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        let loops = worker();
        let both = async {
            until(&ledger, 1, of_type("execution")).await;
            until(&ledger, 1, |row| row.id == forged.id && row.status.as_deref() == Some("error")).await;
        };
        run_until(&host, loops, both).await;
        let left: Vec<_> = spans(&ledger, "request").await.into_iter().filter(|row| row.id == left.id).collect();
        assert_eq!(left.len(), 1, "nobody touched it");
    });
}

#[test]
fn one_policy_that_cannot_be_carried_out_stops_no_other() {
    block_on(async {
        let (ledger, host) = site().await;
        let deep = format!("${{{}1{}}}", "[".repeat(70), "]".repeat(70));
        // What it wants counted can never be written: numbers and depths that no span has, no name.
        for (n, count) in [
            json!({"this": "", "value": 1}),
            json!({"this": "x", "labels": {"n": "${9007199254740993}"}}),
            json!({"this": "x", "labels": deep}),
            json!({"this": "x", "value": "${1e300}"}),
        ]
        .into_iter()
        .enumerate()
        {
            let content = json!({"on": ["note"], "when": "true", "then": [{"key": "k", "count": count}]});
            publish(&host, &format!("a{n}"), content).await;
        }
        publish(&host, "echo", echoing()).await;
        write(&host, note(json!(1))).await;
        run_until(&host, agents(), until(&ledger, 1, of_type("reply"))).await;
        settle(&ledger, &host, agents()).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 4, "{violations:?}");
        assert!(violations.iter().all(|span| span.this == "policy.error"));
    });
}

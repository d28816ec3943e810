//! Schedules, policies, proposals and executions.

use logline::home::{Home, KeyOf};
use logline_core::ledger::LedgerExt as _;
use logline_core::{Draft, Scope, SystemClock, SystemIds, Visibility};
use logline_http::{Permission, ServeOptions};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{Stage, options};

#[tokio::test(flavor = "multi_thread")]
async fn schedules_and_policies_are_listed_and_a_dry_run_writes_nothing() {
    let stage = Stage::start().await;
    let reader = stage.token_for("acme", "auditor", &[Permission::ReadTenant]).await;
    let writer = stage.token("acme", "alice").await;
    let fee = stage.fee("acme").await;
    let scheduled = Draft::next_version(&fee).status("scheduled").meta("schedule", json!({"every_ms": 3_600_000}));
    stage.host.publish(scheduled, &stage.publisher).await.unwrap();
    let schedules = stage.get(&reader, "/api/schedules").await.ok(200);
    assert_eq!(schedules["spans"].as_array().unwrap().len(), 1);
    let policy = Draft::new("policy")
        .tenant("acme")
        .owner("publisher")
        .who("publisher")
        .this("policy.loud")
        .name("loud")
        .visibility(Visibility::Tenant)
        .status("active")
        .language("cel")
        .content(json!({"on": ["note"], "when": "span.status == \"loud\"", "then": [
            {"emit": {"entity_type": "note", "this": "note.seen"}},
        ]}));
    let policy = stage.host.publish(policy, &stage.publisher).await.unwrap();
    assert_eq!(stage.get(&reader, "/api/policies").await.ok(200)["spans"].as_array().unwrap().len(), 1);
    for status in ["loud", "quiet", "loud"] {
        stage.post(&writer, "/api/spans", &[], &json!({"entity_type": "note", "status": status})).await.ok(201);
    }
    let count = async || stage.get(&reader, "/api/timeline?limit=500").await.ok(200)["spans"].as_array().unwrap().len();
    let before = count().await;
    let path = format!("/api/policies/{}/dry-run", policy.id);
    let ran = stage.post(&reader, &path, &[], &Value::Null).await.ok(200);
    assert_eq!(ran["foreseen"].as_array().unwrap().len(), 2, "{ran}");
    let action = json!({"emit": {"entity_type": "note", "this": "note.seen"}});
    assert_eq!(ran["foreseen"][0]["decision"], json!({"actions": [action]}));
    assert_eq!(count().await, before, "nothing is written");
    // A policy sees rows that the user may not.
    stage.post(&writer, &path, &[], &Value::Null).await.is(403, "not_permitted");
    let mallory = stage.token_for("beta", "auditor", &[Permission::ReadTenant]).await;
    stage.post(&mallory, &path, &[], &Value::Null).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_the_caller_has_not_sealed_is_not_taken() {
    let stage = Stage::start().await;
    let alice = stage.token("acme", "alice").await;
    assert_eq!(stage.get(&alice, "/api/proposals").await.ok(200)["proposals"], json!([]));
    let none = Uuid::from_u128(5);
    stage.get(&alice, &format!("/api/proposals/{none}")).await.is(404, "not_found");
    let note = stage.post(&alice, "/api/spans", &[], &json!({"entity_type": "note"})).await.ok(201);
    let note = &note["spans"][0]["id"];
    for (body, status, code) in [
        (json!({"entity_type": "approval", "parent_id": note}), 422, "invalid_span"),
        (json!({"entity_type": "approval", "parent_id": none}), 404, "not_found"),
        (json!({"entity_type": "approval"}), 400, "invalid_body"),
        (json!({"entity_type": "note", "parent_id": note}), 400, "invalid_body"),
        (json!({"entity_type": "approval", "parent_id": note, "owner_id": "bob"}), 403, "other_identity"),
    ] {
        stage.post(&alice, "/api/approvals", &[], &body).await.is(status, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_executions_are_found_page_by_page_and_nobody_elses() {
    let mut options = options();
    options.max_page = 4;
    let stage = Stage::with(options, ServeOptions::default()).await;
    let key = Home::folder(stage.folder.path()).key(KeyOf::Host).unwrap();
    for (number, (owner, took)) in
        [("alice", 10), ("alice", 2000), ("bob", 3000), ("alice", 30), ("alice", 1000), ("alice", 1001)].into_iter().enumerate()
    {
        let draft =
            Draft::new("execution").tenant("acme").owner(owner).who("host").this("function.run").name(format!("e{number}"));
        let draft = draft.visibility(Visibility::Private).status("complete").duration_ms(took).stamp(&SystemClock, &SystemIds);
        stage.host.ledger().append_one(&Scope::Operator, draft.seal_local(&key).unwrap()).await.unwrap();
    }
    let token = stage.token("acme", "alice").await;
    let all = async |path: &str| {
        let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = stage.get(&token, &format!("{path}{after}")).await.ok(200);
            let rows = page["spans"].as_array().unwrap().iter();
            names.extend(rows.map(|row| row["name"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["next"].as_str() else { return (names, pages) };
            after = format!("&after={next}");
        }
    };
    let (names, _) = all("/api/executions?slower_than=1000&limit=4").await;
    assert_eq!(names, ["e5", "e1"], "newest first; a second is not slower than a second");
    let (names, pages) = all("/api/executions?slower_than=1000&limit=1&order=oldest").await;
    assert_eq!((names, pages >= 2), (vec!["e1".to_owned(), "e5".to_owned()], true));
    assert_eq!(all("/api/executions?limit=2").await.0, ["e5", "e4", "e3", "e1", "e0"]);
    assert_eq!(all("/api/executions?slower_than=5000&limit=4").await.0, [""; 0]);
    for query in [
        "slower_than=x",
        "slower_than=-1",
        "slower_than=2147483648",
        "slower_than=4294967296",
        "type=note",
        "slower_than=1&slower_than=2",
    ] {
        stage.get(&token, &format!("/api/executions?{query}")).await.is(400, "invalid_parameter");
    }
    stage.get(&token, "/api/executions?owner_id=bob").await.is(403, "other_identity");
}

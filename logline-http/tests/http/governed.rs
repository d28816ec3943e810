//! Schedules, policies and proposals.

use logline_core::Draft;
use logline_http::Permission;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::Stage;

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
        .visibility(logline_core::Visibility::Tenant)
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

//! What attackers of the edge have found.

use logline_http::{Permission, ServeOptions};
use serde_json::{Value, json};

use crate::stage::{Stage, options};

/// An error that says it is gzip and is not cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_what_its_encoding_says() {
    let stage = Stage::start().await;
    for path in ["/api/spans", "/api/none", "/openapi.json"] {
        let headers = [("authorization", "Bearer x"), ("accept-encoding", "gzip")];
        let answer = stage.call("GET", path, &headers, None).await;
        let is_gzip = answer.body.starts_with(&[0x1f, 0x8b]);
        assert_eq!(answer.headers.get("content-encoding").map(String::as_str) == Some("gzip"), is_gzip, "{path}");
    }
    let plain = stage.call("GET", "/api/spans", &[("authorization", "Bearer x")], None).await;
    assert_eq!(plain.json()["request_id"].as_str(), plain.headers.get("x-request-id").map(String::as_str));
}

/// "Too many streams" after the request is stored makes a client submit it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_finds_no_place_to_wait_says_that_it_was_submitted() {
    let mut options = options();
    options.max_streams = 0;
    let stage = Stage::with(options, ServeOptions::default()).await;
    stage.fee("acme").await;
    let alice = stage.token("acme", "alice").await;
    let asked = json!({"function": "fee", "input": {"amount_minor": 1}});
    let answer = stage.post(&alice, "/api/execute", &[("prefer", "wait=5")], &asked).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert!(answer.json()["id"].is_string());
}

/// What is cancelled must not look as if it were not there.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_cancels_without_seeing_is_told_that_it_is_cancelled() {
    let stage = Stage::start().await;
    stage.fee("acme").await;
    let alice = stage.token("acme", "alice").await;
    let boss = stage.token_for("acme", "boss", &[Permission::Manage, Permission::ManageTenant]).await;
    let asked = json!({"function": "fee", "due_at": "2100-01-01T00:00:00Z"});
    let request = stage.post(&alice, "/api/execute", &[], &asked).await.ok(202);
    let id = request["id"].as_str().unwrap();
    let told = stage.post(&boss, &format!("/api/requests/{id}/cancel"), &[], &Value::Null).await.ok(200);
    assert_eq!(told, json!({"id": id, "status": "cancelled"}));
    let told = stage.post(&boss, &format!("/api/requests/{id}/revive"), &[], &Value::Null).await.ok(202);
    assert_eq!(told, json!({"id": id, "status": "scheduled"}));
}

/// The second span of a call with a key is not the first of a call with another.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_look_like_parts_of_others_are_others() {
    let stage = Stage::start().await;
    let alice = stage.token("acme", "alice").await;
    let note = json!({"entity_type": "note", "content": "same"});
    let write =
        async |key: &str, body: Value| stage.post(&alice, "/api/spans", &[("idempotency-key", key)], &body).await.ok(201);
    write("k", json!({"spans": [note, note]})).await;
    for key in ["k#1", "k1"] {
        assert_eq!(write(key, note.clone()).await["spans"][0]["outcome"], "appended", "{key}");
    }
}

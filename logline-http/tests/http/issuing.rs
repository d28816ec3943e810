//! API keys that callers issue, rotate and revoke, and what they cannot.

use logline_http::Permission;
use serde_json::{Value, json};

use crate::stage::Stage;

const KEEPER: [Permission; 2] = [Permission::Read, Permission::ManageKeys];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_issued_rotated_and_revoked_and_told_once() {
    let stage = Stage::start().await;
    let keeper = stage.token_for("acme", "alice", &KEEPER).await;
    let asked = json!({"name": "a reader", "permissions": ["spans:read"], "days": 7});
    let key = stage.post(&keeper, "/api/keys", &[], &asked).await.ok(201);
    let (id, first) = (key["id"].as_str().unwrap(), key["token"].as_str().unwrap());
    assert_eq!(stage.get(first, "/api/spans").await.status, 200);
    let rotated = stage.post(&keeper, &format!("/api/keys/{id}/rotate"), &[], &json!({"overlap_seconds": 60})).await.ok(200);
    let second = rotated["token"].as_str().unwrap();
    for token in [first, second] {
        assert_eq!(stage.get(token, "/api/spans").await.status, 200);
    }
    let listed = stage.get(&keeper, "/api/keys").await.ok(200).to_string();
    assert!(listed.contains(id));
    for token in [first, second] {
        assert!(!listed.contains(token.rsplit('_').next().unwrap()), "a secret is in no list");
    }
    stage.post(&keeper, &format!("/api/keys/{id}/revoke"), &[], &Value::Null).await.ok(200);
    for token in [first, second] {
        stage.get(token, "/api/spans").await.is(401, "invalid_token");
    }
    stage.post(&keeper, &format!("/api/keys/{id}/revoke"), &[], &Value::Null).await.is(404, "not_found");
}

/// Whoever has stolen a key for a day must not make one for a year of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_no_later_than_the_key_that_issued_it() {
    let stage = Stage::start().await;
    let expiry = async |token: &str, id: &str| {
        let span = stage.get(token, &format!("/api/spans/{id}")).await.ok(200);
        let said = &span["metadata"];
        (said["expires_at"].as_str().unwrap().to_owned(), said["issued_with"].as_str().unwrap().to_owned())
    };
    let keeper = stage.token_for("acme", "alice", &KEEPER).await;
    let days = |days: u32| json!({"name": "x", "permissions": ["spans:read", "keys:manage"], "days": days});
    let short = stage.post(&keeper, "/api/keys", &[], &days(1)).await.ok(201);
    let (short_id, short_token) = (short["id"].as_str().unwrap(), short["token"].as_str().unwrap());
    let child = stage.post(short_token, "/api/keys", &[], &days(365)).await.ok(201);
    let (end, _) = expiry(&keeper, short_id).await;
    assert_eq!(expiry(&keeper, child["id"].as_str().unwrap()).await, (end, short_id.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_no_right_that_its_issuer_does_not_have() {
    let stage = Stage::start().await;
    let keeper = stage.token_for("acme", "alice", &KEEPER).await;
    let post = async |token: &str, body: Value| stage.post(token, "/api/keys", &[], &body).await;
    post(&keeper, json!({"name": "x", "permissions": ["tenant:read"]})).await.is(403, "not_permitted");
    post(&keeper, json!({"name": "x", "permissions": ["spans:read"], "user": "bob"})).await.is(403, "other_identity");
    post(&keeper, json!({"name": "x", "permissions": ["everything"]})).await.is(400, "invalid_body");
    post(&keeper, json!({"name": "x", "permissions": []})).await.is(400, "invalid_body");
    post(&keeper, json!({"name": "x", "permissions": ["spans:read"], "days": 3660})).await.is(400, "invalid_body");
    post(&keeper, json!({"name": "x", "permissions": ["spans:read"], "tenant": "beta"})).await.is(400, "invalid_body");
    let reader = stage.token_for("acme", "alice", &[Permission::Read]).await;
    post(&reader, json!({"name": "x", "permissions": ["spans:read"]})).await.is(403, "not_permitted");
    // A key that permits more than the caller is not rotated by the caller, whose new secret it would be.
    let strong = stage.token_for("acme", "alice", &[Permission::Write]).await;
    let strong = uuid::Uuid::try_parse(strong.rsplit('_').nth(1).unwrap()).unwrap();
    let path = format!("/api/keys/{strong}/rotate");
    stage.post(&keeper, &path, &[], &json!({})).await.is(403, "not_permitted");
    // Keys of others are not there.
    let bob = stage.token_for("acme", "bob", &KEEPER).await;
    stage.post(&bob, &path, &[], &json!({})).await.is(404, "not_found");
    let mallory = stage.token_for("beta", "alice", &KEEPER).await;
    stage.post(&mallory, &path, &[], &json!({})).await.is(404, "not_found");
}

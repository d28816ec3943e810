//! What a caller of one tenant tries on another, and a user on another user.

use logline_http::Permission;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::Stage;

async fn write(stage: &Stage, token: &str, visibility: &str) -> String {
    let note = json!({"entity_type": "note", "content": "secret", "visibility": visibility});
    stage.post(token, "/api/spans", &[], &note).await.ok(201)["spans"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_others_look_like_ids_that_do_not_exist() {
    let stage = Stage::start().await;
    stage.fee("acme").await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let mallory = stage.token("beta", "alice").await;
    let note = write(&stage, &alice, "private").await;
    let shared = write(&stage, &alice, "tenant").await;
    let public = write(&stage, &alice, "public").await;
    let request = stage.post(&alice, "/api/execute", &[], &json!({"function": "fee", "due_at": "2100-01-01T00:00:00Z"})).await;
    let request = request.json()["id"].as_str().unwrap().to_owned();
    let nothing = Uuid::from_u128(7).to_string();
    let look = async |token: &str, id: &str| {
        let mut answers = Vec::new();
        for path in ["/api/spans/ID", "/api/spans/ID/versions", "/api/requests/ID", "/api/requests/ID/wait"] {
            let mut answer = stage.get(token, &path.replace("ID", id)).await;
            let mut body = answer.json();
            body["request_id"] = Value::Null;
            answer.headers.remove("x-request-id");
            answer.headers.remove("date");
            answer.headers.remove("ratelimit");
            answers.push((answer.status, answer.headers, body));
        }
        for act in ["cancel", "revive"] {
            let answer = stage.post(token, &format!("/api/requests/{id}/{act}"), &[], &Value::Null).await;
            let mut body = answer.json();
            body["request_id"] = Value::Null;
            answers.push((answer.status, Default::default(), body));
        }
        answers
    };
    let of_nothing = look(&mallory, &nothing).await;
    assert!(of_nothing.iter().all(|(status, _, _)| *status == 404), "{of_nothing:?}");
    for (token, ids) in [(&mallory, vec![&note, &shared, &public, &request]), (&bob, vec![&note, &request])] {
        for id in ids {
            assert_eq!(look(token, id).await, of_nothing);
        }
    }
    assert_eq!(stage.get(&bob, &format!("/api/spans/{shared}")).await.status, 200);
    // The function of another tenant cannot be run, nor seen.
    stage.post(&mallory, "/api/execute", &[], &json!({"function": "fee"})).await.is(404, "not_found");
    for path in ["/api/spans", "/api/timeline", "/api/requests", "/api/timeline?order=oldest"] {
        let text = String::from_utf8(stage.get(&mallory, path).await.body).unwrap();
        assert!(!text.contains("\"tenant_id\":\"acme\""), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_name_another_tenant_or_owner_are_refused() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    for path in ["/api/spans", "/api/timeline", "/api/requests", "/api/metrics", "/api/timeline/stream"] {
        for named in ["tenant_id=beta", "owner_id=bob", "tenant_id=system", "tenant_id=acme&owner_id=bob", "tenant_id="] {
            stage.get(&token, &format!("{path}?{named}")).await.is(403, "other_identity");
        }
    }
    for named in [json!({"tenant_id": "beta"}), json!({"owner_id": "bob"})] {
        let mut note = json!({"entity_type": "note", "content": 1});
        let mut request = json!({"function": "fee"});
        for (name, value) in named.as_object().unwrap() {
            note[name] = value.clone();
            request[name] = value.clone();
        }
        stage.post(&token, "/api/spans", &[], &note).await.is(403, "other_identity");
        stage
            .post(&token, "/api/spans", &[], &json!({"spans": [{"entity_type": "note"}, note]}))
            .await
            .is(403, "other_identity");
        stage.post(&token, "/api/execute", &[], &request).await.is(403, "other_identity");
    }
    assert_eq!(stage.get(&token, "/api/spans?tenant_id=acme&owner_id=alice").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_stream_ids_of_others_and_changed_ones_are_refused() {
    let stage = Stage::start().await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let mallory = stage.token("beta", "alice").await;
    for _ in 0..3 {
        write(&stage, &alice, "private").await;
    }
    let page = stage.get(&alice, "/api/spans?limit=1").await.ok(200);
    let cursor = page["next"].as_str().unwrap().to_owned();
    let mut live = stage.open(&alice, "/api/timeline/stream", &[]).await;
    live.begun().await;
    let id = live.id.clone().unwrap();
    assert_eq!(stage.get(&alice, &format!("/api/spans?after={cursor}")).await.status, 200);
    let changed = format!("{}A", &cursor[..cursor.len() - 1]);
    let changed = if changed == cursor { format!("{}B", &cursor[..cursor.len() - 1]) } else { changed };
    for (token, text) in
        [(&bob, &cursor), (&mallory, &cursor), (&mallory, &id), (&alice, &changed), (&alice, &"a:1".to_owned())]
    {
        for path in ["/api/spans", "/api/timeline", "/api/requests", "/api/timeline/stream"] {
            stage.get(token, &format!("{path}?after={text}")).await.is(400, "invalid_cursor");
        }
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("last-event-id", text)];
        stage.call("GET", "/api/timeline/stream", &headers, None).await.is(400, "invalid_cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_of_others_are_other_keys() {
    let stage = Stage::start().await;
    let key = [("idempotency-key", "the-same")];
    let note = json!({"entity_type": "note", "content": "mine"});
    let mut ids = Vec::new();
    for (tenant, user) in [("acme", "alice"), ("acme", "bob"), ("beta", "alice")] {
        let token = stage.token(tenant, user).await;
        let written = stage.post(&token, "/api/spans", &key, &note).await;
        assert!(!written.headers.contains_key("idempotency-replayed"), "{tenant} {user}");
        ids.push(written.ok(201)["spans"][0]["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_seals_nothing_that_a_member_could_not_sign() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    for (draft, status) in [
        (json!({"entity_type": "execution"}), 403),
        (json!({"entity_type": "api_key"}), 403),
        (json!({"entity_type": "idempotency_record"}), 403),
        (json!({"entity_type": "delegation"}), 403),
        (json!({"entity_type": "logline_new"}), 403),
        (json!({"entity_type": "function"}), 422),
        (json!({"entity_type": "policy"}), 422),
        (json!({"entity_type": "approval"}), 422),
        (json!({"entity_type": "manifest"}), 422),
        (json!({"entity_type": "request", "this": "function.run", "status": "scheduled"}), 422),
        (json!({"entity_type": "note", "who": "kernel:run_code"}), 422),
        (json!({"entity_type": "note", "at": "2020-01-01T00:00:00Z"}), 422),
        (json!({"entity_type": "note", "prev_hash": "00".repeat(32)}), 422),
        (json!({"entity_type": "note", "id": "00000000-0000-5000-8000-000000000001"}), 403),
    ] {
        assert_eq!(stage.post(&token, "/api/spans", &[], &draft).await.status, status, "{draft}");
    }
    let forged = json!({"entity_type": "note", "metadata": {"policy": {"depth": 0}, "sealed_by": {"by": "nobody"}}});
    let written = stage.post(&token, "/api/spans", &[], &forged).await.ok(201);
    let span = stage.get(&token, &format!("/api/spans/{}", written["spans"][0]["id"].as_str().unwrap())).await.ok(200);
    assert_eq!((&span["metadata"]["policy"], &span["metadata"]["sealed_by"]["by"]), (&Value::Null, &json!("host")));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_requests_that_only_hosts_may_ask_for_are_not_submitted() {
    let stage = Stage::start().await;
    stage.fee("acme").await;
    let token = stage.token("acme", "alice").await;
    for this in ["policy.due", "provider.exec", "", "function.run "] {
        stage.post(&token, "/api/execute", &[], &json!({"function": "fee", "this": this})).await.is(403, "not_permitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_only_what_it_permits() {
    let stage = Stage::start().await;
    stage.fee("acme").await;
    let reader = stage.token_for("acme", "alice", &[Permission::Read]).await;
    let writer = stage.token_for("acme", "alice", &[Permission::Write]).await;
    let note = json!({"entity_type": "note"});
    stage.post(&reader, "/api/spans", &[], &note).await.is(403, "not_permitted");
    stage.post(&reader, "/api/execute", &[], &json!({"function": "fee"})).await.is(403, "not_permitted");
    for path in ["/api/spans", "/api/timeline", "/api/timeline/stream", "/api/requests", "/api/metrics"] {
        stage.get(&writer, path).await.is(403, "not_permitted");
    }
    let id = stage.post(&writer, "/api/spans", &[], &note).await.ok(201)["spans"][0]["id"].as_str().unwrap().to_owned();
    // A token for the tenant reads what its users own, and may name them.
    let auditor = stage.token_for("acme", "auditor", &[Permission::ReadTenant]).await;
    assert_eq!(stage.get(&auditor, &format!("/api/spans/{id}")).await.status, 200);
    let owned = stage.get(&auditor, "/api/spans?owner_id=alice&type=note").await.ok(200);
    assert_eq!(owned["spans"].as_array().unwrap().len(), 1);
    stage.get(&auditor, "/api/spans?tenant_id=beta").await.is(403, "other_identity");
}

//! What a service does all day, on every ledger.

use std::sync::Arc;

use logline_core::{Clock as _, Draft, KeyPair, SystemClock, SystemIds, Visibility};
use logline_http::ServeOptions;
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use serde_json::{Value, json};

use crate::stage::{Stage, options};

fn payment() -> Value {
    json!({"function": "fee", "input": {"payment": "pay_1", "amount_minor": 10_000}})
}

async fn round_trip(stage: Stage) {
    stage.work();
    let fee = stage.fee("acme").await;
    let token = stage.token("acme", "payments-api").await;
    assert_eq!(stage.call("GET", "/readyz", &[], None).await.status, 200);

    // A draft is sealed by the host, says so, and is read back as it was hashed.
    let note = json!({"entity_type": "note", "this": "note.meeting", "content": {"text": "budget approved"}});
    let written = stage.post(&token, "/api/spans", &[], &note).await.ok(201);
    assert_eq!((&written["sealed_by"], &written["spans"][0]["outcome"]), (&json!("host"), &json!("appended")));
    let id = written["spans"][0]["id"].as_str().unwrap();
    let read = stage.get(&token, &format!("/api/spans/{id}")).await;
    let parsed = logline_core::parse_line(&read.body, stage.host.rules()).unwrap();
    let logline_core::ParsedSpan::Signed(span) = parsed else { panic!("{parsed:?}") };
    let span = span.verify(&mut logline_core::Verifier::new()).unwrap();
    assert_eq!((span.owner_id.as_str(), span.who.as_str()), ("payments-api", "user:payments-api"));
    assert_eq!(span.meta("sealed_by").unwrap()["by"], "host");
    assert_eq!(written["spans"][0]["curr_hash"], span.seal.curr_hash.to_string());
    let versions = stage.get(&token, &format!("/api/spans/{id}/versions")).await.ok(200);
    assert_eq!((versions["spans"].as_array().unwrap().len(), &versions["next_seq"]), (1, &Value::Null));

    // A request is carried out while the caller waits.
    let done = stage.post(&token, "/api/execute", &[("prefer", "wait=30")], &payment()).await;
    assert_eq!(done.headers["preference-applied"], "wait=30");
    let done = done.ok(200);
    assert_eq!((&done["status"], &done["output"]), (&json!("complete"), &json!({"fee_minor": 25})));
    assert_eq!(done["execution"]["parent_id"], fee.id.to_string());
    let shown = stage.get(&token, &format!("/api/requests/{}", done["id"].as_str().unwrap())).await.ok(200);
    assert_eq!(shown["request"]["curr_hash"], done["request"]["curr_hash"]);

    // One that is for later is accepted, waited for, cancelled and revived.
    let mut later = payment();
    later["due_at"] = "2100-01-01T00:00:00Z".into();
    let accepted = stage.post(&token, "/api/execute", &[], &later).await;
    let location = accepted.headers["location"].clone();
    let accepted = accepted.ok(202);
    assert_eq!((&accepted["status"], &accepted["waiting"]["is_leased"]), (&json!("scheduled"), &json!(false)));
    assert_eq!(stage.get(&token, &format!("{location}/wait?seconds=0")).await.status, 202);
    let waiting = async { stage.get(&token, &format!("{location}/wait")).await };
    let cancelled = async { stage.post(&token, &format!("{location}/cancel"), &[], &Value::Null).await };
    let (waited, cancelled) = tokio::join!(waiting, cancelled);
    assert_eq!(cancelled.ok(200)["status"], "cancelled");
    assert_eq!(waited.ok(200)["status"], "cancelled");
    stage.post(&token, &format!("{location}/cancel"), &[], &Value::Null).await.is(409, "wrong_state");
    let revived = stage.post(&token, &format!("{location}/revive"), &[], &Value::Null).await;
    assert!([200, 202].contains(&revived.status), "{revived:?}");
    assert_eq!(stage.get(&token, &format!("{location}/wait")).await.ok(200)["status"], "complete");
    let listed = stage.get(&token, "/api/requests?order=oldest").await.ok(200);
    assert_eq!(listed["spans"].as_array().unwrap().len(), 2);
    pages(&stage, &token).await;
    keyed(&stage, &token).await;
    stage.shut_down().await;
}

/// Pages join without gap or repeat, in both directions.
async fn pages(stage: &Stage, token: &str) {
    let whole = stage.get(token, "/api/timeline?order=oldest&limit=500").await.ok(200);
    let whole: Vec<_> = whole["spans"].as_array().unwrap().clone();
    for order in ["oldest", "newest"] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = stage.get(token, &format!("/api/timeline?order={order}&limit=3{after}")).await.ok(200);
            found.extend(page["spans"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        if order == "newest" {
            found.reverse();
        }
        assert_eq!(found, whole, "{order}");
    }
}

/// A call with an idempotency key is carried out once.
async fn keyed(stage: &Stage, token: &str) {
    let key = [("idempotency-key", "\"k-1\"")];
    let first = stage.post(token, "/api/execute", &key, &payment()).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = stage.post(token, "/api/execute", &[("x-idempotency-key", "k-1"), ("prefer", "wait=30")], &payment()).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(first.json()["id"], again.json()["id"]);
    let mut other = payment();
    other["input"]["amount_minor"] = 1.into();
    stage.post(token, "/api/execute", &key, &other).await.is(422, "key_reused");

    let note = json!({"spans": [{"entity_type": "note", "content": "a"}, {"entity_type": "note", "content": "b"}]});
    let first = stage.post(token, "/api/spans", &key, &note).await.ok(201);
    let again = stage.post(token, "/api/spans", &key, &note).await;
    assert_eq!((again.headers["idempotency-replayed"].as_str(), again.json()), ("true", first));

    // A refusal is an outcome as well.
    let refused = json!({"function": "no such function"});
    stage.post(token, "/api/execute", &[("idempotency-key", "k-2")], &refused).await.is(404, "not_found");
    let again = stage.post(token, "/api/execute", &[("idempotency-key", "k-2")], &refused).await;
    assert_eq!((again.status, again.headers["content-type"].as_str()), (404, "application/problem+json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_works_on_sqlite() {
    round_trip(Stage::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_works_on_postgres() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap();
    let options_of = || PgOptions::new(&server.url("postgres", "postgres")).unwrap();
    migrate(&options_of()).await.unwrap();
    let ledger = PgLedger::connect(options_of()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    round_trip(Stage::on(Arc::new(ledger), folder, options(), ServeOptions::default(), |keys| keys).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_the_caller_has_sealed_are_verified_and_kept_as_they_are() {
    let stage = Stage::start().await;
    // The publisher is the only key besides the host's that the manifest names.
    let token = stage.token("acme", "alice").await;
    let seal = |key: &KeyPair, owner: &str| {
        let draft = Draft::new("note").tenant("acme").owner(owner).who("user:alice").this("note.signed");
        draft.visibility(Visibility::Tenant).at(SystemClock.now()).stamp(&SystemClock, &SystemIds).seal_local(key).unwrap()
    };
    let line = |span: &logline_core::VerifiedSpan| serde_json::from_slice::<Value>(&span.to_line()).unwrap();
    let span = seal(&stage.publisher, "alice");
    let written = stage.post(&token, "/api/spans", &[], &json!({"spans": [line(&span)]})).await.ok(201);
    assert_eq!((&written["sealed_by"], &written["spans"][0]["outcome"]), (&json!("caller"), &json!("appended")));
    assert_eq!(stage.get(&token, &format!("/api/spans/{}", span.id)).await.body, span.to_line());
    let again = stage.post(&token, "/api/spans", &[], &line(&span)).await.ok(201);
    assert_eq!(again["spans"][0]["outcome"], "existing");

    let mut tampered = line(&seal(&stage.publisher, "alice"));
    tampered["this"] = "note.forged".into();
    stage.post(&token, "/api/spans", &[], &tampered).await.is(422, "invalid_span");
    let stranger = seal(&KeyPair::generate().unwrap(), "alice");
    stage.post(&token, "/api/spans", &[], &line(&stranger)).await.is(403, "not_authorised");
    stage.post(&token, "/api/spans", &[], &line(&seal(&stage.publisher, "bob"))).await.is(403, "other_identity");
    let mixed = json!({"spans": [line(&seal(&stage.publisher, "alice")), {"entity_type": "note"}]});
    stage.post(&token, "/api/spans", &[], &mixed).await.is(400, "invalid_body");
    // Of a batch with one bad span nothing is stored.
    let good = seal(&stage.publisher, "alice");
    let batch = json!({"spans": [line(&good), tampered]});
    stage.post(&token, "/api/spans", &[], &batch).await.is(422, "invalid_span");
    stage.get(&token, &format!("/api/spans/{}", good.id)).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_spans_are_appended_in_one_batch() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let body = b"{\"entity_type\":\"note\",\"content\":1}\n\n{\"entity_type\":\"note\",\"content\":2}\n";
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    let written = stage.call("POST", "/api/spans", &headers, Some(body)).await.ok(201);
    assert_eq!(written["spans"].as_array().unwrap().len(), 2);
}

/// A page ends early if its rows are long. It says where the next one begins, and the last one has no next.
#[tokio::test(flavor = "multi_thread")]
async fn long_versions_are_all_found_page_by_page() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    let scope = logline_core::Scope::runtime("acme");
    let draft = Draft::new("note").tenant("acme").owner("alice").who("alice").this("note").visibility(Visibility::Tenant);
    let mut draft = draft.content(json!("x".repeat(900_000)));
    let mut id = None;
    for _ in 0..7 {
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[9; 32])).unwrap();
        (id, draft) = (Some(span.id), Draft::next_version(&span));
        stage.host.ledger().append(&scope, vec![span], &logline_core::ledger::AppendOptions::default()).await.unwrap();
    }
    let (mut from, mut found) = (Some(0), Vec::new());
    while let Some(next) = from {
        let page = stage.get(&token, &format!("/api/spans/{}/versions?limit=500&from_seq={next}", id.unwrap())).await.ok(200);
        found.extend(page["spans"].as_array().unwrap().iter().map(|span| span["seq"].as_u64().unwrap()));
        from = page["next_seq"].as_u64();
    }
    assert_eq!(found, (0..7).collect::<Vec<_>>());
}

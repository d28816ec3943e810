//! Calls with an idempotency key, at several hosts and after a host that was lost.

use std::sync::Arc;

use logline_core::ledger::{AppendOptions, LedgerExt as _};
use logline_core::{Draft, Scope, Timestamp, Verifier, ids};
use logline_http::{Permission, ServeOptions};
use logline_sqlite::SqliteLedger;
use serde_json::{Value, json};

use crate::stage::{Answer, Stage, options};

const KEY: (&str, &str) = ("idempotency-key", "k");

fn note() -> Value {
    json!({"entity_type": "note", "content": "once"})
}

/// Another host of the same service: another process would have the same files.
async fn beside(stage: &Stage) -> Stage {
    let ledger = SqliteLedger::open(stage.folder.path().join("service.ledger")).unwrap();
    Stage::on(Arc::new(ledger), Arc::clone(&stage.folder), options(), ServeOptions::default(), |keys| keys).await
}

async fn call(stage: &Stage, token: &str) -> Answer {
    stage.post(token, "/api/spans", &[KEY], &note()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_repeated_at_another_host_or_after_a_restart_is_answered_as_before() {
    let (one, two);
    one = Stage::start().await;
    two = beside(&one).await;
    let token = one.token("acme", "alice").await;
    let first = call(&one, &token).await.ok(201);
    let again = call(&two, &token).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.json(), first);
    let folder = Arc::clone(&one.folder);
    one.shut_down().await;
    two.shut_down().await;
    let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
    let later = Stage::on(Arc::new(ledger), folder, options(), ServeOptions::default(), |keys| keys).await;
    let again = call(&later, &token).await;
    assert_eq!((again.headers["idempotency-replayed"].as_str(), again.json()), ("true", first));
}

/// Ends a call's record as its host would have left it.
async fn left(stage: &Stage, status: &str, lease: Option<Timestamp>) {
    let id = ids::derive("http idempotency", &["acme", "alice", "POST", "/api/spans", KEY.1]);
    let ledger = stage.host.ledger();
    let last = ledger.head(&Scope::runtime("acme"), "acme", id).await.unwrap().unwrap();
    let last = last.verify(&mut Verifier::new()).unwrap();
    let mut draft = Draft::next_version(&last).did("began").status(status);
    if let Some(lease) = lease {
        draft = draft.meta("lease_until", lease.to_string());
    }
    stage.host.record("acme", vec![draft], &AppendOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_outcome_is_refused_while_its_lease_lasts_and_made_again_after_it() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    call(&stage, &token).await.ok(201);
    let now = stage.host.ledger().now().await.unwrap();
    left(&stage, "open", Some(now.saturating_add(std::time::Duration::from_secs(20)))).await;
    let refused = call(&stage, &token).await;
    refused.is(409, "in_flight");
    let pause: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..=20).contains(&pause), "{pause}");
    // Its host was lost.
    left(&stage, "open", Some(now)).await;
    let answer = call(&stage, &token).await;
    assert!(!answer.headers.contains_key("idempotency-replayed"));
    answer.ok(201);
    // The ledger was away when it ended.
    left(&stage, "failed", None).await;
    let answer = call(&stage, &token).await;
    assert!(!answer.headers.contains_key("idempotency-replayed"));
    answer.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_where_it_would_be_forgotten() {
    let stage = Stage::start().await;
    let token = stage.token_for("acme", "alice", &[Permission::Read, Permission::ManageKeys]).await;
    for header in ["idempotency-key", "x-idempotency-key"] {
        let answer = stage.post(&token, "/api/keys", &[(header, "k")], &json!({"permissions": ["read"]})).await;
        answer.is(400, "invalid_parameter");
        assert!(answer.json()["detail"].as_str().unwrap().contains("shown once"), "{}", answer.json());
    }
}

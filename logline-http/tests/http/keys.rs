//! API keys: issued, rotated, revoked, and guessed.

use std::time::Duration;

use logline_core::ledger::Ledger as _;
use logline_core::{ManualClock, Scope, Timestamp};
use logline_http::{ApiKeys, Authenticator as _, KeyError, NewKey, Permission};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::stage::{Stage, within};

fn new(user: &str) -> NewKey {
    NewKey::new("acme", user, "test", [Permission::Read])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_until_it_is_revoked_and_the_ledger_has_its_hash_alone() {
    let stage = Stage::start().await;
    let issued = stage.keys.issue(new("alice"), "operator").await.unwrap();
    assert_eq!(stage.get(&issued.token, "/api/spans").await.status, 200);
    let secret = issued.token.rsplit('_').next().unwrap().to_owned();
    let history = stage.host.ledger().history(&Scope::Operator, "acme", issued.id, 0, 10).await.unwrap();
    let line = String::from_utf8(history[0].to_line()).unwrap();
    assert!(!line.contains(&secret) && line.contains("secret_hash"));
    assert!(!format!("{issued:?}").contains(&secret));
    stage.keys.revoke("acme", issued.id, "operator").await.unwrap();
    stage.get(&issued.token, "/api/spans").await.is(401, "invalid_token");
    assert!(matches!(stage.keys.revoke("acme", issued.id, "operator").await, Err(KeyError::NoKey { .. })));
    assert!(matches!(stage.keys.rotate("acme", issued.id, Duration::ZERO, "operator").await, Err(KeyError::NoKey { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_overlaps_with_its_old_secret_and_no_longer() {
    let stage = Stage::start().await;
    let clock = std::sync::Arc::new(ManualClock::new("2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap()));
    let keys = ApiKeys::new(stage.host.clone()).clock(std::sync::Arc::clone(&clock));
    let first = keys.issue(new("alice").lifetime(Duration::from_secs(1000)), "operator").await.unwrap();
    let second = keys.rotate("acme", first.id, Duration::from_secs(60), "operator").await.unwrap();
    assert_eq!((first.id, second.span.seq), (second.id, 1));
    for token in [&first.token, &second.token] {
        assert_eq!(keys.authenticate(token).await.unwrap().user, "alice");
    }
    clock.advance(Duration::from_secs(60));
    assert!(keys.authenticate(&first.token).await.is_err());
    assert!(keys.authenticate(&second.token).await.is_ok());
    clock.advance(Duration::from_secs(940));
    assert!(keys.authenticate(&second.token).await.is_err(), "it has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rotation_takes_nothing_from_the_overlap_that_was_promised() {
    let stage = Stage::start().await;
    let clock = std::sync::Arc::new(ManualClock::new("2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap()));
    let keys = ApiKeys::new(stage.host.clone()).clock(std::sync::Arc::clone(&clock));
    let first = keys.issue(new("alice"), "operator").await.unwrap();
    let rotate = |seconds| keys.rotate("acme", first.id, Duration::from_secs(seconds), "operator");
    // Whichever of two that run at the same time is the second: each has promised a time to what it has replaced.
    let mut rotated = Vec::new();
    for done in <[_; 2]>::from(tokio::join!(rotate(60), rotate(60))) {
        rotated.push(match done {
            Ok(key) => key,
            Err(error) => {
                assert!(matches!(error, KeyError::Host(error) if error.is_conflict()));
                rotate(60).await.unwrap()
            }
        });
    }
    let tokens = || rotated.iter().chain([&first]).map(|key| &key.token);
    for token in tokens() {
        assert_eq!(keys.authenticate(token).await.unwrap().user, "alice");
    }
    clock.advance(Duration::from_secs(60));
    let mut accepted = 0;
    for token in tokens() {
        accepted += usize::from(keys.authenticate(token).await.is_ok());
    }
    assert_eq!(accepted, 1, "the time of the others is over");
    let mut old = Vec::new();
    for _ in 0..8 {
        old.push(rotate(60).await.unwrap());
    }
    assert!(matches!(rotate(60).await, Err(KeyError::TooManySecrets { .. })), "what is promised has a limit");
    let last = rotate(0).await.unwrap();
    for key in &old {
        assert!(keys.authenticate(&key.token).await.is_err(), "without an overlap all of them end");
    }
    assert!(keys.authenticate(&last.token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_guessed_or_put_together_from_others_are_refused() {
    let stage = Stage::start().await;
    let (alice, bob) =
        (stage.keys.issue(new("alice"), "operator").await.unwrap(), stage.keys.issue(new("bob"), "operator").await.unwrap());
    let secret = |token: &str| token.rsplit('_').next().unwrap().to_owned();
    let note = stage.token("acme", "alice").await;
    let written = stage.post(&note, "/api/spans", &[], &serde_json::json!({"entity_type": "note"})).await.ok(201);
    let id: Uuid = written["spans"][0]["id"].as_str().unwrap().parse().unwrap();
    for token in [
        format!("ll_acme_{}_{}", alice.id.simple(), secret(&bob.token)),
        format!("ll_beta_{}_{}", alice.id.simple(), secret(&alice.token)),
        format!("ll_system_{}_{}", alice.id.simple(), secret(&alice.token)),
        format!("ll_acme_{}_{}", id.simple(), secret(&alice.token)),
        format!("ll_acme_{}_{}", Uuid::from_u128(1).simple(), secret(&alice.token)),
        format!("{}0", *alice.token),
        alice.token.to_uppercase(),
        alice.token[..alice.token.len() - 1].to_owned(),
    ] {
        stage.get(&token, "/api/spans").await.is(401, "invalid_token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_keys_of_the_system() {
    let stage = Stage::start().await;
    for (tenant, user) in [("system", "alice"), ("", "alice"), ("acme", ""), ("acme", "system")] {
        let refused = stage.keys.issue(NewKey::new(tenant, user, "x", []), "operator").await;
        assert!(matches!(refused, Err(KeyError::Name { .. })), "{tenant}/{user}");
    }
}

/// Calls until that is too often. A slow machine needs more calls, because some come back every second.
async fn until_refused(stage: &Stage, token: &str) -> crate::stage::Answer {
    for _ in 0..100 {
        let answer = stage.get(token, "/api/spans").await;
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("a hundred calls are let through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_calls_too_often_is_told_when_to_come_back() {
    let mut options = crate::stage::options();
    (options.key_rate, options.tenant_rate) = (logline_http::Rate::new(1, 2), logline_http::Rate::new(1, 3));
    let stage = Stage::with(options, logline_http::ServeOptions::default()).await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let other = stage.token("beta", "alice").await;
    let first = stage.get(&alice, "/api/spans").await;
    assert_eq!(first.headers["ratelimit-policy"], "\"key\";q=2;w=2, \"tenant\";q=3;w=3");
    assert!(first.headers["ratelimit"].starts_with("\"key\";r=1;t=1, \"tenant\";r=2;t=1"), "{:?}", first.headers["ratelimit"]);
    let refused = until_refused(&stage, &alice).await;
    refused.is(429, "rate_limited");
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    assert!(refused.headers["ratelimit"].starts_with("\"key\";r=0;t="));
    // Another key of the tenant is stopped as well in the end; another tenant has all of its own.
    until_refused(&stage, &bob).await.is(429, "rate_limited");
    assert_eq!(stage.get(&other, "/api/spans").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_who_keeps_rotating_a_key_does_not_keep_it_from_being_revoked() {
    let stage = Stage::start().await;
    let issued = stage.keys.issue(new("alice"), "operator").await.unwrap();
    let (id, keys) = (issued.id, stage.keys.clone());
    let thief = tokio::spawn(async move {
        let mut stolen = Vec::new();
        // Until there is nothing left to rotate.
        loop {
            match keys.rotate("acme", id, Duration::from_secs(3600), "thief").await {
                Ok(rotated) => stolen.push(rotated.token.to_string()),
                Err(KeyError::NoKey { .. }) => return stolen,
                Err(_) => {}
            }
        }
    });
    stage.keys.revoke("acme", id, "operator").await.unwrap();
    let stolen = crate::stage::within(thief).await.unwrap();
    for token in stolen.iter().rev().take(10).chain([&issued.token.to_string()]) {
        stage.get(token, "/api/identity").await.is(401, "invalid_token");
    }
}

/// Whoever has stolen a token decides when the body of a call comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_while_a_body_comes_makes_no_other_token() {
    let stage = Stage::start().await;
    for issues in [false, true] {
        let held = NewKey::new("acme", "alice", "held", [Permission::Read, Permission::ManageKeys]);
        let stolen = stage.keys.issue(held, "operator").await.unwrap();
        let (path, body) = match issues {
            true => ("/api/keys".to_owned(), r#"{"name": "mine", "permissions": ["spans:read"]}"#),
            false => (format!("/api/keys/{}/rotate", stolen.id), "{}"),
        };
        let mut thief = TcpStream::connect(stage.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            *stolen.token,
            body.len()
        );
        thief.write_all(head.as_bytes()).await.unwrap();
        // The server asks for the body, so it has accepted the token.
        let mut asked = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        within(thief.read_exact(&mut asked)).await.unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100 "));
        let fresh = stage.keys.rotate("acme", stolen.id, Duration::ZERO, "operator").await.unwrap();
        thief.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(thief.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("ll_acme"), "{answer}");
        assert_eq!(stage.get(&fresh.token, "/api/spans").await.status, 200, "the new secret of the owner");
        stage.keys.revoke("acme", stolen.id, "operator").await.unwrap();
    }
}

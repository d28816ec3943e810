//! Callers who make the service work for nothing, or try to learn what they may not see.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use http::HeaderName;
use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, Scope, SystemClock, SystemIds, VerifiedSpan, Verifier};
use logline_http::{ApiKeys, AuthError, Authenticator, Identity, Permission, Rate, ServeOptions};
use logline_sqlite::SqliteLedger;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::stage::{Answer, Stage, options, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_finds_little_ends_after_the_rows_that_it_may_look_at() {
    let mut options = options();
    options.max_visited = 10;
    let stage = Stage::with(options, ServeOptions::default()).await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let note = |status: &str| json!({"entity_type": "note", "status": status, "visibility": "private"});
    for (token, status) in [(&alice, "first"), (&alice, "other")] {
        stage.post(token, "/api/spans", &[], &note(status)).await.ok(201);
    }
    let of_bob: Vec<_> = (0..60).map(|_| note("open")).collect();
    stage.post(&bob, "/api/spans", &[], &json!({"spans": of_bob})).await.ok(201);
    for (path, most) in [("/api/spans?type=note&status=first", 7), ("/api/spans?type=note&status=first&order=oldest", 7)] {
        let (mut pages, mut found, mut after) = (0, 0, String::new());
        loop {
            let page = stage.get(&alice, &format!("{path}{after}")).await.ok(200);
            pages += 1;
            found += page["spans"].as_array().unwrap().len();
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, 1, "{path}");
        assert!((6..=most).contains(&pages), "{path}: {pages} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_ledger_cannot_be_read_is_not_ready() {
    let stage = Stage::start().await;
    assert_eq!(stage.call("GET", "/readyz", &[], None).await.status, 200);
    // The ledger still tells the time, and has no rows to give.
    let other = rusqlite::Connection::open(stage.folder.path().join("service.ledger")).unwrap();
    let wait_for = async |status: u16| {
        within(async {
            loop {
                let answer = stage.call("GET", "/readyz", &[], None).await;
                if answer.status == status {
                    break answer;
                }
            }
        })
        .await
    };
    other.execute_batch("ALTER TABLE universal_registry RENAME TO away").unwrap();
    let answer = wait_for(503).await;
    answer.is(503, "unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(stage.call("GET", "/healthz", &[], None).await.status, 200, "the process is alive");
    other.execute_batch("ALTER TABLE away RENAME TO universal_registry").unwrap();
    wait_for(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_tokens_has_to_wait_and_others_do_not() {
    let mut options = options();
    options.refused_rate = Rate::new(1, 3);
    options.client_header = Some(HeaderName::from_static("x-forwarded-for"));
    let stage = Stage::with(options, ServeOptions::default()).await;
    let known = stage.token("acme", "alice").await;
    let call = async |token: &str, from: &str| {
        let bearer = format!("Bearer {token}");
        stage.call("GET", "/api/spans", &[("authorization", &bearer), ("x-forwarded-for", from)], None).await
    };
    // Tokens that are accepted cost none of the tries.
    for _ in 0..10 {
        assert_eq!(call(&known, "10.0.0.1").await.status, 200);
    }
    // What the client claims about itself stands before what the proxy adds.
    let guess = async |n: u32| call(&format!("ll_acme_{n}"), &format!("192.0.2.{}, 10.0.0.1", n % 250)).await;
    guess(0).await.is(401, "invalid_token");
    // A try comes back each second, so that one may be there for the token that nobody has seen.
    let fresh = loop {
        let fresh = stage.token("acme", "bob").await;
        let guessed = within(async {
            for n in 1.. {
                let guessed = guess(n).await;
                if guessed.status == 429 {
                    return guessed;
                }
            }
            unreachable!("it counts without end")
        });
        let guessed = guessed.await;
        guessed.is(429, "rate_limited");
        assert!(guessed.headers["retry-after"].parse::<u32>().unwrap() >= 1);
        let refused = call(&fresh, "10.0.0.1").await;
        if refused.status != 200 {
            refused.is(429, "rate_limited");
            break fresh;
        }
    };
    assert_eq!(call(&known, "10.0.0.1").await.status, 200, "it was accepted lately");
    assert_eq!(call(&fresh, "10.0.0.2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_the_id_of_its_call() {
    let mut options = options();
    options.max_body = 1000;
    options.key_rate = Rate::new(1, 20);
    let stage = Stage::with(options, ServeOptions::default()).await;
    let token = stage.token("acme", "alice").await;
    let bearer = format!("Bearer {token}");
    let json_type = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let keyed = [&json_type[..], &[("idempotency-key", "once")]].concat();
    let text = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let long = vec![b'x'; 1001];
    let function = json!({"function": "none"}).to_string();
    let mut cases: Vec<(u16, &str, Answer)> = Vec::new();
    for (status, code, method, path, headers, body) in [
        (404, "not_found", "GET", "/nothing", &[][..], None),
        (405, "method_not_allowed", "PATCH", "/api/spans", &json_type[..], None),
        (401, "no_token", "GET", "/api/spans", &[], None),
        (401, "invalid_token", "GET", "/api/spans", &[("authorization", "Bearer x")], None),
        (400, "invalid_parameter", "GET", "/api/spans/%ff", &json_type, None),
        (413, "too_large", "POST", "/api/spans", &json_type, Some(&long[..])),
        (415, "unsupported_type", "POST", "/api/spans", &text, Some(b"x")),
        (404, "not_found", "POST", "/api/execute", &keyed, Some(function.as_bytes())),
        // The same again, from the record.
        (404, "not_found", "POST", "/api/execute", &keyed, Some(function.as_bytes())),
    ] {
        cases.push((status, code, stage.call(method, path, headers, body).await));
    }
    let mut limited = stage.get(&token, "/api/spans").await;
    while limited.status == 200 {
        limited = stage.get(&token, "/api/spans").await;
    }
    cases.push((429, "rate_limited", limited));
    stage.drain.begin();
    cases.push((503, "draining", stage.call("GET", "/readyz", &[], None).await));
    for (status, code, answer) in cases {
        answer.is(status, code);
        assert!(answer.json()["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_an_id_of_another_is_answered_like_one_for_an_id_that_nobody_has() {
    let stage = Stage::start().await;
    let (alice, bob) = (stage.token("acme", "alice").await, stage.token("acme", "bob").await);
    let write = async |visibility: &str| {
        let note = json!({"entity_type": "note", "visibility": visibility});
        let id = stage.post(&bob, "/api/spans", &[], &note).await.ok(201)["spans"][0]["id"].clone();
        id.as_str().unwrap().parse::<Uuid>().unwrap()
    };
    let (private, shared) = (write("private").await, write("tenant").await);
    // A next version, sealed with a key that may sign notes, of a first one that was never stored.
    let seal = |draft: Draft| draft.stamp(&SystemClock, &SystemIds).seal_local(&stage.publisher).unwrap();
    let next_of = |id: Uuid, kind: &str| {
        let first = seal(Draft::new(kind).id(id).tenant("acme").owner("alice").who("user:alice").this("x"));
        seal(Draft::next_version(&first))
    };
    let line = |span: &VerifiedSpan| serde_json::from_slice::<Value>(&span.to_line()).unwrap();
    let nobodys = Uuid::from_u128(77);
    for kind in ["note", "remark"] {
        let mut answers = Vec::new();
        for id in [nobodys, private] {
            let answer = stage.post(&alice, "/api/spans", &[], &line(&next_of(id, kind))).await;
            answer.is(409, "conflict");
            let detail = answer.json()["detail"].as_str().unwrap().replace(&id.to_string(), "ID");
            answers.push(detail);
        }
        assert_eq!(answers[0], answers[1], "{kind}");
    }
    // An id can belong to one owner only, so the first version of a taken id is refused; that is said in the same words.
    let begin = json!({"entity_type": "note", "id": private});
    let answer = stage.post(&alice, "/api/spans", &[], &begin).await;
    answer.is(409, "conflict");
    let told = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(!told.contains("seq") && !told.contains("exists"), "{told}");
    // Nothing can be learned without leaving a row: a call whose other span cannot be stored has the same answer for both ids.
    let broken = next_of(Uuid::from_u128(78), "note");
    let mut answers = Vec::new();
    for id in [Uuid::from_u128(79), private] {
        let probe = seal(Draft::new("note").id(id).tenant("acme").owner("alice").who("user:alice").this("x"));
        let answer = stage.post(&alice, "/api/spans", &[], &json!({"spans": [line(&probe), line(&broken)]})).await;
        let detail = answer.json()["detail"].as_str().unwrap().replace(&id.to_string(), "ID");
        answers.push((answer.status, detail.replace(&broken.id.to_string(), "ID")));
    }
    assert_eq!(answers[0], answers[1]);
    // What the caller may see is named.
    let detail = stage.post(&alice, "/api/spans", &[], &json!({"entity_type": "note", "id": shared})).await;
    assert!(detail.json()["detail"].as_str().unwrap().contains("exists"), "{detail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_many_slow_streams_wait_for_comes_to_all_of_them() {
    let stage = Stage::start().await;
    let token = stage.token_for("acme", "alice", &[Permission::Read, Permission::Write]).await;
    let mut lives = Vec::new();
    for _ in 0..60 {
        let mut live = stage.open(&token, "/api/timeline/stream?type=note", &[]).await;
        live.begun().await;
        lives.push(live);
    }
    // Together these are more bytes than a tenant's streams may have sent and not taken.
    let long = "x".repeat(800_000);
    stage.post(&token, "/api/spans", &[], &json!({"entity_type": "note", "description": long})).await.ok(201);
    stage.post(&token, "/api/spans", &[], &json!({"entity_type": "note", "description": "short"})).await.ok(201);
    for mut live in lives {
        assert_eq!(live.row().await["description"].as_str().map(str::len), Some(800_000));
        assert_eq!(live.row().await["description"], "short");
    }
}

/// Checks keys when it is told to.
struct Held {
    keys: ApiKeys,
    go: watch::Receiver<bool>,
    begun: watch::Sender<usize>,
}

#[async_trait]
impl Authenticator for Held {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        self.begun.send_modify(|count| *count += 1);
        self.go.clone().wait_for(|go| *go).await.unwrap();
        self.keys.authenticate(token).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_calls_at_once_with_one_good_token_are_not_taken_for_guesses() {
    let mut options = options();
    options.refused_rate = Rate::new(1, 3);
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
    let ((go, held), begun) = (watch::channel(false), watch::Sender::new(0));
    let mut counted = begun.subscribe();
    let auth = |keys| Held { keys, go: held, begun };
    let stage = Stage::on(Arc::new(ledger), folder, options, ServeOptions::default(), auth).await;
    let token = stage.token("acme", "alice").await;
    let first = join_all((0..50).map(|_| stage.get(&token, "/api/identity")));
    let release = async {
        within(counted.wait_for(|count| *count > 0)).await.unwrap();
        // Meanwhile the others arrive.
        for _ in 0..50 {
            stage.call("GET", "/healthz", &[], None).await;
        }
        go.send_replace(true);
    };
    let (answers, ()) = tokio::join!(first, release);
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    // Guesses are counted all the same, also if they are the same one at once.
    let refused = join_all((0..50).map(|_| stage.get("ll_acme_wrong", "/api/identity"))).await;
    assert!(refused.iter().filter(|answer| answer.status == 401).count() < 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_no_host_has_signed_ends_no_request() {
    let stage = Stage::start().await;
    stage.fee("acme").await;
    let alice = stage.token("acme", "alice").await;
    let asked = json!({"function": "fee", "input": {}, "due_at": "2099-01-01T00:00:00Z"});
    let id = stage.post(&alice, "/api/execute", &[], &asked).await.ok(202)["id"].as_str().unwrap().to_owned();
    let ledger = stage.host.ledger();
    let stored = ledger.get(&Scope::Operator, "acme", id.parse().unwrap()).await.unwrap();
    let first = stored.verify(&mut Verifier::new()).unwrap();
    let forged = Draft::next_version(&first).did("completed").status("complete").stamp(&SystemClock, &SystemIds);
    let forged = forged.seal_local(&stage.publisher).unwrap();
    ledger.append(&Scope::Operator, vec![forged], &AppendOptions::default()).await.unwrap();
    assert_eq!(stage.get(&alice, &format!("/api/requests/{id}")).await.ok(202)["status"], "scheduled");
}

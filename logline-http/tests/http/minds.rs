//! Memories and prompts over HTTP.

use std::sync::Arc;

use logline_core::contract::provider::Provider;
use logline_core::{Draft, HostBuilder, Visibility, ids};
use logline_http::{Options, ServeOptions};
use logline_kernels::provider::{HostSecrets, ProviderExec, Script, ScriptedProvider};
use logline_memory::{LocalKeys, MemoryKernel, Vault};
use logline_prompts::RunPrompt;
use logline_sqlite::{SqliteKeys, SqliteLedger};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::stage::{Stage, options, within};

/// What the model is told.
const FORM: &str = "Answer with JSON: `text` and `confidence` from 0 to 1.";

async fn with_memory() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.ledger");
    let ledger = SqliteLedger::open(&file).unwrap();
    let keys = LocalKeys::open(folder.path().join("tenant-keys")).unwrap();
    let vault = Vault::new(keys, SqliteKeys::open(SqliteKeys::beside(&file)).unwrap());
    let kernel = MemoryKernel::new(vault.clone()).search_in(ledger.clone());
    let mut options = options();
    options.vault = Some(vault);
    let set = logline_kernels::all().and(kernel.all());
    Stage::of(Arc::new(ledger), folder, options, ServeOptions::default(), |keys| keys, set).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_remembered_unless_the_header_and_a_consent_say_so() {
    let stage = with_memory().await;
    let alice = stage.token("acme", "alice").await;
    let text = json!({"text": "prefers mail at night"});
    let (on, session) = ([("x-logline-memory", "on")], [("x-logline-memory", "session-only"), ("x-logline-session", "s1")]);
    stage.post(&alice, "/api/memory", &[], &text).await.is(403, "no_consent");
    stage.post(&alice, "/api/memory", &on, &text).await.is(403, "no_consent");
    stage.post(&alice, "/api/memory", &[("x-logline-memory", "yes")], &text).await.is(400, "invalid_parameter");
    stage.post(&alice, "/api/memory", &[("x-logline-memory", "session-only")], &text).await.is(400, "invalid_parameter");
    stage.post(&alice, "/api/memory/consent", &session, &json!({"decision": "grant"})).await.ok(200);
    let kept = stage.post(&alice, "/api/memory", &session, &text).await.ok(201);
    stage.post(&alice, "/api/memory", &on, &text).await.is(403, "no_consent");
    let path = format!("/api/memory/{}", kept["id"].as_str().unwrap());
    let bearer = format!("Bearer {alice}");
    let get = async |token: &str, path: &str, headers: &[(&str, &str)]| {
        let headers = [&[("authorization", token)], headers].concat();
        stage.call("GET", path, &headers, None).await
    };
    let memory = get(&bearer, &path, &session).await.ok(200);
    assert_eq!((&memory["text"], &memory["layer"]), (&text["text"], &json!("session")));
    get(&bearer, &path, &[]).await.is(403, "no_consent");
    let found = get(&bearer, "/api/memory/search?q=mail+night", &session).await.ok(200);
    assert_eq!(found["hits"][0]["memory"]["id"], kept["id"]);
    // The text is in no row, and not with another user.
    let rows = stage.get(&alice, "/api/timeline?limit=500").await.body;
    assert!(!String::from_utf8(rows).unwrap().contains("mail at night"));
    let bob = stage.token("acme", "bob").await;
    stage.post(&bob, "/api/memory/consent", &on, &json!({"decision": "grant"})).await.ok(200);
    get(&format!("Bearer {bob}"), &path, &on).await.is(404, "not_found");
    let receipt = stage.post(&alice, "/api/memory/session/s1/forget", &[], &Value::Null).await.ok(200);
    assert_eq!(receipt["memories"], 1);
    get(&bearer, &path, &session).await.is(404, "not_found");
}

/// A service with a prompt that asks this provider, and the id of the prompt.
async fn with_prompt(scripted: &ScriptedProvider, mut options: Options) -> (Stage, Uuid) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.ledger");
    let ledger = SqliteLedger::open(&file).unwrap();
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(scripted.clone())];
    let exec = ProviderExec::new(adapters, HostSecrets::new());
    let run = RunPrompt::new(exec.providers());
    options.prompts = Some(run.streams().clone());
    let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&run));
    let keys = LocalKeys::open(folder.path().join("tenant-keys")).unwrap();
    let vault = Vault::new(keys, SqliteKeys::open(SqliteKeys::beside(&file)).unwrap());
    let cipher = MemoryKernel::new(vault).search_in(ledger.clone()).cipher(ledger.clone());
    let more = |host: HostBuilder| host.cipher(cipher);
    let stage = Stage::built(Arc::new(ledger), folder, options, ServeOptions::default(), |keys| keys, set, more).await;
    let draft = |entity_type: &str, name: &str| {
        let draft = Draft::new(entity_type).tenant("acme").owner("team").who("publisher").this(format!("{entity_type}.{name}"));
        let draft = draft.id(ids::published("acme", entity_type, name));
        draft.name(name).visibility(Visibility::Tenant).status("active")
    };
    let publish = async |draft: Draft| stage.host.publish(draft, &stage.publisher).await.unwrap();
    let block = draft("prompt_block", "form").content(json!(FORM)).metadata(json!({"rank": "app", "vars": {}}));
    let block = publish(block).await;
    let prices = json!({"input": 3_000_000_000_u64, "output": 15_000_000_000_u64});
    let provider = publish(draft("provider", "main").metadata(json!({
        "adapter": "scripted", "currency": "USD", "models": {"large": {"max_tokens": 200, "prices": prices}},
    })))
    .await;
    let variant = publish(draft("prompt_variant", "support@v1").metadata(json!({
        "family": "support", "block_ids": [block.id], "run": {"provider": provider.id, "contract": "answer"},
    })))
    .await;
    (stage, variant.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_in_pieces_and_ends_with_the_run_that_explains_it() {
    let scripted = ScriptedProvider::new("scripted");
    let (stage, variant) = with_prompt(&scripted, options()).await;
    scripted.then([Script::Text(r#"{"text": "It ships today.\nReally.", "confidence": 0.9}"#.to_owned())]);
    let alice = stage.token("acme", "alice").await;
    let asked = json!({"prompt": variant, "question": "When?"});
    let answer = stage.post(&alice, "/api/chat", &[], &asked).await;
    let body = String::from_utf8(answer.body.clone()).unwrap();
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "text/event-stream"), "{body}");
    let done = body.split("event: done\ndata: ").nth(1).unwrap_or_else(|| panic!("{body}"));
    let done: Value = serde_json::from_str(done.trim()).unwrap();
    assert_eq!(done["answer"]["text"], "It ships today.\nReally.", "{done}");
    assert!(body.starts_with("event: delta\n"), "{body}");
    let run = done["run"].as_str().unwrap();
    let explained = stage.get(&alice, &format!("/api/prompts/runs/{run}/explain")).await.ok(200);
    assert!(explained["text"].as_str().unwrap().contains(FORM), "{explained}");
    // The page's chart of costs reads them there.
    let outcomes = stage.get(&alice, "/api/timeline?type=provider_execution").await.ok(200);
    let cost = &outcomes["spans"][0]["metadata"]["details"]["cost"];
    assert!(cost["nanos"].as_u64().is_some_and(|nanos| nanos > 0) && cost["currency"] == "USD", "{outcomes}");
    assert!(include_str!("../../page/views/overview.js").contains("type: 'provider_execution'"));
    let mallory = stage.token("beta", "alice").await;
    stage.post(&mallory, "/api/chat", &[], &asked).await.is(404, "not_found");
    stage.get(&mallory, &format!("/api/prompts/runs/{run}/explain")).await.is(404, "not_found");
}

/// Nobody is asked, so no piece comes. The stream has an end all the same, and gives its place back.
#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_fails_before_the_model_is_asked_ends_with_the_error() {
    let scripted = ScriptedProvider::new("scripted");
    let (stage, variant) = with_prompt(&scripted, options()).await;
    let alice = stage.token("acme", "alice").await;
    for (member, value) in [("session", json!("s")), ("vars", json!({"v": "x"})), ("context", json!("x"))] {
        let asked = json!({"prompt": variant, "question": "When?", member: value});
        let answer = within(stage.post(&alice, "/api/chat", &[], &asked)).await;
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(answer.status == 200 && body.contains("event: error\n") && body.contains("prompt_invalid"), "{member}: {body}");
    }
    assert!(scripted.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_a_chat_keeps_its_place_until_it_has_been_carried_out() {
    let scripted = ScriptedProvider::new("scripted");
    let mut options = options();
    options.max_streams_per_tenant = 2;
    let (stage, variant) = with_prompt(&scripted, options).await;
    let alice = stage.token("acme", "alice").await;
    let body = json!({"prompt": variant, "question": "When?"}).to_string();
    let bearer = format!("Bearer {alice}");
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    scripted.then([Script::Hang, Script::Hang]);
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The head of the answer is there: the model is being asked. Then the client leaves.
        stream.read_exact(&mut [0; 15]).await.unwrap();
    }
    let refused = within(async {
        loop {
            let answer = stage.post(&alice, "/api/chat", &[], &json!({"prompt": variant, "question": "Now?"})).await;
            // It must not be taken: that would be a call more than the tenant may have.
            if answer.status == 429 {
                break answer;
            }
            assert_ne!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        }
    })
    .await;
    refused.is(429, "too_many_streams");
    let other = stage.token("beta", "bob").await;
    stage.post(&other, "/api/chat", &[], &json!({"prompt": variant, "question": "Me?"})).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_found_by_its_name_in_the_callers_tenant_alone() {
    let scripted = ScriptedProvider::new("scripted");
    let (stage, _) = with_prompt(&scripted, options()).await;
    let asked = json!({"prompt": "support@v1", "question": "When?"});
    let answer = stage.post(&stage.token("acme", "alice").await, "/api/chat", &[], &asked).await;
    let body = String::from_utf8(answer.body.clone()).unwrap();
    assert!(answer.status == 200 && body.contains("event: done"), "{body}");
    stage.post(&stage.token("beta", "alice").await, "/api/chat", &[], &asked).await.is(404, "not_found");
    for name in ["", "support", "support@v1\nx"] {
        let alice = stage.token("acme", "alice").await;
        stage.post(&alice, "/api/chat", &[], &json!({"prompt": name, "question": "?"})).await.is(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confidential_question_that_is_too_long_is_refused_with_the_limit_and_is_no_fault() {
    let scripted = ScriptedProvider::new("scripted");
    let (stage, variant) = with_prompt(&scripted, options()).await;
    let alice = stage.token("acme", "alice").await;
    let secret = [("x-logline-sensitivity", "secret")];
    let asked = |length: usize| json!({"prompt": variant, "question": "w".repeat(length)});
    let refused = stage.post(&alice, "/api/chat", &secret, &asked(300_000)).await;
    assert!(String::from_utf8_lossy(&refused.body).contains("262144 bytes"));
    refused.is(413, "too_large");
    assert_eq!(stage.post(&alice, "/api/chat", &secret, &asked(200_000)).await.status, 200);
}

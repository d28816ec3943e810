//! Memories and prompts over HTTP.

use std::sync::Arc;

use logline_core::contract::provider::Provider;
use logline_core::{Draft, Visibility};
use logline_http::ServeOptions;
use logline_kernels::provider::{HostSecrets, ProviderExec, Script, ScriptedProvider};
use logline_memory::{LocalKeys, MemoryKernel, Vault};
use logline_prompts::RunPrompt;
use logline_sqlite::{SqliteKeys, SqliteLedger};
use serde_json::{Value, json};

use crate::stage::{Stage, options};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_in_pieces_and_ends_with_the_run_that_explains_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
    let scripted = ScriptedProvider::new("scripted");
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(scripted.clone())];
    let exec = ProviderExec::new(adapters, HostSecrets::new());
    let run = RunPrompt::new(exec.providers());
    let mut options = options();
    options.prompts = Some(run.streams().clone());
    let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&run));
    let stage = Stage::of(Arc::new(ledger), folder, options, ServeOptions::default(), |keys| keys, set).await;
    let draft = |entity_type: &str, name: &str| {
        let draft = Draft::new(entity_type).tenant("acme").owner("team").who("publisher").this(format!("{entity_type}.{name}"));
        draft.name(name).visibility(Visibility::Tenant).status("active")
    };
    let publish = async |draft: Draft| stage.host.publish(draft, &stage.publisher).await.unwrap();
    let text = "Answer with JSON: `text` and `confidence` from 0 to 1.";
    let block = draft("prompt_block", "form").content(json!(text)).metadata(json!({"rank": "app", "vars": {}}));
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
    scripted.then([Script::Text(r#"{"text": "It ships today.\nReally.", "confidence": 0.9}"#.to_owned())]);
    let alice = stage.token("acme", "alice").await;
    let asked = json!({"prompt": variant.id, "question": "When?"});
    let answer = stage.post(&alice, "/api/chat", &[], &asked).await;
    let body = String::from_utf8(answer.body.clone()).unwrap();
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "text/event-stream"), "{body}");
    let done = body.split("event: done\ndata: ").nth(1).unwrap_or_else(|| panic!("{body}"));
    let done: Value = serde_json::from_str(done.trim()).unwrap();
    assert_eq!(done["answer"]["text"], "It ships today.\nReally.", "{done}");
    assert!(body.starts_with("event: delta\n"), "{body}");
    let run = done["run"].as_str().unwrap();
    let explained = stage.get(&alice, &format!("/api/prompts/runs/{run}/explain")).await.ok(200);
    assert!(explained["text"].as_str().unwrap().contains(text), "{explained}");
    let mallory = stage.token("beta", "alice").await;
    stage.post(&mallory, "/api/chat", &[], &asked).await.is(404, "not_found");
    stage.get(&mallory, &format!("/api/prompts/runs/{run}/explain")).await.is(404, "not_found");
}

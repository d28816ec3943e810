//! Functions that ask providers: who may, what is recorded, and that an execution can be repeated without a provider.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::time::Duration;

use logline_core::contract::Sandbox;
use logline_core::contract::provider::{ErrorKind, Provider, ProviderError};
use logline_core::ledger::LedgerExt as _;
use logline_core::request::Request;
use logline_core::trust::{Budget, Manifest};
use logline_core::{Draft, Execution, Host, MemoryLedger, Rules, Scope, Span, SystemClock, Verifier, Visibility};
use logline_kernels::provider::{HostSecrets, ProviderExec, Script, ScriptedProvider};
use logline_kernels::replay;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use setup::{HOST, PUBLISHER, ROOT, SYSTEM_PUBLISHER, TENANT, USER, ask, block_on, function, key, output, trust};
use uuid::Uuid;

const CAPABILITY: &str = "provider.invoke:main/*";

struct Site {
    ledger: MemoryLedger,
    host: Host,
    provider: ScriptedProvider,
}

fn provider_span(name: &str) -> Draft {
    Draft::new("provider")
        .tenant(TENANT)
        .owner("platform")
        .who("publisher")
        .this("provider.main")
        .name(name)
        .visibility(Visibility::Tenant)
        .status("active")
        .metadata(json!({"adapter": "scripted", "models": {"large": {"max_tokens": 50}}, "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0}}))
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Manifest)) -> Self {
        let provider = ScriptedProvider::new("scripted");
        let adapters: [Arc<dyn Provider>; 1] = [Arc::new(provider.clone())];
        let exec = ProviderExec::new(adapters, HostSecrets::new());
        let set = logline_kernels::with_providers(&exec);
        let mut manifest = setup::manifest().allow_all(&set);
        manifest.capabilities.insert(TENANT.to_owned(), vec!["provider.invoke:*".to_owned()]);
        change(&mut manifest);
        let ledger = MemoryLedger::new();
        trust().publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &set, &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        let builder = Host::builder().ledger(ledger.clone()).trust(trust()).key(key(HOST)).install(set);
        let host = builder.sandbox(WasmSandbox::new().unwrap()).build().await.unwrap();
        host.publish(provider_span("main"), &key(PUBLISHER)).await.unwrap();
        Self { ledger, host, provider }
    }

    async fn publish(&self, code: &str, metadata: Value) -> Uuid {
        self.host.publish(function(code).metadata(metadata), &key(PUBLISHER)).await.unwrap().id
    }

    /// Publishes a function that makes one call and returns what it was told, and runs it.
    async fn run(&self, argument: &Value, metadata: Value) -> Execution {
        let function = self.publish(&ask(6, &argument.to_string()), metadata).await;
        self.host.execute(Request::new(TENANT, USER, function, json!({}))).await.unwrap()
    }

    async fn calls(&self) -> (usize, usize, usize) {
        let count = async |entity_type| setup::spans(&self.ledger, entity_type).await.len();
        (self.provider.calls().len(), count("provider_request").await, count("provider_execution").await)
    }

    async fn replays(&self, execution: &Execution) -> bool {
        let sandboxes: [Arc<dyn Sandbox>; 1] = [Arc::new(WasmSandbox::new().unwrap())];
        let key = (TENANT, execution.span.id);
        let again = replay(&self.ledger, &Scope::runtime(TENANT), key, &sandboxes, Rules::default()).await.unwrap();
        assert!(again.holds(), "{:?}", again.differences);
        again.holds()
    }
}

fn question(key: &str) -> Value {
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "the capital of France?"}]}]});
    json!({"provider": "main", "operation": "invoke", "key": key, "body": body})
}

fn with(mut value: Value, name: &str, other: Value) -> Value {
    value.as_object_mut().unwrap().insert(name.to_owned(), other);
    value
}

fn may() -> Value {
    json!({"capabilities": [CAPABILITY]})
}

#[test]
fn a_function_asks_and_its_execution_repeats_without_the_provider() {
    block_on(async {
        let site = Site::new().await;
        let execution = site.run(&question("first"), may()).await;
        let told = output(&execution);
        assert_eq!(told["answer"]["content"][0]["text"], "the capital of France?");
        assert_eq!(site.calls().await, (1, 1, 1));
        let outcome = &setup::spans(&site.ledger, "provider_execution").await[0];
        assert_eq!(told["span"], json!(outcome.id.to_string()));
        assert_eq!(outcome.meta("call_key"), Some(&json!("guest/first")));
        let journal = execution.span.meta("journal").unwrap();
        assert_eq!(journal["answers"][0]["outcome"][3], json!(outcome.seal.curr_hash.to_string()));
        assert!(!journal.to_string().contains("France"), "the journal names the answer and does not copy it");
        assert!(site.replays(&execution).await);
        assert_eq!(site.provider.calls().len(), 1);
    });
}

#[test]
fn a_failure_of_the_provider_is_the_functions_to_handle_and_repeats_too() {
    block_on(async {
        let site = Site::with(|manifest| {
            let budget = Budget { tokens_per_day: Some(500), money_per_day: None };
            manifest.budgets.insert("*".to_owned(), budget);
        })
        .await;
        for (kind, expected) in
            [(ErrorKind::ContentFiltered, "provider:content_filtered"), (ErrorKind::Throttled, "provider:throttled")]
        {
            site.provider.then([Script::Fail(ProviderError::new(kind, "no"))]);
            let execution = site.run(&question("a"), may()).await;
            assert_eq!(output(&execution)["code"], expected, "the function goes on");
            assert!(site.replays(&execution).await);
        }
        let long = "please ".repeat(400);
        let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": long}]}]});
        let execution = site.run(&with(question("a"), "body", body), may()).await;
        assert_eq!(output(&execution)["code"], "budget");
        assert!(site.replays(&execution).await);
        assert_eq!(site.provider.calls().len(), 2);
    });
}

#[test]
fn a_function_asks_only_what_it_and_the_manifest_name() {
    block_on(async {
        let site = Site::new().await;
        site.host.publish(provider_span("spare"), &key(PUBLISHER)).await.unwrap();
        let other = with(question("a"), "provider", json!("spare"));
        let embed = json!({"provider": "main", "operation": "embed", "key": "a", "body": {"texts": ["x"], "purpose": "query"}});
        for (argument, metadata, said) in [
            (question("a"), json!({}), "the function does not allow `provider.invoke:main/large`"),
            (question("a"), json!({"capabilities": []}), "the function does not allow"),
            (question("a"), json!({"capabilities": ["provider.invoke:main/small"]}), "the function does not allow"),
            (question("a"), json!({"capabilities": ["provider.embed:*"]}), "the function does not allow"),
            (other, may(), "`provider.invoke:spare/large`"),
            (embed, json!({"capabilities": ["provider.embed:*"]}), "the manifest does not allow `provider.embed:main/large`"),
        ] {
            let execution = site.run(&argument, metadata).await;
            let told = output(&execution);
            assert_eq!(told["code"], "not_permitted", "{argument}");
            assert!(told["message"].as_str().unwrap().contains(said), "{told}");
            assert!(site.replays(&execution).await);
        }
        let nothing = Site::with(|manifest| manifest.capabilities.clear()).await;
        assert_eq!(output(&nothing.run(&question("a"), may()).await)["code"], "not_permitted");
        assert_eq!((site.calls().await, nothing.calls().await), ((0, 0, 0), (0, 0, 0)));
    });
}

#[test]
fn capabilities_that_are_none_are_not_published() {
    block_on(async {
        let site = Site::new().await;
        for capabilities in [json!("provider.invoke:*"), json!([5]), json!(["everything"]), json!(["provider.invoke:"])] {
            let draft = function(&ask(2, "null")).metadata(json!({"capabilities": capabilities}));
            let message = site.host.publish(draft, &key(PUBLISHER)).await.map(drop).unwrap_err().to_string();
            assert!(message.contains("capabilities"), "{message}");
        }
        let mut manifest = setup::manifest();
        manifest.capabilities.insert(TENANT.to_owned(), vec!["all".to_owned()]);
        assert!(manifest.check().unwrap_err().to_string().contains("capabilities of `acme`"));
    });
}

#[test]
fn calls_that_make_no_sense_cost_nothing() {
    block_on(async {
        let site = Site::new().await;
        for (argument, code) in [
            (json!(null), "invalid_call"),
            (json!({}), "invalid_call"),
            (with(question("a"), "key", json!("")), "invalid_call"),
            (with(question("a"), "key", json!("x".repeat(101))), "invalid_call"),
            (with(question("a"), "key", json!(5)), "invalid_call"),
            (with(question("a"), "url", json!("https://attacker")), "invalid_call"),
            (with(question("a"), "operation", json!("delete")), "provider:invalid"),
            (with(question("a"), "body", json!({})), "provider:invalid"),
            (with(question("a"), "model", json!("small")), "provider:invalid"),
            (with(question("a"), "provider", json!("nobody")), "provider_not_found"),
        ] {
            let execution = site.run(&argument, may()).await;
            assert_eq!(output(&execution)["code"], code, "{argument}");
            assert!(site.replays(&execution).await);
        }
        site.host.publish(provider_span("main"), &key(PUBLISHER)).await.unwrap();
        let twice = site.run(&question("a"), may()).await;
        assert!(output(&twice)["message"].as_str().unwrap().contains("two active providers `main`"));
        assert_eq!(site.calls().await, (0, 0, 0));
    });
}

/// The function's own time does not run while a provider is asked, and the time for calls ends a call that takes too long.
#[test]
fn waiting_for_a_provider_has_a_limit_of_its_own() {
    block_on(async {
        let site = Site::with(|manifest| {
            manifest.limits.timeout_ms = 300;
            manifest.limits.call_timeout_ms = 5_000;
        })
        .await;
        site.provider.then([Script::Wait(Duration::from_millis(600))]);
        let execution = site.run(&question("a"), may()).await;
        assert!(output(&execution)["answer"].is_object(), "600 ms, and the function has 300 ms of its own");
        site.provider.then([Script::Wait(Duration::from_secs(60))]);
        let execution = site.run(&question("a"), may()).await;
        let failure = execution.result.unwrap_err();
        assert_eq!(failure.code, "timeout", "{failure}");
        assert!(failure.message.contains("calls to providers within 5000 ms"), "{failure}");
        let outcomes = setup::spans(&site.ledger, "provider_execution").await;
        assert_eq!(outcomes[1].status.as_deref(), Some("unknown"), "the call that was dropped is not forgotten");
    });
}

#[test]
fn a_host_without_providers_refuses() {
    block_on(async {
        let site = Site::new().await;
        let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).install(logline_kernels::all());
        let bare = builder.sandbox(WasmSandbox::new().unwrap()).build().await.unwrap();
        let function = site.publish(&ask(6, &question("a").to_string()), may()).await;
        let execution = bare.execute(Request::new(TENANT, USER, function, json!({}))).await.unwrap();
        assert_eq!(output(&execution)["code"], "not_permitted");
        assert!(site.replays(&execution).await);
    });
}

/// A record that names another answer does not hold.
#[test]
fn a_journal_that_names_another_answer_is_found_out() {
    block_on(async {
        let site = Site::new().await;
        let honest = site.run(&question("a"), may()).await;
        let other = site.run(&question("b"), may()).await;
        let named = other.span.meta("journal").unwrap()["answers"][0]["outcome"].clone();
        let mut forged = Span::clone(&honest.span);
        forged.metadata.as_mut().unwrap()["journal"]["answers"][0]["outcome"] = named;
        let (ledger, host) = (MemoryLedger::new(), site.host.key());
        // The forger has the host's key, and writes the ledger anew.
        for entity_type in ["function", "request", "provider", "provider_request", "provider_execution"] {
            for span in setup::spans(&site.ledger, entity_type).await {
                let verified = span.verify(&mut Verifier::new()).unwrap();
                ledger.append_one(&Scope::Operator, verified).await.unwrap();
            }
        }
        let sealed = Draft::from_columns(forged).seal_local(&key(HOST)).unwrap();
        assert_eq!(sealed.seal.public_key, host);
        ledger.append_one(&Scope::Operator, sealed.clone()).await.unwrap();
        let sandboxes: [Arc<dyn Sandbox>; 1] = [Arc::new(WasmSandbox::new().unwrap())];
        let again = replay(&ledger, &Scope::runtime(TENANT), (TENANT, sealed.id), &sandboxes, Rules::default()).await;
        let message = again.map(drop).unwrap_err().to_string();
        assert!(message.contains("which is not the answer to it"), "{message}");
    });
}

/// An answer that was made up, by whoever has the host's key for the execution, and a refusal in place of an answer, do not hold.
#[test]
fn a_made_up_answer_and_a_made_up_refusal_are_found_out() {
    block_on(async {
        let site = Site::new().await;
        let honest = site.run(&question("a"), may()).await;
        let outcome = setup::spans(&site.ledger, "provider_execution").await.remove(0);
        let mut invented =
            Draft::from_columns(Span::clone(&outcome)).id(Uuid::from_u128(77)).output(json!({"content": "Lisbon"}));
        invented.columns_mut().prev_hash = None;
        let invented = invented.seal_local(&key(setup::STRANGER)).unwrap();
        let named = json!([TENANT, invented.id, 0, invented.seal.curr_hash.to_string()]);
        let told = json!({"span": invented.id.to_string(), "answer": {"content": "Lisbon"}});
        let refusal = json!({"code": "provider:denied", "message": "anything"});
        for (entry, output, said) in [
            (json!({"call": 1, "outcome": named}), told, "which is not the answer to it"),
            (json!({"call": 1, "error": refusal}), refusal.clone(), "answers it"),
        ] {
            let mut forged = Span::clone(&honest.span);
            forged.output = Some(output);
            forged.metadata.as_mut().unwrap()["journal"]["answers"][0] = entry;
            let ledger = MemoryLedger::new();
            for entity_type in ["function", "request", "provider", "provider_request", "provider_execution"] {
                for span in setup::spans(&site.ledger, entity_type).await {
                    ledger.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            ledger.append_one(&Scope::Operator, invented.clone()).await.unwrap();
            let sealed = Draft::from_columns(forged).seal_local(&key(HOST)).unwrap();
            ledger.append_one(&Scope::Operator, sealed.clone()).await.unwrap();
            let sandboxes: [Arc<dyn Sandbox>; 1] = [Arc::new(WasmSandbox::new().unwrap())];
            let again = replay(&ledger, &Scope::runtime(TENANT), (TENANT, sealed.id), &sandboxes, Rules::default()).await;
            let message =
                again.map(|again| format!("holds: {:?}", again.differences)).unwrap_or_else(|error| error.to_string());
            assert!(message.contains(said), "{message}");
        }
    });
}

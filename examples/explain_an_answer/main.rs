//! Asks a model with a prompt of signed blocks, and explains the answer from the ledger alone: which sentences of whom, which versions,
//! which tries, which tools, what it cost.
//!
//! `cargo run --example explain_an_answer` needs no network: its provider follows a script.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use logline_core::contract::Reader;
use logline_core::contract::provider::{Block, ErrorKind, ModelAnswer, Provider, ProviderError, StopReason, Usage};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, MemoryLedger, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, ProviderExec, Script, ScriptedProvider};
use logline_prompts::{Checked, PROMPT_RUN, RunPrompt, explain, verify_build};
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TENANT: &str = "acme";

/// A module that says that every order is packed. `docs/writing-functions.md` shows how to write one in Rust.
const ORDER_STATE: &str = r#"(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  (data (i32.const 1024) "{\22state\22:\22packed\22}")
  (func (export "alloc") (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (local.get $at))
  (func (export "run") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 18))))"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("explain_an_answer failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draft(entity_type: &str, name: &str) -> Draft {
    let draft = Draft::new(entity_type)
        .tenant(TENANT)
        .owner("support-team")
        .who("publisher:support-team")
        .this(format!("{entity_type}.{name}"));
    draft.name(name).visibility(Visibility::Tenant).status("active")
}

async fn run() -> Result<()> {
    let (root, publisher, runtime) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let scripted = ScriptedProvider::new("scripted");
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(scripted.clone())];
    let exec = ProviderExec::new(adapters, HostSecrets::new());
    let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&RunPrompt::new(exec.providers())));
    let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
        .allow_all(&set)
        .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
        .grant(runtime.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    let (ledger, trust) = (MemoryLedger::new(), TrustRoot::new([root.public_key()], 1));
    trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
    logline_kernels::install(&ledger, &set, &publisher, &SystemClock).await?;
    let host = Host::builder()
        .ledger(ledger.clone())
        .trust(trust.clone())
        .key(runtime)
        .install(set)
        .sandbox(WasmSandbox::new()?)
        .build()
        .await?;
    let publish = async |draft: Draft| host.publish(draft, &publisher).await;

    // Who may say what: four blocks, a variant of them, and the provider that it asks.
    let block = |name: &str, rank: &str, text: &str, vars: Value| {
        draft("prompt_block", name).content(json!(text)).metadata(json!({"rank": rank, "vars": vars}))
    };
    let honest = publish(block("honest", "doctrine", "Say what you do not know.", json!({}))).await?;
    let product = publish(block("product", "product", "You answer for Acme, a shop for tools.", json!({}))).await?;
    let form = publish(block("form", "app", "Answer with JSON: `text` and `confidence` from 0 to 1.", json!({}))).await?;
    let customer = json!({"customer": {"type": "text"}, "orders": {"type": "rows", "default": []}});
    let template =
        "The customer is {{ customer }}.{% for order in orders %}\n- order {{ order.id }}: {{ order.state }}{% endfor %}";
    let task = publish(block("customer", "task", template, customer)).await?;
    let prices = json!({"input": 3_000_000_000_u64, "output": 15_000_000_000_u64});
    let provider = draft("provider", "main").metadata(json!({
        "adapter": "scripted", "currency": "USD", "models": {"large": {"max_tokens": 200, "prices": prices}},
        "retry": {"tries": 2, "pause_ms": 10, "max_pause_ms": 100},
    }));
    let provider = publish(provider).await?;
    // A function that the model may use as a tool: it answers with the state of the order that it is asked about.
    let said = json!({
        "description": "Tells the state of an order.",
        "input_schema": {"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}},
    });
    publish(draft("function", "order_state").runtime("wasm@1").code(ORDER_STATE).metadata(json!({"tool": said}))).await?;
    let metadata = json!({
        "family": "support",
        "block_ids": [task.id, form.id, honest.id, product.id],
        "run": {"provider": provider.id, "contract": "answer", "tools": ["order_state"]},
    });
    let variant = publish(draft("prompt_variant", "support@v1").metadata(metadata)).await?;

    // The provider is busy at first, then the model looks the order up, and its first answer does not hold to the contract.
    let wanted = Block::ToolUse { id: "use-1".to_owned(), name: "order_state".to_owned(), input: json!({"order": 17}) };
    scripted.then([
        Script::Fail(ProviderError::new(ErrorKind::Throttled, "too many calls")),
        Script::Answer(ModelAnswer::new(vec![wanted], StopReason::ToolUse, Usage::of(120, 20))),
        Script::Text("It ships today!".to_owned()),
        Script::Text(r#"{"text": "Order 17 is packed and ships today.", "confidence": 0.9}"#.to_owned()),
    ]);
    let vars = json!({"customer": "Ada", "orders": [{"id": 17, "state": "packed"}]});
    let input = json!({"question": "When does my order ship?", "vars": vars});
    let done = host.execute(Request::new(TENANT, "support-bot", variant.id, input).this(PROMPT_RUN)).await?.result?;
    let told = |name: &str| done.get(name).cloned().unwrap_or_default();
    println!("answer: {}\n", told("answer"));

    let trusted = trust.resolve(&ledger).await?;
    let reader = Reader::new(&ledger, Scope::runtime(TENANT));
    let id: Uuid = told("run").as_str().ok_or("no run")?.parse()?;
    let explained = explain(&reader, &trusted.authorities, TENANT, id).await?;
    println!("the prompt ({}):\n{}\n", explained.compiled_hash, indented(&explained.text));
    println!("the tries:");
    for one in &explained.tries {
        let how = one.error.as_str().unwrap_or(one.status.as_str());
        let cost = one.cost.get("nanos").map_or_else(|| "no cost".to_owned(), |nanos| format!("{nanos} nanos of USD"));
        println!("  {} try {}: {how:20} {cost}", one.call.as_str().unwrap_or_default(), one.ordinal);
    }

    println!("what was asked, made up again and compared with the calls: {}", explained.asked);

    println!("the tools:");
    for call in &explained.tool_calls {
        let execution = call.execution.map(|id| id.to_string()).unwrap_or_default();
        println!("  {} {}({}) = {} (execution {execution})", call.call, call.name, call.input, call.output);
    }

    // A new version of a block changes the next answer, and not what this one was made of.
    let next = Draft::next_version(&task).content(json!("The customer is {{ customer }}. {{ orders|length }} orders."));
    publish(next).await?;
    let again = verify_build(&reader, &trusted.authorities, TENANT, explained.build).await?;
    println!("\nafter a new version of a block, the prompt is built again to {}", again.compiled_hash);

    let used = explained.tries.iter().filter(|one| one.is_used).count();
    let is_whole = explained.tries.len() == 4 && used == 3 && explained.tool_calls.len() == 1;
    if again.text != explained.text || !is_whole || explained.asked != Checked::Passed {
        return Err("the record does not say what happened".into());
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

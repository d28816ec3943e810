//! What prompts cost: a build of 20 blocks beside minijinja alone, and how many trials an evaluation makes in a second.
//!
//! `cargo bench -p logline-benches --bench prompts [-- BUILDS ROUNDS]`. Both sides take turns within one run. minijinja compiles
//! its templates each time; a build keeps those that were compiled last.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that fails may panic, and prints to its user"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logline_core::contract::provider::Provider;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Signer as _, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, ProviderExec, ScriptedProvider};
use logline_prompts::eval::PROMPT_EVALUATE;
use logline_prompts::{Block, RunPrompt, Variant, build};
use logline_sqlite::SqliteLedger;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Value, json};
use uuid::Uuid;

const TENANT: &str = "acme";
const BLOCKS: usize = 20;
const FIXTURES: usize = 200;

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn draft(entity_type: &str, name: &str) -> Draft {
    let draft = Draft::new(entity_type).tenant(TENANT).owner("copy").who("publisher").this(format!("{entity_type}.{name}"));
    draft.name(name).visibility(Visibility::Tenant).status("active")
}

/// About 800 bytes of text with a few variables, a condition and a loop.
fn template(n: usize) -> String {
    format!(
        "Rule {n}. {}The customer is {{{{ customer }}}}, of the plan {{{{ plan }}}}.{{% if plan == \"gold\" %}} Be quick.{{% endif %}}\n\
         {{% for order in orders %}}- order {{{{ order.id }}}} is {{{{ order.state }}}}\n{{% endfor %}}",
        "Say what you know, and say so where you do not. ".repeat(10)
    )
}

fn block(n: usize) -> Draft {
    let vars = json!({"customer": {"type": "text"}, "plan": {"type": "text"}, "orders": {"type": "rows"}});
    let ranks = ["doctrine", "product", "app", "task"];
    let metadata = json!({"rank": ranks[n % 4], "priority": n, "vars": vars});
    draft("prompt_block", &format!("block-{n}"))
        .id(Uuid::from_u128(n as u128 + 1))
        .content(json!(template(n)))
        .metadata(metadata)
}

fn vars() -> Value {
    let orders: Vec<_> = (0..3).map(|n| json!({"id": n, "state": "packed"})).collect();
    json!({"customer": "Ada Lovelace", "plan": "gold", "orders": orders})
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn each(calls: u32, mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..calls {
        call();
    }
    began.elapsed() / calls
}

fn builds(calls: u32, rounds: usize) {
    let drafts: Vec<_> = (0..BLOCKS).map(block).collect();
    let blocks: Vec<_> = drafts.iter().map(|draft| Block::read(draft.columns()).unwrap()).collect();
    let (variant, vars) = (Variant::new("support@v1"), vars());
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(1_000_000));
    let templates: Vec<_> = (0..BLOCKS).map(template).collect();
    let alone = || {
        let texts = templates.iter().map(|text| environment.render_str(text, Serde(&vars)).unwrap());
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let built = build(&variant, &blocks, &vars).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(each(calls, || drop(black_box(alone()))));
        ours.push(each(calls, || drop(black_box(build(&variant, &blocks, &vars).unwrap()))));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "build of {BLOCKS} blocks, {} bytes: minijinja alone {theirs:?}, build with hash and checks {ours:?}",
        built.text.len()
    );
    println!("build / minijinja: {:.2}", ours.as_secs_f64() / theirs.as_secs_f64());
}

async fn evals(fixtures: usize, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("bench.ledger")).unwrap();
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(ScriptedProvider::new("scripted"))];
    let exec = ProviderExec::new(adapters, HostSecrets::new());
    let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&RunPrompt::new(exec.providers())));
    let trust = TrustRoot::new([key(1).public_key()], 1);
    let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow_all(&set)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
        .grant(key(3).public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    trust.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &set, &key(2), &SystemClock).await.unwrap();
    let host = Host::builder().ledger(ledger).trust(trust).key(key(3)).install(set).build().await.unwrap();
    let publish = async |draft: Draft| host.publish(draft, &key(2)).await.unwrap().id;
    let mut ids = Vec::new();
    for n in 0..BLOCKS {
        ids.push(publish(block(n)).await);
    }
    let spec = json!({"adapter": "scripted", "models": {"large": {"max_tokens": 100}}});
    let provider = publish(draft("provider", "main").metadata(spec)).await;
    let metadata = json!({"family": "support", "block_ids": ids, "run": {"provider": provider}});
    let variant = publish(draft("prompt_variant", "support@v1").metadata(metadata)).await;
    let fixture = |n: usize| {
        let expect = json!([{"must_contain": format!("Q{n}")}]);
        json!({"id": format!("f{n}"), "kind": "happy", "question": format!("Q{n}"), "vars": vars(), "expect": expect})
    };
    let suite = json!({"fixtures": (0..fixtures).map(fixture).collect::<Vec<_>>()});
    let suite = draft("prompt_eval", "support").content(suite).metadata(json!({"family": "support", "parallel": 16}));
    let suite = publish(suite).await;
    let mut took = Vec::new();
    for _ in 0..rounds {
        let request = Request::new(TENANT, "user", suite, json!({"variants": [variant]})).this(PROMPT_EVALUATE);
        let began = Instant::now();
        let passed = host.execute(request).await.unwrap().result.unwrap()["passed"].clone();
        took.push(began.elapsed());
        assert_eq!(passed, json!(true));
    }
    let rate = fixtures as f64 / median(took).as_secs_f64();
    println!("evaluation on durable SQLite, 16 at a time, each trial a recorded and signed call: {rate:.0} trials a second");
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let numbers: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (calls, rounds, fixtures) = if is_test { (2, 1, 3) } else { (500, 9, FIXTURES) };
    let rounds = numbers.get(1).map_or(rounds, |rounds| *rounds as usize).max(1);
    builds(numbers.first().copied().unwrap_or(calls).max(1), rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(evals(fixtures, rounds.min(5)));
}

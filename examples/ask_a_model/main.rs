//! Asks a model, and shows what the ledger has of it: every try, what it cost, and a call that was cut off in the middle.
//!
//! `cargo run --example ask_a_model` needs no network: its provider follows a script.
//! `cargo run --example ask_a_model -- --url http://127.0.0.1:11434/v1 --model llama3.2` asks a server that speaks OpenAI's protocol; with
//! `--secret-env OPENAI_API_KEY` it sends the secret in that environment variable.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use logline_core::contract::provider::{Chunk, ErrorKind, ModelRequest, Provider, ProviderError};
use logline_core::ledger::{LedgerExt as _, Query, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Budget, Manifest, Money, RootSet, TrustRoot};
use logline_core::{
    Draft, Host, KeyPair, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, Visibility,
};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec, Script, ScriptedProvider};
use logline_openai::OpenAi;
use serde_json::{Value, json};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TENANT: &str = "acme";

/// What the tenant may spend in a day: 2 cents.
const CENTS: u64 = 20_000_000;

/// Asks a model and shows what is recorded of it.
#[derive(Parser)]
struct Options {
    /// The base URL of a server that speaks OpenAI's protocol. Default: a provider that follows a script.
    #[arg(long, requires = "model")]
    url: Option<String>,
    /// The model to ask.
    #[arg(long)]
    model: Option<String>,
    /// The environment variable with the secret for the server.
    #[arg(long, requires = "url")]
    secret_env: Option<String>,
    /// The question.
    #[arg(default_value = "Why does an auditor like append-only ledgers? Answer in one sentence.")]
    question: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ask_a_model failed: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Site {
    ledger: MemoryLedger,
    host: Host,
    publisher: KeyPair,
    exec: ProviderExec,
    scripted: ScriptedProvider,
}

/// A ledger with one tenant that has a budget, and a host that can call providers.
async fn site(options: &Options) -> Result<Site> {
    let (root, publisher, runtime) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let scripted = ScriptedProvider::new("scripted");
    let adapters: [Arc<dyn Provider>; 2] = [Arc::new(scripted.clone()), Arc::new(OpenAi::new()?)];
    // A secret is sent to the URLs that are named here, and nowhere else.
    let secrets = match (&options.secret_env, &options.url) {
        (Some(variable), Some(url)) => HostSecrets::new().env("model-server", variable, [url]),
        _ => HostSecrets::new(),
    };
    let exec = ProviderExec::new(adapters, secrets);
    let mut manifest = Manifest::first(RootSet::new([root.public_key()], 1))
        .allow_all(&exec.behaviours())
        .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
        .grant(runtime.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    let money = Money { nanos: CENTS, currency: "USD".to_owned() };
    manifest.budgets.insert(TENANT.to_owned(), Budget { tokens_per_day: Some(20_000), money_per_day: Some(money) });
    let (ledger, trust) = (MemoryLedger::new(), TrustRoot::new([root.public_key()], 1));
    trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
    logline_kernels::install(&ledger, &exec.behaviours(), &publisher, &SystemClock).await?;
    let host = Host::builder().ledger(ledger.clone()).trust(trust).key(runtime).install(exec.behaviours()).build().await?;
    Ok(Site { ledger, host, publisher, exec, scripted })
}

/// Publishes a provider span. Its metadata say everything that a call needs to know.
async fn provider(site: &Site, name: &str, spec: Value) -> Result<Uuid> {
    let draft = Draft::new("provider")
        .tenant(TENANT)
        .owner("platform")
        .who("publisher:platform")
        .this(format!("provider.{name}"))
        .name(name)
        .visibility(Visibility::Tenant)
        .status("active")
        .metadata(spec);
    Ok(site.host.publish(draft, &site.publisher).await?.id)
}

/// 3 dollars for a million tokens of input, 15 for a million of output.
fn model() -> Value {
    json!({"max_tokens": 200, "prices": {"input": 3_000_000_000_u64, "output": 15_000_000_000_u64}})
}

fn asking(provider: Uuid, question: &str) -> Request {
    Request::new(TENANT, "support-bot", provider, json!({"request": ModelRequest::ask(question)})).this(PROVIDER_INVOKE)
}

async fn run(options: &Options) -> Result<()> {
    let site = site(options).await?;
    let main = match (&options.url, &options.model) {
        (Some(url), Some(name)) => {
            let mut spec = json!({"adapter": "openai", "url": url, "currency": "USD", "models": {name.as_str(): model()}});
            if let (Some(members), Some(_)) = (spec.as_object_mut(), &options.secret_env) {
                members.insert("secret".to_owned(), "model-server".into());
            }
            provider(&site, "main", spec).await?
        }
        _ => {
            let spare = json!({"adapter": "scripted", "currency": "USD", "models": {"small": model()}});
            let spare = provider(&site, "spare", spare).await?;
            let spec = json!({
                "adapter": "scripted",
                "currency": "USD",
                "models": {"large": model()},
                "retry": {"tries": 2, "pause_ms": 50, "max_pause_ms": 1000},
                "fallback": [{"provider": spare}],
            });
            // The provider is busy, then it has no credit left, and the spare one answers.
            let busy = ProviderError::new(ErrorKind::Throttled, "too many calls").retry_after(Some(Duration::from_millis(100)));
            let broke = ProviderError::new(ErrorKind::Quota, "no credit left");
            let answer = "Nobody, not even the operator, can quietly change what was written.";
            site.scripted.then([Script::Fail(busy), Script::Fail(broke), Script::Text(answer.to_owned())]);
            provider(&site, "main", spec).await?
        }
    };

    println!("asking: {}\n", options.question);
    let request = site.host.submit(asking(main, &options.question)).await?;
    let mut pieces = site.exec.streams().listen(TENANT, request.id);
    let printing = async {
        while let Some(piece) = pieces.recv().await {
            if let Chunk::Text(text) = piece {
                print!("{text}");
            }
        }
        println!("\n");
    };
    let ((), execution) = futures_util::future::join(printing, site.host.run_request(TENANT, request.id)).await;
    execution?.result?;
    tries(&site).await?;

    if options.url.is_none() {
        cut_off(&site, main).await?;
        spend(&site, main).await?;
    }
    Ok(())
}

async fn spans(site: &Site, entity_type: &str) -> Result<Vec<SignedSpan>> {
    let query = Query::timeline().tenant(TENANT).entity_type(entity_type);
    Ok(site.ledger.collect(&Scope::runtime(TENANT), &query, 1000).await?)
}

/// Prints every try that is recorded: who was asked, how it ended, and what it cost.
async fn tries(site: &Site) -> Result<()> {
    println!("what the ledger has of it:");
    let intents = spans(site, "provider_request").await?;
    for outcome in spans(site, "provider_execution").await? {
        let intent =
            intents.iter().find(|intent| outcome.related_to.contains(&intent.id)).ok_or("an outcome without an intent")?;
        let of_intent =
            |path: &str| intent.meta("details").and_then(|details| details.pointer(path)).cloned().unwrap_or_default();
        let of_outcome =
            |path: &str| outcome.meta("details").and_then(|details| details.pointer(path)).cloned().unwrap_or_default();
        let ended = outcome.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str).unwrap_or("answered");
        let usage = match (of_outcome("/usage/input"), of_outcome("/usage/output"), of_outcome("/cost/nanos")) {
            (Value::Null, ..) => "no usage".to_owned(),
            (input, output, cost) => format!("{input} + {output} tokens, {cost} nanos of USD"),
        };
        let ordinal = intent.meta("ordinal").cloned().unwrap_or_default();
        println!("  try {ordinal}: model {:8} {ended:20} {usage}", of_intent("/model").as_str().unwrap_or_default());
    }
    used(site).await
}

async fn used(site: &Site) -> Result<()> {
    let used = site.ledger.used(TENANT, "provider.nano_usd.per_tenant.daily").await?;
    println!("  used today: {used} of {CENTS} nanos of USD\n");
    Ok(())
}

/// Stops waiting in the middle of a call, as a process that dies does.
async fn cut_off(site: &Site, main: Uuid) -> Result<()> {
    site.scripted.then([Script::Hang]);
    let request = site.host.submit(asking(main, "What is the answer?")).await?;
    let cut = tokio::time::timeout(Duration::from_millis(100), site.host.run_request(TENANT, request.id)).await;
    if cut.is_ok() {
        return Err("the call must be cut off".into());
    }
    // Somebody cancels it. (Otherwise the next attempt would find it when the lease has ended.)
    site.host.cancel(TENANT, request.id, "user:operator").await?;
    let last = spans(site, "provider_execution").await?.pop().ok_or("no outcome")?;
    if last.status.as_deref() != Some("unknown") {
        return Err("a call that was cut off must be recorded as unknown".into());
    }
    println!("a call that was cut off is recorded as unknown, and what it may have cost stays reserved:");
    used(site).await
}

/// Asks until the budget of the day does not suffice.
async fn spend(site: &Site, main: Uuid) -> Result<()> {
    for n in 1..100 {
        let asked = site.scripted.calls().len();
        let execution = site.host.execute(asking(main, &format!("question {n}: {}", "please ".repeat(60)))).await?;
        let Err(failure) = execution.result else { continue };
        if failure.code != "budget" || site.scripted.calls().len() != asked {
            return Err(format!("expected a refusal for the budget before any call, got {failure}").into());
        }
        println!("after {} more answers the budget does not suffice, and nobody is called:\n  {failure}", n - 1);
        used(site).await?;
        let denied = spans(site, "policy_violation").await?;
        println!("  the tenant is told once a day: {}", denied.first().ok_or("no policy_violation")?.this);
        return Ok(());
    }
    Err("the budget was never used up".into())
}

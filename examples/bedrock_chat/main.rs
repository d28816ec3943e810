//! A conversation with a model of Amazon Bedrock, as it comes, and what the ledger has of it.
//!
//! `cargo run --example bedrock_chat -- --model eu.anthropic.claude-sonnet-4-5-20250929-v1:0` talks until an empty line. Region and credentials
//! come from AWS's standard chain: the environment, a profile, or the role of the machine. If something is missing, it says what.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use logline_bedrock::Bedrock;
use logline_core::contract::provider::{Block, Chunk, Message, ModelAnswer, ModelRequest, Provider, Role as Speaker};
use logline_core::ledger::{LedgerExt as _, Query};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Budget, Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, MemoryLedger, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec};
use serde_json::{Value, json};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TENANT: &str = "acme";

/// Talks to a model of Amazon Bedrock and shows what is recorded of it.
#[derive(Parser)]
struct Options {
    /// The id of a model or of an inference profile, or its ARN.
    #[arg(long, default_value = "amazon.nova-lite-v1:0")]
    model: String,
    /// The region. Default: that of the environment or the profile.
    #[arg(long)]
    region: Option<String>,
    /// A profile of the AWS configuration files.
    #[arg(long)]
    profile: Option<String>,
    /// Instructions for the model.
    #[arg(long, default_value = "You are brief and exact.")]
    system: String,
    /// The most tokens of an answer.
    #[arg(long, default_value_t = 1000)]
    max_tokens: u32,
    /// The most tokens that the conversation may use.
    #[arg(long, default_value_t = 100_000)]
    budget: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrock_chat: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let mut bedrock = Bedrock::builder();
    if let Some(region) = &options.region {
        bedrock = bedrock.region(region);
    }
    if let Some(profile) = &options.profile {
        bedrock = bedrock.profile(profile);
    }
    let bedrock = bedrock.load().await?;
    bedrock.ready().await.map_err(|missing| missing.message)?;
    println!("{} in {}. An empty line ends the conversation.\n", options.model, bedrock.region().unwrap_or_default());
    let site = site(bedrock, options).await?;

    let mut request = ModelRequest::default().system(&options.system);
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next().transpose()?.filter(|line| !line.trim().is_empty()) else { break };
        request.messages.push(Message::user(line));
        let Some(answer) = turn(&site, &request).await? else {
            // What was not answered is not part of the conversation.
            request.messages.pop();
            continue;
        };
        request.messages.push(Message { role: Speaker::Assistant, content: answer });
    }
    recorded(&site).await
}

struct Site {
    ledger: MemoryLedger,
    host: Host,
    exec: ProviderExec,
    provider: Uuid,
}

/// A ledger with one tenant that has a budget, a host with the adapter, and a provider span.
async fn site(bedrock: Bedrock, options: &Options) -> Result<Site> {
    let (root, publisher, runtime) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(bedrock)];
    let exec = ProviderExec::new(adapters, HostSecrets::new());
    let mut manifest = Manifest::first(RootSet::new([root.public_key()], 1))
        .allow_all(&exec.behaviours())
        .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
        .grant(runtime.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    manifest.budgets.insert(TENANT.to_owned(), Budget { tokens_per_day: Some(options.budget), money_per_day: None });
    let (ledger, trust) = (MemoryLedger::new(), TrustRoot::new([root.public_key()], 1));
    trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
    logline_kernels::install(&ledger, &exec.behaviours(), &publisher, &SystemClock).await?;
    let host = Host::builder().ledger(ledger.clone()).trust(trust).key(runtime).install(exec.behaviours()).build().await?;
    let span = Draft::new("provider")
        .tenant(TENANT)
        .owner("platform")
        .who("publisher:platform")
        .this("provider.bedrock")
        .name("bedrock")
        .visibility(Visibility::Tenant)
        .status("active")
        // Without `url`, the region of the host; without `secret`, its own credentials.
        .metadata(json!({"adapter": "bedrock", "models": {options.model.as_str(): {"max_tokens": options.max_tokens}}}));
    let provider = host.publish(span, &publisher).await?.id;
    Ok(Site { ledger, host, exec, provider })
}

/// One turn: prints the pieces of the answer as they come. `None`: the provider refused or failed, and said why.
async fn turn(site: &Site, request: &ModelRequest) -> Result<Option<Vec<Block>>> {
    let asked = Request::new(TENANT, "me", site.provider, json!({"request": request})).this(PROVIDER_INVOKE);
    let submitted = site.host.submit(asked).await?;
    let mut pieces = site.exec.streams().listen(TENANT, submitted.id);
    let printing = async {
        while let Some(piece) = pieces.recv().await {
            if let Chunk::Text(text) = piece {
                print!("{text}");
                // The answer is in the ledger, whether or not it can be printed.
                let _ = std::io::stdout().flush();
            }
        }
        println!("\n");
    };
    let ((), execution) = futures_util::future::join(printing, site.host.run_request(TENANT, submitted.id)).await;
    match execution?.result {
        Ok(output) => {
            let answer = ModelAnswer::deserialize_from(output.get("answer").unwrap_or(&Value::Null))?;
            Ok(Some(answer.content))
        }
        Err(failure) => {
            eprintln!("{failure}\n");
            Ok(None)
        }
    }
}

/// Prints every call that is recorded: how it ended, how long it took, and what it used.
async fn recorded(site: &Site) -> Result<()> {
    let query = Query::timeline().tenant(TENANT).entity_type("provider_execution");
    println!("\nwhat the ledger has of it:");
    for outcome in site.ledger.collect(&Scope::runtime(TENANT), &query, 1000).await? {
        let details = |path: &str| {
            let found = outcome.meta("details").and_then(|details| details.pointer(path)).filter(|value| !value.is_null());
            found.map_or("unknown".to_owned(), Value::to_string)
        };
        let ended = outcome.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str).unwrap_or("answered");
        println!(
            "  {ended}: first piece after {} ms, {} ms in all, {} + {} tokens, call {}",
            details("/time_to_first_chunk_ms"),
            details("/latency_ms"),
            details("/usage/input"),
            details("/usage/output"),
            details("/request_id"),
        );
    }
    Ok(())
}

//! A host with a scripted provider, a block, and whatever variants a test publishes.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod scripted;

use std::future::Future;
use std::sync::Arc;

use logline_core::contract::Reader;
use logline_core::contract::provider::{ModelAnswer, ModelRequest, Provider, ProviderError};
use logline_core::ledger::{LedgerExt as _, Query};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Execution, Host, KernelSet, KeyPair, ManualClock, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer,
    SystemClock, SystemIds, Visibility,
};
use logline_kernels::provider::{HostSecrets, ProviderExec, ScriptedProvider};
use logline_prompts::{ExplainError, Explained, PROMPT_RUN, RunPrompt, explain};
use serde_json::{Value, json};
use uuid::Uuid;

pub const TENANT: &str = "acme";
pub const USER: &str = "alice";

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub const ROOT: u8 = 1;
pub const PUBLISHER: u8 = 2;
pub const HOST: u8 = 3;

pub struct Site {
    pub ledger: MemoryLedger,
    pub host: Host,
    pub trust: TrustRoot,
    pub provider: ScriptedProvider,
    pub run: RunPrompt,
    pub spans: [Uuid; 2],
    pub sandbox: ScriptedSandbox,
    pub clock: Arc<ManualClock>,
    set: KernelSet,
}

pub use scripted::{Mortal, ScriptedSandbox};

impl Site {
    pub async fn new() -> Self {
        Self::with(ScriptedProvider::new("scripted"), |_| {}).await
    }

    /// A provider that answers by this function.
    pub async fn answering(
        answer: impl Fn(&ModelRequest) -> Result<ModelAnswer, ProviderError> + Send + Sync + 'static,
    ) -> Self {
        Self::with(ScriptedProvider::new("scripted").answering(answer), |_| {}).await
    }

    /// A site whose manifest is as `change` makes it.
    pub async fn governed(change: impl FnOnce(&mut Manifest)) -> Self {
        Self::with(ScriptedProvider::new("scripted"), change).await
    }

    async fn with(provider: ScriptedProvider, change: impl FnOnce(&mut Manifest)) -> Self {
        let adapters: [Arc<dyn Provider>; 1] = [Arc::new(provider.clone())];
        let exec = ProviderExec::new(adapters, HostSecrets::new());
        let run = RunPrompt::new(exec.providers());
        let set: KernelSet = logline_kernels::with_providers(&exec).and(logline_prompts::all(&run));
        let trust = TrustRoot::new([key(ROOT).public_key()], 1);
        let mut manifest = Manifest::first(RootSet::new([key(ROOT).public_key()], 1))
            .allow_all(&set)
            .grant(key(PUBLISHER).public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
            .grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        change(&mut manifest);
        let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
        let (ledger, sandbox) = (MemoryLedger::with_clock(clock.clone()), ScriptedSandbox::default());
        trust.publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &set, &key(PUBLISHER), &SystemClock).await.unwrap();
        let builder = Host::builder().ledger(ledger.clone()).trust(trust.clone()).key(key(HOST)).clock(clock.clone());
        let host = builder.install(set.clone()).sandbox(sandbox.clone()).build().await.unwrap();
        let publish = async |draft: Draft| host.publish(draft, &key(PUBLISHER)).await.unwrap().id;
        let spec = json!({
            "adapter": "scripted", "currency": "USD", "retry": {"tries": 2, "pause_ms": 0, "max_pause_ms": 1},
            "models": {"large": {"max_tokens": 100, "prices": {"input": 3_000_000_000_u64, "output": 15_000_000_000_u64}}},
        });
        let asked = publish(draft("provider", "main").metadata(spec)).await;
        let block = draft("prompt_block", "task").content(json!("Help {{ customer }}."));
        let block = publish(block.metadata(json!({"rank": "task", "vars": {"customer": {"type": "text"}}}))).await;
        Self { ledger, host, trust, provider, run, spans: [asked, block], sandbox, clock, set }
    }

    /// Another host of the site, which signs so.
    pub async fn host_signing(&self, signer: impl Signer + 'static) -> Host {
        let builder =
            Host::builder().ledger(self.ledger.clone()).trust(self.trust.clone()).key(signer).clock(self.clock.clone());
        builder.install(self.set.clone()).sandbox(self.sandbox.clone()).build().await.unwrap()
    }

    pub async fn publish(&self, draft: Draft) -> Uuid {
        self.host.publish(draft, &key(PUBLISHER)).await.unwrap().id
    }

    /// A variant that is run so.
    pub async fn variant(&self, run: Value) -> Uuid {
        let mut run = run;
        run["provider"] = json!(self.spans[0]);
        self.host.publish(self.draft(run), &key(PUBLISHER)).await.unwrap().id
    }

    pub fn draft(&self, run: Value) -> Draft {
        let shots = json!([{"user": "Hi?", "assistant": "Hello."}]);
        let metadata = json!({"family": "support", "block_ids": [self.spans[1]], "few_shots": shots, "run": run});
        draft("prompt_variant", "support@v1").metadata(metadata)
    }

    pub async fn ask(&self, variant: Uuid, input: Value) -> Execution {
        self.host.execute(Request::new(TENANT, USER, variant, input).this(PROMPT_RUN)).await.unwrap()
    }

    pub async fn note(&self, text: &str, owner: &str) -> Uuid {
        let note = Draft::new("note").tenant(TENANT).owner(owner).who("user").this("note").content(json!(text));
        let span = note.stamp(&SystemClock, &SystemIds).seal_local(&key(HOST)).unwrap();
        self.ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
        span.id
    }

    pub async fn explain(&self, ledger: &MemoryLedger, run: Uuid) -> Result<Explained, ExplainError> {
        let trusted = self.trust.resolve(&self.ledger).await.unwrap();
        explain(&Reader::new(ledger, Scope::runtime(TENANT)), &trusted.authorities, TENANT, run).await
    }

    pub async fn all(&self, entity_type: &str) -> Vec<SignedSpan> {
        self.ledger.collect(&Scope::Operator, &Query::timeline().entity_type(entity_type), usize::MAX).await.unwrap()
    }
}

pub fn draft(entity_type: &str, name: &str) -> Draft {
    let draft = Draft::new(entity_type).tenant(TENANT).owner("copy").who("publisher").this(format!("{entity_type}.{name}"));
    draft.name(name).visibility(Visibility::Tenant).status("active")
}

/// A function that models may use; its code is what it does.
pub fn tool(name: &str, code: &str) -> Draft {
    let schema = json!({"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}});
    let said = json!({"description": "Tells the state of an order.", "input_schema": schema});
    draft("function", name).runtime("script@1").code(code).metadata(json!({"tool": said}))
}

pub fn vars() -> Value {
    json!({"customer": "Ada"})
}

pub fn question(text: &str) -> Value {
    json!({"question": text, "vars": vars()})
}

pub fn run_of(execution: &Execution) -> Uuid {
    execution.result.as_ref().unwrap()["run"].as_str().unwrap().parse().unwrap()
}

pub const GOOD: &str = r#"{"text": "Done.", "confidence": 0.8}"#;

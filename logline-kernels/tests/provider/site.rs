//! A ledger with a scripted provider.

use logline_core::contract::provider::{ErrorKind, ModelRequest, Provider, ProviderError, Secret};
use logline_core::ledger::WorkQueue as _;
use logline_core::request::Request;
use logline_core::trust::{Budget, Manifest, Money};
use logline_core::{Draft, Execution, Host, ManualClock, MemoryLedger, SignedSpan, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec, Script, ScriptedProvider};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

use crate::setup;
use crate::setup::{HOST, PUBLISHER, ROOT, SYSTEM_PUBLISHER, TENANT, USER, key, trust};

pub(crate) const FAST: &str = "fast";

/// A ledger, a clock that is turned by hand, and a provider whose answers are scripted.
pub(crate) struct Site {
    pub(crate) ledger: MemoryLedger,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) provider: ScriptedProvider,
    pub(crate) other: ScriptedProvider,
    pub(crate) exec: ProviderExec,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Manifest)) -> Self {
        let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
        let ledger = MemoryLedger::with_clock(clock.clone());
        let (provider, other) = (ScriptedProvider::new("scripted"), ScriptedProvider::new("other"));
        let adapters: [Arc<dyn Provider>; 2] = [Arc::new(provider.clone()), Arc::new(other.clone())];
        let secrets = HostSecrets::new().text("main", Secret::new("hunter2".to_owned()), ["https://models.example"]);
        let exec = ProviderExec::new(adapters, secrets);
        let mut manifest = setup::manifest().allow_all(&exec.behaviours());
        change(&mut manifest);
        trust().publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &exec.behaviours(), &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        Self { ledger, clock, provider, other, exec }
    }

    pub(crate) async fn host(&self) -> Host {
        self.host_as(HOST).await
    }

    pub(crate) async fn host_as(&self, n: u8) -> Host {
        let builder = Host::builder().ledger(self.ledger.clone()).trust(trust()).key(key(n)).clock(self.clock.clone());
        builder.install(self.exec.behaviours()).build().await.unwrap()
    }

    pub(crate) async fn spans(&self, entity_type: &str) -> Vec<SignedSpan> {
        setup::spans(&self.ledger, entity_type).await
    }

    /// The statuses of the outcomes, and the codes of those that failed.
    pub(crate) async fn outcomes(&self) -> Vec<String> {
        let code = |span: &SignedSpan| span.error.as_ref().map(|error| error["code"].as_str().unwrap().to_owned());
        let outcomes = self.spans("provider_execution").await;
        outcomes.iter().map(|span| code(span).unwrap_or_else(|| span.status.clone().unwrap())).collect()
    }

    pub(crate) async fn used(&self, quota: &str) -> u64 {
        self.ledger.used(TENANT, quota).await.unwrap()
    }
}

pub(crate) const TOKENS: &str = "provider.tokens.per_tenant.daily";

pub(crate) const MONEY: &str = "provider.nano_usd.per_tenant.daily";

/// The metadata of a provider whose pauses are short.
pub(crate) fn spec() -> Value {
    json!({
        "adapter": "scripted",
        "currency": "USD",
        "models": {FAST: {"max_tokens": 100, "prices": {"input": 3_000_000_000_u64, "output": 15_000_000_000_u64}}},
        "retry": {"tries": 3, "pause_ms": 1, "max_pause_ms": 50},
    })
}

pub(crate) fn with(mut spec: Value, changes: Value) -> Value {
    let (Value::Object(members), Value::Object(changes)) = (&mut spec, changes) else { panic!("objects") };
    members.extend(changes);
    spec
}

pub(crate) fn provider(spec: Value) -> Draft {
    Draft::new("provider")
        .tenant(TENANT)
        .owner("platform")
        .who("publisher")
        .this("provider.main")
        .name("main")
        .visibility(Visibility::Tenant)
        .status("active")
        .metadata(spec)
}

pub(crate) async fn publish(host: &Host, spec: Value) -> Uuid {
    host.publish(provider(spec), &key(PUBLISHER)).await.unwrap().id
}

pub(crate) fn asking(provider: Uuid, text: &str) -> Request {
    Request::new(TENANT, USER, provider, json!({"request": ModelRequest::ask(text)})).this(PROVIDER_INVOKE)
}

pub(crate) fn code(execution: &Execution) -> &str {
    &execution.result.as_ref().expect_err("it must fail").code
}

pub(crate) fn fail(kind: ErrorKind) -> Script {
    Script::Fail(ProviderError::new(kind, "no"))
}

pub(crate) fn budget(tokens: Option<u64>, nanos: Option<u64>) -> impl FnOnce(&mut Manifest) {
    move |manifest| {
        let money_per_day = nanos.map(|nanos| Money { nanos, currency: "USD".to_owned() });
        manifest.budgets.insert(TENANT.to_owned(), Budget { tokens_per_day: tokens, money_per_day });
    }
}

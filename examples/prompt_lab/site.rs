//! A ledger with the sample prompts, and a host.

use std::path::Path;
use std::sync::Arc;

use logline_core::contract::Reader;
use logline_core::contract::provider::Provider;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot, Trusted};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, ProviderExec, ScriptedProvider};
use logline_prompts::{RunPrompt, sample_id, samples};
use logline_sqlite::SqliteLedger;
use serde_json::json;
use uuid::Uuid;

use crate::{Result, customers};

pub(crate) const TENANT: &str = "acme";

/// What the example works with.
pub(crate) struct Site {
    pub(crate) ledger: SqliteLedger,
    pub(crate) host: Host,
    pub(crate) trust: TrustRoot,
    pub(crate) model: ScriptedProvider,
}

impl Site {
    /// Makes keys, trust root and manifest, and publishes provider and prompts.
    pub(crate) async fn new(file: &Path) -> Result<Self> {
        let (root, publisher, runtime) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
        let model = ScriptedProvider::new("scripted").answering(customers::answer);
        let adapters: [Arc<dyn Provider>; 1] = [Arc::new(model.clone())];
        let exec = ProviderExec::new(adapters, HostSecrets::new());
        let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&RunPrompt::new(exec.providers())));
        let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
            .allow_all(&set)
            .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
            .grant(runtime.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
        let (ledger, trust) = (SqliteLedger::open(file)?, TrustRoot::new([root.public_key()], 1));
        trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
        logline_kernels::install(&ledger, &set, &publisher, &SystemClock).await?;
        let host = Host::builder().ledger(ledger.clone()).trust(trust.clone()).key(runtime).install(set).build().await?;
        let prices = json!({"input": 3_000_000_000_u64, "output": 15_000_000_000_u64});
        let provider =
            Draft::new("provider").tenant(TENANT).owner("support-team").who("publisher:support-team").this("provider.main");
        let provider = provider.name("main").visibility(Visibility::Tenant).status("active").metadata(json!({
            "adapter": "scripted", "currency": "USD", "models": {"large": {"max_tokens": 200, "prices": prices}},
            "retry": {"tries": 2, "pause_ms": 10, "max_pause_ms": 100},
        }));
        let provider = host.publish(provider, &publisher).await?;
        for draft in samples(TENANT, "support-team", provider.id) {
            host.publish(draft, &publisher).await?;
        }
        Ok(Self { ledger, host, trust, model })
    }

    /// What the manifest in force says.
    pub(crate) async fn trusted(&self) -> Result<Trusted> {
        Ok(self.trust.resolve(&self.ledger).await?)
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.ledger, Scope::runtime(TENANT))
    }
}

/// The id of a sample.
pub(crate) fn id(entity_type: &str, name: &str) -> Uuid {
    sample_id(TENANT, entity_type, name)
}

//! A ledger, keys, and a host with the kernel `memory`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logline_core::contract::KeyError;
use logline_core::contract::provider::Provider;
use logline_core::ledger::Ledger as _;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility};
use logline_kernels::provider::{HostSecrets, ProviderExec, ScriptedProvider};
use logline_memory::{Content, LocalKeys, Memories, MemoryKernel, Mode, Sealed, Stored, Vault, VaultError};
use logline_prompts::RunPrompt;
use logline_sqlite::{SqliteKeys, SqliteLedger};
use serde_json::json;
use uuid::Uuid;

use crate::Result;

pub(crate) const TENANT: &str = "acme";

/// What the example works with.
pub(crate) struct Site {
    pub(crate) ledger: SqliteLedger,
    pub(crate) kernel: MemoryKernel,
    pub(crate) host: Host,
    pub(crate) trust: TrustRoot,
    /// What the model is asked with.
    pub(crate) prompt: Uuid,
    tenant_keys: PathBuf,
    name: String,
}

impl Site {
    pub(crate) async fn new(file: &Path) -> Result<Self> {
        let (root, publisher, runtime) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
        let ledger = SqliteLedger::open(file)?;
        let tenant_keys = file.with_extension("tenant-keys");
        let vault = Vault::new(LocalKeys::open(&tenant_keys)?, SqliteKeys::open(SqliteKeys::beside(file))?);
        let kernel = MemoryKernel::new(vault).search_in(ledger.clone());
        // A model without a network: it repeats what it is told.
        let adapters: [Arc<dyn Provider>; 1] = [Arc::new(ScriptedProvider::new("scripted"))];
        let exec = ProviderExec::new(adapters, HostSecrets::new());
        let run = RunPrompt::new(exec.providers()).recall(kernel.clone());
        let set = logline_kernels::with_providers(&exec).and(logline_prompts::all(&run)).and(kernel.all());
        let trust = TrustRoot::new([root.public_key()], 1);
        let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
            .allow_all(&set)
            .grant(publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
            .grant(runtime.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT, "globex"]);
        trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
        logline_kernels::install(&ledger, &set, &publisher, &SystemClock).await?;
        let builder = Host::builder().ledger(ledger.clone()).trust(trust.clone()).key(runtime).install(set);
        let host = builder.cipher(kernel.cipher(ledger.clone())).build().await?;
        let prompt = prompt(&host, &publisher).await?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { ledger, kernel, host, trust, prompt, tenant_keys, name })
    }

    pub(crate) fn memories(&self, owner: &str, mode: Mode) -> Memories<'_> {
        self.of(TENANT, owner, mode)
    }

    pub(crate) fn of(&self, tenant: &str, owner: &str, mode: Mode) -> Memories<'_> {
        Memories::new(&self.host, self.kernel.vault(), tenant, owner, mode)
    }

    /// Whether somebody who has a copy of the files, and the tenants' keys of today, can read a memory.
    pub(crate) async fn opens(&self, backup: &Path, memory: Uuid) -> Result<bool> {
        let ledger = backup.join(&self.name);
        let vault = Vault::new(LocalKeys::open(&self.tenant_keys)?, SqliteKeys::open(SqliteKeys::beside(&ledger))?);
        let versions = SqliteLedger::open(&ledger)?.history(&Scope::Operator, TENANT, memory, 0, 10).await?;
        let first = versions.first().ok_or("the backup does not have the memory")?;
        let Content::Sealed(envelope) = Stored::read(first)?.content else { return Err("it was not encrypted".into()) };
        let text = Sealed { span: memory, field: "content", envelope: &envelope };
        match vault.open(TENANT, &first.owner_id, &[text]).await {
            Ok(mut opened) => match opened.pop() {
                Some(Ok(_)) => Ok(true),
                Some(Err(VaultError::Erased)) | None => Ok(false),
                Some(Err(error)) => Err(error.into()),
            },
            Err(VaultError::Key(KeyError::Destroyed { .. })) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Publishes a provider, and a prompt that asks it.
async fn prompt(host: &Host, publisher: &KeyPair) -> Result<Uuid> {
    let publish = async |name: &str, draft: Draft| {
        let draft = draft.tenant(TENANT).owner("prompts").who("publisher").this("assistant").name(name);
        host.publish(draft.visibility(Visibility::Tenant).status("active"), publisher).await.map(|span| span.id)
    };
    let models = json!({"small": {"max_tokens": 1000}});
    let provider = Draft::new("provider").metadata(json!({"adapter": "scripted", "models": models}));
    let provider = publish("main", provider).await?;
    let block =
        Draft::new("prompt_block").content(json!("You remember what the user has told you.")).metadata(json!({"rank": "task"}));
    let block = publish("task", block).await?;
    let variant = json!({"family": "assistant", "block_ids": [block], "run": {"provider": provider, "context_tokens": 4000}});
    Ok(publish("assistant@v1", Draft::new("prompt_variant").metadata(variant)).await?)
}

//! The host on its ledger: SQLite or PostgreSQL, with a model and memories.

use std::sync::Arc;

use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::WorkQueue;
use logline_core::{Draft, Host, HostError, SystemClock, VerifiedSpan};
use logline_http::{ApiKeys, Jwt, JwtOptions, Options, ServiceKey};
use logline_kernels::Measured;
use logline_memory::{LocalKeys, MemoryKeeper, MemoryKernel, Vault};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_prompts::RunPrompt;
use logline_sqlite::{SqliteKeys, SqliteLedger};
use logline_wasm::WasmSandbox;
use serde_json::json;

use crate::chat;
use crate::config::{Config, Ledger};

/// A module that computes the fee of a payment.
const FEE: &[u8] = include_bytes!("../../logline/examples/fee.wasm");

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) keys: ApiKeys,
    pub(crate) jwt: Option<Jwt>,
    pub(crate) options: Options,
}

impl Site {
    /// Opens or makes the ledger and its keys, and publishes the function `fee`.
    pub(crate) async fn open(config: &Config) -> Result<Self, Failed> {
        if let Some(home) = &config.home {
            // The folders of keys in it are made for this user alone.
            std::fs::create_dir_all(home).map_err(|error| format!("`home`: {}: {error}", home.display()))?;
        }
        let tenant_keys = |home: &Home| LocalKeys::open(config.tenant_keys.clone().unwrap_or_else(|| home.tenant_keys()));
        let (ledger, home, memory): (Arc<dyn WorkQueue>, Home, Option<MemoryKernel>) = match &config.ledger {
            Ledger::Sqlite(file) => {
                let ledger = SqliteLedger::open(file)?;
                let home = config.home.as_ref().map_or_else(|| Home::beside(file), Home::folder);
                let kernel = if config.memory {
                    let vault = Vault::new(tenant_keys(&home)?, SqliteKeys::open(SqliteKeys::beside(file))?);
                    Some(MemoryKernel::new(vault).search_in(ledger.clone()))
                } else {
                    None
                };
                (Arc::new(Measured::new(ledger)), home, kernel)
            }
            Ledger::Postgres(url) => {
                let options = PgOptions::new(url)?;
                migrate(&options).await?;
                let ledger = PgLedger::connect(options).await?;
                let home = Home::folder(config.home.as_deref().ok_or("`home` is not set")?);
                let kernel = if config.memory {
                    let vault = Vault::new(tenant_keys(&home)?, ledger.clone());
                    Some(MemoryKernel::new(vault).search_in(ledger.clone()))
                } else {
                    None
                };
                (Arc::new(Measured::new(ledger)), home, kernel)
            }
        };
        let providers = chat::providers(&home, config.chat.as_ref())?;
        let mut prompts = RunPrompt::new(providers.providers());
        if let Some(kernel) = &memory {
            prompts = prompts.recall(kernel.clone());
        }
        let mut set = logline::behaviours_with_prompts(&providers, &prompts);
        if let Some(kernel) = &memory {
            // What has passed its time is ended, and so are the keys of what was forgotten.
            set = set.and(kernel.all()).and(MemoryKeeper::new([&config.tenant]).all());
        }
        let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &set, &SystemClock).await?;
        let mut builder = Host::builder()
            .ledger(Arc::clone(&ledger))
            .trust(ready.trust)
            .key(home.key(KeyOf::Host)?)
            .install(set)
            .sandbox(Measured::new(WasmSandbox::new()?));
        if let Some(kernel) = &memory {
            builder = builder.cipher(kernel.cipher(ledger));
        }
        let host = builder.build().await?;
        let publisher = home.key(KeyOf::Publisher)?;
        let fee: Draft = logline_wasm::function(&config.tenant, "fee").input(json!({"rate": 25}));
        unless_stopped(logline_kernels::publish_module(&host, fee, FEE, &publisher).await)?;
        if let Some(model) = &config.chat {
            chat::publish(&host, &config.tenant, &publisher, model).await?;
        }
        let keys = ApiKeys::new(host.clone());
        let jwt = config.jwt.as_ref().map(|of| -> Result<Jwt, Failed> {
            let key_set = std::fs::read_to_string(&of.key_set)?;
            Ok(Jwt::new(JwtOptions::new(&of.issuer, &of.audience), &key_set)?)
        });
        // The host's own key stays the same over restarts, so cursors that were made before them stay valid.
        let secret = home.key(KeyOf::Host)?.seed();
        let mut options = Options::new(ServiceKey::derive(secret.as_ref()));
        options.keys = Some(keys.clone());
        options.prompts = Some(prompts.streams().clone());
        options.vault = memory.map(|kernel| kernel.vault().clone());
        options.client_header.clone_from(&config.client_header);
        options.logs = config.log.clone();
        Ok(Self { host, keys, jwt: jwt.transpose()?, options })
    }
}

/// What an operator has stopped stays so when the server starts again, and the rest of it works.
pub(crate) fn unless_stopped(published: Result<VerifiedSpan, HostError>) -> Result<(), HostError> {
    match published {
        Err(error @ HostError::Stopped { .. }) => {
            tracing::warn!(%error, "this server does not publish it");
            Ok(())
        }
        published => published.map(drop),
    }
}

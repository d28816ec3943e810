//! The host on its ledger: SQLite or PostgreSQL, with memories if they are wanted.

use std::sync::Arc;

use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::WorkQueue;
use logline_core::{Draft, Host, SystemClock};
use logline_http::{ApiKeys, Jwt, JwtOptions, Options, ServiceKey};
use logline_kernels::Measured;
use logline_memory::{LocalKeys, MemoryKernel, Vault};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use logline_wasm::WasmSandbox;
use serde_json::json;

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
        let (ledger, home, memory): (Arc<dyn WorkQueue>, Home, Option<MemoryKernel>) = match &config.ledger {
            Ledger::Sqlite(file) => {
                let ledger = SqliteLedger::open(file)?;
                let home = config.home.as_ref().map_or_else(|| Home::beside(file), |folder| Home::folder(folder));
                let kernel = if config.memory {
                    let vault = Vault::new(LocalKeys::open(home.tenant_keys())?, SqliteKeys::open(SqliteKeys::beside(file))?);
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
                    let vault = Vault::new(LocalKeys::open(home.tenant_keys())?, ledger.clone());
                    Some(MemoryKernel::new(vault).search_in(ledger.clone()))
                } else {
                    None
                };
                (Arc::new(Measured::new(ledger)), home, kernel)
            }
        };
        let mut set = logline::behaviours();
        if let Some(kernel) = &memory {
            set = set.and(kernel.all());
        }
        let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &set, &SystemClock).await?;
        let host = Host::builder()
            .ledger(ledger)
            .trust(ready.trust)
            .key(home.key(KeyOf::Host)?)
            .install(set)
            .sandbox(Measured::new(WasmSandbox::new()?))
            .build()
            .await?;
        let fee: Draft = logline_wasm::function(&config.tenant, "fee").input(json!({"rate": 25}));
        logline_kernels::publish_module(&host, fee, FEE, &home.key(KeyOf::Publisher)?).await?;
        let keys = ApiKeys::new(host.clone());
        let jwt = config.jwt.as_ref().map(|of| -> Result<Jwt, Failed> {
            let key_set = std::fs::read_to_string(&of.key_set)?;
            Ok(Jwt::new(JwtOptions::new(&of.issuer, &of.audience), &key_set)?)
        });
        // The host's own key stays the same over restarts, so cursors that were made before them stay valid.
        let secret = home.key(KeyOf::Host)?.seed();
        let mut options = Options::new(ServiceKey::derive(secret.as_ref()));
        options.keys = Some(keys.clone());
        options.vault = memory.map(|kernel| kernel.vault().clone());
        options.client_header.clone_from(&config.client_header);
        options.logs = config.log.clone();
        Ok(Self { host, keys, jwt: jwt.transpose()?, options })
    }
}

//! Prepares a ledger, the manifest that says who may do what in it, and a function for each tenant.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{Ledger as _, Query, WorkQueue};
use logline_core::roles::Role;
use logline_core::trust::{Delegation, Manifest, RootSet, TrustRoot};
use logline_core::{Clock as _, Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility, ids};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use tempfile::TempDir;
use uuid::Uuid;

use crate::Result;

pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// A function that returns its argument. `examples/quickstart` has one that does real work.
const FUNCTION: &str = r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "alloc") (param $len i32) (result i32)
    (global.set $next (i32.add (global.get $next) (local.get $len)))
    (i32.sub (global.get $next) (local.get $len)))
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))"#;

/// The ledger of the example, its trust root and its keys.
pub(crate) struct Site {
    pub(crate) url: String,
    /// The ledger's name for messages, without the password.
    pub(crate) shown: String,
    pub(crate) trust: TrustRoot,
    keys: TempDir,
    _server: Option<PrivateServer>,
}

impl Site {
    /// Prepares a ledger: manifest, kernels, a function for each tenant, and a delegated key for each worker.
    pub(crate) async fn prepare(url: Option<&str>, workers: usize) -> Result<Self> {
        let server = match url {
            Some(_) => None,
            None => Some(PrivateServer::start(&ServerOptions { durable: true, ..Default::default() })?),
        };
        let url = match (url, &server) {
            (Some(url), _) => url.to_owned(),
            (None, Some(server)) => server.url("postgres", "postgres"),
            (None, None) => return Err("no ledger".into()),
        };
        let shown = match url.strip_prefix("sqlite:") {
            Some(file) => file.to_owned(),
            None => {
                migrate(&PgOptions::new(&url)?).await?;
                url.rsplit_once('@').map_or("on PostgreSQL", |(_, site)| site).to_owned()
            }
        };
        let ledger = open(&url).await?;
        let newest = Query::timeline().limit(1);
        if !ledger.scan(&Scope::Operator, &newest, None).await?.rows.is_empty() {
            return Err("the ledger holds rows already: give the example an empty one".into());
        }
        let keys = tempfile::tempdir()?;
        let (root, publisher) = (KeyPair::generate()?, KeyPair::generate()?);
        let (authority, _) = KeyPair::load_or_create(key_file(keys.path(), "authority"))?;
        let everywhere = [SYSTEM_TENANT, "*"];
        let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
            .allow("run_code", ids::RUN_CODE)
            .allow("request_worker", ids::REQUEST_WORKER)
            .grant(publisher.public_key(), Role::Publisher, everywhere)
            .grant(authority.public_key(), Role::Runtime, everywhere);
        let trust = TrustRoot::new([root.public_key()], 1);
        trust.publish(&ledger, &manifest, &root, &SystemClock).await?;
        logline_kernels::install(&ledger, &logline_kernels::all(), &publisher, &SystemClock).await?;
        let now = SystemClock.now();
        for worker in 0..workers {
            let (key, _) = KeyPair::load_or_create(key_file(keys.path(), &worker.to_string()))?;
            let delegation =
                Delegation::new(key.public_key(), everywhere, now, now.saturating_add(Duration::from_secs(60 * 60)));
            trust.delegate(&ledger, &delegation, &authority, &SystemClock).await?;
        }
        std::fs::write(keys.path().join("trust.json"), serde_json::to_vec(&trust)?)?;
        let site = Self { url, shown, trust, keys, _server: server };
        let host = site.host().await?;
        for tenant in TENANTS {
            let draft = Draft::new("function")
                .id(site.function(tenant))
                .tenant(tenant)
                .owner("developers")
                .who("publisher:developers")
                .this("function.echo")
                .visibility(Visibility::Tenant)
                .runtime(logline_wasm::RUNTIME)
                .code(FUNCTION);
            host.publish(draft, &publisher).await?;
        }
        Ok(site)
    }

    pub(crate) fn function(&self, tenant: &str) -> Uuid {
        ids::derive("function", &[tenant, "echo"])
    }

    pub(crate) fn keys(&self) -> &Path {
        self.keys.path()
    }

    /// A host with the authority's key. It submits requests and watches their outcomes.
    pub(crate) async fn host(&self) -> Result<Host> {
        host(&self.url, self.keys.path(), "authority").await
    }
}

fn key_file(keys: &Path, name: &str) -> PathBuf {
    keys.join(format!("{name}.key"))
}

async fn open(url: &str) -> Result<Arc<dyn WorkQueue>> {
    Ok(match url.strip_prefix("sqlite:") {
        Some(file) => Arc::new(SqliteLedger::open(file)?),
        None => Arc::new(PgLedger::connect(PgOptions::new(url)?).await?),
    })
}

/// A host on the ledger at `url` with the key `name` from the folder `keys`.
pub(crate) async fn host(url: &str, keys: &Path, name: &str) -> Result<Host> {
    let trust = TrustRoot::load(keys.join("trust.json"))?;
    let host = Host::builder()
        .ledger(open(url).await?)
        .trust(trust)
        .key(KeyPair::load(key_file(keys, name))?)
        .install(logline_kernels::all())
        .sandbox(WasmSandbox::new()?);
    Ok(host.build().await?)
}

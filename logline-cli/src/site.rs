//! What the commands that write need: the ledger, the home with its keys and trust root, and a host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use logline::home::{Home, HomeError, KeyOf};
use logline_core::contract::provider::Provider;
use logline_core::contract::{Cipher, Confidential};
use logline_core::ledger::{LedgerError, LedgerExt as _, Query, WorkQueue};
use logline_core::roles::Role;
use logline_core::trust::governance::Environment;
use logline_core::trust::{Logs, TrustError, TrustRoot, Trusted};
use logline_core::{Clock as _, Host, KernelSet, KeyPair, PublicKey, Scope, SystemClock, ids};
use logline_kernels::provider::{HostSecrets, ProviderExec};
use logline_log::StoredLogs;
use logline_log::store::Directory;
use logline_memory::{ContractValidator, MemoryKeeper, MemoryKernel, Vault, contract_id};
use logline_openai::OpenAi;
use logline_pg::PgLedger;
use logline_policy::policy_id;
use logline_prompts::RunPrompt;
use logline_sqlite::{SqliteKeys, SqliteLedger, SqliteOptions};
use logline_wasm::{WasmSandbox, function_id};
use uuid::Uuid;

use crate::Error;
use crate::open::Location;
use crate::output::plain;
use crate::tenant_keys::Place;

/// Where keys and trust root are.
#[derive(Args)]
pub(crate) struct HomeOptions {
    /// The folder of the keys and the trust root, as `logline init` made it. A ledger `sqlite:X` has them beside it: `X.keys/` and
    /// `X.trust.json`.
    #[arg(long, value_name = "DIR", env = "LOGLINE_HOME")]
    home: Option<PathBuf>,
    /// The file of the trust root, if it is elsewhere.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The file of the key to sign with, if it is elsewhere.
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// Where the host works: `staging` or `production`. Each has its own promoted versions.
    #[arg(long, value_name = "NAME", env = "LOGLINE_ENVIRONMENT", default_value_t)]
    environment: Environment,
    /// Where the tenants' keys for memories are: `files` of the home, or `kms:PREFIX`, keys of AWS KMS whose aliases begin with
    /// `alias/PREFIX/` (this tool must be built with the feature `kms`).
    #[arg(long, value_name = "PLACE", env = "LOGLINE_MEMORY_KEYS", default_value_t)]
    memory_keys: Place,
    /// The folder of the tiles of transparency logs, if the manifest has ended a key: they say what is older.
    #[arg(long, value_name = "DIR", env = "LOGLINE_TILES")]
    tiles: Option<PathBuf>,
}

/// The transparency logs in a folder.
pub(crate) fn logs_in(folder: Option<&PathBuf>) -> Option<StoredLogs<Directory>> {
    folder.map(|folder| StoredLogs::new(Directory::new(folder)))
}

impl HomeOptions {
    /// Where the host works.
    pub(crate) fn environment(&self) -> Environment {
        self.environment
    }

    /// The key of an approver, which no home has.
    pub(crate) fn approver(&self) -> Result<KeyPair, Error> {
        let file = self
            .key
            .as_ref()
            .ok_or("name the approver's key with --key KEYFILE: a home has none (`logline keygen` makes one)")?;
        Ok(KeyPair::load(file)?)
    }
}

/// The home of a ledger: the folder that was named, or the files beside a SQLite file.
pub(crate) fn home_of(location: &Location, folder: Option<&Path>) -> Result<Home, Error> {
    match (folder, location) {
        (Some(folder), _) => Ok(Home::folder(folder)),
        (None, Location::Sqlite(path)) => Ok(Home::beside(path)),
        (None, Location::Postgres(_)) => {
            Err("a ledger in PostgreSQL has no files beside it: pass --home DIR, the folder of its keys and its trust root"
                .into())
        }
    }
}

/// The ledger as its own type, for what not every ledger can do.
enum Backend {
    Sqlite(SqliteLedger, PathBuf),
    Postgres(PgLedger),
}

/// An opened ledger and its home.
pub(crate) struct Site {
    pub(crate) ledger: Arc<dyn WorkQueue>,
    backend: Backend,
    home: Option<Home>,
    trust: Option<PathBuf>,
    key: Option<PathBuf>,
    environment: Environment,
    tiles: Option<PathBuf>,
    memory_keys: Place,
}

impl Site {
    /// Opens an existing ledger for writing.
    pub(crate) async fn open(url: Option<&str>, options: &HomeOptions) -> Result<Self, Error> {
        let location = Location::of(url)?;
        location.check_exists()?;
        let home = match home_of(&location, options.home.as_deref()) {
            Ok(home) => Some(home),
            Err(_) if options.trust.is_some() && options.key.is_some() => None,
            Err(error) => return Err(error),
        };
        let (ledger, backend): (Arc<dyn WorkQueue>, _) = match location {
            Location::Sqlite(path) => {
                let ledger = match SqliteLedger::open(&path) {
                    // A copy on a disk that cannot be written is read; what would write says why it cannot.
                    Err(LedgerError::ReadOnly { .. }) => SqliteLedger::open_with(SqliteOptions::new(&path).read_only())?,
                    opened => opened?,
                };
                (Arc::new(ledger.clone()), Backend::Sqlite(ledger, path))
            }
            Location::Postgres(options) => {
                let ledger = PgLedger::connect(*options).await?;
                (Arc::new(ledger.clone()), Backend::Postgres(ledger))
            }
        };
        Ok(Self {
            ledger,
            backend,
            home,
            trust: options.trust.clone(),
            key: options.key.clone(),
            environment: options.environment,
            tiles: options.tiles.clone(),
            memory_keys: options.memory_keys.clone(),
        })
    }

    pub(crate) fn trust(&self) -> Result<TrustRoot, Error> {
        match (&self.trust, &self.home) {
            (Some(file), _) => Ok(TrustRoot::load(file)?),
            (None, Some(home)) => {
                let missing = |error| {
                    format!(
                        "{error}; copy it from a host or an auditor who has it, or name another file with --trust (`logline init` makes one for a new ledger)"
                    )
                };
                home.trust().map_err(|error| missing(error).into())
            }
            (None, None) => Err("no trust root: pass --trust FILE".into()),
        }
    }

    /// The key that was named, or that of the home.
    pub(crate) fn key(&self, of: KeyOf) -> Result<KeyPair, Error> {
        match (&self.key, &self.home) {
            (Some(file), _) => Ok(KeyPair::load(file)?),
            (None, Some(home)) => {
                let key = home.key(of).map_err(HomeError::from);
                key.map_err(|error| {
                    let advice = "restore it from a copy, name another file with --key, or make a new one with `logline init` where the root key is";
                    format!("{error}; {advice}").into()
                })
            }
            (None, None) => Err("no key: pass --key KEYFILE".into()),
        }
    }

    /// A host that signs with the key of the home that is named here.
    pub(crate) async fn host(&self, of: KeyOf) -> Result<Host, Error> {
        let memory = if self.has_memories() { Some(self.memory().await?) } else { None };
        self.host_with(self.key(of)?, memory.as_ref(), KernelSet::new()).await
    }

    /// A host that reads, and signs nothing that anybody would trust.
    pub(crate) async fn reader(&self) -> Result<Host, Error> {
        self.host_with(KeyPair::generate()?, None, KernelSet::new()).await
    }

    /// The kernel `memory`, with the tenants' keys and the store of keys beside the ledger.
    pub(crate) async fn memory(&self) -> Result<MemoryKernel, Error> {
        let folder = self.home.as_ref().map(Home::tenant_keys);
        let (place, folder) = (&self.memory_keys, folder.as_deref());
        Ok(match &self.backend {
            Backend::Sqlite(ledger, path) => {
                let store = SqliteKeys::open(SqliteKeys::beside(path))?;
                MemoryKernel::new(place.vault(folder, store).await?).search_in(ledger.clone())
            }
            Backend::Postgres(ledger) => {
                MemoryKernel::new(place.vault(folder, ledger.clone()).await?).search_in(ledger.clone())
            }
        })
    }

    /// What opens the confidential requests of a user. `None` if this home has no keys.
    pub(crate) async fn confidential(&self, tenant: &str, owner: &str) -> Result<Option<Confidential>, Error> {
        if !self.has_memories() {
            return Ok(None);
        }
        let cipher: Arc<dyn Cipher> = Arc::new(self.memory().await?.cipher(Arc::clone(&self.ledger)));
        Ok(Some(Confidential::of(&cipher, &self.trusted().await?.authorities, tenant, owner).await?))
    }

    /// Whether somebody has kept memories here.
    fn has_memories(&self) -> bool {
        self.memory_keys != Place::Files || self.home.as_ref().is_some_and(|home| home.tenant_keys().exists())
    }

    /// A host with the kernel `memory`, and with whatever else this tool has.
    pub(crate) async fn host_of(&self, memory: &MemoryKernel) -> Result<Host, Error> {
        self.host_with(self.key(KeyOf::Host)?, Some(memory), KernelSet::new()).await
    }

    /// As [`Site::host_of`], with the loop that looks after memories.
    pub(crate) async fn host_keeping(&self, memory: &MemoryKernel, keeper: &MemoryKeeper) -> Result<Host, Error> {
        self.host_with(self.key(KeyOf::Host)?, Some(memory), keeper.all()).await
    }

    async fn host_with(&self, key: KeyPair, memory: Option<&MemoryKernel>, more: KernelSet) -> Result<Host, Error> {
        let providers = self.providers()?;
        let run = RunPrompt::new(providers.providers());
        let host = Host::builder()
            .ledger(Arc::clone(&self.ledger))
            .trust(self.trust()?)
            .key(key)
            .environment(self.environment)
            .sandbox(WasmSandbox::new()?);
        let host = match memory {
            None => {
                let contracts = KernelSet::new().validator(ContractValidator);
                host.install(logline::behaviours_with_prompts(&providers, &run).and(contracts).and(more))
            }
            Some(memory) => host
                .install(logline::behaviours_with_prompts(&providers, &run.recall(memory.clone())).and(memory.all()).and(more))
                .cipher(memory.cipher(Arc::clone(&self.ledger))),
        };
        let host = match logs_in(self.tiles.as_ref()) {
            Some(logs) => host.logs(logs),
            None => host,
        };
        Ok(host.build().await?)
    }

    /// The manifest in force, for commands that need no host.
    pub(crate) async fn trusted(&self) -> Result<Trusted, Error> {
        Ok(self.resolve(&self.trust()?).await?)
    }

    /// The same for a trust root that was read before.
    pub(crate) async fn resolve(&self, trust: &TrustRoot) -> Result<Trusted, TrustError> {
        let logs = logs_in(self.tiles.as_ref());
        let mut trusted = trust.resolve_with(&self.ledger, logs.as_ref().map(|logs| logs as &dyn Logs)).await?;
        trusted.environment = self.environment;
        Ok(trusted)
    }

    /// The id of a span that was named by its id or its name. Of several with the name, the one that `logline publish` makes, or the only
    /// one.
    pub(crate) async fn named(&self, tenant: &str, kind: &str, text: &str) -> Result<Uuid, Error> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let (published, scope) = (published_id(tenant, kind, text), Scope::runtime(tenant));
        if self.ledger.find(&scope, tenant, published).await?.is_some() {
            return Ok(published);
        }
        let query = Query::new().tenant(tenant).entity_type(kind);
        let mut found: Vec<_> = self.ledger.collect(&scope, &query, MAX_NAMED).await?;
        found.retain(|span| span.name.as_deref() == Some(text));
        let (tenant, text) = (plain(tenant), plain(text));
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => Err(format!("tenant `{tenant}` has no {kind} `{text}`").into()),
            _ => Err(format!("tenant `{tenant}` has several {kind} `{text}`: give the id").into()),
        }
    }

    /// The adapters of this tool, with the secrets that the home names.
    pub(crate) fn providers(&self) -> Result<ProviderExec, Error> {
        providers(self.secrets()?)
    }

    /// The secrets that the home names.
    pub(crate) fn secrets(&self) -> Result<HostSecrets, Error> {
        self.home.as_ref().map_or_else(|| Ok(HostSecrets::new()), |home| secrets(&home.secrets_file()))
    }
}

/// The most spans of a type that are looked at for a name.
const MAX_NAMED: usize = 10_000;

/// The id of what is published under a name.
pub(crate) fn published_id(tenant: &str, kind: &str, name: &str) -> Uuid {
    match kind {
        "policy" => policy_id(name),
        "function" => function_id(tenant, name),
        "memory_contract" => contract_id(tenant, name),
        _ => ids::published(tenant, kind, name),
    }
}

/// The secrets that a file names; none if there is no file.
fn secrets(file: &Path) -> Result<HostSecrets, Error> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(HostSecrets::read(&text).map_err(|reason| named(&reason))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HostSecrets::new()),
        Err(error) => Err(named(&error).into()),
    }
}

fn providers(secrets: HostSecrets) -> Result<ProviderExec, Error> {
    let adapters: [Arc<dyn Provider>; 1] = [Arc::new(OpenAi::new()?)];
    Ok(ProviderExec::new(adapters, secrets))
}

/// Every kernel, loop and validator that this tool has.
pub(crate) fn behaviours() -> Result<KernelSet, Error> {
    // Only their names and seeds are used: a host gets the kernel with its keys.
    let memory = MemoryKernel::new(Vault::without_keys()).all().and(MemoryKeeper::new([""; 0]).all());
    Ok(logline::behaviours_with(&providers(HostSecrets::new())?).and(memory))
}

/// Refuses a tenant for which `key` does not have this role, and says how it gets it.
pub(crate) fn check_tenant(host: &Host, key: &PublicKey, role: Role, tenant: &str) -> Result<(), Error> {
    if host.trusted().authorities.has(key, role, tenant, SystemClock.now()) {
        return Ok(());
    }
    let tenant = plain(tenant);
    Err(format!(
        "the manifest does not let key {key} work in tenant `{tenant}` as {role}: check the name, or add the tenant with `logline init \
         --tenant {tenant}` where the root key is"
    )
    .into())
}

/// The id of a span that was named by its id, or by the name under which `of` derives one.
pub(crate) fn id_or(text: &str, of: impl FnOnce(&str) -> Uuid) -> Result<Uuid, Error> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => {
            check_whole(text)?;
            Ok(of(text))
        }
    }
}

/// The id of a function that was named by its id or its name.
pub(crate) fn function(tenant: &str, text: &str) -> Result<Uuid, Error> {
    id_or(text, |name| function_id(tenant, name))
}

/// The id that `text` is mapped to, as an import maps it.
pub(crate) fn any_id(text: &str) -> Result<Uuid, Error> {
    id_or(text, ids::from_text)
}

/// Refuses a part of a UUID: it would name another span.
fn check_whole(text: &str) -> Result<(), Error> {
    let is_part = text.len() >= 8 && text.len() < 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_part && (text.contains('-') || text.chars().any(|c| c.is_ascii_digit())) {
        return Err(format!("`{text}` is a part of an id: give all 36 characters").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_id_names_nothing() {
        for part in ["d241e168", "d241e168-eeb3", "d241e168-eeb3-5d9c-8643-8f5b937c7db", "d241e168eeb3"] {
            assert!(function("acme", part).is_err() && any_id(part).is_err(), "{part}");
        }
        assert_eq!(function("acme", "fee").unwrap(), function_id("acme", "fee"));
        assert_eq!(any_id("deadbeef").unwrap(), ids::from_text("deadbeef"), "a word of these letters is a name");
        let id = "d241e168-eeb3-5d9c-8643-8f5b937c7dbc";
        assert_eq!(function("acme", id).unwrap().to_string(), id);
    }
}

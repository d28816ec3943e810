//! The host: an application builds it and calls it.

mod admit;
mod builder;
mod claim;
mod confidential;
pub(crate) mod driver;
mod end;
mod error;
mod finish;
mod functions;
mod kernel_set;
mod open_calls;
mod outside;
mod publish;
mod quotas;
mod service;
pub(crate) mod stage0;
mod submit;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

pub use builder::HostBuilder;
pub use claim::Claim;
pub use error::HostError;
pub use finish::Execution;
pub use kernel_set::KernelSet;
pub use open_calls::{OpenCall, OpenCalls};
pub use quotas::{EXECUTIONS_QUOTA, FUEL_QUOTA};
pub use service::{Service, ServiceReport, Shutdown};

use crate::contract::{AskedBy, Cipher, CurrentTrust, Kernel, Sandbox};
use crate::host::driver::Driver;
use crate::host::stage0::{Booted, Stage0};
use crate::keys::{Signer, Verifier};
use crate::ledger::{LedgerError, Retry, Tenants, WorkQueue};
use crate::roles::Role;
use crate::span::rules::Rules;
use crate::span::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, SignedSpan};
use crate::trust::governance::Environment;
use crate::trust::{Logs, TrustRoot, Trusted};
use crate::value::clock::{Clock, IdSource};
use crate::value::hex::{Hash, PublicKey};
use crate::value::recent::Recent;
use crate::value::timestamp::Timestamp;

/// Kinds of requests by their `this`, and who may ask.
type Kinds = BTreeMap<String, AskedBy>;

/// Runs functions of the ledger and records what happened. It is cheap to clone. All clones are the same host.
///
/// A host carries out requests one at a time ([`Host::execute`]), or it runs loops that carry out everybody's: the worker, schedules
/// and policies. `logline_kernels::Run` adds that method: `host.run(loops, shutdown)`.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Arc<dyn WorkQueue>,
    trust: TrustRoot,
    signer: Arc<dyn Signer>,
    installed: KernelSet,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    rules: Rules,
    lease: Duration,
    trusted: RwLock<Arc<Trusted>>,
    /// Booted kernels, each with the hash of the manifest under which it was booted.
    booted: Mutex<HashMap<Uuid, (Hash, Booted)>>,
    /// Verified functions by their hash. The same hash means the same content.
    functions: Mutex<Recent<Hash, Arc<VerifiedSpan>>>,
    /// The boots that this process has recorded, as (hash of the manifest, hash of the kernel's span).
    recorded: Mutex<HashSet<(Hash, Hash)>>,
    /// The boot events of this process. There are as many as kernels under each manifest.
    events: Mutex<HashSet<Uuid>>,
    refreshes: Refreshes,
    /// The kinds of requests that the manifest's kernels declare, with the hash of that manifest.
    declared: Mutex<Option<(Hash, Arc<Kinds>)>>,
    /// Whether spans are published without asking the kernels.
    publishes_unchecked: bool,
    environment: Environment,
    logs: Option<Arc<dyn Logs>>,
    /// What encrypts confidential requests.
    cipher: Option<Arc<dyn Cipher>>,
}

/// The shortest time between two refreshes that tenants' rows cause.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// The refreshes of a host, numbered from 1.
#[derive(Default)]
struct Refreshes {
    begun: AtomicU64,
    last: futures_util::lock::Mutex<LastRefresh>,
}

#[derive(Default)]
struct LastRefresh {
    /// The number of the last refresh that succeeded; 0 before the first.
    number: u64,
    /// When the last refresh began, by the host's clock.
    at: Option<Timestamp>,
}

impl Host {
    /// A builder, on which ledger, trust root and key must be set.
    #[must_use]
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// The ledger of this host.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn WorkQueue> {
        &self.inner.ledger
    }

    /// This host's public key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.inner.signer.public_key()
    }

    /// The kernels, loops and validators whose code this host has.
    #[must_use]
    pub fn installed(&self) -> &KernelSet {
        &self.inner.installed
    }

    /// Whether this host's key is a runtime key of `tenant` now, so that the host may record what happens there.
    #[must_use]
    pub fn works_for(&self, tenant: &str) -> bool {
        self.trusted().authorities.has(&self.key(), Role::Runtime, tenant, self.inner.clock.now())
    }

    /// The tenants in which this host may record what happens now, except `system`.
    #[must_use]
    pub fn tenants(&self) -> Tenants {
        self.trusted().authorities.runtime_tenants(&self.key(), self.inner.clock.now())
    }

    /// The sandboxes for tenants' functions.
    #[must_use]
    pub fn sandboxes(&self) -> &[Arc<dyn Sandbox>] {
        &self.inner.sandboxes
    }

    /// The source of ids and random numbers.
    #[must_use]
    pub fn ids(&self) -> &dyn IdSource {
        self.inner.ids.as_ref()
    }

    /// The limits that spans must keep.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// The manifest in force, and its authorities.
    #[must_use]
    pub fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.inner.trusted.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Where this host works.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.inner.environment
    }

    fn booted(&self) -> MutexGuard<'_, HashMap<Uuid, (Hash, Booted)>> {
        self.inner.booted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn declared(&self) -> MutexGuard<'_, Option<(Hash, Arc<Kinds>)>> {
        self.inner.declared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads the manifest again and forgets booted kernels, so that newer versions of both take effect.
    ///
    /// # Errors
    /// If no manifest counts any longer, it demands what this library cannot enforce, or it is older than the one in force. The
    /// old one then stays in force.
    pub async fn refresh(&self) -> Result<(), HostError> {
        let refreshes = &self.inner.refreshes;
        let asked = refreshes.begun.load(Ordering::SeqCst);
        // INVARIANT: one at a time, so that an older manifest is never put in force after a newer one.
        let mut last = refreshes.last.lock().await;
        if last.number > asked {
            // The refresh of another caller began after this call, so it has read everything that this one would read.
            return Ok(());
        }
        let number = refreshes.begun.fetch_add(1, Ordering::SeqCst) + 1;
        last.at = Some(self.inner.clock.now());
        let mut trusted = self.inner.trust.resolve_with(&self.inner.ledger, self.inner.logs.as_deref()).await?;
        trusted.environment = self.inner.environment;
        let (found, current) = (trusted.manifest.version, self.trusted().manifest.version);
        if found < current {
            return Err(HostError::ManifestRollback { found, current });
        }
        *self.inner.trusted.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(trusted);
        self.booted().clear();
        *self.declared() = None;
        last.number = number;
        Ok(())
    }

    /// Refreshes because of a tenant's row, unless a refresh began within the last second. So tenants' rows cannot make the
    /// host read the manifest more often. Returns false if it did not refresh.
    async fn refresh_seldom(&self) -> Result<bool, HostError> {
        let (now, last) = (self.inner.clock.now(), self.inner.refreshes.last.lock().await.at);
        if last.is_some_and(|last| last <= now && now.since(last) < REFRESH_PAUSE) {
            return Ok(false);
        }
        self.refresh().await.map(|()| true)
    }

    /// Boots a kernel or a loop through Stage-0, once per process and manifest. The signed `boot_event` is in the ledger when
    /// this returns.
    ///
    /// # Errors
    /// Why it may not run. A `boot_event` records the refusal as well, if this host can write it.
    pub async fn boot(&self, id: Uuid) -> Result<Booted, HostError> {
        let trusted = self.trusted();
        let manifest = trusted.span.seal.curr_hash;
        // What is promoted may change without a new manifest, and end without a new row.
        let may_change = trusted.requires_promotion(SYSTEM_TENANT, "function");
        if let Some((_, booted)) = self.booted().get(&id).filter(|(under, _)| *under == manifest && !may_change) {
            return Ok(booted.clone());
        }
        let inner = &self.inner;
        let stage0 = Stage0 {
            driver: self.driver(&trusted),
            trusted: &trusted,
            installed: &inner.installed,
            signer: inner.signer.as_ref(),
            recorded: &inner.recorded,
            events: &inner.events,
        };
        let booted = stage0.boot(id).await?;
        let mut kept = self.booted();
        // INVARIANT: `refresh` changes `trusted` first and then forgets what was booted, so nothing that was read before it is kept after it.
        if Arc::ptr_eq(&trusted, &self.trusted()) {
            kept.insert(id, (manifest, booted.clone()));
        }
        Ok(booted)
    }

    /// Whether `span` is the boot event of another process that signs with this host's key. Two hosts must not share a key: nobody could
    /// tell who did what.
    #[must_use]
    pub fn is_boot_of_another(&self, span: &SignedSpan) -> bool {
        let is_boot = span.entity_type == "boot_event" && span.tenant_id == SYSTEM_TENANT && span.prev_hash.is_none();
        let own = || self.inner.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(&span.id);
        is_boot && span.seal.public_key == self.key() && !own() && span.check(&mut Verifier::new()).is_ok()
    }

    /// Boots every installed kernel that carries out requests and that the manifest allows. A worker does this before it claims
    /// a request.
    ///
    /// # Errors
    /// If one of them may not run, or there is none.
    pub async fn boot_request_kernels(&self) -> Result<(), HostError> {
        let trusted = self.trusted();
        let with_requests = self.inner.installed.kernels.iter().filter(|kernel| !kernel.requests().is_empty());
        let ids: Vec<_> = with_requests.map(|kernel| kernel.id()).collect();
        let lacks = |id: &Uuid| {
            let kernel = self.inner.installed.kernels.iter().find(|kernel| kernel.id() == *id);
            kernel.and_then(|kernel| kernel.lacks(None, &self.inner.sandboxes))
        };
        let allowed = ids.iter().filter(|id| trusted.manifest.allowed_boot_ids.contains(id));
        if let Some(lacks) = allowed.clone().map(lacks).reduce(|a, b| a.and(b)).flatten() {
            return Err(HostError::NotEquipped { lacks });
        }
        // If the manifest allows none of them, the refusal of the first one says why.
        let booted: Vec<_> = match allowed.clone().next() {
            Some(_) => allowed.collect(),
            None => ids.iter().take(1).collect(),
        };
        if booted.is_empty() {
            return Err(HostError::Missing { part: "kernel that carries out requests" });
        }
        for id in booted {
            self.boot(*id).await?;
        }
        Ok(())
    }

    /// The kernels that this host has and cannot use, each with what it lacks, such as a sandbox. Requests for them are left to other hosts.
    #[must_use]
    pub fn lacking(&self) -> Vec<(&'static str, String)> {
        let kernels = self.inner.installed.kernels.iter();
        kernels.filter_map(|kernel| Some((kernel.name(), kernel.lacks(None, &self.inner.sandboxes)?))).collect()
    }

    /// Checks that this host could carry out a request of this kind.
    pub(super) fn check_equipped(&self, this: &str) -> Result<(), HostError> {
        let of_kind = |kernel: &&Arc<dyn Kernel>| kernel.requests().iter().any(|kind| kind.this == this);
        let Some(kernel) = self.inner.installed.kernels.iter().find(of_kind) else {
            return Err(HostError::Missing { part: "kernel for requests of this kind" });
        };
        match kernel.lacks(None, &self.inner.sandboxes) {
            Some(lacks) => Err(HostError::NotEquipped { lacks }),
            None => Ok(()),
        }
    }

    fn driver<'a>(&'a self, trusted: &'a Trusted) -> Driver<'a> {
        let inner = &self.inner;
        Driver {
            ledger: &inner.ledger,
            authorities: &trusted.authorities,
            clock: inner.clock.as_ref(),
            ids: inner.ids.as_ref(),
            rules: inner.rules,
        }
    }
}

#[async_trait]
impl CurrentTrust for Host {
    async fn read(&self) -> Result<Arc<Trusted>, LedgerError> {
        match self.refresh_seldom().await {
            Ok(_) => {}
            Err(error) if error.retry() == Retry::Later => {
                return Err(LedgerError::Unavailable { reason: error.to_string(), source: None });
            }
            Err(error) => tracing::error!(%error, "the manifest cannot be read again; the one in force stays in force"),
        }
        Ok(self.trusted())
    }
}

//! The builder of a host.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::contract::{Cipher, Sandbox};
use crate::host::kernel_set::KernelSet;
use crate::host::{Host, HostError, Inner, Refreshes};
use crate::keys::Signer;
use crate::ledger::WorkQueue;
use crate::span::rules::Rules;
use crate::trust::governance::Environment;
use crate::trust::{Logs, TrustRoot};
use crate::value::clock::{Clock, IdSource, SystemClock, SystemIds};
use crate::value::recent::Recent;

/// Builds a [`Host`]. Ledger, trust root and key are required.
#[derive(Default)]
pub struct HostBuilder {
    ledger: Option<Arc<dyn WorkQueue>>,
    trust: Option<TrustRoot>,
    signer: Option<Arc<dyn Signer>>,
    installed: KernelSet,
    sandboxes: Vec<Arc<dyn Sandbox>>,
    clock: Option<Arc<dyn Clock>>,
    ids: Option<Arc<dyn IdSource>>,
    rules: Rules,
    lease: Option<Duration>,
    publishes_unchecked: bool,
    environment: Environment,
    logs: Option<Arc<dyn Logs>>,
    cipher: Option<Arc<dyn Cipher>>,
}

/// How many verified functions a host keeps in memory.
const MAX_FUNCTIONS: usize = 256;

impl HostBuilder {
    /// Sets the ledger. Required.
    #[must_use]
    pub fn ledger(mut self, ledger: impl WorkQueue) -> Self {
        self.ledger = Some(Arc::new(ledger));
        self
    }

    /// Sets the trust root: the keys that this host trusts before it reads the ledger. Required.
    #[must_use]
    pub fn trust(mut self, root: TrustRoot) -> Self {
        self.trust = Some(root);
        self
    }

    /// Sets this host's own key. Required. Two hosts must not share a key.
    #[must_use]
    pub fn key(mut self, signer: impl Signer + 'static) -> Self {
        self.signer = Some(Arc::new(signer));
        self
    }

    /// Adds kernels, loops and validators, whose code this host then has. The manifest decides which kernels and loops may run.
    #[must_use]
    pub fn install(mut self, set: KernelSet) -> Self {
        self.installed = self.installed.and(set);
        self
    }

    /// Adds a sandbox for tenants' functions.
    #[must_use]
    pub fn sandbox(mut self, sandbox: impl Sandbox + 'static) -> Self {
        self.sandboxes.push(Arc::new(sandbox));
        self
    }

    /// Sets the clock. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets the source of ids. Default: the machine's.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource + 'static) -> Self {
        self.ids = Some(Arc::new(ids));
        self
    }

    /// Sets the limits that spans must keep. Default: [`Rules::default`].
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the shortest lease of [`Host::run_request`]. The function's timeout plus 45 seconds applies if it is longer. When
    /// the lease has ended, another host may make the next attempt. Default 60 seconds.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets where this host works. Where the manifest demands promotion, a host uses what is promoted in its environment. Default:
    /// production.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Sets the transparency logs in which a manifest may end keys. Without them, nothing counts that an ended key has signed.
    #[must_use]
    pub fn logs(mut self, logs: impl Logs + 'static) -> Self {
        self.logs = Some(Arc::new(logs));
        self
    }

    /// Sets what encrypts confidential requests, such as the vault of `logline-memory`. Without it, the host refuses to submit such
    /// requests, and leaves those of others to hosts that have one.
    #[must_use]
    pub fn cipher(mut self, cipher: impl Cipher + 'static) -> Self {
        self.cipher = Some(Arc::new(cipher));
        self
    }

    /// Lets [`Host::publish`] accept functions without asking the kernels that would run them. It is for hosts that publish
    /// functions and have no sandbox for them: whether the code can run, the first request will tell.
    #[must_use]
    pub fn publish_unchecked(mut self) -> Self {
        self.publishes_unchecked = true;
        self
    }

    /// Resolves the manifest and builds the host.
    ///
    /// # Errors
    /// If a required part is missing, or the manifest cannot be resolved.
    pub async fn build(self) -> Result<Host, HostError> {
        let ledger = self.ledger.ok_or(HostError::Missing { part: "ledger" })?;
        let trust = self.trust.ok_or(HostError::Missing { part: "trust root" })?;
        let signer = self.signer.ok_or(HostError::Missing { part: "key" })?;
        let mut trusted = trust.resolve_with(&ledger, self.logs.as_deref()).await?;
        trusted.environment = self.environment;
        Ok(Host {
            inner: Arc::new(Inner {
                ledger,
                trust,
                signer,
                installed: self.installed,
                sandboxes: self.sandboxes,
                clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
                ids: self.ids.unwrap_or_else(|| Arc::new(SystemIds)),
                rules: self.rules,
                lease: self.lease.unwrap_or(Duration::from_secs(60)),
                trusted: RwLock::new(Arc::new(trusted)),
                booted: Mutex::default(),
                functions: Mutex::new(Recent::new(MAX_FUNCTIONS)),
                recorded: Mutex::default(),
                events: Mutex::default(),
                refreshes: Refreshes::default(),
                declared: Mutex::default(),
                publishes_unchecked: self.publishes_unchecked,
                environment: self.environment,
                logs: self.logs,
                cipher: self.cipher,
            }),
        })
    }
}

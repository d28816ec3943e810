//! What a host decides about its edge: limits, rates, and when it ends.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use logline_core::request::FUNCTION_RUN;
use tokio::sync::watch;

use crate::auth::ApiKeys;
use crate::cursor::ServiceKey;

/// Writes all metrics of the process in Prometheus' text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How many calls are let through: `per_second` on average, and `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls per second.
    pub per_second: NonZeroU32,
    /// Calls at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate. Zero counts as one.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

/// The settings of the router. [`Options::new`] has defaults for everything but the key.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Seals cursors. All hosts of one service have the same.
    pub key: ServiceKey,
    /// The most bytes of a body. Default 4 MiB.
    pub max_body: usize,
    /// The most spans in one call. Default 100.
    pub max_batch: usize,
    /// The most rows in one page. Default 500.
    pub max_page: usize,
    /// How long a body may take to arrive. Default 10 seconds.
    pub body_timeout: Duration,
    /// How long a call may take, without its wait. Default 30 seconds.
    pub call_timeout: Duration,
    /// The longest `Prefer: wait`. Default 60 seconds.
    pub max_wait: Duration,
    /// How often a quiet stream says that it is there. Default 15 seconds.
    pub heartbeat: Duration,
    /// How often a stream has its token checked again, if the token does not end earlier. Default 60 seconds.
    pub recheck: Duration,
    /// The most open streams and waits. Default 10,000.
    pub max_streams: usize,
    /// The most open streams and waits of one tenant. Default 1,000.
    pub max_streams_per_tenant: usize,
    /// The calls of one tenant. Default 200 per second, 400 at once.
    pub tenant_rate: Rate,
    /// The calls of one key or token subject. Default 100 per second, 200 at once.
    pub key_rate: Rate,
    /// The tokens of one address that are refused. Then calls from there are refused unseen, except with tokens that were accepted lately.
    /// Default 10 per second, 100 at once.
    pub refused_rate: Rate,
    /// The header in which the proxy before this service names the client's address, such as `x-forwarded-for`; its last entry counts.
    /// Set it only if every call comes through that proxy. Default: none, the address of the connection.
    pub client_header: Option<HeaderName>,
    /// The most rows that a list looks at for one page, whether it returns them or not. Default 20,000.
    pub max_visited: usize,
    /// The kinds of requests that callers may submit. The host signs them, so list no kind that only hosts may ask for. Default:
    /// runs of functions.
    pub kinds: BTreeSet<String>,
    /// Whether calls that write must have an idempotency key. Default false.
    pub require_idempotency_key: bool,
    /// Answers `GET /metrics`, which is mounted only if this is set. It needs no token: expose it to the operator's network alone.
    pub metrics: Option<RenderMetrics>,
    /// Mounts the routes of API keys. Give the keys that the authenticator accepts. `None`: they are issued elsewhere.
    pub keys: Option<ApiKeys>,
    /// Mounts the routes of memories. The host must have the kernel `memory` with the same vault.
    #[cfg(feature = "memory")]
    pub vault: Option<logline_memory::Vault>,
    /// Mounts the routes of prompts. The streams of the host's own `RunPrompt` ([`RunPrompt::streams`](logline_prompts::RunPrompt::streams)).
    #[cfg(feature = "prompts")]
    pub prompts: Option<logline_kernels::provider::Streams>,
    /// Mounts `GET /api/log/checkpoint`, and lets `GET /api/spans/{id}/proof` give proofs. Without it the answer says that there is no log.
    #[cfg(feature = "log")]
    pub logs: Option<LogFolders>,
    /// Ends streams and waits.
    pub drain: Drain,
}

/// Where the transparency logs of this service are, as `logline log run` writes them.
#[cfg(feature = "log")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogFolders {
    /// The folder of tiles and checkpoints.
    pub tiles: std::path::PathBuf,
    /// The folder of the last signed checkpoints.
    pub locks: std::path::PathBuf,
    /// The keys of the logs, as far as they are to be told with proofs. A client that has the key from elsewhere trusts the service less.
    pub keys: Vec<logline_log::note::NoteKey>,
}

#[cfg(feature = "log")]
impl LogFolders {
    /// Logs in these folders.
    pub fn new(tiles: impl Into<std::path::PathBuf>, locks: impl Into<std::path::PathBuf>) -> Self {
        Self { tiles: tiles.into(), locks: locks.into(), keys: Vec::new() }
    }

    /// Adds the key of a log.
    #[must_use]
    pub fn key(mut self, key: logline_log::note::NoteKey) -> Self {
        self.keys.push(key);
        self
    }
}

impl Options {
    /// The defaults, with this key.
    #[must_use]
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            max_body: 4 << 20,
            max_batch: 100,
            max_page: 500,
            body_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            max_wait: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            recheck: Duration::from_secs(60),
            max_streams: 10_000,
            max_streams_per_tenant: 1_000,
            tenant_rate: Rate::new(200, 400),
            key_rate: Rate::new(100, 200),
            refused_rate: Rate::new(10, 100),
            client_header: None,
            max_visited: 20_000,
            kinds: BTreeSet::from([FUNCTION_RUN.to_owned()]),
            require_idempotency_key: false,
            metrics: None,
            keys: None,
            #[cfg(feature = "memory")]
            vault: None,
            #[cfg(feature = "prompts")]
            prompts: None,
            #[cfg(feature = "log")]
            logs: None,
            drain: Drain::new(),
        }
    }

    /// Sets what answers `GET /metrics`.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(render));
        self
    }
}

impl Options {
    /// The tags of the routes that are not mounted.
    pub(crate) fn absent(&self) -> Vec<&'static str> {
        let mut absent = Vec::new();
        if self.keys.is_none() {
            absent.push("keys");
        }
        #[cfg(feature = "memory")]
        if self.vault.is_none() {
            absent.push("memory");
        }
        #[cfg(feature = "prompts")]
        if self.prompts.is_none() {
            absent.push("prompts");
        }
        #[cfg(feature = "log")]
        if self.logs.is_none() {
            absent.push("log");
        }
        absent
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_body", &self.max_body)
            .field("max_streams", &self.max_streams)
            .field("metrics", &self.metrics.is_some())
            .finish_non_exhaustive()
    }
}

/// Tells a router that the service shuts down: streams and waits end, and `/readyz` says so. All clones are one.
#[derive(Debug, Clone)]
pub struct Drain {
    begun: Arc<watch::Sender<bool>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// One that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Arc::new(watch::Sender::new(false)) }
    }

    /// Begins to drain.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Waits until it begins.
    pub async fn wait(&self) {
        // The sender lives as long as this.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }
}

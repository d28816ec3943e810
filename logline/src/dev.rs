//! A host for development, in one call.

use std::fmt;
use std::path::Path;

use logline_core::{Draft, Host, HostError, KeyPair, SystemClock, VerifiedSpan};
use logline_sqlite::SqliteLedger;
use logline_wasm::{SetupError, WasmSandbox};
use thiserror::Error;

use crate::behaviours;
use crate::home::{Home, HomeError, KeyOf, Setup};

/// A host for development, and the key of its publisher. [`dev`] makes it.
///
/// It has every method of [`Host`].
pub struct Dev {
    host: Host,
    publisher: KeyPair,
}

/// Why there is no host for development.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DevError {
    /// The ledger could not be opened.
    #[error(transparent)]
    Ledger(#[from] logline_core::ledger::LedgerError),
    /// Keys, trust root or manifest could not be made or read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
    /// The host could not be built.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Opens or creates a ledger in the SQLite file at `path`, and a host on it that works for every tenant (if the ledger is new). Keys and trust root are
/// made beside the file the first time ([`Home::beside`]), and read the next time.
///
/// It is **for development**: root, publisher and host share a machine, so whoever has the machine can sign anything. It says so
/// on standard error. `logline init` makes what a service in production loads.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("service.ledger");
/// use logline::core::request::Request;
///
/// let host = logline::dev(&path).await?;
/// let fee = host.publish_module("acme", "fee", include_bytes!("../examples/fee.wasm"), Some(serde_json::json!({"rate": 25}))).await?;
/// let payment = serde_json::json!({"payment": "pay_1", "amount_minor": 10_000});
/// let done = host.execute(Request::new("acme", "payments-api", fee.id, payment)).await?;
/// assert_eq!(done.result?, serde_json::json!({"fee_minor": 25}));
/// # Ok::<(), logline::Failed>(())
/// # }).map_err(|e| e.to_string())?;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// # Errors
/// [`HomeError::NoTrustRoot`] if the file is somebody else's ledger. If a file cannot be read or written.
pub async fn dev(path: impl AsRef<Path>) -> Result<Dev, DevError> {
    let path = path.as_ref();
    // As the command line writes it.
    let path = path.to_str().and_then(|path| path.strip_prefix("sqlite:")).map_or(path, Path::new);
    let ledger = SqliteLedger::open(path)?;
    let home = Home::beside(path);
    let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &behaviours(), &SystemClock).await?;
    warn(path);
    let key = |of| home.key(of).map_err(HomeError::from);
    let host = Host::builder()
        .ledger(ledger)
        .trust(ready.trust)
        .key(key(KeyOf::Host)?)
        .install(behaviours())
        .sandbox(WasmSandbox::new()?)
        .build()
        .await?;
    Ok(Dev { host, publisher: key(KeyOf::Publisher)? })
}

#[allow(clippy::print_stderr, reason = "whoever starts it must see this, with or without a subscriber for logs")]
fn warn(path: &Path) {
    eprintln!(
        "logline::dev: {} is for development: whoever has this machine has its root, publisher and host keys",
        path.display()
    );
}

impl fmt::Debug for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dev").field("host", &self.host.key()).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Dev {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Dev {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The key of the publisher, for [`Host::publish`].
    #[must_use]
    pub fn publisher(&self) -> &KeyPair {
        &self.publisher
    }

    /// Publishes the WebAssembly module `binary` as the function `name` of `tenant`, which every user of the tenant may ask for.
    /// `config` is what each call gets beside its input. Its id is [`logline_wasm::function_id`]. If the last version is the same,
    /// nothing is written.
    ///
    /// # Errors
    /// If the sandbox could not run it, or the ledger fails.
    pub async fn publish_module(
        &self,
        tenant: &str,
        name: &str,
        binary: &[u8],
        config: Option<serde_json::Value>,
    ) -> Result<VerifiedSpan, HostError> {
        let function: Draft = logline_wasm::function(tenant, name);
        let function = match config {
            Some(config) => function.input(config),
            None => function,
        };
        logline_kernels::publish_module(&self.host, function, binary, &self.publisher).await
    }
}

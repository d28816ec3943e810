//! The contract between a kernel and the sandbox in which it runs code from the ledger.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::trust::{Limits, Share};
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// Runs untrusted code.
///
/// # Contract
/// - No ambient authority: the code can reach `host` and nothing else. A run leaves nothing behind.
/// - Whatever the code does, `run` returns a [`Report`] within the limits. It never panics and never hangs.
/// - Dropping the future stops the code.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The `runtime` column of the functions that this sandbox runs. It includes the version of the interface: `wasm@1`.
    fn runtime(&self) -> &'static str;

    /// What is missing around the sandbox, so that it cannot run anything here, such as an async runtime. `None` if nothing is.
    fn lacks(&self) -> Option<String> {
        None
    }

    /// Checks `code` before it is published for `tenant`: whether it could be run within `limits`. The default accepts everything.
    ///
    /// # Errors
    /// What is wrong with it, and what to change.
    async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        let _ = (tenant, code, limits);
        Ok(())
    }

    /// Runs `job` once.
    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report;
}

/// One run of code.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The tenant for which it runs. All runs of a tenant share what `share` allows.
    pub tenant: &'a str,
    /// What all runs of the tenant may use at the same time.
    pub share: Share,
    /// The code, in the form of a function's `code` column.
    pub code: &'a str,
    /// The hash of the verified span that holds `code`; `None` if no span holds it. With it a sandbox finds the compiled module
    /// without hashing `code`.
    pub version: Option<Hash>,
    /// The argument with which the code is called.
    pub call: &'a Value,
    /// What this run may use.
    pub limits: &'a Limits,
}

impl<'a> Job<'a> {
    /// A run of `code` for `tenant`, with the default [`Share`] and without `version`.
    #[must_use]
    pub fn new(tenant: &'a str, code: &'a str, call: &'a Value, limits: &'a Limits) -> Self {
        Self { tenant, share: Share::default(), code, version: None, call, limits }
    }

    /// Sets what all runs of the tenant may use at the same time.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Sets the hash of the span that holds the code. The caller must have verified that span.
    #[must_use]
    pub fn version(mut self, hash: Hash) -> Self {
        self.version = Some(hash);
        self
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The code's output, or the failure.
    pub result: Result<Value, Failure>,
    /// What was run and what it used.
    pub receipt: RunReceipt,
}

/// The version of the receipts that this library writes.
pub const RECEIPT_VERSION: u32 = 1;

/// What was run, by which engine, within which limits, and what it used. It is stored in the execution's metadata, so that the
/// run can be repeated (`docs/execution.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunReceipt {
    /// The version of the receipt: [`RECEIPT_VERSION`].
    pub v: u32,
    /// BLAKE3 of the text that ran: the `code` column, or the content of the blob that it names.
    pub code_hash: Hash,
    /// The interface of the code, as in a `runtime` column.
    pub abi: String,
    /// The engine and its version, for people.
    pub engine: String,
    /// A hash over the engine, its version and every setting on which output and fuel depend. If it is the same, output and
    /// fuel are the same.
    pub engine_hash: Hash,
    /// The limits of the run.
    pub limits: Limits,
    /// Deterministic units of work that the code did.
    pub fuel_used: u64,
    /// The most memory that the code held at one time, bytes.
    pub peak_memory_bytes: u64,
    /// How many calls the code made to the host.
    pub host_calls: u32,
}

impl RunReceipt {
    /// The receipt of a run that has not used anything yet.
    #[must_use]
    pub fn new(code_hash: Hash, abi: &str, engine: &str, engine_hash: Hash, limits: &Limits) -> Self {
        Self {
            v: RECEIPT_VERSION,
            code_hash,
            abi: abi.to_owned(),
            engine: engine.to_owned(),
            engine_hash,
            limits: limits.clone(),
            fuel_used: 0,
            peak_memory_bytes: 0,
            host_calls: 0,
        }
    }
}

/// The calls that the code may make to its host. A refusal is returned to the code; it does not stop the code.
#[async_trait]
pub trait HostCalls: Send {
    /// Records a line of the code's log.
    fn log(&mut self, entry: Value) -> Result<(), Failure>;

    /// When the attempt started. The same at every call.
    fn now(&mut self) -> Timestamp;

    /// Random bytes. The seed is recorded, so that the run can be repeated.
    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure>;

    /// Reads spans with the rights of the request's owner.
    async fn query(&mut self, query: Value) -> Result<Value, Failure>;

    /// Adds a draft that is committed together with the execution, or not at all. Returns its id.
    fn emit(&mut self, draft: Value) -> Result<Value, Failure>;

    /// Asks a provider, and waits for the answer, within [`Limits::call_timeout_ms`]. The default refuses.
    async fn call(&mut self, call: Value) -> Result<Value, Failure> {
        let _ = call;
        Err(Failure::new("not_permitted", "operation 6 (call) is not permitted: this host has no providers"))
    }
}

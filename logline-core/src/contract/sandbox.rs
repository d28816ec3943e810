//! The contract between a kernel that runs code from the ledger and whatever runs it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::trust::{Limits, Share};
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// Runs code that nobody trusts.
///
/// # Contract
/// - No ambient authority: what the code can reach is `host` and nothing else. Nothing is left behind by a run.
/// - Whatever the code does, `run` returns within the limits with a [`Report`]; it never panics and never hangs.
/// - Dropping the future stops the code.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The value of a function's `runtime` column that this sandbox runs, interface version included: `wasm@1`.
    fn runtime(&self) -> &'static str;

    /// Runs `job` once.
    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report;
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The tenant on whose behalf it runs: its runs share what [`Share`] allows.
    pub tenant: &'a str,
    /// What all runs of the tenant may use at once.
    pub share: Share,
    /// The function's `code` column.
    pub code: &'a str,
    /// The hash of the verified span that holds `code`, if there is one: what was compiled for it is found without hashing `code`.
    pub version: Option<Hash>,
    /// What the code is called with.
    pub call: &'a Value,
    /// What it may use.
    pub limits: &'a Limits,
}

impl<'a> Job<'a> {
    /// A run of `code` for `tenant`, with its usual share.
    #[must_use]
    pub fn new(tenant: &'a str, code: &'a str, call: &'a Value, limits: &'a Limits) -> Self {
        Self { tenant, share: Share::default(), code, version: None, call, limits }
    }

    /// Another share than usual.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Says which span holds the code. Whoever says so has verified it.
    #[must_use]
    pub fn version(mut self, hash: Hash) -> Self {
        self.version = Some(hash);
        self
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The code's output, or why there is none.
    pub result: Result<Value, Failure>,
    /// What was run and what it used.
    pub receipt: RunReceipt,
}

/// The form of receipts that this library writes.
pub const RECEIPT_VERSION: u32 = 1;

/// What was run, by what, within which limits, and what it used: stands in the execution's metadata, so that the run can be
/// repeated (`docs/execution.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunReceipt {
    /// The form of the receipt: [`RECEIPT_VERSION`].
    pub v: u32,
    /// BLAKE3 of the text that ran: the `code` column's, or what the blob that it names holds.
    pub code_hash: Hash,
    /// The interface that the code was run by, as in a `runtime` column.
    pub abi: String,
    /// The engine and its version, for people.
    pub engine: String,
    /// Determines engine, version and every setting on which output and fuel depend: where it is the same, both are.
    pub engine_hash: Hash,
    /// What the run was allowed.
    pub limits: Limits,
    /// Deterministic units of work done.
    pub fuel_used: u64,
    /// The most memory the code held, bytes.
    pub peak_memory_bytes: u64,
    /// Calls to the host.
    pub host_calls: u32,
}

impl RunReceipt {
    /// The receipt of a run that has used nothing yet.
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

/// What the code may ask of its host. A refusal is an answer to the code, never the end of it.
#[async_trait]
pub trait HostCalls: Send {
    /// Records a line of the code's log.
    fn log(&mut self, entry: Value) -> Result<(), Failure>;

    /// The attempt's start: the same at every call.
    fn now(&mut self) -> Timestamp;

    /// Random bytes of a stream whose seed is recorded, so that the run can be repeated.
    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure>;

    /// Reads spans with the rights of the request's owner.
    async fn query(&mut self, query: Value) -> Result<Value, Failure>;

    /// Hands in a draft that is committed together with the execution, or not at all. Returns its id.
    fn emit(&mut self, draft: Value) -> Result<Value, Failure>;
}

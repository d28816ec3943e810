//! The contract between a kernel that runs code from the ledger and whatever runs it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::hex::Hash;
use crate::timestamp::Timestamp;

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

/// What the runs of one tenant may use of one host at the same time. A run that finds no room waits, within its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Runs. Default 32.
    pub calls: u32,
    /// Memory that they are allowed together, bytes: a run counts with all it may use. Default 2 GiB.
    pub memory_bytes: u64,
}

impl Default for Share {
    fn default() -> Self {
        Self { calls: 32, memory_bytes: 2 << 30 }
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The code's output, or why there is none.
    pub result: Result<Value, Failure>,
    /// What was run and what it used.
    pub receipt: Receipt,
}

/// The form of receipts that this library writes.
pub const RECEIPT_VERSION: u32 = 1;

/// What was run, by what, within which limits, and what it used: stands in the execution's metadata, so that the run can be
/// repeated (`docs/execution.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Receipt {
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

impl Receipt {
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

/// A run that failed, in terms of stable codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// For machines: `fuel_exhausted`, `timeout`, `trap`, …; a guest's own error keeps its code behind `guest:`.
    pub code: String,
    /// For people: what happened and what to do.
    pub message: String,
}

/// The longest message of a failure that is stored, bytes.
const MAX_MESSAGE: usize = 4096;

impl Failure {
    /// A failure; overlong texts are cut, so that the row that records it always fits.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let cut = |text: String, max: usize| {
            if text.len() <= max {
                text
            } else {
                text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned() + "…"
            }
        };
        // U+0000 cannot be stored and may come from a guest.
        Self {
            code: cut(code.into().replace('\0', "\u{fffd}"), 128),
            message: cut(message.into().replace('\0', "\u{fffd}"), MAX_MESSAGE),
        }
    }

    /// Whether another attempt would come to the same: the function itself said no, or the request can never be carried out.
    #[must_use]
    pub fn is_final(&self) -> bool {
        const FINAL: &[&str] = &[
            "input_limit",
            "invalid_limits",
            "invalid_output",
            "not_a_function",
            "function_not_verified",
            "request_malformed",
        ];
        self.code.starts_with("guest:") || FINAL.contains(&self.code.as_str())
    }

    /// The value of an `error` column.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"code": self.code, "message": self.message})
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

/// The most drafts that any run may emit.
pub const MAX_EMITTED: u32 = 1000;

/// What one run may use. The defaults leave room for the row that records it in a span of 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Deterministic units of work; about one per WebAssembly instruction. Default 100 million.
    pub fuel: u64,
    /// Wall-clock time around the run, compiling excepted, milliseconds; the manifest's `policy.timeout_ms` where that is less. Default 5,000.
    pub timeout_ms: u64,
    /// Linear memory, bytes. Default and ceiling 64 MiB.
    pub memory_bytes: u64,
    /// Canonical bytes of the request's input. Default 128 KiB.
    pub input_bytes: usize,
    /// Bytes of the output. Default 128 KiB.
    pub output_bytes: usize,
    /// Calls to the host. Default 1,000.
    pub host_calls: u32,
    /// Bytes in each direction of one call to the host. Default 1 MiB.
    pub host_call_bytes: usize,
    /// Emitted drafts. Default 64.
    pub emitted: u32,
    /// Bytes of all log entries together; what comes later is counted and dropped. Default 16 KiB.
    pub log_bytes: usize,
    /// Bytes of the journal, which names every row that was read; further queries are refused. Default 128 KiB.
    pub journal_bytes: usize,
    /// Bytes of the decoded module. Default 1 MiB; the ceiling is 16 MiB, for hosts that compile in processes of their own.
    pub module_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 100_000_000,
            timeout_ms: 5_000,
            memory_bytes: 64 << 20,
            input_bytes: 128 << 10,
            output_bytes: 128 << 10,
            host_calls: 1000,
            host_call_bytes: 1 << 20,
            emitted: 64,
            log_bytes: 16 << 10,
            journal_bytes: 128 << 10,
            module_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// What may be set: above these, the closing row might not fit or the sandbox could not keep its promise.
    const CEILINGS: Self = Self {
        fuel: 100_000_000_000,
        timeout_ms: 3_600_000,
        memory_bytes: 64 << 20,
        input_bytes: 256 << 10,
        output_bytes: 256 << 10,
        host_calls: 100_000,
        host_call_bytes: 4 << 20,
        emitted: MAX_EMITTED,
        log_bytes: 64 << 10,
        journal_bytes: 256 << 10,
        module_bytes: 16 << 20,
    };

    /// Each limit by name.
    fn figures(&self) -> [(&'static str, u64); 11] {
        [
            ("fuel", self.fuel),
            ("timeout_ms", self.timeout_ms),
            ("memory_bytes", self.memory_bytes),
            ("input_bytes", self.input_bytes as u64),
            ("output_bytes", self.output_bytes as u64),
            ("host_calls", self.host_calls.into()),
            ("host_call_bytes", self.host_call_bytes as u64),
            ("emitted", self.emitted.into()),
            ("log_bytes", self.log_bytes as u64),
            ("journal_bytes", self.journal_bytes as u64),
            ("module_bytes", self.module_bytes as u64),
        ]
    }

    /// Whether every limit is within what may be set.
    ///
    /// # Errors
    /// The first limit that is too high, as a text.
    pub fn check(&self) -> Result<(), String> {
        let mut limits = self.figures().into_iter().zip(Self::CEILINGS.figures());
        match limits.find(|((_, value), (_, ceiling))| value > ceiling) {
            Some(((name, value), (_, ceiling))) => Err(format!("limits.{name} is {value}, the most is {ceiling}")),
            None => Ok(()),
        }
    }

    /// These limits with those members that `some` names, an object of limits, set to its values.
    ///
    /// # Errors
    /// A member that is no limit, or a value that is none, as a text.
    pub fn with(&self, some: &Value) -> Result<Self, String> {
        let Value::Object(named) = some else { return Err("limits must be an object".to_owned()) };
        // A struct of numbers always serialises to an object.
        let mut all = serde_json::to_value(self).map_err(|e| e.to_string())?;
        if let Some(members) = all.as_object_mut() {
            members.extend(named.clone());
        }
        serde_json::from_value(all).map_err(|e| format!("limits: {e}"))
    }

    /// The lower of each limit of the two.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        Self {
            fuel: self.fuel.min(other.fuel),
            timeout_ms: self.timeout_ms.min(other.timeout_ms),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            input_bytes: self.input_bytes.min(other.input_bytes),
            output_bytes: self.output_bytes.min(other.output_bytes),
            host_calls: self.host_calls.min(other.host_calls),
            host_call_bytes: self.host_call_bytes.min(other.host_call_bytes),
            emitted: self.emitted.min(other.emitted),
            log_bytes: self.log_bytes.min(other.log_bytes),
            journal_bytes: self.journal_bytes.min(other.journal_bytes),
            module_bytes: self.module_bytes.min(other.module_bytes),
        }
    }
}

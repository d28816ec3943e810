//! What the manifest lets executions use: one run, and all runs of a tenant together.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

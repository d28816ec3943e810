//! What the manifest allows executions to use: one run, and all runs of one tenant together.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::MAX_UNITS;

/// What the runs of one tenant may use of one host at the same time. A run that would exceed it waits, at most for its time
/// limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Runs at the same time. Default 32.
    pub calls: u32,
    /// Memory of these runs together, bytes. Each run counts with its full memory limit. Default 2 GiB.
    pub memory_bytes: u64,
}

impl Default for Share {
    fn default() -> Self {
        Self { calls: 32, memory_bytes: 2 << 30 }
    }
}

/// What a tenant's calls to providers of models may cost in a UTC day. A call reserves the most that it may cost before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Tokens of input and output together. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Money. `None`: no limit. With a limit, models without prices in this currency cannot be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money_per_day: Option<Money>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Thousand-millionths of the currency's unit: 1,000,000,000 nanos of USD are one dollar.
    pub nanos: u64,
    /// The currency's code of three capital letters (ISO 4217).
    pub currency: String,
}

impl Budget {
    /// Checks that the numbers can be counted and that the currency has a code.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let figures =
            [("tokens_per_day", self.tokens_per_day), ("money_per_day", self.money_per_day.as_ref().map(|m| m.nanos))];
        for (name, figure) in figures {
            if figure.is_some_and(|figure| figure > MAX_UNITS) {
                return Err(format!("{name} is over {MAX_UNITS}"));
            }
        }
        match &self.money_per_day {
            Some(money) => Money::check_currency(&money.currency),
            None => Ok(()),
        }
    }
}

impl Money {
    /// Checks that `currency` is written as a code: three capital letters.
    ///
    /// # Errors
    /// A text that says so.
    pub fn check_currency(currency: &str) -> Result<(), String> {
        if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            Ok(())
        } else {
            Err(format!("the currency `{currency}` is not a code of three capital letters, such as USD"))
        }
    }
}

/// The highest value of [`Limits::emitted`] that may be set.
pub const MAX_EMITTED: u32 = 1000;

/// What one run may use. With the defaults, the row that records the run fits in a span of 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Deterministic units of work; about one per WebAssembly instruction. Default 100 million.
    pub fuel: u64,
    /// Wall-clock time of the run without compiling, milliseconds. The manifest's `policy.timeout_ms` (its `slow_ms` if that is
    /// absent) applies instead if it is lower. Default 5,000.
    pub timeout_ms: u64,
    /// Time that all calls to providers take together, milliseconds. It does not count in `timeout_ms`. Default 300,000.
    pub call_timeout_ms: u64,
    /// Linear memory, bytes. Default and maximum 64 MiB.
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
    /// Bytes of all log entries together. Later entries are counted and dropped. Default 16 KiB.
    pub log_bytes: usize,
    /// Bytes of the journal, which names every row that was read. When it is full, further queries are refused. Default 128
    /// KiB.
    pub journal_bytes: usize,
    /// Bytes of the decoded module. Default 1 MiB. The maximum is 16 MiB, for hosts that compile in separate processes.
    pub module_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 100_000_000,
            timeout_ms: 5_000,
            call_timeout_ms: 300_000,
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
    /// The highest values that may be set. With higher ones the closing row might not fit in a span, or the sandbox could not
    /// enforce the limits.
    const CEILINGS: Self = Self {
        fuel: 100_000_000_000,
        timeout_ms: 3_600_000,
        call_timeout_ms: 3_600_000,
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

    /// Each limit with its name.
    fn figures(&self) -> [(&'static str, u64); 12] {
        [
            ("fuel", self.fuel),
            ("timeout_ms", self.timeout_ms),
            ("call_timeout_ms", self.call_timeout_ms),
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

    /// Checks that no limit is above the highest value that may be set.
    ///
    /// # Errors
    /// A text that names the first limit that is too high.
    pub fn check(&self) -> Result<(), String> {
        self.check_within(&Self::CEILINGS)
    }

    /// Checks that no limit is above that of `most`.
    ///
    /// # Errors
    /// A text that names the first limit that is too high.
    pub fn check_within(&self, most: &Self) -> Result<(), String> {
        let mut limits = self.figures().into_iter().zip(most.figures());
        match limits.find(|((_, value), (_, ceiling))| value > ceiling) {
            Some(((name, value), (_, ceiling))) => Err(format!("limits.{name} is {value}, the most is {ceiling}")),
            None => Ok(()),
        }
    }

    /// These limits, with the members of the JSON object `some` in place of those with the same name.
    ///
    /// # Errors
    /// A text, if a member is not the name of a limit or its value is not a valid limit.
    pub fn with(&self, some: &Value) -> Result<Self, String> {
        let Value::Object(named) = some else { return Err("limits must be an object".to_owned()) };
        // A struct of numbers always serialises to an object.
        let mut all = serde_json::to_value(self).map_err(|e| e.to_string())?;
        if let Some(members) = all.as_object_mut() {
            members.extend(named.clone());
        }
        serde_json::from_value(all).map_err(|e| format!("limits: {e}"))
    }

    /// Takes the lower of the two values for each limit.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        Self {
            fuel: self.fuel.min(other.fuel),
            timeout_ms: self.timeout_ms.min(other.timeout_ms),
            call_timeout_ms: self.call_timeout_ms.min(other.call_timeout_ms),
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

//! Repeating what was recorded: an execution is run again from the ledger, and its record made again, column for column.

mod compare;
mod evidence;
mod playback;

use std::fmt;
use std::sync::Arc;

use logline_core::contract::Reader;
use logline_core::contract::{Job, Report, RunReceipt, Sandbox};
use logline_core::ledger::{Ledger, LedgerError};
use logline_core::request::record;
use logline_core::trust::Share;
use logline_core::{Hash, Rules, Scope, SpanKey, VerifyError, canonical};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::run_code::{Blobs, Code, Facts, Guest, Outcome, call};
use compare::differences;
use evidence::{Evidence, Rows};
use playback::Playback;

/// The least time that a repetition may take: the recorded limit was about another machine, or a busier hour.
const MIN_TIMEOUT_MS: u64 = 60_000;

/// Failures that say something about the machine and the hour, not about the function.
const CIRCUMSTANCES: &[&str] =
    &["timeout", "busy", "compile_timeout", "compile_limit", "compiler_failed", "closed", "internal", "stack_overflow"];

/// Failures that say which modules a host accepts: one that compiles in processes of its own accepts more.
const REFUSALS: &[&str] = &["invalid_module", "module_limit"];

/// An execution that was run again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Replay {
    /// The recorded execution.
    pub execution: SpanKey,
    /// Its receipt.
    pub recorded: RunReceipt,
    /// What the repetition came to.
    pub repeated: Report,
    /// Where the two differ: nowhere, if the record holds.
    pub differences: Vec<Difference>,
}

impl Replay {
    /// Whether the execution came to the same again: every column of its record that the function determines, what it emitted, and on
    /// the same engine its fuel.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }

    /// Whether it was repeated by the engine that it was recorded with. By another, fuel may differ.
    #[must_use]
    pub fn is_same_engine(&self) -> bool {
        self.recorded.engine_hash == self.repeated.receipt.engine_hash
    }
}

/// One thing that a repetition did not come to again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// What: a column of the record, with its members (`output`, `metadata.receipt.fuel_used`), or `emitted`.
    pub what: String,
    /// As recorded; null for nothing.
    pub recorded: Value,
    /// As repeated; null for nothing.
    pub repeated: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| {
            let text = canonical::to_string(value);
            match text.len() > 200 {
                true => format!(
                    "{}… (BLAKE3 {})",
                    text.get(..text.floor_char_boundary(200)).unwrap_or_default(),
                    Hash::of(text.as_bytes())
                ),
                false => text,
            }
        };
        write!(f, "{}: recorded {}, repeated {}", self.what, shown(&self.recorded), shown(&self.repeated))
    }
}

/// Why an execution was not repeated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It has no result that could be repeated. This says nothing about whether it holds.
    #[error("execution {key} cannot be repeated: {reason}")]
    NotRepeatable {
        /// The execution.
        key: SpanKey,
        /// Why.
        reason: String,
    },
    /// Its record is false, whatever the function does: it contradicts itself, or what it names.
    #[error("execution {key} does not hold: {reason}")]
    DoesNotHold {
        /// The execution.
        key: SpanKey,
        /// Why.
        reason: String,
    },
    /// A row that it needs is not there, or not visible in this scope.
    #[error("row {key}, on which the execution depends, is not there or not visible here: read with a wider scope")]
    Missing {
        /// The row.
        key: SpanKey,
    },
    /// A row that it needs is another than it was.
    #[error("row {key} has hash {found}, the execution depends on {recorded}: run fsck")]
    Changed {
        /// The row.
        key: SpanKey,
        /// Its hash now.
        found: Hash,
        /// Its hash as recorded.
        recorded: Hash,
    },
    /// A row that it needs, or the execution itself, does not verify.
    #[error("row {key} is not what was signed: {source}; run fsck")]
    NotVerified {
        /// The row.
        key: SpanKey,
        /// Why.
        source: VerifyError,
    },
}

/// Runs an execution of `run_code` again, from the function, the request and the journal in the ledger, makes its record again, and
/// compares. Nothing is written. `scope` must see the execution and every row that it read; a tenant's runtime does, unless it read
/// other tenants'. The sandboxes should be this call's own, so that it takes no place from requests.
///
/// What is taken at the record's word: which version of the function was the last, which rows a query did not find, the seed, the limits
/// of the manifest, times. Whether the signers of execution, request and function were entitled is not asked here; `fsck` does.
///
/// # Errors
/// [`ReplayError::DoesNotHold`] where that needs no repetition; why it could not be repeated.
pub async fn replay(
    ledger: &dyn Ledger,
    scope: &Scope,
    (tenant, execution): (&str, Uuid),
    sandboxes: &[Arc<dyn Sandbox>],
    rules: Rules,
) -> Result<Replay, ReplayError> {
    let mut rows = Rows::new(ledger, scope);
    let evidence = Evidence::of(&mut rows, tenant, execution).await?;
    let Evidence { span, receipt: recorded, journal, request, function, frame, .. } = &evidence;
    let refuse = |reason: String| ReplayError::NotRepeatable { key: span.key(), reason };
    let ended = evidence.ended();
    if let Some(ended) = ended.filter(|ended| CIRCUMSTANCES.contains(ended)) {
        return Err(refuse(format!("it ended with `{ended}`, which depends on the machine and the hour")));
    }
    let sandbox = sandboxes.iter().find(|sandbox| sandbox.runtime() == recorded.abi);
    let sandbox = sandbox.ok_or_else(|| refuse(format!("there is no sandbox here for `{}`", recorded.abi)))?;

    let mut limits = recorded.limits.clone();
    limits.timeout_ms = limits.timeout_ms.max(MIN_TIMEOUT_MS);
    let facts =
        Facts { request, function: function.id, execution: span.id, started: journal.now, limits: &recorded.limits, rules };
    let reader = Reader::new(ledger, scope.clone());
    let code = match Blobs::default().code(function, &reader, limits.module_bytes).await? {
        Code::Text(code) => code,
        Code::Refused(failure) => return Err(refuse(failure.to_string())),
    };
    let call = call(function, request, frame.attempt);
    let job = Job::new(&span.tenant_id, &code, &call, &limits).share(Share::default());
    let mut guest = Guest::new(facts, Playback::new(rows, &evidence));
    let Report { result, mut receipt } = sandbox.run(job, &mut guest).await;
    let Guest { source: Playback { mut rows, journal, problem, refusals, .. }, drafts, logs, logs_dropped, .. } = guest;
    if let Some(problem) = problem {
        return Err(problem);
    }
    let is_same_engine = recorded.engine_hash == receipt.engine_hash;
    if let Err(failure) = &result {
        let code = failure.code.as_str();
        if CIRCUMSTANCES.contains(&code) {
            return Err(refuse(format!("its repetition ended with `{failure}`: try again, or on another machine")));
        }
        if REFUSALS.contains(&code) && !is_same_engine && ended != Some(code) {
            return Err(refuse(format!("the engine here does not run the module: {failure}")));
        }
    }
    receipt.limits = recorded.limits.clone();
    let repeated = Report { result, receipt };
    let outcome = Outcome {
        result: repeated.result.clone(),
        receipt: Some(evidence.expected(&repeated.receipt)),
        function: Some(function.clone()),
        emitted: drafts,
        logs,
        logs_dropped,
        journal: Some(journal),
    };
    let (mut details, mut result) = (outcome.details(request), outcome.result);
    let again = record(request, frame, &mut details, &mut result, &rules);
    let mut differences = differences(span, &again, is_same_engine);
    differences.extend(refusals);
    // What a failed function emitted never happened.
    let emitted = if result.is_ok() { outcome.emitted } else { Vec::new() };
    differences.extend(rows.compare_emitted(span, &emitted, &rules).await?);
    let repeated = Report { result, ..repeated };
    Ok(Replay { execution: span.key(), recorded: recorded.clone(), repeated, differences })
}

//! Replay: an execution is run again from the ledger, its record is made again, and both records are compared column by column.

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
use logline_core::trust::governance::promotion_of;
use logline_core::{Hash, Rules, Scope, SpanKey, VerifyError, canonical};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::run_code::{Blobs, Code, Facts, Guest, Outcome, call};
use compare::differences;
use evidence::{Evidence, Rows};
use playback::Playback;

/// A repetition may take at least this long, because the machine or its load may differ from those of the recorded run.
const MIN_TIMEOUT_MS: u64 = 60_000;

/// Failures that depend on the machine and its load, and not on the function.
const CIRCUMSTANCES: &[&str] =
    &["timeout", "busy", "compile_timeout", "compile_limit", "compiler_failed", "closed", "internal", "stack_overflow"];

/// Failures that depend on which modules a host accepts. A host that compiles in separate processes accepts more.
const REFUSALS: &[&str] = &["invalid_module", "module_limit"];

/// An execution that was run again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Replay {
    /// The recorded execution.
    pub execution: SpanKey,
    /// The receipt in the record.
    pub recorded: RunReceipt,
    /// The result and the receipt of the repetition.
    pub repeated: Report,
    /// Where the record and the repetition differ. Empty if the record holds.
    pub differences: Vec<Difference>,
}

impl Replay {
    /// Whether the repetition had the same outcome: every column of the record that the function determines, the emitted spans,
    /// and, on the same engine, the fuel.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }

    /// Whether the repetition used the same engine as the record. With another engine the fuel may differ.
    #[must_use]
    pub fn is_same_engine(&self) -> bool {
        self.recorded.engine_hash == self.repeated.receipt.engine_hash
    }
}

/// One difference between a record and its repetition.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs: the path of a column or member of the record (`output`, `metadata.receipt.fuel_used`), or `emitted`.
    pub what: String,
    /// The recorded value. Null if there is none.
    pub recorded: Value,
    /// The value of the repetition. Null if there is none.
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

/// Why an execution was not repeated, or why its record is false without a repetition.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The execution cannot be repeated. This does not say whether its record holds.
    #[error("execution {key} cannot be repeated: {reason}")]
    NotRepeatable {
        /// The execution.
        key: SpanKey,
        /// Why it cannot be repeated.
        reason: String,
    },
    /// The record is false, whatever the function does: it contradicts itself, or the rows that it names.
    #[error("execution {key} does not hold: {reason}")]
    DoesNotHold {
        /// The execution.
        key: SpanKey,
        /// The contradiction.
        reason: String,
    },
    /// A row that the repetition needs does not exist, or is not visible in this scope.
    #[error("row {key}, on which the execution depends, does not exist or is not visible here: read with a wider scope")]
    Missing {
        /// The row that was not found.
        key: SpanKey,
    },
    /// A row that the repetition needs does not have the recorded hash.
    #[error("row {key} has hash {found}, but the execution depends on {recorded}: run fsck")]
    Changed {
        /// The row that differs.
        key: SpanKey,
        /// The hash of the row in the ledger.
        found: Hash,
        /// The hash that the execution names.
        recorded: Hash,
    },
    /// A row that the repetition needs, or the execution itself, does not verify.
    #[error("row {key} is not what was signed: {source}; run fsck")]
    NotVerified {
        /// The row that does not verify.
        key: SpanKey,
        /// Why it does not verify.
        source: VerifyError,
    },
}

/// Runs an execution of `run_code` again from the function, the request and the journal in the ledger. It then makes the record
/// again and compares the two. Nothing is written.
///
/// `scope` must see the execution and every row that the execution read. The scope of the tenant's runtime is enough, unless
/// the execution read rows of other tenants. Use separate sandboxes for this call, so that it does not take permits from
/// requests.
///
/// Some parts of the record cannot be checked and are believed: which version of the function was the last, which rows a query
/// did not find, the seed, the limits of the manifest, and times. This function does not check whether the signers of the
/// execution, the request and the function had the right to sign. `fsck` does.
///
/// # Errors
/// [`ReplayError::DoesNotHold`] if the record is false without a repetition, or the reason why it could not be repeated.
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
        return Err(refuse(format!("it ended with `{ended}`, which depends on the machine and its load")));
    }
    let sandbox = sandboxes.iter().find(|sandbox| sandbox.runtime() == recorded.abi);
    let sandbox = sandbox.ok_or_else(|| refuse(format!("no sandbox here runs `{}`", recorded.abi)))?;

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
        // What a promotion allows is no part of what a function does: it is taken from the record.
        promotion: promotion_of(span),
        emitted: drafts,
        logs,
        logs_dropped,
        journal: Some(journal),
    };
    let (mut details, mut result) = (outcome.details(request), outcome.result);
    let again = record(request, frame, &mut details, &mut result, &rules);
    let mut differences = differences(span, &again, is_same_engine);
    differences.extend(refusals);
    // What a failed function emitted was never written.
    let emitted = if result.is_ok() { outcome.emitted } else { Vec::new() };
    differences.extend(rows.compare_emitted(span, &emitted, &rules).await?);
    let repeated = Report { result, ..repeated };
    Ok(Replay { execution: span.key(), recorded: recorded.clone(), repeated, differences })
}

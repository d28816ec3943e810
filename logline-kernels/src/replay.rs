//! Repeating what was recorded: an execution is run again from the ledger, and must come to the same.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use logline_core::kernel::Reader;
use logline_core::ledger::{Cursor, Ledger, LedgerError, Query};
use logline_core::sandbox::{Failure, Job, RECEIPT_VERSION, Receipt, Report, Sandbox, Share};
use logline_core::{
    Draft, Hash, PublicKey, Rules, Scope, SignedSpan, Span, SpanKey, VerifiedSpan, Verifier, VerifyError, canonical, ids,
    json as strict,
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::blob::Blobs;
use crate::guest::{Facts, Guest};
use crate::journal::{Journal, Source, full, page};
use crate::run_code::call;

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
    pub recorded: Receipt,
    /// What the repetition came to.
    pub repeated: Report,
    /// Where the two differ: nowhere, if the record holds.
    pub differences: Vec<Difference>,
}

impl Replay {
    /// Whether the execution came to the same again: output or error, what it emitted and logged, and on the same engine its fuel.
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
    /// What: `output`, `error`, `fuel_used`, `emitted`, `logs` or `host_calls`.
    pub what: &'static str,
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

/// Why an execution could not be repeated. This says nothing about whether it holds.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It has no result that could be repeated.
    #[error("execution {key} cannot be repeated: {reason}")]
    NotRepeatable {
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

/// Runs an execution of `run_code` again, from the function, the request and the journal in the ledger, and compares. Nothing is
/// written. `scope` must see the execution and every row that it read; a tenant's runtime does, unless it read other tenants'.
///
/// Whether the execution's signer was entitled to record it is not asked here; `fsck` does.
///
/// # Errors
/// Why it could not be repeated.
pub async fn replay(
    ledger: &dyn Ledger,
    scope: &Scope,
    (tenant, execution): (&str, Uuid),
    sandboxes: &[Arc<dyn Sandbox>],
    rules: Rules,
) -> Result<Replay, ReplayError> {
    let mut rows = Rows { ledger, scope, verifier: Verifier::new() };
    let span = rows
        .first(tenant, execution)
        .await?
        .ok_or_else(|| ReplayError::Missing { key: SpanKey { tenant_id: tenant.to_owned(), id: execution, seq: 0 } })?;
    let refuse = |reason: String| ReplayError::NotRepeatable { key: span.key(), reason };
    if span.entity_type != "execution" {
        return Err(refuse(format!("it is of type `{}`", span.entity_type)));
    }
    let recorded = receipt(&span).map_err(&refuse)?;
    let ended = span.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str);
    if let Some(ended) = ended.filter(|ended| CIRCUMSTANCES.contains(ended)) {
        return Err(refuse(format!("it ended with `{ended}`, which depends on the machine and the hour")));
    }
    let journal = Journal::of(&span).map_err(&refuse)?;
    let named = |what: &str| reference(&span, what).ok_or_else(|| refuse(format!("its metadata names no {what}")));
    let (function, request) = (named("function")?, named("request")?);
    let (function, request) = (rows.get(&function).await?, rows.get(&request).await?);
    let attempt = span.meta("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let attempt = attempt.ok_or_else(|| refuse("its metadata names no attempt".to_owned()))?;
    if span.id != ids::execution(&request.tenant_id, request.id, attempt) || request.tenant_id != span.tenant_id {
        return Err(refuse(format!("it is not attempt {attempt} of request {}", request.key())));
    }
    let sandbox = sandboxes.iter().find(|sandbox| sandbox.runtime() == recorded.abi);
    let sandbox = sandbox.ok_or_else(|| refuse(format!("there is no sandbox here for `{}`", recorded.abi)))?;

    let mut limits = recorded.limits.clone();
    limits.timeout_ms = limits.timeout_ms.max(MIN_TIMEOUT_MS);
    let facts = Facts {
        request: &request,
        function: function.id,
        execution: span.id,
        started: journal.now,
        limits: &recorded.limits,
        rules,
    };
    let reader = Reader::new(ledger, scope.clone());
    let code = Blobs::default().code(&function, &reader).await?.map_err(|failure| refuse(failure.to_string()))?;
    let call = call(&function, &request, attempt);
    let share = Share { calls: 1, memory_bytes: limits.memory_bytes };
    let job = Job::new(&span.tenant_id, &code, &call, &limits).share(share);
    let mut guest = Guest::new(facts, Playback { rows, journal, problem: None });
    let mut repeated = sandbox.run(job, &mut guest).await;
    let Guest { source, drafts, logs, .. } = guest;
    let mut rows = source.rows;
    if let Some(problem) = source.problem {
        return Err(problem);
    }
    if let Err(failure) = &repeated.result
        && CIRCUMSTANCES.contains(&failure.code.as_str())
    {
        return Err(refuse(format!("its repetition ended with `{failure}`: try again, or on another machine")));
    }
    if let Err(failure) = &repeated.result
        && REFUSALS.contains(&failure.code.as_str())
        && recorded.engine_hash != repeated.receipt.engine_hash
        && ended != Some(failure.code.as_str())
    {
        return Err(refuse(format!("the engine here does not run the module: {failure}")));
    }
    if ended == Some("invalid_output")
        && let Ok(output) = &repeated.result
        && let Err(failure) = storable(&span, output, &rules)
    {
        repeated.result = Err(failure);
    }
    let mut differences = compare(&span, &recorded, &repeated, &logs);
    if repeated.result.is_ok() {
        differences.extend(rows.compare_emitted(&span, &drafts, &rules).await?);
    }
    Ok(Replay { execution: span.key(), recorded, repeated, differences })
}

fn receipt(execution: &SignedSpan) -> Result<Receipt, String> {
    let receipt = execution.meta("receipt").ok_or("no code ran: it has no receipt")?;
    match receipt.get("v").and_then(Value::as_u64) {
        Some(v) if v == u64::from(RECEIPT_VERSION) => {
            Receipt::deserialize(receipt).map_err(|e| format!("its receipt is malformed: {e}"))
        }
        v => Err(format!("its receipt is of version {}, this library repeats version {RECEIPT_VERSION}", v.unwrap_or(0))),
    }
}

/// The row that an execution's metadata names.
fn reference(execution: &SignedSpan, what: &str) -> Option<(SpanKey, Hash)> {
    let named = execution.meta(what)?;
    let text = |name: &str| named.get(name).and_then(Value::as_str);
    let seq = named.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok())?;
    let key = SpanKey { tenant_id: text("tenant")?.to_owned(), id: text("id")?.parse().ok()?, seq };
    Some((key, text("curr_hash")?.parse().ok()?))
}

/// Whether an output could have been stored, as `run_code` asks.
fn storable(execution: &SignedSpan, output: &Value, rules: &Rules) -> Result<(), Failure> {
    let mut columns = execution.span.clone();
    (columns.output, columns.error) = (Some(output.clone()), None);
    let valid = Draft::from_columns(columns).validate(rules);
    valid.map_err(|e| Failure::new("invalid_output", format!("the output cannot be stored: {e}")))
}

fn compare(execution: &SignedSpan, recorded: &Receipt, repeated: &Report, logs: &[Value]) -> Vec<Difference> {
    let null = Value::Null;
    let receipt = &repeated.receipt;
    let is_same_engine = recorded.engine_hash == receipt.engine_hash;
    let (output, mut error) = match &repeated.result {
        Ok(output) => (output.clone(), Value::Null),
        Err(failure) => (Value::Null, failure.to_value()),
    };
    let mut recorded_error = execution.error.clone().unwrap_or_default();
    if !is_same_engine {
        // Another engine may say it with other words.
        for error in [&mut error, &mut recorded_error] {
            if let Some(members) = error.as_object_mut().filter(|error| error.get("code").is_some()) {
                members.remove("message");
            }
        }
    }
    let mut compared = vec![
        ("output", execution.output.clone().unwrap_or_default(), output),
        ("error", recorded_error, error),
        ("logs", execution.meta("logs").unwrap_or(&null).clone(), if logs.is_empty() { Value::Null } else { json!(logs) }),
        ("host_calls", recorded.host_calls.into(), receipt.host_calls.into()),
    ];
    if is_same_engine {
        compared.push(("fuel_used", recorded.fuel_used.into(), receipt.fuel_used.into()));
    }
    let differs = |(what, recorded, repeated): (&'static str, Value, Value)| {
        // As they are hashed: 1.0 and 1 are the same.
        let is_same = canonical::to_vec(&recorded) == canonical::to_vec(&repeated);
        (!is_same).then_some(Difference { what, recorded, repeated })
    };
    compared.into_iter().filter_map(differs).collect()
}

/// Rows of the ledger, each held to the hash by which it is named.
struct Rows<'a> {
    ledger: &'a dyn Ledger,
    scope: &'a Scope,
    verifier: Verifier,
}

impl Rows<'_> {
    async fn at(&mut self, tenant: &str, id: Uuid, seq: u32) -> Result<Option<VerifiedSpan>, ReplayError> {
        let found = self.ledger.history(self.scope, tenant, id, seq, 1).await?.into_iter().next();
        let Some(found) = found else { return Ok(None) };
        let key = found.key();
        found.verify(&mut self.verifier).map(Some).map_err(|source| ReplayError::NotVerified { key, source })
    }

    async fn first(&mut self, tenant: &str, id: Uuid) -> Result<Option<VerifiedSpan>, ReplayError> {
        self.at(tenant, id, 0).await
    }

    async fn get(&mut self, (key, recorded): &(SpanKey, Hash)) -> Result<VerifiedSpan, ReplayError> {
        let found = self.at(&key.tenant_id, key.id, key.seq).await?.filter(|found| found.seq == key.seq);
        let found = found.ok_or_else(|| ReplayError::Missing { key: key.clone() })?;
        match found.seal.curr_hash {
            hash if hash == *recorded => Ok(found),
            found => Err(ReplayError::Changed { key: key.clone(), found, recorded: *recorded }),
        }
    }

    /// Whether what was emitted again is what stands in the ledger, and all of it.
    async fn compare_emitted(
        &mut self,
        execution: &SignedSpan,
        drafts: &[Draft],
        rules: &Rules,
    ) -> Result<Option<Difference>, ReplayError> {
        let tenant = &execution.tenant_id;
        let differs = |recorded: Value, repeated: Value| Some(Difference { what: "emitted", recorded, repeated });
        // Who sealed it does not matter here.
        let payload = |span: &Span| canonical::payload(span, &PublicKey([0; 32]));
        let shown = |span: &Span| strict::parse(&payload(span)).unwrap_or_default();
        for draft in drafts {
            let repeated = match draft.validate(rules).and_then(|()| draft.clone().into_span()) {
                Ok(span) => span,
                Err(e) => return Ok(differs(Value::Null, json!(e.to_string()))),
            };
            match self.first(tenant, repeated.id).await? {
                Some(recorded) if payload(&recorded) == payload(&repeated) => {}
                recorded => return Ok(differs(recorded.map_or(Value::Null, |span| shown(&span)), shown(&repeated))),
            }
        }
        let next = ids::derive("emitted", &[&execution.id.to_string(), &drafts.len().to_string()]);
        Ok(self.first(tenant, next).await?.and_then(|extra| differs(shown(&extra), Value::Null)))
    }
}

/// Answers as the journal says.
struct Playback<'a> {
    rows: Rows<'a>,
    journal: Journal,
    /// Why it could not answer.
    problem: Option<ReplayError>,
}

#[async_trait]
impl Source for Playback<'_> {
    async fn query(&mut self, call: u32, _: Query, _: Option<Cursor>) -> Result<Value, Failure> {
        if self.journal.full_at.is_some_and(|full_at| call >= full_at) {
            return Err(full());
        }
        // A call that was not made before: what follows from it shows as a difference.
        let unknown = || Failure::new("unavailable", "this was not asked when it was recorded");
        let answer = self.journal.answers.iter().find(|answer| answer.call == call).cloned().ok_or_else(unknown)?;
        if let Some(error) = answer.error {
            return Err(Failure::new(error.code, error.message));
        }
        let mut spans = Vec::new();
        for row in answer.rows.unwrap_or_default() {
            let key = SpanKey { tenant_id: row.0, id: row.1, seq: row.2 };
            match self.rows.get(&(key, row.3)).await {
                Ok(span) => spans.push(span.into_signed()),
                Err(problem) => {
                    self.problem.get_or_insert(problem);
                    return Err(Failure::new("unavailable", "a row is not there any more"));
                }
            }
        }
        page(&spans, answer.cursor.as_deref())
    }

    fn seed(&mut self) -> Result<[u8; 32], Failure> {
        let seed = self.journal.seed.map(|seed| seed.0);
        seed.ok_or_else(|| Failure::new("unavailable", "no random numbers were drawn when it was recorded"))
    }

    fn emitted(&mut self, call: u32, draft: Result<Draft, Failure>) -> Result<Draft, Failure> {
        match self.journal.answers.iter().find(|answer| answer.call == call).and_then(|answer| answer.error.clone()) {
            Some(error) => Err(Failure::new(error.code, error.message)),
            None => draft,
        }
    }
}

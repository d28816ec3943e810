//! The span that records an execution: made when code has run, and made once more when the run is repeated.

use logline_core::sandbox::{Failure, Receipt};
use logline_core::{Draft, Rules, SignedSpan, Timestamp, VerifiedSpan, request};
use serde_json::{Value, json};

use crate::journal::Journal;

/// What one attempt came to.
pub(crate) struct Outcome {
    pub(crate) result: Result<Value, Failure>,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) function: Option<VerifiedSpan>,
    pub(crate) emitted: Vec<Draft>,
    pub(crate) logs: Vec<Value>,
    pub(crate) logs_dropped: u32,
    pub(crate) journal: Option<Journal>,
}

impl Outcome {
    /// An attempt that ended before any code ran.
    pub(crate) fn refused(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            receipt: None,
            function: None,
            emitted: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            journal: None,
        }
    }
}

/// What a record says besides what the code did.
pub(crate) struct Frame {
    pub(crate) attempt: u32,
    pub(crate) worker: String,
    /// A [`reference`] to the kernel.
    pub(crate) kernel: Value,
    pub(crate) at: Timestamp,
    pub(crate) duration_ms: u32,
}

/// The record of an attempt. Whatever the code returned, it is recorded: what cannot be stored becomes a failure.
pub(crate) fn record(request: &SignedSpan, frame: &Frame, outcome: &mut Outcome, rules: &Rules) -> Draft {
    let record = execution(request, frame, outcome);
    let Err(e) = record.validate(rules) else { return record };
    outcome.result = Err(Failure::new("invalid_output", format!("the output cannot be stored: {e}")));
    outcome.logs.clear();
    execution(request, frame, outcome)
}

/// Names a version, so that whoever reads the record can find it and knows that it is the same.
pub(crate) fn reference(span: &SignedSpan) -> Value {
    json!({"tenant": span.tenant_id, "id": span.id.to_string(), "seq": span.seq, "curr_hash": span.seal.curr_hash.to_string()})
}

fn execution(request: &SignedSpan, frame: &Frame, outcome: &Outcome) -> Draft {
    let Frame { attempt, worker, kernel, at, duration_ms } = frame;
    let mut metadata = json!({"attempt": attempt, "worker": worker, "request": reference(request), "kernel": kernel});
    let mut add = |name: &str, value: Value| {
        if let Some(members) = metadata.as_object_mut() {
            members.insert(name.to_owned(), value);
        }
    };
    if let Some(function) = &outcome.function {
        add("function", reference(function));
    }
    if let Some(receipt) = &outcome.receipt {
        add("receipt", json!(receipt));
    }
    if !outcome.logs.is_empty() {
        add("logs", Value::Array(outcome.logs.clone()));
    }
    if let Some(journal) = &outcome.journal {
        add("journal", json!(journal));
    }
    if let Some(cause) = request.meta(request::CAUSE) {
        add(request::CAUSE, cause.clone());
    }
    if outcome.logs_dropped > 0 {
        add("logs_dropped", outcome.logs_dropped.into());
    }
    let mut draft = request::execution(request, *attempt).at(*at).duration_ms(*duration_ms).metadata(metadata);
    let refused_input = matches!(&outcome.result, Err(failure) if failure.code == "input_limit");
    draft.columns_mut().input = request.input.clone().filter(|_| !refused_input);
    match &outcome.result {
        Ok(output) => draft.status("complete").output(output.clone()),
        Err(failure) => draft.status("error").error(failure.to_value()),
    }
}

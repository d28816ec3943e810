//! The execution: the span that records an attempt. It is made when the attempt ends, and again when the execution is repeated.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::request::state::{self, CAUSE};
use crate::span::draft::Draft;
use crate::span::rules::Rules;
use crate::span::{SignedSpan, Span};
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// What the host records about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The name of the kernel that carried out the request.
    pub kernel_name: String,
    /// A [`reference()`] to the version of the kernel's span that was booted.
    pub kernel: Value,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// The public key of the host, in hex.
    pub worker: String,
    /// When the attempt ended, by the host's clock.
    pub at: Timestamp,
    /// How long the attempt took, in milliseconds.
    pub duration_ms: u32,
}

/// What the kernel records about an attempt in addition to the result.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Details {
    /// The `input` column of the execution.
    pub input: Option<Value>,
    /// Members of the execution's `metadata`. The host adds its own and replaces members of the same name.
    pub metadata: Map<String, Value>,
    /// The members of `metadata` that are left out if the record would not be valid with them.
    pub expendable: &'static [&'static str],
}

impl Details {
    /// An input, and members of metadata. None of the members may be left out.
    #[must_use]
    pub fn new(input: Option<Value>, metadata: Map<String, Value>) -> Self {
        Self { input, metadata, expendable: &[] }
    }

    /// Sets which members of metadata may be left out.
    #[must_use]
    pub fn expendable(mut self, members: &'static [&'static str]) -> Self {
        self.expendable = members;
        self
    }
}

/// What an execution says, as a typed value: the record of one attempt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recorded {
    /// The request.
    pub request: Option<Uuid>,
    /// The function, or the span that the request is about.
    pub function: Option<Uuid>,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// The output, or the failure.
    pub result: Result<Value, Failure>,
    /// How long the attempt took; zero if its worker recorded no result.
    pub duration: Duration,
    /// The public key of the host that made the attempt. `None` if its worker recorded no result.
    pub worker: Option<PublicKey>,
}

impl Recorded {
    /// Reads an execution. `None` if `span` is not of this type, or says nothing of an attempt.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        if span.entity_type != "execution" {
            return None;
        }
        Some(Self {
            request: span.related_to.first().copied(),
            function: span.parent_id,
            attempt: span.meta(state::ATTEMPT)?.as_u64()?.try_into().ok()?,
            result: match &span.error {
                Some(error) => Err(Failure::from_value(error)),
                None => Ok(span.output.clone().unwrap_or_default()),
            },
            duration: Duration::from_millis(span.duration_ms.unwrap_or(0).into()),
            worker: span.meta("worker").and_then(Value::as_str).and_then(|key| key.parse().ok()),
        })
    }
}

/// Names a version of a span, so that a reader of the record can find it and check that it is the same:
/// `{tenant, id, seq, curr_hash}`.
#[must_use]
pub fn reference(span: &SignedSpan) -> Value {
    json!({"tenant": span.tenant_id, "id": span.id.to_string(), "seq": span.seq, "curr_hash": span.seal.curr_hash.to_string()})
}

/// The value of `who` in spans that a host records in its own name.
pub(crate) fn recorder(host: &PublicKey) -> String {
    format!("host:{host}")
}

/// The columns that follow from the request and the number of the attempt: identity, owner, trace and links.
fn identity(request: &SignedSpan, attempt: u32) -> Draft {
    let mut draft = Draft::new("execution")
        .id(ids::execution(&request.tenant_id, request.id, attempt))
        .tenant(&request.tenant_id)
        .owner(&request.owner_id)
        .visibility(request.visibility)
        .did("executed")
        .this(&request.this)
        .related([request.id]);
    let columns = draft.columns_mut();
    columns.trace_id.clone_from(&request.trace_id);
    columns.parent_id = request.parent_id;
    columns.related_to.extend(request.parent_id);
    draft
}

/// The record of an attempt for which its worker recorded no result. The caller sets the time.
pub(crate) fn unfinished(running: &SignedSpan, attempt: u32, host: &PublicKey, failure: &Failure) -> Draft {
    let draft = identity(running, attempt).who(recorder(host)).status("error").error(failure.to_value());
    draft.metadata(json!({"attempt": attempt}))
}

/// The record of the attempt that the claim `running` began. Every result is recorded. If the record with an output cannot be
/// stored, `result` becomes the failure `invalid_output`, and that failure is recorded.
pub fn record(
    running: &SignedSpan,
    frame: &Frame,
    details: &mut Details,
    result: &mut Result<Value, Failure>,
    rules: &Rules,
) -> Draft {
    let record = draft(running, frame, details, result);
    let Err(error) = record.validate(rules) else { return record };
    *result = Err(Failure::new("invalid_output", format!("the output cannot be stored: {error}")));
    for member in details.expendable {
        details.metadata.remove(*member);
    }
    draft(running, frame, details, result)
}

fn draft(running: &SignedSpan, frame: &Frame, details: &Details, result: &Result<Value, Failure>) -> Draft {
    let Frame { kernel_name, kernel, attempt, worker, at, duration_ms } = frame;
    let mut metadata = details.metadata.clone();
    metadata.insert("attempt".to_owned(), (*attempt).into());
    metadata.insert("worker".to_owned(), worker.as_str().into());
    metadata.insert("request".to_owned(), reference(running));
    metadata.insert("kernel".to_owned(), kernel.clone());
    if let Some(cause) = state::cause(running) {
        metadata.insert(CAUSE.to_owned(), cause.clone());
    }
    let mut draft = identity(running, *attempt)
        .who(format!("kernel:{kernel_name}"))
        .at(*at)
        .duration_ms(*duration_ms)
        .metadata(Value::Object(metadata));
    draft.columns_mut().input.clone_from(&details.input);
    match result {
        Ok(output) => draft.status("complete").output(output.clone()),
        Err(failure) => draft.status("error").error(failure.to_value()),
    }
}

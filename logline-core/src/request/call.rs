//! How calls to the outside are recorded: an intent before the call, an outcome after it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::request::quota::Charges;
use crate::request::state::{self, CAUSE, QUOTA};
use crate::span::draft::Draft;
use crate::span::{SignedSpan, Span, canonical};
use crate::value::failure::Failure;
use crate::value::hex::Hash;
use crate::value::ids;

/// The most bytes of a call's key, a service's name and an operation.
pub(crate) const MAX_NAME: usize = 128;

/// The code of the failure if it is not known whether a call was carried out.
pub(crate) const UNKNOWN: &str = "outcome_unknown";

const DETAILS: &str = "details";

/// The entity types as which a call is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CallKind {
    /// `outside_request` and `outside_outcome`.
    #[default]
    Outside,
    /// `provider_request` and `provider_execution`: a call to the provider of a model.
    Provider,
}

impl CallKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Outside, Self::Provider];

    /// The entity type of the intent.
    #[must_use]
    pub fn intent(self) -> &'static str {
        match self {
            Self::Outside => "outside_request",
            Self::Provider => "provider_request",
        }
    }

    /// The entity type of the outcome.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Outside => "outside_outcome",
            Self::Provider => "provider_execution",
        }
    }

    /// The id of the outcome of an intent, so that an intent has at most one.
    #[must_use]
    pub fn outcome_id(self, tenant: &str, intent: Uuid) -> Uuid {
        ids::derive(self.outcome(), &[tenant, &intent.to_string()])
    }

    fn this(self) -> &'static str {
        match self {
            Self::Outside => "outside.call",
            Self::Provider => "provider.call",
        }
    }

    /// The kind of call whose intent `span` is.
    fn of_intent(span: &Span) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.intent() == span.entity_type)
    }
}

/// Whether `span` records that a call begins. Only the runtime writes such spans.
pub(crate) fn is_intent(span: &Span) -> bool {
    is_first(span) && CallKind::of_intent(span).is_some()
}

/// Whether `span` records how a call ended. Only the runtime writes such spans.
pub(crate) fn is_outcome(span: &Span) -> bool {
    is_first(span) && CallKind::ALL.iter().any(|kind| kind.outcome() == span.entity_type)
}

fn is_first(span: &Span) -> bool {
    span.prev_hash.is_none() && !span.is_deleted
}

/// The hash of a call, as its intent has it in `metadata.call_hash`.
#[must_use]
pub fn call_hash(service: &str, operation: &str, body: &Value) -> Hash {
    Hash::of(&call_body(service, operation, body))
}

/// The bytes that identify what a call asks, of which its intent has the hash.
pub(crate) fn call_body(service: &str, operation: &str, body: &Value) -> Vec<u8> {
    canonical::to_vec(&json!({"service": service, "operation": operation, "body": body}))
}

/// Identifies a call within a request: its key, and a hash of service, operation and body.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId {
    pub(crate) key: String,
    pub(crate) hash: Hash,
}

impl CallId {
    /// `hash` is [`call_hash`], or its keyed form. Fails with a reason if a name is too long, empty, or has control characters.
    pub(crate) fn new(key: &str, service: &str, operation: &str, hash: Hash) -> Result<Self, String> {
        for (what, text) in [("key", key), ("service's name", service), ("operation", operation)] {
            if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
                return Err(format!("its {what} must have 1 to {MAX_NAME} bytes, and no control characters"));
            }
        }
        Ok(Self { key: key.to_owned(), hash })
    }

    fn from_intent(intent: &SignedSpan) -> Option<Self> {
        let text = |name: &str| intent.meta(name).and_then(Value::as_str);
        Some(Self { key: text("call_key")?.to_owned(), hash: text("call_hash")?.parse().ok()? })
    }

    /// `ordinal` numbers the tries of the call within the attempt.
    pub(crate) fn intent_id(&self, request: &SignedSpan, attempt: u32, ordinal: u32, kind: CallKind) -> Uuid {
        let (id, hash, attempt, ordinal) =
            (request.id.to_string(), self.hash.to_string(), attempt.to_string(), ordinal.to_string());
        ids::derive(kind.intent(), &[&request.tenant_id, &id, &self.key, &hash, &attempt, &ordinal])
    }

    /// It does not depend on the attempt, so that the service recognises a repeated call.
    pub(crate) fn idempotency_key(&self, request: &SignedSpan) -> String {
        let parts = [&request.tenant_id, &request.id.to_string(), &self.key, &self.hash.to_string()];
        ids::derive("outside_call", &parts.map(String::as_str)).to_string()
    }
}

/// The begin of a call, as its intent says it.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) id: Uuid,
    pub(crate) call: CallId,
    pub(crate) kind: CallKind,
    /// The span that describes the service, if there is one.
    pub(crate) subject: Option<Uuid>,
    /// The number of the attempt that makes the call.
    pub(crate) attempt: u32,
    /// The number of the try within the attempt.
    pub(crate) ordinal: u32,
    /// What was reserved of the tenant's quotas.
    pub(crate) reserved: Option<Charges>,
}

impl Intent {
    /// Reads a recorded intent. `None` if it is none.
    pub(crate) fn read(span: &SignedSpan) -> Option<Self> {
        let number = |name: &str| span.meta(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let (attempt, ordinal) = (number("attempt")?, number("ordinal")?);
        let kind = CallKind::of_intent(span)?;
        let subject = span.meta("subject").and_then(Value::as_str).and_then(|id| id.parse().ok());
        Some(Self {
            id: span.id,
            call: CallId::from_intent(span)?,
            kind,
            subject,
            attempt,
            ordinal,
            reserved: Charges::of(span),
        })
    }

    pub(crate) fn outcome_id(&self, tenant: &str) -> Uuid {
        self.kind.outcome_id(tenant, self.id)
    }

    fn draft(&self, request: &SignedSpan, entity_type: &str, id: Uuid) -> Draft {
        let mut draft = Draft::new(entity_type)
            .id(id)
            .tenant(&request.tenant_id)
            .owner(&request.owner_id)
            .visibility(request.visibility)
            .this(self.kind.this())
            .meta("call_key", self.call.key.as_str())
            .meta("attempt", self.attempt)
            .meta("ordinal", self.ordinal);
        draft.columns_mut().trace_id.clone_from(&request.trace_id);
        if let Some(subject) = self.subject {
            draft = draft.meta("subject", subject.to_string());
        }
        match state::cause(request) {
            Some(cause) => draft.meta(CAUSE, cause.clone()),
            None => draft,
        }
    }

    /// Drafts the intent.
    pub(crate) fn begin(&self, request: &SignedSpan, execution: Uuid, said: &Said<'_>) -> Draft {
        let mut draft = self
            .draft(request, self.kind.intent(), self.id)
            .did("called")
            .parent(request.id)
            .related([request.id, execution])
            .status("open")
            .meta("call_hash", self.call.hash.to_string())
            .meta("service", said.service)
            .meta("operation", said.operation)
            .meta("idempotency_key", said.idempotency_key);
        if let Some(reserved) = &self.reserved {
            draft = draft.meta(QUOTA, reserved.to_used());
        }
        with_details(draft, said.details)
    }

    /// Drafts the outcome. Its parent is the span that describes the service, or the intent if there is none.
    pub(crate) fn end(&self, request: &SignedSpan, ended: &Ended) -> Draft {
        let mut draft = self
            .draft(request, self.kind.outcome(), self.outcome_id(&request.tenant_id))
            .did("answered")
            .parent(self.subject.unwrap_or(self.id))
            .related([request.id, self.id])
            .status(ended.recorded.status());
        if let Some(settled) = self.settled(ended) {
            draft = draft.meta(QUOTA, settled.to_used());
        }
        let draft = with_details(draft, &ended.details);
        match &ended.recorded {
            Recorded::Answered(value) => draft.output(value.clone()),
            Recorded::Failed(failure) => draft.error(failure.to_value()),
            Recorded::Unknown => {
                let message = "the attempt ended before it recorded whether the call was carried out";
                draft.error(Failure::new(UNKNOWN, message).to_value())
            }
        }
    }

    /// What was used minus what was reserved. `None` if the whole reservation stays spent: the service did not say what it used, or
    /// nobody knows whether the call was carried out.
    fn settled(&self, ended: &Ended) -> Option<Charges> {
        let reserved = self.reserved.as_ref()?;
        let used = match ended.recorded {
            Recorded::Unknown => return None,
            Recorded::Answered(_) | Recorded::Failed(_) => ended.used.as_ref()?,
        };
        Some(reserved.settle(used))
    }
}

fn with_details(draft: Draft, details: &Map<String, Value>) -> Draft {
    if details.is_empty() { draft } else { draft.meta(DETAILS, details.clone()) }
}

/// The parts of an intent that only a reader needs.
pub(crate) struct Said<'a> {
    pub(crate) service: &'a str,
    pub(crate) operation: &'a str,
    pub(crate) idempotency_key: &'a str,
    pub(crate) details: &'a Map<String, Value>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recorded {
    /// The service answered.
    Answered(Value),
    /// The service answered with a failure, or was not reached.
    Failed(Failure),
    /// It is not known whether the call was carried out.
    Unknown,
}

impl From<Result<Value, Failure>> for Recorded {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(value) => Self::Answered(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl Recorded {
    fn status(&self) -> &'static str {
        match self {
            Self::Answered(_) => "complete",
            Self::Failed(_) => "error",
            Self::Unknown => "unknown",
        }
    }
}

/// The outcome of a call, with what the client says of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) recorded: Recorded,
    pub(crate) details: Map<String, Value>,
    /// What the call used of the quotas; `None` if the client does not know.
    pub(crate) used: Option<BTreeMap<String, u64>>,
}

impl Ended {
    pub(crate) fn new(recorded: Recorded) -> Self {
        Self { recorded, details: Map::new(), used: None }
    }

    pub(crate) fn read(outcome: &SignedSpan) -> Self {
        let recorded = match outcome.status.as_deref() {
            Some("complete") => Recorded::Answered(outcome.output.clone().unwrap_or_default()),
            Some("error") => Recorded::Failed(outcome.error.as_ref().map(Failure::from_value).unwrap_or(Failure::new("", ""))),
            _ => Recorded::Unknown,
        };
        let details = outcome.meta(DETAILS).and_then(Value::as_object).cloned().unwrap_or_default();
        Self { details, ..Self::new(recorded) }
    }
}

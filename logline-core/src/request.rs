//! The life of a request, as versions of its span: `scheduled` → `running` → `complete` or `error`.
//!
//! Pure: each step is a draft made from the version before.

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::canonical;
use crate::draft::Draft;
use crate::hex::PublicKey;
use crate::ids;
use crate::rules::{MAX_INTEGER, Rules};
use crate::sandbox::Failure;
use crate::span::SignedSpan;
use crate::span::{SpanKey, Visibility};
use crate::timestamp::Timestamp;

/// A request to be made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The tenant it runs in.
    pub tenant: String,
    /// Who asks: the owner of the request, its execution and everything the code emits.
    pub owner: String,
    /// The function, in the same tenant.
    pub function: Uuid,
    /// What the function gets.
    pub input: Value,
    /// Who besides the owner may read request and execution.
    pub visibility: Visibility,
    /// A trace it belongs to; a new one where absent.
    pub trace_id: Option<String>,
    /// The same key, tenant, owner and function make one request, however often it is submitted.
    pub idempotency_key: Option<String>,
}

impl Request {
    /// `owner` of `tenant` asks `function` about `input`.
    pub fn new(tenant: impl Into<String>, owner: impl Into<String>, function: Uuid, input: Value) -> Self {
        Self {
            tenant: tenant.into(),
            owner: owner.into(),
            function,
            input,
            visibility: Visibility::Private,
            trace_id: None,
            idempotency_key: None,
        }
    }

    /// Sets who may read it.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets the trace.
    #[must_use]
    pub fn trace(mut self, trace_id: impl Into<String>) -> Self {
        self.trace_id = Some(trace_id.into());
        self
    }

    /// Makes submitting it again harmless.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The request's version 0.
    pub(crate) fn into_draft(self, new_id: Uuid) -> Draft {
        let function = self.function.to_string();
        let id = match &self.idempotency_key {
            Some(key) => ids::derive("request", &[&self.tenant, &self.owner, &function, key]),
            None => new_id,
        };
        let draft = Draft::new("request")
            .id(id)
            .who(format!("user:{}", self.owner))
            .did("requested")
            .this("function.run")
            .tenant(self.tenant)
            .owner(self.owner)
            .visibility(self.visibility)
            .parent(self.function)
            .status("scheduled")
            .trace(self.trace_id.unwrap_or_else(|| id.simple().to_string()))
            .input(self.input)
            .metadata(json!({"attempt": 0}));
        if self.idempotency_key.is_some() { draft.deterministic() } else { draft }
    }
}

/// Why a request cannot be run now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotRunnable {
    /// Another type.
    #[error("span {key} is of type `{entity_type}`, not a request")]
    NotARequest {
        /// The span.
        key: SpanKey,
        /// Its type.
        entity_type: String,
    },
    /// Somebody is at it.
    #[error("request {key} is running until {lease_until}: wait for it, or retry after that time")]
    Running {
        /// The request.
        key: SpanKey,
        /// When its lease ends.
        lease_until: Timestamp,
    },
    /// Its first version is none that a request can begin with.
    #[error("request {key} cannot be run: {reason}")]
    Malformed {
        /// The request.
        key: SpanKey,
        /// Why.
        reason: String,
    },
    /// It has ended.
    #[error("request {key} has ended with status `{status}`: submit a new one")]
    Ended {
        /// The request.
        key: SpanKey,
        /// Its status.
        status: String,
    },
}

/// What a request's later versions add at most, bytes: worker, lease, links, an error of 4 KiB in which every byte is escaped.
const VERSION_ROOM: usize = 64 << 10;

/// Versions that a request may still need.
const VERSIONS_ROOM: u32 = 10_000;

/// Whether a first version can be carried to its end: every later one is made from it and must fit.
pub(crate) fn check_first(request: &SignedSpan, rules: &Rules) -> Result<(), NotRunnable> {
    if request.entity_type != "request" {
        return Err(NotRunnable::NotARequest { key: request.key(), entity_type: request.entity_type.clone() });
    }
    let malformed = |reason: String| Err(NotRunnable::Malformed { key: request.key(), reason });
    if request.seq > MAX_INTEGER - VERSIONS_ROOM {
        return malformed(format!("seq {} leaves no room for later versions", request.seq));
    }
    if request.prev_hash.is_none() {
        let attempt = request.meta("attempt").map_or(Some(0), Value::as_u64);
        if request.status.as_deref() != Some("scheduled") || attempt != Some(0) {
            return malformed("a request begins with status `scheduled` and attempt 0".to_owned());
        }
    }
    let max = rules.max_span_bytes.saturating_sub(VERSION_ROOM);
    let bytes = canonical::payload(&request.span, &request.seal.public_key).len();
    if bytes > max && request.prev_hash.is_none() {
        return malformed(format!("it has {bytes} bytes, the limit for a request is {max}"));
    }
    Ok(())
}

/// Closes a request that can never run. Its content is left to the first version, so that this one fits.
pub(crate) fn refuse(request: &SignedSpan, reason: &NotRunnable, now: Timestamp) -> Draft {
    let mut draft = Draft::next_version(request).at(now).did("refused").status("error");
    let columns = draft.columns_mut();
    (columns.input, columns.output, columns.content, columns.metadata) = (None, None, None, None);
    (columns.name, columns.description, columns.code) = (None, None, None);
    draft.error(Failure::new("request_malformed", reason.to_string()).to_value())
}

/// A claim: the drafts that start an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) attempt: u32,
    /// The `running` version; before it, where an attempt was lost, the execution that says so.
    pub(crate) drafts: Vec<Draft>,
}

/// Starts the next attempt of `request` by `worker`, whose lease ends after `lease`.
pub(crate) fn claim(request: &SignedSpan, worker: &PublicKey, now: Timestamp, lease: Duration) -> Result<Claim, NotRunnable> {
    let attempts = request.meta("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let mut drafts = Vec::new();
    match request.status.as_deref() {
        Some("scheduled") => {}
        Some("running") => {
            let lease_until = request.meta("lease_until").and_then(Value::as_str).and_then(|t| t.parse().ok());
            if let Some(lease_until) = lease_until.filter(|until| now < *until) {
                return Err(NotRunnable::Running { key: request.key(), lease_until });
            }
            drafts.push(lost(request, attempts, now));
        }
        status => {
            return Err(NotRunnable::Ended { key: request.key(), status: status.unwrap_or_default().to_owned() });
        }
    }
    let attempt = attempts.saturating_add(1);
    drafts.push(
        Draft::next_version(request)
            .at(now)
            .who(format!("host:{worker}"))
            .did("claimed")
            .status("running")
            .meta("attempt", attempt)
            .meta("worker", worker.to_string())
            .meta("lease_until", now.saturating_add(lease).to_string()),
    );
    Ok(Claim { attempt, drafts })
}

/// The execution of an attempt whose worker never came back.
fn lost(request: &SignedSpan, attempt: u32, now: Timestamp) -> Draft {
    let failure = Failure::new("lost", "the worker's lease ended before it recorded a result");
    execution(request, attempt).at(now).status("error").error(failure.to_value()).meta("attempt", attempt)
}

/// What every execution of `request` has in common: identity, owner, place in the timeline.
#[must_use]
pub fn execution(request: &SignedSpan, attempt: u32) -> Draft {
    let mut draft = Draft::new("execution")
        .id(ids::execution(&request.tenant_id, request.id, attempt))
        .tenant(&request.tenant_id)
        .owner(&request.owner_id)
        .visibility(request.visibility)
        .who("kernel:run_code")
        .did("executed")
        .this("function.run")
        .related([request.id]);
    let columns = draft.columns_mut();
    columns.trace_id.clone_from(&request.trace_id);
    columns.parent_id = request.parent_id;
    columns.related_to.extend(request.parent_id);
    draft
}

/// Closes the attempt that `running` started.
pub(crate) fn close(running: &SignedSpan, result: &Result<Value, Failure>, execution: Uuid, now: Timestamp) -> Draft {
    let draft = Draft::next_version(running).at(now).meta("execution", execution.to_string());
    // The input stands in version 0 and the output in the execution; the closing row points there.
    match result {
        Ok(_) => draft.did("completed").status("complete"),
        Err(failure) => draft.did("failed").status("error").error(failure.to_value()),
    }
}

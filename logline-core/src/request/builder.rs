//! What is asked for, before it is a span.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::request::state::{CAUSE, MAX_ATTEMPTS, MAX_BACKOFF, MAX_PRIORITY, OnUnknown, Phase, Step, Terms};
use crate::span::Visibility;
use crate::span::draft::Draft;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The `this` of a request to run a function of the tenant.
pub const FUNCTION_RUN: &str = "function.run";

/// A request to be submitted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The tenant it runs in.
    pub tenant: String,
    /// Who asks: the owner of the request, its execution and everything the code emits.
    pub owner: String,
    /// The function, in the same tenant. For other kinds of requests: the span that they are about.
    pub function: Uuid,
    /// The kind of request, which decides the kernel that carries it out; [`FUNCTION_RUN`] unless set.
    pub this: String,
    /// What the function gets.
    pub input: Value,
    /// Who besides the owner may read request and execution.
    pub visibility: Visibility,
    /// The `who` column; `user:` and the owner where absent.
    pub who: Option<String>,
    /// A trace it belongs to; a new one where absent.
    pub trace_id: Option<String>,
    /// The same key, tenant, owner and function make one request, however often it is submitted.
    pub idempotency_key: Option<String>,
    /// When and how often it is tried. With a slot: tenant, owner, function and slot make one request.
    pub terms: Terms,
    /// The policy that asks, as the runtime records it in what policies bring about.
    pub cause: Option<Value>,
}

impl Request {
    /// `owner` of `tenant` asks `function` about `input`.
    pub fn new(tenant: impl Into<String>, owner: impl Into<String>, function: Uuid, input: Value) -> Self {
        Self {
            tenant: tenant.into(),
            owner: owner.into(),
            function,
            this: FUNCTION_RUN.to_owned(),
            input,
            visibility: Visibility::Private,
            who: None,
            trace_id: None,
            idempotency_key: None,
            terms: Terms::default(),
            cause: None,
        }
    }

    /// Sets the kind of request.
    #[must_use]
    pub fn this(mut self, this: impl Into<String>) -> Self {
        self.this = this.into();
        self
    }

    /// Sets the `who` column.
    #[must_use]
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.who = Some(who.into());
        self
    }

    /// Sets when it is due.
    #[must_use]
    pub fn due_at(mut self, due: Timestamp) -> Self {
        self.terms.due_at = Some(due);
        self
    }

    /// Sets its priority, 0 to 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.terms.priority = Some(priority.min(MAX_PRIORITY));
        self
    }

    /// Sets how often it is tried.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.terms.max_attempts = Some(attempts.clamp(1, MAX_ATTEMPTS));
        self
    }

    /// Sets the first pause between attempts.
    #[must_use]
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.terms.backoff = Some(pause.min(MAX_BACKOFF));
        self
    }

    /// Sets when it is too late to begin.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// Makes it the one request of its function for this slot of the schedule.
    #[must_use]
    pub fn slot(mut self, slot: Timestamp) -> Self {
        self.terms.slot = Some(slot);
        self
    }

    /// Sets what happens after a call to the outside whose outcome nobody knows.
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.terms.on_unknown = on_unknown;
        self
    }

    /// Sets the policy that asks.
    #[must_use]
    pub fn cause(mut self, cause: Value) -> Self {
        self.cause = Some(cause);
        self
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

    /// Makes it harmless to submit the request again.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The id that it will have, where its slot or its idempotency key decides it.
    #[must_use]
    pub fn derived_id(&self) -> Option<Uuid> {
        let (function, slot) = (self.function.to_string(), self.terms.slot.map(|slot| slot.to_string()));
        let (kind, key) = match (&slot, &self.idempotency_key) {
            (Some(slot), _) => ("slot", slot),
            (None, Some(key)) => ("request", key),
            (None, None) => return None,
        };
        let mut parts = vec![self.tenant.as_str(), &self.owner, &function, key];
        // The same key for another kind of request is another request.
        if self.this != FUNCTION_RUN {
            parts.push(&self.this);
        }
        Some(ids::derive(kind, &parts))
    }

    /// The request's version 0, with the id `new_id` where neither slot nor idempotency key decides it.
    #[must_use]
    pub fn into_draft(self, new_id: Uuid) -> Draft {
        let derived = self.derived_id();
        let id = derived.unwrap_or(new_id);
        let draft = Draft::new("request")
            .id(id)
            .who(self.who.unwrap_or_else(|| format!("user:{}", self.owner)))
            .did(Step::Requested.as_str())
            .this(self.this)
            .tenant(self.tenant)
            .owner(self.owner)
            .visibility(self.visibility)
            .parent(self.function)
            .status(Phase::Scheduled.as_str())
            .trace(self.trace_id.unwrap_or_else(|| id.simple().to_string()))
            .input(self.input);
        let draft = self.terms.write(draft);
        let draft = match self.cause {
            Some(cause) => draft.meta(CAUSE, cause),
            None => draft,
        };
        if derived.is_some() { draft.deterministic() } else { draft }
    }
}

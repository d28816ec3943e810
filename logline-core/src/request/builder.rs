//! A request before it is written as a span.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::request::state::{CAUSE, MAX_BACKOFF, OnUnknown, PARENT_SPAN, Phase, Step, Terms, WITHIN, Within};
use crate::span::Visibility;
use crate::span::draft::Draft;
use crate::value::hex::Hash;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The kind of a request that runs a function of the tenant: the value of its `this` column.
pub const FUNCTION_RUN: &str = "function.run";

/// A request that is to be submitted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The tenant in which it runs.
    pub tenant: String,
    /// The user who asks. This user owns the request, its executions and all spans that the code emits.
    pub owner: String,
    /// The function, in the same tenant. In requests of other kinds, the span that they are about.
    pub function: Uuid,
    /// The kind of the request, which decides the kernel that carries it out. The default is [`FUNCTION_RUN`].
    pub this: String,
    /// The input of the function.
    pub input: Value,
    /// Who besides the owner may read the request and its executions.
    pub visibility: Visibility,
    /// The `who` column. If `None`, it is `user:` and the owner.
    pub who: Option<String>,
    /// The trace that the request belongs to. If `None`, a new trace begins.
    pub trace_id: Option<String>,
    /// The span of the trace that has asked for it: 16 hexadecimal digits, recorded in `metadata`, under [`PARENT_SPAN`].
    pub parent_span: Option<String>,
    /// Requests with the same key, tenant, owner, function and kind are one request, even if it is submitted several times.
    pub idempotency_key: Option<String>,
    /// When and how often it is tried. Requests with the same slot, tenant, owner, function and kind are one request. If a slot
    /// is set, the idempotency key is not used.
    pub terms: Terms,
    /// The policy that makes the request, as the runtime records it in `metadata`, under [`CAUSE`]. `None` if no policy does.
    pub cause: Option<Value>,
    /// The request whose kernel makes this one, as the runtime records it in `metadata`, under [`WITHIN`]. `None` if no kernel does. Its
    /// id then follows from it, and neither slot nor idempotency key are used.
    pub within: Option<Within>,
}

impl Request {
    /// A request of `owner` in `tenant` to run `function` on `input`, with the default terms.
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
            parent_span: None,
            idempotency_key: None,
            terms: Terms::default(),
            cause: None,
            within: None,
        }
    }

    /// Sets the kind of the request. The default is [`FUNCTION_RUN`].
    #[must_use]
    pub fn this(mut self, this: impl Into<String>) -> Self {
        self.this = this.into();
        self
    }

    /// Sets the `who` column. The default is `user:` and the owner.
    #[must_use]
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.who = Some(who.into());
        self
    }

    /// Sets when it is due. The default is at once.
    #[must_use]
    pub fn due_at(mut self, due: Timestamp) -> Self {
        self.terms.due_at = Some(due);
        self
    }

    /// Sets its priority, 0 to 9. The highest runs first within the tenant. The default is 5. A request with another one is refused.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.terms.priority = Some(priority);
        self
    }

    /// Sets the most attempts, 1 to [`MAX_ATTEMPTS`](crate::request::MAX_ATTEMPTS). By default, the first failure ends the request. A request with another number is refused.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.terms.max_attempts = Some(attempts);
        self
    }

    /// Sets the first pause between attempts, at most [`MAX_BACKOFF`]. The default is one second.
    #[must_use]
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.terms.backoff = Some(pause.min(MAX_BACKOFF));
        self
    }

    /// Sets the time after which no attempt may begin. By default there is no deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// Makes it the only request of its function for this time in the schedule.
    #[must_use]
    pub fn slot(mut self, slot: Timestamp) -> Self {
        self.terms.slot = Some(slot);
        self
    }

    /// Sets what happens after a call to the outside with an unknown outcome. The default is [`OnUnknown::Fail`].
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.terms.on_unknown = on_unknown;
        self
    }

    /// Encrypts the input, and everything that comes of it, under the owner's key before it is written. The host needs a
    /// [cipher](crate::HostBuilder::cipher), and the kernel must [keep it](crate::contract::Kernel::keeps_confidential).
    #[must_use]
    pub fn confidential(mut self) -> Self {
        self.terms.confidential = true;
        self
    }

    /// Allows this version of the function alone. If another one is in force when an attempt begins, the request fails with
    /// `other_version`.
    #[must_use]
    pub fn function_hash(mut self, hash: Hash) -> Self {
        self.terms.function_hash = Some(hash);
        self
    }

    /// Sets the request whose kernel makes this one.
    #[must_use]
    pub fn within(mut self, within: Within) -> Self {
        self.within = Some(within);
        self
    }

    /// Sets the policy that makes the request.
    #[must_use]
    pub fn cause(mut self, cause: Value) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Sets who besides the owner may read it. The default is [`Visibility::Private`].
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets the `trace_id`. A new trace begins if it is not set.
    #[must_use]
    pub fn trace(mut self, trace_id: impl Into<String>) -> Self {
        self.trace_id = Some(trace_id.into());
        self
    }

    /// Sets the idempotency key, so that it is harmless to submit the request again.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The id that follows from the request that it is made in, its slot or its idempotency key. `None` if it has none of them.
    #[must_use]
    pub fn derived_id(&self) -> Option<Uuid> {
        if let Some(within) = &self.within {
            return Some(within.id(&self.tenant));
        }
        let (function, slot) = (self.function.to_string(), self.terms.slot.map(|slot| slot.to_string()));
        let (kind, key) = match (&slot, &self.idempotency_key) {
            (Some(slot), _) => ("slot", slot),
            (None, Some(key)) => ("request", key),
            (None, None) => return None,
        };
        let mut parts = vec![self.tenant.as_str(), &self.owner, &function, key];
        // With the same key, a request of another kind is another request.
        if self.this != FUNCTION_RUN {
            parts.push(&self.this);
        }
        Some(ids::derive(kind, &parts))
    }

    /// Version 0 of the request. Its id is `new_id` if it has neither a slot nor an idempotency key.
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
        let draft = match self.within {
            Some(within) => draft.meta(WITHIN, within.to_value()),
            None => draft,
        };
        let draft = match self.parent_span {
            Some(parent) => draft.meta(PARENT_SPAN, parent),
            None => draft,
        };
        if derived.is_some() { draft.deterministic() } else { draft }
    }
}

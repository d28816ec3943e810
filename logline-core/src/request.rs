//! The life of a request, as versions of its span.
//!
//! ```text
//! scheduled --claim--> running --> complete
//!     ^                   |------> error        (no retry would change it, or none was asked for)
//!     |<--back-off--------|------> dead         (attempts used up, or its deadline passed)
//!     |<--revive-------------------+
//!                                  cancelled    (from scheduled or running)
//! ```
//!
//! Pure: each step is drafts made from the version before. Times are the ledger's, so hosts need not agree on theirs.

use std::time::Duration;

use chrono::NaiveDate;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::canonical;
use crate::draft::Draft;
use crate::hex::PublicKey;
use crate::ids;
use crate::json;
use crate::ledger::Charges;
use crate::ledger::work::MAX_PRIORITY;
use crate::rules::{MAX_INTEGER, Rules};
use crate::sandbox::Failure;
use crate::span::SignedSpan;
use crate::span::{SpanKey, Visibility};
use crate::timestamp::Timestamp;

/// Attempts of a request that names no number: a failure ends it, lost attempts are made again up to so many.
pub const DEFAULT_LOST_ATTEMPTS: u32 = 20;

/// The most attempts that a request may ask for.
pub const MAX_ATTEMPTS: u32 = 1000;

/// The first pause of a request that names none.
pub const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause between attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// The `this` of a request to look at a span again for a policy, at a time that the policy named.
pub const POLICY_DUE: &str = "policy.due";

/// The member of metadata in which the runtime records which policy brought a span about, and how many policies before it.
pub const CAUSE: &str = "policy";

/// The fuel that the attempt of a claim may use, where it is counted: if it is cancelled, what it has used is not known.
const FUEL_ALLOWED: &str = "fuel_allowed";

/// What the runtime keeps in a request's metadata, and nobody else says.
const KEPT: &[&str] = &["worker", "lease_ms", "lease_until", "quota", "fuel_allowed", "execution", "attempts_before"];

/// A draft of a request that others have written, without what only the runtime says.
#[must_use]
pub fn without_kept(draft: Draft) -> Draft {
    KEPT.iter().fold(draft, |draft, name| draft.without_meta(name))
}

/// The same of a first version that others have signed, before anything follows from it.
pub(crate) fn forget_kept(request: &mut SignedSpan) {
    if let Some(Value::Object(metadata)) = &mut request.span.metadata {
        KEPT.iter().chain(&[CAUSE]).for_each(|name| drop(metadata.remove(*name)));
    }
}

/// The kernel that carries out `request`.
pub(crate) fn kernel(request: &SignedSpan) -> Uuid {
    if request.this == POLICY_DUE { ids::POLICY_AGENT } else { ids::RUN_CODE }
}

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
    /// Not before this time; at once where absent.
    pub due_at: Option<Timestamp>,
    /// 0 to 9, the highest first within the tenant; 5 where absent.
    pub priority: Option<u8>,
    /// Attempts in all, 1 to [`MAX_ATTEMPTS`], with growing pauses between them. Where absent, the first failure is the end; only
    /// attempts whose worker was lost are made again, up to [`DEFAULT_LOST_ATTEMPTS`].
    pub max_attempts: Option<u32>,
    /// The first pause, up to an hour; each is twice the one before, up to an hour, less up to a half by chance. One second where
    /// absent.
    pub backoff: Option<Duration>,
    /// No attempt begins after this time.
    pub deadline: Option<Timestamp>,
    /// The time of its schedule that it is for: tenant, owner, function and slot make one request.
    pub slot: Option<Timestamp>,
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
            input,
            visibility: Visibility::Private,
            trace_id: None,
            idempotency_key: None,
            due_at: None,
            priority: None,
            max_attempts: None,
            backoff: None,
            deadline: None,
            slot: None,
            cause: None,
        }
    }

    /// Sets when it is due.
    #[must_use]
    pub fn due_at(mut self, due: Timestamp) -> Self {
        self.due_at = Some(due);
        self
    }

    /// Sets its priority, 0 to 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority.min(MAX_PRIORITY));
        self
    }

    /// Sets how often it is tried.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.clamp(1, MAX_ATTEMPTS));
        self
    }

    /// Sets the first pause between attempts.
    #[must_use]
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.backoff = Some(pause.min(MAX_BACKOFF));
        self
    }

    /// Sets when it is too late to begin.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes it the one request of its function for this slot of the schedule.
    #[must_use]
    pub fn slot(mut self, slot: Timestamp) -> Self {
        self.slot = Some(slot);
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

    /// Makes submitting it again harmless.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The id that it will have, where that follows from what it says.
    #[must_use]
    pub fn derived_id(&self) -> Option<Uuid> {
        let function = self.function.to_string();
        match (self.slot, &self.idempotency_key) {
            (Some(slot), _) => Some(ids::derive("slot", &[&self.tenant, &self.owner, &function, &slot.to_string()])),
            (None, Some(key)) => Some(ids::derive("request", &[&self.tenant, &self.owner, &function, key])),
            (None, None) => None,
        }
    }

    /// The request's version 0, with an id of its own where none follows from what it says.
    #[must_use]
    pub fn into_draft(self, new_id: Uuid) -> Draft {
        let derived = self.derived_id();
        let id = derived.unwrap_or(new_id);
        let who = match (&self.cause, self.slot) {
            (Some(_), _) => "kernel:policy_agent".to_owned(),
            (None, Some(_)) => "kernel:observer_bot".to_owned(),
            (None, None) => format!("user:{}", self.owner),
        };
        let draft = Draft::new("request")
            .id(id)
            .who(who)
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
        let draft = [
            ("due_at", self.due_at.map(|time| time.to_string().into())),
            ("priority", self.priority.map(Value::from)),
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("backoff_ms", self.backoff.map(|pause| millis(pause).into())),
            ("deadline", self.deadline.map(|time| time.to_string().into())),
            ("slot", self.slot.map(|time| time.to_string().into())),
            (CAUSE, self.cause),
        ]
        .into_iter()
        .fold(draft, |draft, (name, value)| match value {
            Some(value) => draft.meta(name, value),
            None => draft,
        });
        if derived.is_some() { draft.deterministic() } else { draft }
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
    /// Somebody is at it, or it is not due yet.
    #[error("request {key} is `{status}` and not due: wait for whoever is at it, or for its time, and retry")]
    NotDue {
        /// The request.
        key: SpanKey,
        /// `scheduled` for later, or `running` under a lease.
        status: String,
    },
    /// Its tenant has used its quota.
    #[error("request {key} waits until {until}: its tenant has used its quota of today")]
    Deferred {
        /// The request.
        key: SpanKey,
        /// When it is due again.
        until: Timestamp,
    },
    /// This host cannot carry it out; another may.
    #[error(
        "request {key} needs the kernel {kernel}, which this host cannot run: have the manifest allow it, install its seed, or leave it to another host"
    )]
    NoKernel {
        /// The request.
        key: SpanKey,
        /// The kernel.
        kernel: Uuid,
    },
    /// It asks for what only a host may ask for.
    #[error("request {key} is of `{this}`, which only a host may ask for")]
    NotPermitted {
        /// The request.
        key: SpanKey,
        /// Its `this`.
        this: String,
    },
    /// It cannot be revived.
    #[error("request {key} is `{status}`: only one that is dead, cancelled or ended in error can be revived")]
    NotEnded {
        /// The request.
        key: SpanKey,
        /// Its status.
        status: String,
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

/// Arrays and objects of a request: its executions have as many, and those of the journal.
const MAX_CONTAINERS: usize = json::MAX_CONTAINERS / 2;

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
    let containers =
        [&request.input, &request.content, &request.metadata].into_iter().flatten().map(json::containers).sum::<usize>();
    if containers > MAX_CONTAINERS && request.prev_hash.is_none() {
        return malformed(format!("it has {containers} arrays and objects, the limit for a request is {MAX_CONTAINERS}"));
    }
    Ok(())
}

/// Closes a request that can never run. Its content is left to the first version, so that this one fits.
pub(crate) fn refuse(request: &SignedSpan, reason: &Failure, now: Timestamp) -> Draft {
    let mut draft = Draft::next_version(request).at(now).did("refused").status("error");
    let columns = draft.columns_mut();
    (columns.input, columns.output, columns.content, columns.metadata) = (None, None, None, None);
    (columns.name, columns.description, columns.code) = (None, None, None);
    draft.error(reason.to_value())
}

/// What a tenant is told, once a day, when it has used a quota.
pub(crate) fn quota_violation(tenant: &str, key: &str, per_day: u64, day: NaiveDate) -> Draft {
    let day = day.to_string();
    Draft::new("policy_violation")
        .id(ids::derive("policy_violation", &[tenant, key, &day]))
        .tenant(tenant)
        .owner("runtime")
        .visibility(Visibility::Tenant)
        .who("kernel:run_code")
        .did("denied")
        .this(format!("quota.{key}"))
        .status("open")
        .metadata(json!({"key": key, "day": day, "limit": per_day}))
        .deterministic()
}

/// A claim that could be made, or why the request ends instead.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Claim {
    /// The drafts that start an attempt: the `running` version last; before it, where an attempt was lost, the execution that says so.
    Start { attempt: u32, drafts: Vec<Draft> },
    /// The drafts that end the request: `dead` last.
    End { drafts: Vec<Draft>, reason: NotRunnable },
}

/// How a worker takes a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    pub(crate) worker: PublicKey,
    /// The ledger's time.
    pub(crate) now: Timestamp,
    pub(crate) lease: Duration,
    /// What the claim uses.
    pub(crate) charges: Option<Charges>,
    /// The fuel that the attempt may use, where it is counted.
    pub(crate) fuel: Option<u64>,
}

/// Starts the next attempt of `request`, which the queue has found due: a running one's lease has ended.
pub(crate) fn claim(request: &SignedSpan, terms: &Terms) -> Result<Claim, NotRunnable> {
    let Terms { worker, now, lease, charges, fuel } = terms;
    let attempts = attempts(request);
    let mut drafts = Vec::new();
    let mut previous = request.clone();
    match request.status.as_deref() {
        Some("scheduled") => {}
        Some("running") => drafts.push(ended(request, "lost", "the worker's lease ended before it recorded a result", *now)),
        status => {
            return Err(NotRunnable::Ended { key: request.key(), status: status.unwrap_or_default().to_owned() });
        }
    }
    let too_late = time(request, "deadline").filter(|deadline| now > deadline);
    let end = if let Some(deadline) = too_late {
        Some(Failure::new("deadline_exceeded", format!("it was not begun by its deadline, {deadline}")))
    } else if used(request) >= allowed(request) {
        Some(Failure::new("attempts_exhausted", format!("attempt {attempts} was lost, and it was the last allowed")))
    } else {
        None
    };
    if let Some(failure) = end {
        let reason = NotRunnable::Ended { key: request.key(), status: "dead".to_owned() };
        drafts.push(close_as(request, "gave_up", "dead", *now).error(failure.to_value()));
        return Ok(Claim::End { drafts, reason });
    }
    let attempt = attempts.saturating_add(1);
    // What an earlier attempt failed with stands in its own version.
    previous.span.error = None;
    let mut draft = Draft::next_version(&previous)
        .at(*now)
        .who(format!("host:{worker}"))
        .did("claimed")
        .status("running")
        .meta("attempt", attempt)
        .meta("worker", worker.to_string())
        .meta("lease_ms", millis(*lease))
        .meta("lease_until", now.saturating_add(*lease).to_string());
    draft = match charges {
        Some(charges) => draft.meta("quota", charges.to_value()),
        None => draft.without_meta("quota"),
    };
    draft = match fuel {
        Some(fuel) => draft.meta(FUEL_ALLOWED, *fuel),
        None => draft.without_meta(FUEL_ALLOWED),
    };
    drafts.push(draft);
    Ok(Claim::Start { attempt, drafts })
}

/// The execution of an attempt that ends without its worker's word.
fn ended(running: &SignedSpan, code: &str, message: &str, now: Timestamp) -> Draft {
    let attempt = attempts(running);
    let failure = Failure::new(code, message);
    execution(running, attempt).at(now).status("error").error(failure.to_value()).meta("attempt", attempt)
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

/// Ends the attempt that `running` started: the request with it, unless another attempt may help and is allowed.
pub(crate) fn close(
    running: &SignedSpan,
    result: &Result<Value, Failure>,
    execution: Uuid,
    used_up: Option<Charges>,
    now: Timestamp,
) -> Draft {
    // The input stands in version 0 and the output in the execution; the closing row points there.
    let draft = match result {
        Ok(_) => close_as(running, "completed", "complete", now),
        Err(failure) => {
            let retries = running.meta("max_attempts").is_some() && !failure.is_final();
            let draft = match retries {
                true if used(running) < allowed(running) => {
                    let pause = pause(running);
                    let again = close_as(running, "failed", "scheduled", now);
                    again.meta("due_at", now.saturating_add(pause).to_string())
                }
                true => close_as(running, "gave_up", "dead", now),
                false => close_as(running, "failed", "error", now),
            };
            draft.error(failure.to_value())
        }
    };
    let draft = draft.meta("execution", execution.to_string());
    match used_up {
        Some(charges) => draft.meta("quota", charges.to_used()),
        None => draft,
    }
}

/// Takes back a claim whose worker has to go: the attempt ends without a result, and the next may begin at once.
pub(crate) fn hand_back(running: &SignedSpan, now: Timestamp) -> Vec<Draft> {
    let execution = ended(running, "handed_back", "the worker was shut down before the attempt ended", now);
    vec![execution, Draft::next_version(running).at(now).did("handed_back").status("scheduled").meta("due_at", now.to_string())]
}

/// Puts a request off, without an attempt.
pub(crate) fn defer(request: &SignedSpan, until: Timestamp, reason: &Failure, now: Timestamp) -> Draft {
    let draft = Draft::next_version(request).at(now).did("deferred").status("scheduled");
    draft.error(reason.to_value()).meta("due_at", until.to_string())
}

/// Ends a request that has not ended; an attempt that is under way is told by the loss of its claim, and uses `used_up`.
pub(crate) fn cancel(
    request: &SignedSpan,
    who: &str,
    used_up: Option<Charges>,
    now: Timestamp,
) -> Result<Vec<Draft>, NotRunnable> {
    let mut drafts = Vec::new();
    let mut closing = close_as(request, "cancelled", "cancelled", now).who(who);
    match request.status.as_deref() {
        Some("scheduled") => {}
        Some("running") => {
            drafts.push(ended(request, "cancelled", "the request was cancelled while it ran", now));
            if let Some(charges) = used_up {
                closing = closing.meta("quota", charges.to_used());
            }
        }
        status => {
            return Err(NotRunnable::Ended { key: request.key(), status: status.unwrap_or_default().to_owned() });
        }
    }
    drafts.push(closing);
    Ok(drafts)
}

/// Schedules a request that ended without success again, with as many attempts as it had at first.
pub(crate) fn revive(request: &SignedSpan, who: &str, now: Timestamp) -> Result<Draft, NotRunnable> {
    match request.status.as_deref() {
        Some("dead" | "error" | "cancelled") => {
            let draft = Draft::next_version(request).at(now).who(who).did("revived").status("scheduled");
            let draft = draft.meta("due_at", now.to_string()).meta("attempts_before", attempts(request));
            // A deadline that has passed would end it again.
            Ok(draft.without_meta("deadline"))
        }
        status => Err(NotRunnable::NotEnded { key: request.key(), status: status.unwrap_or_default().to_owned() }),
    }
}

fn close_as(request: &SignedSpan, did: &str, status: &str, now: Timestamp) -> Draft {
    // What an earlier version has used is not used again.
    Draft::next_version(request).at(now).did(did).status(status).without_meta("quota")
}

/// Attempts begun so far, ever.
fn attempts(request: &SignedSpan) -> u32 {
    number(request, "attempt").unwrap_or(0)
}

/// Attempts begun since it was last revived.
fn used(request: &SignedSpan) -> u32 {
    attempts(request).saturating_sub(number(request, "attempts_before").unwrap_or(0))
}

fn allowed(request: &SignedSpan) -> u32 {
    number(request, "max_attempts").map_or(DEFAULT_LOST_ATTEMPTS, |attempts| attempts.clamp(1, MAX_ATTEMPTS))
}

/// The pause after the attempt that `running` started. What looks like chance follows from the attempt's id, so that it is the
/// same whoever computes it.
fn pause(running: &SignedSpan) -> Duration {
    let first = running.meta("backoff_ms").and_then(Value::as_u64).map_or(DEFAULT_BACKOFF, Duration::from_millis);
    let doublings = used(running).saturating_sub(1).min(31);
    let longest = first.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    let execution = ids::execution(&running.tenant_id, running.id, attempts(running));
    let chance = u32::from_be_bytes(*execution.as_bytes().first_chunk().unwrap_or(&[0; 4]));
    longest.mul_f64(1.0 - f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

/// The fuel that the attempt that `running` started may use, if that is counted.
pub(crate) fn fuel_allowed(running: &SignedSpan) -> Option<u64> {
    running.meta(FUEL_ALLOWED).and_then(Value::as_u64)
}

fn number(request: &SignedSpan, name: &str) -> Option<u32> {
    request.meta(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
}

fn time(request: &SignedSpan, name: &str) -> Option<Timestamp> {
    request.meta(name).and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

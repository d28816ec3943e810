//! The content of one version of a request: its phase, the step that led to it, and the members of its metadata.
//!
//! Only this file names, reads and writes these members. A member that is absent has its default. A member that cannot be read
//! is an error that names it. It is never treated as absent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::request::call;
use crate::request::quota::{Charged, Charges};
use crate::span::draft::Draft;
use crate::span::rules::MAX_INTEGER;
use crate::span::{SignedSpan, Span};
use crate::value::hex::{Hash, PublicKey};
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The most attempts of a request that does not set `max_attempts`. Its first failure ends it. Only an attempt whose worker was
/// lost is retried.
pub const DEFAULT_LOST_ATTEMPTS: u32 = 20;

/// The most attempts that a request may ask for.
pub const MAX_ATTEMPTS: u32 = 1000;

/// The first pause between attempts, if the request does not set one.
pub const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause between attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// The highest priority of a request; 0 is the lowest.
pub const MAX_PRIORITY: u8 = 9;

/// The priority of a request that does not set one.
pub const DEFAULT_PRIORITY: u8 = 5;

/// The lease of a claim that does not set one.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// The member of metadata with the caller's span in the trace, as W3C Trace Context names it: 16 hexadecimal digits.
pub const PARENT_SPAN: &str = "parent_span";

/// The member of metadata in which the runtime records the policy that caused a span, and how many policies led to it.
pub const CAUSE: &str = "policy";

/// The member of metadata in which the runtime records the request whose kernel makes this one: [`Within`].
pub const WITHIN: &str = "within";

pub(crate) const ATTEMPT: &str = "attempt";
const NOT_COUNTED: &str = "attempts_not_counted";
const DUE_AT: &str = "due_at";
const PRIORITY: &str = "priority";
const TRIES: &str = "max_attempts";
const BACKOFF_MS: &str = "backoff_ms";
const DEADLINE: &str = "deadline";
const SLOT: &str = "slot";
const ON_UNKNOWN: &str = "on_unknown";
const CONFIDENTIAL: &str = "confidential";
const FUNCTION_HASH: &str = "function_hash";
const WORKER: &str = "worker";
const LEASE_MS: &str = "lease_ms";
const LEASE_UNTIL: &str = "lease_until";
pub(crate) const QUOTA: &str = "quota";
const FUEL_ALLOWED: &str = "fuel_allowed";
const EXECUTION: &str = "execution";

/// Members that only a host may write. If somebody else signs a first version with such members, they are ignored, and later
/// versions leave them out.
const HOST_ONLY: &[&str] = &[WORKER, LEASE_MS, LEASE_UNTIL, QUOTA, FUEL_ALLOWED, EXECUTION, NOT_COUNTED, WITHIN];

/// Removes the members that only a host may write from a draft of a request that somebody else has written.
#[must_use]
pub fn without_host_only(draft: Draft) -> Draft {
    HOST_ONLY.iter().fold(draft, |draft, name| draft.without_meta(name))
}

/// The phase of a request: its `status` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for a worker, or until it is due.
    Scheduled,
    /// A worker has claimed it.
    Running,
    /// It ended with an output.
    Complete,
    /// It ended with a failure. A retry cannot help, or was not asked for.
    Error,
    /// Its attempts are used up, or its deadline has passed.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
}

impl Phase {
    /// The text in the `status` column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Error => "error",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The phase of a version of a request. `None` if its status is absent or is not the text of a phase.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let status = span.status.as_deref()?;
        [Self::Scheduled, Self::Running, Self::Complete, Self::Error, Self::Dead, Self::Cancelled]
            .into_iter()
            .find(|phase| phase.as_str() == status)
    }
}

/// The step that led to a version: its `did` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// It was submitted.
    Requested,
    /// A worker claimed it.
    Claimed,
    /// An attempt ended with an output.
    Completed,
    /// An attempt ended with a failure.
    Failed,
    /// No attempt is left, or its deadline has passed.
    GaveUp,
    /// A worker that had to stop gave it back.
    HandedBack,
    /// Somebody cancelled it.
    Cancelled,
    /// Somebody scheduled it again after its end.
    Revived,
    /// It can never be carried out.
    Refused,
}

impl Step {
    /// The text in the `did` column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Claimed => "claimed",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::GaveUp => "gave_up",
            Self::HandedBack => "handed_back",
            Self::Cancelled => "cancelled",
            Self::Revived => "revived",
            Self::Refused => "refused",
        }
    }

    /// Whether the step may end an attempt with a result or by cancellation. The version then names the units of the quotas
    /// that are known only at the end.
    pub(crate) fn ends_attempt(did: &str) -> bool {
        [Self::Completed, Self::Failed, Self::GaveUp, Self::Cancelled].iter().any(|step| step.as_str() == did)
    }
}

/// What happens if nobody knows whether an earlier attempt's call to the outside was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnUnknown {
    /// The request ends with `outcome_unknown`.
    #[default]
    Fail,
    /// The call is made again, with the same idempotency key.
    Retry,
}

/// What a request asks for in addition to its input. A term that is absent has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Terms {
    /// The first attempt does not begin before this time. If `None`, the request is due at once.
    pub due_at: Option<Timestamp>,
    /// 0 to [`MAX_PRIORITY`]. The highest runs first within the tenant. If `None`, it is [`DEFAULT_PRIORITY`].
    pub priority: Option<u8>,
    /// The most attempts in all, 1 to [`MAX_ATTEMPTS`], with growing pauses between them. If `None`, the first failure ends the
    /// request. Only an attempt whose worker was lost is then retried, up to [`DEFAULT_LOST_ATTEMPTS`] in all.
    pub max_attempts: Option<u32>,
    /// The first pause between attempts. Each later pause is twice the one before. No pause is longer than [`MAX_BACKOFF`], and
    /// each is shortened by up to a half, at random. If `None`, it is [`DEFAULT_BACKOFF`].
    pub backoff: Option<Duration>,
    /// No attempt begins after this time. If `None`, there is no deadline.
    pub deadline: Option<Timestamp>,
    /// The time in a schedule for which the request is made. `None` if it does not belong to a schedule.
    pub slot: Option<Timestamp>,
    /// What happens after a call to the outside with an unknown outcome.
    pub on_unknown: OnUnknown,
    /// Whether the input, and everything that comes of it, is encrypted under the owner's key.
    pub confidential: bool,
    /// The hash of the only version of the function that may run. `None`: the version in force when an attempt begins.
    pub function_hash: Option<Hash>,
}

impl Terms {
    /// Writes the terms into the metadata of a first version.
    pub(crate) fn write(&self, draft: Draft) -> Draft {
        let time = |time: Option<Timestamp>| time.map(|time| Value::from(time.to_string()));
        let members = [
            (DUE_AT, time(self.due_at)),
            (PRIORITY, self.priority.map(Value::from)),
            (TRIES, self.max_attempts.map(Value::from)),
            (BACKOFF_MS, self.backoff.map(|pause| millis(pause).into())),
            (DEADLINE, time(self.deadline)),
            (SLOT, time(self.slot)),
            (ON_UNKNOWN, (self.on_unknown == OnUnknown::Retry).then(|| "retry".into())),
            (CONFIDENTIAL, self.confidential.then(|| true.into())),
            (FUNCTION_HASH, self.function_hash.map(|hash| hash.to_string().into())),
        ];
        members.into_iter().fold(draft.meta(ATTEMPT, 0), |draft, (name, value)| match value {
            Some(value) => draft.meta(name, value),
            None => draft,
        })
    }
}

/// What a claim adds to the version before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClaimTerms {
    /// The key of the host that claims.
    pub(crate) worker: PublicKey,
    /// The current time of the ledger.
    pub(crate) now: Timestamp,
    pub(crate) lease: Duration,
    /// The quota units that the claim uses.
    pub(crate) charges: Option<Charges>,
    /// The fuel that the attempt may use. `None` if the manifest sets no daily fuel limit for tenants.
    pub(crate) fuel: Option<u64>,
}

impl ClaimTerms {
    pub(crate) fn write(&self, draft: Draft, attempt: u32) -> Draft {
        let draft = draft
            .meta(ATTEMPT, attempt)
            .meta(WORKER, self.worker.to_string())
            .meta(LEASE_MS, millis(self.lease))
            .meta(LEASE_UNTIL, self.now.saturating_add(self.lease).to_string());
        let draft = set(draft, QUOTA, self.charges.as_ref().map(Charges::to_value));
        set(draft, FUEL_ALLOWED, self.fuel.map(Value::from))
    }
}

/// Sets a member of metadata, or removes it if there is no value.
fn set(draft: Draft, name: &str, value: Option<Value>) -> Draft {
    match value {
        Some(value) => draft.meta(name, value),
        None => draft.without_meta(name),
    }
}

/// Writes the units that an attempt has used. If there are none, it removes the member: the units of an earlier version must
/// not be counted again.
pub(crate) fn write_used(draft: Draft, used: Option<&Charges>) -> Draft {
    set(draft, QUOTA, used.map(Charges::to_used))
}

/// Writes when the request is due.
pub(crate) fn write_due(draft: Draft, due: Timestamp) -> Draft {
    draft.meta(DUE_AT, due.to_string())
}

/// Writes which execution recorded the attempt.
pub(crate) fn write_execution(draft: Draft, execution: Uuid) -> Draft {
    draft.meta(EXECUTION, execution.to_string())
}

/// Restarts the count of attempts and removes the deadline. A deadline that has passed would end the request at once.
pub(crate) fn write_revival(draft: Draft, attempts: u32, due: Timestamp) -> Draft {
    // What an earlier attempt has recorded is not the outcome of what begins now.
    write_not_counted(write_due(draft, due), attempts).without_meta(DEADLINE).without_meta(EXECUTION)
}

/// Writes how many of the attempts so far do not count.
pub(crate) fn write_not_counted(draft: Draft, attempts: u32) -> Draft {
    draft.meta(NOT_COUNTED, attempts)
}

const A_HASH: &str = "64 lower-case hexadecimal digits";

/// Where a request comes from that a kernel makes while it carries out another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The request that the kernel carries out, in the same tenant.
    pub request: Uuid,
    /// The kernel's name for the inner request, the same in every attempt. 1 to 128 bytes.
    pub key: String,
}

impl Within {
    /// What a version of a request says. `None` if no kernel has made it. It is believed if a host has signed the version.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let said = span.meta(WITHIN)?;
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        Some(Self { request: text("request")?.parse().ok()?, key: text("key")?.to_owned() })
    }

    /// The id of the inner request: there is one for each key.
    #[must_use]
    pub fn id(&self, tenant: &str) -> Uuid {
        ids::derive("request_within", &[tenant, &self.request.to_string(), &self.key])
    }

    pub(crate) fn to_value(&self) -> Value {
        json!({"request": self.request.to_string(), "key": self.key})
    }
}

/// A member of metadata, or the status, has a value that is not valid in a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place} must be {expected}")]
pub struct Unreadable {
    /// The column, or the member of metadata such as `metadata.priority`.
    pub place: String,
    /// The values that are valid there.
    pub expected: &'static str,
}

/// The content of a version of a request, read once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct State {
    /// The phase, from its `status` column.
    pub phase: Phase,
    /// The attempts that have begun since the request was made.
    pub attempts: u32,
    /// How many of them do not count: those before the last revival, and those that a host that shut down gave back.
    pub attempts_not_counted: u32,
    /// When and how often the request is tried.
    pub terms: Terms,
    /// The fuel that the attempt of this claim may use. `None` if it is not counted.
    pub fuel_allowed: Option<u64>,
    /// The execution that recorded the last attempt with a result. `None` before that.
    pub execution: Option<Uuid>,
    /// The lease of this claim, at most [`MAX_LEASE`]. If the claim names none, it is [`DEFAULT_LEASE`].
    pub lease: Duration,
}

impl State {
    /// Reads a version of a request.
    ///
    /// # Errors
    /// [`Unreadable`], which names the first value that is not valid.
    pub fn of(span: &Span) -> Result<Self, Unreadable> {
        let phase = Phase::of(span).ok_or_else(|| Unreadable {
            place: "status".to_owned(),
            expected: "`scheduled`, `running`, `complete`, `error`, `dead` or `cancelled`",
        })?;
        if span.metadata.as_ref().is_some_and(|metadata| !metadata.is_object()) {
            return Err(Unreadable { place: "metadata".to_owned(), expected: "an object" });
        }
        let member = |name| Member { value: span.meta(name), name };
        let whole = "a whole number";
        Ok(Self {
            phase,
            attempts: member(ATTEMPT).number(0..=u64::from(u32::MAX), whole)?.unwrap_or(0),
            attempts_not_counted: member(NOT_COUNTED).number(0..=u64::from(u32::MAX), whole)?.unwrap_or(0),
            terms: Terms {
                due_at: member(DUE_AT).time()?,
                priority: member(PRIORITY).number(0..=u64::from(MAX_PRIORITY), "a whole number from 0 to 9")?,
                max_attempts: member(TRIES)
                    .number(1..=u64::from(MAX_ATTEMPTS), "a whole number from 1 to 1000; leave it out for a single attempt")?,
                backoff: member(BACKOFF_MS).number(0..=u64::MAX, "a whole number of milliseconds")?.map(Duration::from_millis),
                deadline: member(DEADLINE).time()?,
                slot: member(SLOT).time()?,
                on_unknown: match member(ON_UNKNOWN).text("`fail` or `retry`")? {
                    None | Some("fail") => OnUnknown::Fail,
                    Some("retry") => OnUnknown::Retry,
                    Some(_) => return Err(member(ON_UNKNOWN).unreadable("`fail` or `retry`")),
                },
                confidential: match span.meta(CONFIDENTIAL) {
                    None => false,
                    Some(value) => value.as_bool().ok_or_else(|| member(CONFIDENTIAL).unreadable("true or false"))?,
                },
                function_hash: match member(FUNCTION_HASH).text(A_HASH)? {
                    None => None,
                    Some(text) => Some(text.parse().map_err(|_| member(FUNCTION_HASH).unreadable(A_HASH))?),
                },
            },
            fuel_allowed: member(FUEL_ALLOWED).number(0..=u64::MAX, whole)?,
            execution: match member(EXECUTION).text("a UUID")? {
                Some(text) => Some(text.parse().map_err(|_| member(EXECUTION).unreadable("a UUID"))?),
                None => None,
            },
            lease: member(LEASE_MS).number(0..=u64::MAX, whole)?.map_or(DEFAULT_LEASE, Duration::from_millis).min(MAX_LEASE),
        })
    }

    /// The attempts that count.
    #[must_use]
    pub fn attempts_used(&self) -> u32 {
        self.attempts.saturating_sub(self.attempts_not_counted)
    }

    /// The most attempts that may begin until the next revival, lost ones included.
    #[must_use]
    pub fn attempts_allowed(&self) -> u32 {
        self.terms.max_attempts.unwrap_or(DEFAULT_LOST_ATTEMPTS)
    }

    /// The state of a first version that a host has not signed. Members that only a host may write have their defaults.
    pub(crate) fn without_host_only(self) -> Self {
        Self { attempts_not_counted: 0, fuel_allowed: None, execution: None, lease: DEFAULT_LEASE, ..self }
    }
}

/// One member of a request's metadata.
struct Member<'a> {
    name: &'static str,
    value: Option<&'a Value>,
}

impl<'a> Member<'a> {
    fn unreadable(&self, expected: &'static str) -> Unreadable {
        Unreadable { place: format!("metadata.{}", self.name), expected }
    }

    fn number<N: TryFrom<u64>>(
        &self,
        range: std::ops::RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<Option<N>, Unreadable> {
        let Some(value) = self.value else { return Ok(None) };
        let number = value.as_u64().filter(|number| range.contains(number)).and_then(|number| N::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.unreadable(expected))
    }

    fn text(&self, expected: &'static str) -> Result<Option<&'a str>, Unreadable> {
        let Some(value) = self.value else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.unreadable(expected))
    }

    fn time(&self) -> Result<Option<Timestamp>, Unreadable> {
        let expected = "an RFC 3339 time such as `2026-01-31T09:00:00Z`";
        let Some(text) = self.text(expected)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.unreadable(expected))
    }
}

/// What the last version of a request means to the queue. A queue also offers a request that cannot be read, so that a host
/// finds it and closes it. Only here, a value that cannot be read has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueEntry {
    /// No worker needs to do anything.
    Closed,
    /// It waits until it is due.
    Scheduled {
        /// The time at which it is due.
        due: Timestamp,
        /// 0 to [`MAX_PRIORITY`].
        priority: u8,
    },
    /// A worker has claimed it. The lease begins when the claim is appended.
    Leased {
        /// How long the claim holds without a heartbeat, at most [`MAX_LEASE`].
        lease: Duration,
        /// 0 to [`MAX_PRIORITY`].
        priority: u8,
    },
}

impl QueueEntry {
    /// The entry at the time `now` of a request whose last version is `span`. `None` if `span` is not a request.
    #[must_use]
    pub fn of(span: &Span, now: Timestamp) -> Option<Self> {
        if span.entity_type != "request" {
            return None;
        }
        // It cannot have a next version, so no worker could ever claim or close it.
        if span.seq >= MAX_INTEGER {
            return Some(Self::Closed);
        }
        let number = |name: &str| span.meta(name).and_then(Value::as_f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range before the conversion")]
        let priority = number(PRIORITY).map_or(DEFAULT_PRIORITY, |p| p.clamp(0.0, MAX_PRIORITY.into()) as u8);
        if is_claim(span) {
            #[allow(clippy::cast_precision_loss, reason = "a day in milliseconds is exact")]
            let longest = MAX_LEASE.as_millis() as f64;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range before the conversion")]
            let lease = number(LEASE_MS).map_or(DEFAULT_LEASE, |ms| Duration::from_millis(ms.clamp(0.0, longest) as u64));
            return Some(Self::Leased { lease, priority });
        }
        if span.is_deleted || Phase::of(span) != Some(Phase::Scheduled) {
            return Some(Self::Closed);
        }
        let due = span.meta(DUE_AT).and_then(Value::as_str).and_then(|text| text.parse().ok());
        // Not before now: a due time in the past, or a false `at`, would put a request before those that wait already.
        Some(Self::Scheduled { due: due.unwrap_or(now).max(now), priority })
    }
}

/// Whether `span` is a claim: the version with which a worker takes a request. Only the runtime writes such versions.
pub(crate) fn is_claim(span: &Span) -> bool {
    span.entity_type == "request" && span.prev_hash.is_some() && !span.is_deleted && Phase::of(span) == Some(Phase::Running)
}

/// Whether `span` is a version that may end an attempt with a result or by cancellation. Only the runtime writes such versions.
pub(crate) fn ends_attempt(span: &Span) -> bool {
    let ends = span.did.as_deref().is_some_and(Step::ends_attempt);
    span.entity_type == "request" && span.prev_hash.is_some() && !span.is_deleted && ends && !is_claim(span)
}

impl Charges {
    /// The charges in `span`. `None` if it is no claim, end of an attempt, intent or outcome, or if its charges cannot be read. If a
    /// limit applies to a claim without charges, [`check_limits`](crate::ledger::quota::check_limits) refuses it.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let charged = match span {
            span if is_claim(span) => Charged::Keys,
            span if ends_attempt(span) || call::is_intent(span) => Charged::Units,
            span if call::is_outcome(span) => Charged::Settled,
            _ => return None,
        };
        Self::read(span.meta(QUOTA)?, charged)
    }
}

/// The policy that caused a span, and how many policies led to it, as recorded by the host that signed it. `None` if no policy
/// caused it.
#[must_use]
pub fn cause(span: &SignedSpan) -> Option<&Value> {
    span.meta(CAUSE)
}

/// Whether a later version of a request asks for what its first version asks for: whether their metadata are the same, except for
/// the members that attempts change, and for a cause that the later version leaves out because no host had written it.
#[must_use]
pub fn asks_the_same(first: &SignedSpan, later: &SignedSpan) -> bool {
    let terms = |span: &SignedSpan| -> BTreeMap<String, Value> {
        let members = span.metadata.as_ref().and_then(Value::as_object).into_iter().flatten();
        let written = |name: &str| HOST_ONLY.contains(&name) || [ATTEMPT, DUE_AT, CAUSE].contains(&name);
        members.filter(|(name, _)| !written(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    terms(first) == terms(later) && later.meta(CAUSE).is_none_or(|cause| first.meta(CAUSE) == Some(cause))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

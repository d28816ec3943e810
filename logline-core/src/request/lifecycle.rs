//! The steps of a request's life, each a pure function from one version to the drafts of what follows.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::request::execution;
use crate::request::not_runnable::NotRunnable;
use crate::request::quota::Charges;
use crate::request::state::{self, CAUSE, ClaimTerms, DEFAULT_BACKOFF, MAX_BACKOFF, Phase, State, Step};
use crate::span::canonical;
use crate::span::draft::Draft;
use crate::span::rules::{MAX_INTEGER, Rules};
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, Span};
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;
use crate::value::timestamp::Timestamp;
use crate::value::{ids, json};

/// What a request's later versions add at most, bytes: worker, lease, links, an error of 4 KiB in which every byte is escaped.
const VERSION_ROOM: usize = 64 << 10;

/// Arrays and objects of a request: its executions have as many, and those of the journal.
const MAX_CONTAINERS: usize = json::MAX_CONTAINERS / 2;

/// Versions that a request may still need.
const VERSIONS_ROOM: u32 = 10_000;

/// Whether a version can be carried to the request's end: every later one is made from it and must fit.
pub(crate) fn check_shape(request: &SignedSpan, rules: &Rules) -> Result<State, NotRunnable> {
    if request.entity_type != "request" {
        return Err(NotRunnable::NotARequest { key: request.key(), entity_type: request.entity_type.clone() });
    }
    let malformed = |reason: String| NotRunnable::Malformed { key: request.key(), reason };
    if request.seq > MAX_INTEGER - VERSIONS_ROOM {
        return Err(malformed(format!("seq {} leaves no room for later versions", request.seq)));
    }
    let state = State::of(request).map_err(|unreadable| malformed(unreadable.to_string()))?;
    if request.prev_hash.is_some() {
        return Ok(state);
    }
    if state.phase != Phase::Scheduled || state.attempts != 0 {
        return Err(malformed("a request begins with status `scheduled` and attempt 0".to_owned()));
    }
    let max = rules.max_span_bytes.saturating_sub(VERSION_ROOM);
    let bytes = canonical::payload(&request.span, &request.seal.public_key).len();
    if bytes > max {
        return Err(malformed(format!("it has {bytes} bytes, the limit for a request is {max}")));
    }
    let containers =
        [&request.input, &request.content, &request.metadata].into_iter().flatten().map(json::containers).sum::<usize>();
    if containers > MAX_CONTAINERS {
        let reason = format!("it has {containers} arrays and objects, the limit for a request is {MAX_CONTAINERS}");
        return Err(malformed(reason));
    }
    Ok(state)
}

/// Who signed a request's first version, which decides what its metadata may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A host.
    Host,
    /// A member or a publisher.
    Others,
}

/// The last version of a request, verified, its shape and the origin of its first version known: what a successor is made from.
pub(crate) struct Open<'a> {
    pub(crate) span: &'a VerifiedSpan,
    pub(crate) state: State,
    /// Whether members that only a host writes are left out.
    is_foreign: bool,
}

impl<'a> Open<'a> {
    /// A version that a host has checked.
    pub(crate) fn new(span: &'a VerifiedSpan, state: State, origin: Origin) -> Self {
        // A later version is a host's, made here: it has no such member from others.
        let is_foreign = origin == Origin::Others && span.prev_hash.is_none();
        let state = if is_foreign { state.without_host_only() } else { state };
        Self { span, state, is_foreign }
    }

    fn next(&self, step: Step, phase: Phase, now: Timestamp) -> Draft {
        let draft = Draft::next_version(self.span).at(now).did(step.as_str()).status(phase.as_str());
        if self.is_foreign { state::without_host_only(draft).without_meta(CAUSE) } else { draft }
    }

    fn end(&self, step: Step, phase: Phase, now: Timestamp) -> Draft {
        state::write_used(self.next(step, phase, now), None)
    }

    /// The execution of an attempt that ends without its worker's word.
    fn ended(&self, recorder: &PublicKey, code: &str, message: &str, now: Timestamp) -> Draft {
        execution::unfinished(self.span, self.state.attempts, recorder, &Failure::new(code, message)).at(now)
    }
}

/// Closes a request that can never run. Its content is left to the first version, so that this one fits.
pub(crate) fn refuse(request: &SignedSpan, reason: &Failure, now: Timestamp) -> Draft {
    let mut draft =
        Draft::next_version(request).at(now).did(Step::Refused.as_str()).status(Phase::Error.as_str()).error(reason.to_value());
    let Span { input, output, content, metadata, name, description, code, .. } = draft.columns_mut();
    (*input, *output, *content, *metadata) = (None, None, None, None);
    (*name, *description, *code) = (None, None, None);
    draft
}

/// A claim that could be made, or why the request ends instead.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Claiming {
    /// The drafts that start an attempt: the `running` version last; before it, where an attempt was lost, the execution that says so.
    Start { attempt: u32, drafts: Vec<Draft> },
    /// The drafts that end the request: `dead` last.
    End { drafts: Vec<Draft>, reason: NotRunnable },
}

/// Starts the next attempt of a request that the queue has found due: if it is running, its lease has ended.
pub(crate) fn claim(request: &Open<'_>, terms: &ClaimTerms) -> Result<Claiming, NotRunnable> {
    let (span, state, now) = (request.span, &request.state, terms.now);
    let mut drafts = Vec::new();
    match state.phase {
        Phase::Scheduled => {}
        Phase::Running => {
            drafts.push(request.ended(&terms.worker, "lost", "the worker's lease ended before it recorded a result", now));
        }
        phase => return Err(NotRunnable::Ended { key: span.key(), status: phase.as_str().to_owned() }),
    }
    let too_late = state.terms.deadline.filter(|deadline| now > *deadline);
    let end = if let Some(deadline) = too_late {
        Some(Failure::new("deadline_exceeded", format!("it was not begun by its deadline, {deadline}")))
    } else if state.attempts_used() >= state.attempts_allowed() {
        Some(Failure::new("attempts_exhausted", format!("attempt {} was lost, and it was the last allowed", state.attempts)))
    } else {
        None
    };
    if let Some(failure) = end {
        let reason = NotRunnable::Ended { key: span.key(), status: Phase::Dead.as_str().to_owned() };
        drafts.push(request.end(Step::GaveUp, Phase::Dead, now).error(failure.to_value()));
        return Ok(Claiming::End { drafts, reason });
    }
    let attempt = state.attempts.saturating_add(1);
    let mut draft = request.next(Step::Claimed, Phase::Running, now).who(execution::recorder(&terms.worker));
    // The failure of an earlier attempt is in the version that ended it.
    draft.columns_mut().error = None;
    drafts.push(terms.write(draft, attempt));
    Ok(Claiming::Start { attempt, drafts })
}

/// Ends the attempt that `running` started: the request with it, unless another attempt may help and is allowed.
pub(crate) fn close(
    running: &Open<'_>,
    result: &Result<Value, Failure>,
    execution: Uuid,
    used: Option<&Charges>,
    now: Timestamp,
) -> Draft {
    let state = &running.state;
    // The input is in version 0 and the output in the execution; the closing row points there.
    let draft = match result {
        Ok(_) => running.end(Step::Completed, Phase::Complete, now),
        Err(failure) => {
            let retries = state.terms.max_attempts.is_some() && !failure.is_final();
            let draft = match retries {
                true if state.attempts_used() < state.attempts_allowed() => {
                    let again = running.end(Step::Failed, Phase::Scheduled, now);
                    state::write_due(again, now.saturating_add(pause(running)))
                }
                true => running.end(Step::GaveUp, Phase::Dead, now),
                false => running.end(Step::Failed, Phase::Error, now),
            };
            draft.error(failure.to_value())
        }
    };
    let draft = state::write_execution(draft, execution);
    if used.is_some() { state::write_used(draft, used) } else { draft }
}

/// Takes back a claim whose worker has to stop: the attempt ends without a result, and the next may begin at once.
pub(crate) fn hand_back(running: &Open<'_>, recorder: &PublicKey, now: Timestamp) -> Vec<Draft> {
    let execution = running.ended(recorder, "handed_back", "the worker was shut down before the attempt ended", now);
    vec![execution, state::write_due(running.next(Step::HandedBack, Phase::Scheduled, now), now)]
}

/// Puts a request off, without an attempt.
pub(crate) fn defer(request: &Open<'_>, until: Timestamp, reason: &Failure, now: Timestamp) -> Draft {
    state::write_due(request.next(Step::Deferred, Phase::Scheduled, now).error(reason.to_value()), until)
}

/// Ends a request that has not ended. An attempt that is under way learns of it by the loss of its claim; it has used `used`.
pub(crate) fn cancel(
    request: &Open<'_>,
    who: &str,
    recorder: &PublicKey,
    used: Option<&Charges>,
    now: Timestamp,
) -> Result<Vec<Draft>, NotRunnable> {
    let mut drafts = Vec::new();
    let mut closing = request.end(Step::Cancelled, Phase::Cancelled, now).who(who);
    match request.state.phase {
        Phase::Scheduled => {}
        Phase::Running => {
            drafts.push(request.ended(recorder, "cancelled", "the request was cancelled while it ran", now));
            closing = state::write_used(closing, used);
        }
        phase => return Err(NotRunnable::Ended { key: request.span.key(), status: phase.as_str().to_owned() }),
    }
    drafts.push(closing);
    Ok(drafts)
}

/// Schedules a request that ended without success again, with as many attempts as it had at first.
pub(crate) fn revive(request: &Open<'_>, who: &str, now: Timestamp) -> Result<Draft, NotRunnable> {
    match request.state.phase {
        Phase::Dead | Phase::Error | Phase::Cancelled => {
            let draft = request.next(Step::Revived, Phase::Scheduled, now).who(who);
            Ok(state::write_revival(draft, request.state.attempts, now))
        }
        phase => Err(NotRunnable::NotEnded { key: request.span.key(), status: phase.as_str().to_owned() }),
    }
}

/// The pause after the attempt that `running` started. Its chance follows from the attempt's id, so that every host computes the same.
fn pause(running: &Open<'_>) -> Duration {
    let state = &running.state;
    let first = state.terms.backoff.unwrap_or(DEFAULT_BACKOFF);
    let doublings = state.attempts_used().saturating_sub(1).min(31);
    let longest = first.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    let execution = ids::execution(&running.span.tenant_id, running.span.id, state.attempts);
    let chance = u32::from_be_bytes(*execution.as_bytes().first_chunk().unwrap_or(&[0; 4]));
    longest.mul_f64(1.0 - f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

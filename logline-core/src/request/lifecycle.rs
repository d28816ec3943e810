//! The steps in the life of a request. Each is a pure function from one version to the drafts that follow it.

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
use crate::span::{SignedSpan, Visibility};
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;
use crate::value::timestamp::Timestamp;
use crate::value::{ids, json};

/// The most bytes that later versions of a request add: worker, lease, links, and an error of 4 KiB with every byte escaped.
const VERSION_ROOM: usize = 64 << 10;

/// The most arrays and objects in a request. Its executions have as many, and need room for those of the journal.
const MAX_CONTAINERS: usize = json::MAX_CONTAINERS / 2;

/// The number of later versions that a request must have room for.
const VERSIONS_ROOM: u32 = 10_000;

/// Checks that a request can run to its end from this version. Every later version is made from this one and must fit the
/// limits.
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
        return Err(malformed("a request must begin with status `scheduled` and attempt 0".to_owned()));
    }
    if state.terms.confidential && request.visibility != Visibility::Private {
        return Err(malformed("a confidential request must be private".to_owned()));
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
    /// A member or a publisher: a signer without the role runtime.
    Others,
}

/// The last version of a request, from which the next one is made. It is verified, its shape is checked, and the origin of the
/// first version is known.
pub(crate) struct Open<'a> {
    pub(crate) span: &'a VerifiedSpan,
    pub(crate) state: State,
    /// Whether the version may have members that only a host may write, which the next version must leave out.
    is_foreign: bool,
}

impl<'a> Open<'a> {
    /// Takes a version that a host has checked.
    pub(crate) fn new(span: &'a VerifiedSpan, state: State, origin: Origin) -> Self {
        // Hosts make later versions with this code, so only a first version can have such members from somebody else.
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

    /// The execution of an attempt for which its worker recorded no result.
    fn ended(&self, recorder: &PublicKey, code: &str, message: &str, now: Timestamp) -> Draft {
        execution::unfinished(self.span, self.state.attempts, recorder, &Failure::new(code, message)).at(now)
    }
}

/// Closes a request that can never run. The draft has only identity columns, which are all bounded, so that every request can
/// be closed. The content stays in the first version.
pub(crate) fn refuse(request: &SignedSpan, recorder: &PublicKey, reason: &Failure, now: Timestamp) -> Draft {
    let mut draft = Draft::new("request")
        .id(request.id)
        .seq(request.seq.saturating_add(1))
        .follows(request.seal.curr_hash)
        .tenant(&request.tenant_id)
        .owner(&request.owner_id)
        .visibility(request.visibility)
        .who(execution::recorder(recorder))
        .did(Step::Refused.as_str())
        .this(&request.this)
        .status(Phase::Error.as_str())
        .error(reason.to_value())
        .at(now);
    let columns = draft.columns_mut();
    columns.parent_id = request.parent_id;
    columns.trace_id.clone_from(&request.trace_id);
    draft
}

/// The record of an attempt whose worker was lost.
pub(crate) fn lost(running: &SignedSpan, state: &State, recorder: &PublicKey, now: Timestamp) -> Draft {
    let failure = Failure::new("lost", "the lease ended before the worker recorded a result");
    execution::unfinished(running, state.attempts, recorder, &failure).at(now)
}

/// The drafts of a claim, or those that end the request instead.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Claiming {
    /// The drafts that start an attempt. The `running` version is the last. If an attempt was lost, its execution comes first.
    Start { attempt: u32, drafts: Vec<Draft> },
    /// The drafts that end the request. The `dead` version is the last.
    End { drafts: Vec<Draft>, reason: NotRunnable },
}

/// Starts the next attempt of a request that is due. If the request is running, the caller knows that its lease has ended.
pub(crate) fn claim(request: &Open<'_>, terms: &ClaimTerms) -> Result<Claiming, NotRunnable> {
    let (span, state, now) = (request.span, &request.state, terms.now);
    let mut drafts = Vec::new();
    match state.phase {
        Phase::Scheduled => {}
        Phase::Running => {
            drafts.push(lost(span, state, &terms.worker, now));
        }
        phase => return Err(NotRunnable::Ended { key: span.key(), status: phase.as_str().to_owned() }),
    }
    let too_late = state.terms.deadline.filter(|deadline| now > *deadline);
    let end = if let Some(deadline) = too_late {
        Some(Failure::new("deadline_exceeded", format!("it had not begun by its deadline, {deadline}")))
    } else if state.attempts_used() >= state.attempts_allowed() {
        Some(Failure::new("attempts_exhausted", format!("attempt {} was lost and was the last one allowed", state.attempts)))
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
    // The failure of an earlier attempt stays in the version that ended that attempt.
    draft.columns_mut().error = None;
    drafts.push(terms.write(draft, attempt));
    Ok(Claiming::Start { attempt, drafts })
}

/// Ends the attempt that `running` started. This ends the request too, unless a retry may help and is allowed.
pub(crate) fn close(
    running: &Open<'_>,
    result: &Result<Value, Failure>,
    execution: Uuid,
    used: Option<&Charges>,
    now: Timestamp,
) -> Draft {
    let state = &running.state;
    // The output is only in the execution, and the closing version names the execution.
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

/// Gives back a claim whose worker has to stop. The attempt ends without a result and does not count, and the next one may
/// begin at once.
pub(crate) fn hand_back(running: &Open<'_>, recorder: &PublicKey, now: Timestamp) -> Vec<Draft> {
    let execution = running.ended(recorder, "handed_back", "the worker was shut down before the attempt ended", now);
    let scheduled = state::write_due(running.next(Step::HandedBack, Phase::Scheduled, now), now);
    vec![execution, state::write_not_counted(scheduled, running.state.attempts_not_counted.saturating_add(1))]
}

/// Cancels a request that has not ended. If an attempt is running, it has used `used`. It stops when it finds that its claim is
/// lost.
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

/// Schedules a request again that ended without success. It may have as many attempts as at first.
pub(crate) fn revive(request: &Open<'_>, who: &str, now: Timestamp) -> Result<Draft, NotRunnable> {
    match request.state.phase {
        Phase::Dead | Phase::Error | Phase::Cancelled => {
            let draft = request.next(Step::Revived, Phase::Scheduled, now).who(who);
            Ok(state::write_revival(draft, request.state.attempts, now))
        }
        phase => Err(NotRunnable::NotEnded { key: request.span.key(), status: phase.as_str().to_owned() }),
    }
}

/// The pause after the attempt that `running` started. Its random part is computed from the id of the execution, so that every
/// host computes the same pause.
fn pause(running: &Open<'_>) -> Duration {
    let state = &running.state;
    let first = state.terms.backoff.unwrap_or(DEFAULT_BACKOFF);
    let doublings = state.attempts_used().saturating_sub(1).min(31);
    let longest = first.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    let execution = ids::execution(&running.span.tenant_id, running.span.id, state.attempts);
    let chance = u32::from_be_bytes(*execution.as_bytes().first_chunk().unwrap_or(&[0; 4]));
    longest.mul_f64(1.0 - f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

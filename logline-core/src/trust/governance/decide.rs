//! Counts the votes on a proposal. A pure function: no ledger, no clock.

use std::collections::BTreeSet;

use thiserror::Error;
use uuid::Uuid;

use crate::trust::governance::pointer::Pointer;
use crate::trust::governance::proposal::{Act, Proposed};
use crate::trust::governance::rules::{Gate, Rules};
use crate::trust::governance::statement::{Decision, SignedStatement, StatementError};
use crate::value::hex::{Hash, PublicKey};
use crate::value::timestamp::Timestamp;

/// Everything on which the outcome of a vote depends.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// The hash of the ledger's first manifest.
    pub ledger: Hash,
    /// What is proposed, and by whom.
    pub proposed: &'a Proposed,
    /// The rules in force now; `None` if the manifest governs nothing there.
    pub rules: Option<&'a Rules>,
    /// What was promoted so far.
    pub pointer: &'a Pointer,
    /// The keys that have signed a version after the one in force, up to the proposed one.
    pub signers: &'a BTreeSet<PublicKey>,
    /// The approvals and rejections that name the proposal as their parent.
    pub votes: &'a [Vote],
    /// Whether a publisher has taken the proposal back.
    pub is_withdrawn: bool,
    /// The gates that exactly the proposed version has passed.
    pub passed: &'a BTreeSet<Gate>,
    /// The time, by the ledger's clock.
    pub now: Timestamp,
}

/// An approval or a rejection as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The id of its span.
    pub id: Uuid,
    /// The hash of its span.
    pub curr_hash: Hash,
    /// The key that sealed its span.
    pub key: PublicKey,
    /// Its statement, or why there is none that counts.
    pub statement: Result<SignedStatement, VoidReason>,
}

/// The outcome of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// The approvals that count: one for each key, sorted by key.
    pub counted: Vec<Counted>,
    /// The votes that do not count, and why.
    pub void: Vec<Void>,
    /// The rejections that count. The approvals of their keys do not.
    pub rejected: Vec<Counted>,
    /// How many approvals are needed.
    pub needed: u32,
    /// Whether the proposal may be carried out.
    pub verdict: Result<(), Refusal>,
}

/// A vote that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    /// The key that votes.
    pub key: PublicKey,
    /// The id of the span.
    pub id: Uuid,
    /// The hash of the span.
    pub curr_hash: Hash,
}

/// A vote that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// The id of the span.
    pub id: Uuid,
    /// The key that sealed it.
    pub key: PublicKey,
    /// Why it does not count.
    pub reason: VoidReason,
}

/// Why a vote does not count. A retry cannot help, unless the reason says so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VoidReason {
    /// The span or its signature is invalid.
    #[error("its span is not valid: {0}")]
    NotVerified(String),
    /// There is no statement that could count.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A member of the statement names something else than the proposal.
    #[error("it is for another {what}")]
    Other {
        /// `ledger`, `tenant`, `environment`, `class`, `subject`, `proposal` or `version`.
        what: &'static str,
    },
    /// Another version is in force than the approver has seen.
    #[error("another version is in force than the one that it would replace: look at the change from there, and approve again")]
    BaseMoved,
    /// It has ended.
    #[error("it ended at {expires}")]
    Expired {
        /// Its end.
        expires: Timestamp,
    },
    /// The key is no approver of the tenant.
    #[error("its key is not an approver of the tenant")]
    NotAnApprover,
    /// The key made the proposal.
    #[error("its key made the proposal, and the manifest excludes proposers")]
    Proposer,
    /// The key has signed a version that is not in force yet.
    #[error("its key has signed what is proposed, or a version before it that was never in force")]
    Signer,
    /// The key is counted already.
    #[error("its key is counted already")]
    Again,
    /// The same key has rejected the proposal.
    #[error("its key has rejected the proposal")]
    Rejected,
}

/// Why a proposal is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The manifest governs nothing there.
    #[error("the manifest does not govern the class there: nothing needs to be promoted")]
    NotGoverned,
    /// Too few approvals count. More may come.
    #[error("{found} of {needed} approvals count")]
    Approvals {
        /// How many count.
        found: usize,
        /// How many are needed.
        needed: u32,
    },
    /// The rules or the approvers have changed since the proposal was made.
    #[error("the rules or the approvers have changed since it was proposed: propose it again")]
    RulesChanged,
    /// Another version is in force than the one that would be replaced.
    #[error("another version is in force than when it was proposed: propose it again")]
    BaseMoved,
    /// The version is in force already.
    #[error("that version is in force already")]
    NoChange,
    /// A promotion would go back to an older version.
    #[error("version {proposed} is not newer than version {in_force}, which is in force: to go back, propose a rollback")]
    NotNewer {
        /// The proposed version.
        proposed: u32,
        /// The version in force.
        in_force: u32,
    },
    /// A rollback would go to a version that was never in force.
    #[error("that version was never in force there: a rollback goes to one that was")]
    NeverInForce,
    /// The proposal has ended.
    #[error("the proposal ended at {expires}: propose it again")]
    Expired {
        /// Its end.
        expires: Timestamp,
    },
    /// The proposal was taken back.
    #[error("the proposal was withdrawn")]
    Withdrawn,
    /// A gate was not passed.
    #[error("version {version} has not passed the gate `{gate}`")]
    Gate {
        /// The gate.
        gate: Gate,
        /// The proposed version.
        version: u32,
    },
    /// The manifest knows no emergencies.
    #[error("the manifest has no emergency path: propose it without one")]
    NoEmergency,
    /// The last emergency was not reviewed.
    #[error(
        "the last emergency promotion was not reviewed: promote its version with the usual approvals, or another one, before the next"
    )]
    NotReviewed,
    /// The proposal itself does not count.
    #[error("the proposal does not count: {0}")]
    Proposal(String),
}

impl Refusal {
    /// The stable code of the refusal, as in the failure of a request.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotGoverned => "not_governed",
            Self::Approvals { .. } => "not_approved",
            Self::RulesChanged => "rules_changed",
            Self::BaseMoved => "base_moved",
            Self::NoChange => "no_change",
            Self::NotNewer { .. } => "not_newer",
            Self::NeverInForce => "never_in_force",
            Self::Expired { .. } => "proposal_expired",
            Self::Withdrawn => "withdrawn",
            Self::Gate { .. } => "gate_not_passed",
            Self::NoEmergency => "no_emergency_path",
            Self::NotReviewed => "not_reviewed",
            Self::Proposal(_) => "proposal_invalid",
        }
    }
}

/// Counts the votes on a proposal and decides whether it may be carried out.
#[must_use]
pub fn decide(case: &Case<'_>) -> Tally {
    let in_force = case.pointer.in_force(case.now).map(|held| held.subject.curr_hash);
    let mut void = Vec::new();
    let mut valid = Vec::new();
    for vote in case.votes {
        match examine(case, vote, in_force) {
            Ok(decision) => valid.push((decision, Counted { key: vote.key, id: vote.id, curr_hash: vote.curr_hash })),
            Err(reason) => void.push(Void { id: vote.id, key: vote.key, reason }),
        }
    }
    // The order in which votes were found must not matter.
    valid.sort_by_key(|(_, vote)| *vote);
    let rejected: Vec<_> = valid.iter().filter(|(decision, _)| *decision == Decision::Reject).map(|(_, vote)| *vote).collect();
    let mut counted: Vec<Counted> = Vec::new();
    for (_, vote) in valid.iter().filter(|(decision, _)| *decision == Decision::Approve) {
        let reason = if rejected.iter().any(|other| other.key == vote.key) {
            VoidReason::Rejected
        } else if counted.last().is_some_and(|last| last.key == vote.key) {
            VoidReason::Again
        } else {
            counted.push(*vote);
            continue;
        };
        void.push(Void { id: vote.id, key: vote.key, reason });
    }
    let needed = needed(case);
    let verdict = verdict(case, in_force).and_then(|()| {
        let found = counted.len();
        let is_met = found >= needed as usize;
        is_met.then_some(()).ok_or(Refusal::Approvals { found, needed })
    });
    Tally { counted, void, rejected, needed, verdict }
}

/// How many approvals the proposal needs.
fn needed(case: &Case<'_>) -> u32 {
    let Some(rules) = case.rules else { return 0 };
    let emergency = rules.emergency.filter(|_| case.proposed.proposal.emergency.is_some());
    emergency.map_or(rules.threshold, |emergency| emergency.threshold).max(1)
}

/// Whether a vote counts, apart from other votes of the same key.
fn examine(case: &Case<'_>, vote: &Vote, in_force: Option<Hash>) -> Result<Decision, VoidReason> {
    let signed = vote.statement.clone()?;
    let (said, proposed) = (signed.statement(), case.proposed);
    let proposal = &proposed.proposal;
    let same = [
        ("ledger", said.ledger == case.ledger),
        ("tenant", said.tenant == proposed.tenant),
        ("environment", said.environment == proposal.environment),
        ("class", said.class == proposal.class),
        ("subject", said.subject == proposal.subject.id),
        ("proposal", said.proposal == Some(proposed.id)),
        ("version", said.approves == proposal.subject.curr_hash),
    ];
    if let Some((what, _)) = same.into_iter().find(|(_, is_same)| !is_same) {
        return Err(VoidReason::Other { what });
    }
    if said.replaces != in_force || said.replaces != proposal.replaces {
        return Err(VoidReason::BaseMoved);
    }
    if said.expires <= case.now {
        return Err(VoidReason::Expired { expires: said.expires });
    }
    let Some(rules) = case.rules.filter(|rules| rules.approvers.contains(&vote.key)) else {
        return Err(VoidReason::NotAnApprover);
    };
    if rules.exclude_proposer && vote.key == proposed.proposer {
        return Err(VoidReason::Proposer);
    }
    if rules.exclude_signers && case.signers.contains(&vote.key) {
        return Err(VoidReason::Signer);
    }
    Ok(said.decision)
}

/// Whether the proposal could be carried out with enough approvals.
fn verdict(case: &Case<'_>, in_force: Option<Hash>) -> Result<(), Refusal> {
    let proposal = &case.proposed.proposal;
    let rules = case.rules.ok_or(Refusal::NotGoverned)?;
    if case.is_withdrawn {
        return Err(Refusal::Withdrawn);
    }
    if proposal.expires <= case.now {
        return Err(Refusal::Expired { expires: proposal.expires });
    }
    if rules.pin() != proposal.rules {
        return Err(Refusal::RulesChanged);
    }
    if in_force != proposal.replaces {
        return Err(Refusal::BaseMoved);
    }
    let held = case.pointer.in_force(case.now);
    let is_emergency = proposal.emergency.is_some();
    // To promote what an emergency has put in force is its review.
    let is_review = !is_emergency && case.pointer.awaits_review().is_some_and(|last| last.subject == proposal.subject);
    if in_force == Some(proposal.subject.curr_hash) && !is_review {
        return Err(Refusal::NoChange);
    }
    match proposal.act {
        Act::Promote => {
            if let Some(held) = held.filter(|held| proposal.subject.seq <= held.subject.seq && !is_review) {
                return Err(Refusal::NotNewer { proposed: proposal.subject.seq, in_force: held.subject.seq });
            }
        }
        Act::Rollback if !case.pointer.was_in_force(&proposal.subject) => return Err(Refusal::NeverInForce),
        Act::Rollback => {}
    }
    if is_emergency {
        rules.emergency.ok_or(Refusal::NoEmergency)?;
        if case.pointer.awaits_review().is_some() {
            return Err(Refusal::NotReviewed);
        }
    }
    // What was in force before has passed them.
    if proposal.act == Act::Promote
        && let Some(gate) = rules.gates.iter().find(|gate| !case.passed.contains(gate))
    {
        return Err(Refusal::Gate { gate: *gate, version: proposal.subject.seq });
    }
    Ok(())
}

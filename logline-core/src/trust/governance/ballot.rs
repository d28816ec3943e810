//! Making proposals and statements, as the tool and applications do.

use std::time::Duration;

use crate::ledger::Ledger;
use crate::span::SignedSpan;
use crate::trust::Trusted;
use crate::trust::governance::class::{Class, Environment};
use crate::trust::governance::decide::Refusal;
use crate::trust::governance::proposal::{Act, Proposal, Proposed, Version};
use crate::trust::governance::read::ReadError;
use crate::trust::governance::statement::{Decision, Statement};
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// What is wanted of a proposal. The rest follows from the ledger.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wish {
    /// What shall be done.
    pub act: Act,
    /// Where.
    pub environment: Environment,
    /// How long it may be approved. Default a week.
    pub lasts: Duration,
    /// Why it is an emergency; `None` if it is none.
    pub emergency: Option<String>,
    /// Why it is proposed.
    pub reason: Option<String>,
}

impl Wish {
    /// The wish to put a version in force.
    #[must_use]
    pub fn promote(environment: Environment) -> Self {
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        Self { act: Act::Promote, environment, lasts: week, emergency: None, reason: None }
    }

    /// The wish to go back to a version that was in force.
    #[must_use]
    pub fn roll_back(environment: Environment) -> Self {
        Self { act: Act::Rollback, ..Self::promote(environment) }
    }

    /// Says why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Makes it an emergency.
    #[must_use]
    pub fn emergency(mut self, reason: impl Into<String>) -> Self {
        self.emergency = Some(reason.into());
        self
    }

    /// Sets how long it may be approved.
    #[must_use]
    pub fn lasts(mut self, lasts: Duration) -> Self {
        self.lasts = lasts;
        self
    }
}

impl Trusted {
    /// The proposal to put this version of a span in force, from where things stand at `now`, the ledger's time. It pins the rules and
    /// names what it would replace.
    ///
    /// # Errors
    /// The outer error if the ledger fails. The inner one if nothing is governed there, or the span is of no class.
    pub async fn draft_proposal(
        &self,
        ledger: &dyn Ledger,
        subject: &SignedSpan,
        wish: &Wish,
        now: Timestamp,
    ) -> Result<Result<Proposal, Refusal>, ReadError> {
        let tenant = &subject.tenant_id;
        let class = Class::of_entity_type(&subject.entity_type);
        let Some((class, rules)) = class.and_then(|class| Some((class, self.rules(tenant, wish.environment, class)?))) else {
            return Ok(Err(Refusal::NotGoverned));
        };
        let pointer = self.pointer(ledger, tenant, wish.environment, class, subject.id).await?;
        Ok(Ok(Proposal {
            act: wish.act,
            environment: wish.environment,
            class,
            subject: Version::of(subject),
            replaces: pointer.in_force(now).map(|held| held.subject.curr_hash),
            rules: rules.pin(),
            expires: now.saturating_add(wish.lasts),
            emergency: wish.emergency.clone(),
            reason: wish.reason.clone(),
        }))
    }
}

impl Proposed {
    /// What an approver signs about this proposal in the ledger whose first manifest has the hash `ledger`. It ends with the proposal.
    #[must_use]
    pub fn statement(&self, ledger: Hash, decision: Decision) -> Statement {
        let proposal = &self.proposal;
        Statement {
            ledger,
            tenant: self.tenant.clone(),
            environment: proposal.environment,
            class: proposal.class,
            subject: proposal.subject.id,
            proposal: Some(self.id),
            replaces: proposal.replaces,
            approves: proposal.subject.curr_hash,
            decision,
            expires: proposal.expires,
        }
    }
}

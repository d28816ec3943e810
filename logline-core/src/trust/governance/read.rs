//! Reads what a vote depends on from a ledger, and what is in force.
//!
//! Nothing is believed because a host has written it: each promotion names its proposal and its approvals, and whoever reads it counts
//! them again. A promotion that does not hold is skipped, as a manifest that does not count is.

use std::collections::BTreeSet;

use thiserror::Error;
use uuid::Uuid;

use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, LedgerExt as _, Query, Versions};
use crate::roles::Role;
use crate::span::SignedSpan;
use crate::span::seal::VerifiedSpan;
use crate::trust::Trusted;
use crate::trust::governance::class::{Class, Environment};
use crate::trust::governance::decide::{Case, Refusal, Tally, VoidReason, Vote, decide};
use crate::trust::governance::pointer::{Carried, Carrying, Held, Pointer, Promoted, carry_out, pointer_id};
use crate::trust::governance::proposal::{Act, Proposed, Version};
use crate::trust::governance::rules::{Gate, Rules};
use crate::trust::governance::statement::SignedStatement;
use crate::value::hex::{Hash, PublicKey};
use crate::value::timestamp::Timestamp;

/// The most versions, votes and test results that are read for one decision. More of them are a sign of an attack.
pub const MAX_READ: usize = 10_000;

/// How many versions are read at once.
const PAGE: usize = 100;

/// Why a decision could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such proposal in the tenant.
    #[error("no proposal {id} in tenant `{tenant}`")]
    NoProposal {
        /// The tenant.
        tenant: String,
        /// The id.
        id: Uuid,
    },
    /// The span is no proposal that counts.
    #[error("span {id} is no proposal that counts: {reason}")]
    NotAProposal {
        /// The id.
        id: Uuid,
        /// What is wrong.
        reason: String,
    },
    /// The proposed version is not in the ledger as the proposal names it.
    #[error("version {} of {} is not in the ledger as it is named: {reason}", .version.seq, .version.id)]
    Subject {
        /// The version that is named.
        version: Version,
        /// What is wrong.
        reason: String,
    },
    /// There is more to read than any use of governance makes.
    #[error("more than {MAX_READ} {what} for one decision: restrict who may write in the tenant")]
    Flooded {
        /// `versions`, `votes` or `test results`.
        what: &'static str,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A proposal with everything that its outcome depends on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Docket {
    /// The proposal.
    pub proposed: Proposed,
    /// The proposed version.
    pub subject: VerifiedSpan,
    /// The rules in force; `None` if nothing is governed there.
    pub rules: Option<Rules>,
    /// What was promoted so far.
    pub pointer: Pointer,
    /// The outcome of the vote. If the proposal was carried out, the approvals are those that it was carried out with.
    pub tally: Tally,
    proposal_seq: u32,
    gates: Vec<Version>,
    manifest: Hash,
}

impl Docket {
    /// The spans that carry out the proposal.
    ///
    /// # Errors
    /// Why it may not be carried out.
    pub fn carry_out(&self, now: Timestamp) -> Result<Carried, Refusal> {
        self.tally.verdict.clone()?;
        let rules = self.rules.as_ref().ok_or(Refusal::NotGoverned)?;
        let now = self.pointer.not_before_last(now);
        Ok(carry_out(&Carrying {
            proposed: &self.proposed,
            proposal_seq: self.proposal_seq,
            tally: &self.tally,
            rules,
            pointer: &self.pointer,
            manifest: self.manifest,
            gates: self.gates.clone(),
            // All versions of a span have one owner.
            owner: self.pointer.owner.as_deref().unwrap_or(&self.subject.owner_id),
            now,
        }))
    }

    /// The promotion that has carried out the proposal; `None` if none has.
    #[must_use]
    pub fn carried(&self) -> Option<&Held> {
        self.pointer.held.iter().find(|held| held.proposal == self.proposed.id)
    }
}

/// What one decision is about, apart from what is read for it.
struct Question<'a> {
    proposed: &'a Proposed,
    pointer: &'a Pointer,
    rules: Option<Rules>,
    now: Timestamp,
    /// The votes and test results that a promotion names; `None` to look for them.
    named: Option<(&'a [Version], &'a [Version])>,
}

/// What was read for a decision.
struct Answer {
    subject: VerifiedSpan,
    tally: Tally,
    gates: Vec<Version>,
    rules: Option<Rules>,
}

impl Trusted {
    /// Reads a proposal and counts its votes. `now` is the ledger's time.
    ///
    /// # Errors
    /// If there is no such proposal, the proposed version is not what it names, or the ledger fails.
    pub async fn docket(&self, ledger: &dyn Ledger, tenant: &str, proposal: Uuid, now: Timestamp) -> Result<Docket, ReadError> {
        let (proposed, proposal_seq) = self.proposal(ledger, tenant, proposal).await?;
        let what = &proposed.proposal;
        let pointer = self.pointer(ledger, tenant, what.environment, what.class, what.subject.id).await?;
        let rules = self.rules(tenant, what.environment, what.class);
        let now = pointer.not_before_last(now);
        let question = Question { proposed: &proposed, pointer: &pointer, rules, now, named: None };
        let Answer { subject, mut tally, gates, rules } = self.answer(ledger, question).await?;
        if let Some(held) = pointer.held.iter().find(|held| held.proposal == proposed.id) {
            // They counted when it was carried out. What is in force since then makes none of them void.
            tally.counted.clone_from(&held.approvals);
            tally.void.retain(|void| held.approvals.iter().all(|vote| vote.id != void.id));
        }
        let manifest = self.span.seal.curr_hash;
        Ok(Docket { proposed, subject, rules, pointer, tally, proposal_seq, gates, manifest })
    }

    /// What the manifest in force demands; `None` if it governs nothing there.
    #[must_use]
    pub fn rules(&self, tenant: &str, environment: Environment, class: Class) -> Option<Rules> {
        let governance = self.manifest.governance.as_ref()?;
        Rules::of(governance, &self.manifest.authorities, &self.manifest.ended, (tenant, environment, class))
    }

    /// What was promoted of a span in one environment. Each promotion is verified with its approvals.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn pointer(
        &self,
        ledger: &dyn Ledger,
        tenant: &str,
        environment: Environment,
        class: Class,
        subject: Uuid,
    ) -> Result<Pointer, ReadError> {
        let id = pointer_id(tenant, environment, class, subject);
        let scope = Scope::runtime(tenant);
        let Some(head) = ledger.head(&scope, tenant, id).await? else { return Ok(Pointer::default()) };
        if let Some(known) = self.pointers.find(&head.seal.curr_hash) {
            return Ok(known);
        }
        let mut pointer = Pointer { owner: Some(head.owner_id.clone()), ..Pointer::default() };
        let mut from = 0;
        loop {
            let rows = ledger.history(&scope, tenant, id, from, PAGE).await?;
            let Some(last) = rows.last() else { break };
            from = last.seq.saturating_add(1);
            for row in rows {
                let version = Version::of(&row);
                match self.qualify(ledger, (tenant, environment, class, subject), row, &pointer).await? {
                    Ok(held) => pointer.held.push(held),
                    Err(reason) => pointer.skipped.push((version, reason)),
                }
                pointer.last = Some(version);
            }
            if pointer.held.len() + pointer.skipped.len() > MAX_READ {
                return Err(ReadError::Flooded { what: "versions" });
            }
        }
        // What is skipped now may hold later, once what it names is there.
        if let Some(last) = pointer.last.filter(|_| pointer.skipped.is_empty()) {
            self.pointers.keep(last.curr_hash, &pointer);
        }
        Ok(pointer)
    }

    /// Whether a version of a pointer holds, given those before it. The inner error says why not.
    async fn qualify(
        &self,
        ledger: &dyn Ledger,
        (tenant, environment, class, subject): (&str, Environment, Class, Uuid),
        row: SignedSpan,
        pointer: &Pointer,
    ) -> Result<Result<Held, String>, ReadError> {
        macro_rules! skip {
            ($($reason:tt)*) => { return Ok(Err(format!($($reason)*))) };
        }
        let promotion = Version::of(&row);
        let row = match row.verify(&mut Verifier::new()) {
            Ok(row) => row,
            Err(error) => skip!("{error}"),
        };
        if let Err(error) = self.authorities.check(&row) {
            skip!("{error}");
        }
        let said = match Promoted::of(&row) {
            Ok(said) => said,
            Err(reason) => skip!("it cannot be read: {reason}"),
        };
        let Some(past) = self.past.iter().find(|past| past.hash == said.manifest) else {
            skip!("it names a manifest that does not count");
        };
        if pointer.held.last().is_some_and(|last| past.version < last.manifest) {
            skip!("it names an older manifest than the promotion before it");
        }
        // A host's clock may go back, and whoever has its key may date back to when an approval had not ended. Not past what came before.
        if pointer.not_before_last(row.at) != row.at {
            skip!("it is dated before the promotion before it");
        }
        let (proposed, seq) = match self.proposal(ledger, tenant, said.proposal.id).await {
            Ok(found) => found,
            Err(error @ (ReadError::NoProposal { .. } | ReadError::NotAProposal { .. })) => skip!("{error}"),
            Err(error) => return Err(error),
        };
        let what = &proposed.proposal;
        let is_same = (what.act, what.environment, what.class, what.subject, what.replaces)
            == (said.act, said.environment, said.class, said.subject, said.replaces)
            && (what.environment, what.class, what.subject.id) == (environment, class, subject)
            && (seq, proposed.curr_hash) == (said.proposal.seq, said.proposal.curr_hash);
        if !is_same {
            skip!("it is not what its proposal says");
        }
        let named: Vec<_> =
            said.approvals.iter().map(|vote| Version { id: vote.id, seq: 0, curr_hash: vote.curr_hash }).collect();
        let rules = past.rules((tenant, environment, class));
        let question = Question { proposed: &proposed, pointer, rules, now: row.at, named: Some((&named, &said.gates)) };
        let answer = match self.answer(ledger, question).await {
            Ok(answer) => answer,
            Err(ReadError::Ledger(error)) => return Err(error.into()),
            Err(error) => skip!("{error}"),
        };
        if let Err(refusal) = &answer.tally.verdict {
            skip!("{refusal}");
        }
        let rule = answer.rules.and_then(|rules| rules.emergency);
        let lasts = rule.zip(what.emergency.as_ref()).map(|(rule, _)| rule);
        if said.emergency.as_ref().map(|marked| marked.lasts_s) != lasts.map(|rule| rule.expires_s) {
            skip!("its mark of an emergency is not what its proposal and the manifest say");
        }
        Ok(Ok(Held {
            subject: said.subject,
            promotion,
            proposal: proposed.id,
            act: said.act,
            approvals: answer.tally.counted,
            at: row.at,
            is_emergency: lasts.is_some(),
            until: lasts.filter(|_| said.act == Act::Promote).map(|rule| row.at.saturating_add(rule.lasts())),
            manifest: past.version,
        }))
    }

    async fn answer(&self, ledger: &dyn Ledger, question: Question<'_>) -> Result<Answer, ReadError> {
        let Question { proposed, pointer, rules, now, named } = question;
        let proposal = &proposed.proposal;
        let tenant = &proposed.tenant;
        let in_force = pointer.in_force(now).map(|held| held.subject);
        let (subject, signers) = self.versions(ledger, tenant, proposal.class, &proposal.subject, in_force).await?;
        let mut verifier = Verifier::new();
        let (rows, results) = match named {
            Some((votes, gates)) => (named_rows(ledger, tenant, votes).await?, named_rows(ledger, tenant, gates).await?),
            None => (
                rows_below(ledger, tenant, proposed.id, "votes").await?,
                match rules.as_ref().is_some_and(|rules| !rules.gates.is_empty()) {
                    true => rows_below(ledger, tenant, proposal.subject.id, "test results").await?,
                    false => Vec::new(),
                },
            ),
        };
        let (mut votes, mut is_withdrawn) = (Vec::new(), false);
        for row in rows {
            match row.entity_type.as_str() {
                "approval" | "rejection" => votes.push(self.vote(row, &mut verifier)),
                "withdrawal" if row.prev_hash.is_none() => {
                    let row = row.verify(&mut verifier).ok();
                    is_withdrawn |= row.is_some_and(|row| self.authorities.check(&row).is_ok());
                }
                _ => {}
            }
        }
        let mut passed = BTreeSet::new();
        let mut gates = Vec::new();
        for row in results {
            let version = Version::of(&row);
            let Some(gate) = passed_gate(&row, &proposal.subject) else { continue };
            if !rules.as_ref().is_some_and(|rules| rules.gates.contains(&gate)) || passed.contains(&gate) {
                continue;
            }
            if row.verify(&mut verifier).is_ok_and(|row| self.authorities.check(&row).is_ok()) {
                passed.insert(gate);
                gates.push(version);
            }
        }
        let tally = decide(&Case {
            ledger: self.ledger,
            proposed,
            rules: rules.as_ref(),
            pointer,
            signers: &signers,
            votes: &votes,
            is_withdrawn,
            passed: &passed,
            now,
        });
        Ok(Answer { subject, tally, gates, rules })
    }

    /// The vote in a row, or why it does not count.
    fn vote(&self, row: SignedSpan, verifier: &mut Verifier) -> Vote {
        let (id, curr_hash, key) = (row.id, row.seal.curr_hash, row.seal.public_key);
        let statement = match row.verify(verifier) {
            Ok(row) => match self.authorities.check(&row) {
                Ok(()) => SignedStatement::of(&row, verifier).map_err(VoidReason::from),
                Err(_) if !self.authorities.had_role(&row, Role::Approver) => Err(VoidReason::NotAnApprover),
                Err(error) => Err(VoidReason::NotVerified(error.to_string())),
            },
            Err(error) => Err(VoidReason::NotVerified(error.to_string())),
        };
        Vote { id, curr_hash, key, statement }
    }

    /// Reads the first version of a proposal, which is the one that counts. Its signer must be a publisher of the tenant.
    async fn proposal(&self, ledger: &dyn Ledger, tenant: &str, id: Uuid) -> Result<(Proposed, u32), ReadError> {
        let found = ledger.history(&Scope::runtime(tenant), tenant, id, 0, 1).await?.into_iter().next();
        let found = found.ok_or_else(|| ReadError::NoProposal { tenant: tenant.to_owned(), id })?;
        let refuse = |reason: String| ReadError::NotAProposal { id, reason };
        let span = found.verify(&mut Verifier::new()).map_err(|error| refuse(error.to_string()))?;
        self.authorities.check(&span).map_err(|error| refuse(error.to_string()))?;
        let proposed = Proposed::of(&span).map_err(refuse)?;
        Ok((proposed, span.seq))
    }

    /// The version of the subject that is proposed, and the keys that have signed a version after the one in force, up to it.
    async fn versions(
        &self,
        ledger: &dyn Ledger,
        tenant: &str,
        class: Class,
        version: &Version,
        in_force: Option<Version>,
    ) -> Result<(VerifiedSpan, BTreeSet<PublicKey>), ReadError> {
        let refuse = |reason: String| ReadError::Subject { version: *version, reason };
        let scope = Scope::runtime(tenant);
        let after = in_force.filter(|in_force| in_force.seq < version.seq).map(|in_force| in_force.seq.saturating_add(1));
        // A rollback has no versions that were never in force, except for its own.
        let is_back = in_force.is_some_and(|in_force| in_force.seq >= version.seq);
        let mut from = if is_back { version.seq } else { after.unwrap_or(0) };
        let (mut signers, mut read, mut verifier) = (BTreeSet::new(), 0, Verifier::new());
        loop {
            let rows = ledger.history(&scope, tenant, version.id, from, PAGE).await?;
            let Some(last) = rows.last() else { return Err(refuse("there is no such version".to_owned())) };
            (from, read) = (last.seq.saturating_add(1), read + rows.len());
            for row in rows {
                if row.seq > version.seq {
                    return Err(refuse("there is no such version".to_owned()));
                }
                // A key in a row is a claim until its signature is checked: it must not keep an approver from voting.
                if row.clone().verify(&mut verifier).is_ok() {
                    signers.insert(row.seal.public_key);
                }
                if row.seq == version.seq {
                    let span = self.checked(row, class, version).map_err(refuse)?;
                    return Ok((span, signers));
                }
            }
            if read > MAX_READ {
                return Err(ReadError::Flooded { what: "versions" });
            }
        }
    }

    /// Checks that a row is the version of its class that is named, and that its signer may sign it.
    pub(super) fn checked(&self, row: SignedSpan, class: Class, version: &Version) -> Result<VerifiedSpan, String> {
        if row.seal.curr_hash != version.curr_hash {
            return Err(format!("its hash is {}, and {} is named", row.seal.curr_hash, version.curr_hash));
        }
        if Class::of_entity_type(&row.entity_type) != Some(class) {
            return Err(format!("it is of type `{}`, which is not of class `{class}`", row.entity_type));
        }
        if row.is_deleted {
            return Err("it is a tombstone, which needs no promotion to hide the span".to_owned());
        }
        let row = row.verify(&mut Verifier::new()).map_err(|error| error.to_string())?;
        self.authorities.check(&row).map_err(|error| error.to_string())?;
        Ok(row)
    }
}

/// The rows with exactly these hashes. A promotion may name a row that is not there any more: then it is not counted.
async fn named_rows(ledger: &dyn Ledger, tenant: &str, named: &[Version]) -> Result<Vec<SignedSpan>, LedgerError> {
    let mut rows = Vec::new();
    for version in named.iter().take(MAX_READ) {
        let found = ledger.history(&Scope::runtime(tenant), tenant, version.id, version.seq, 1).await?;
        rows.extend(found.into_iter().filter(|row| row.seal.curr_hash == version.curr_hash));
    }
    Ok(rows)
}

/// The types that decisions read below a proposal or a subject.
const READ: &[&str] = &["approval", "rejection", "withdrawal", "test_result"];

/// All rows that name `parent`, of the types that decisions read. Damaged rows count for nothing.
async fn rows_below(ledger: &dyn Ledger, tenant: &str, parent: Uuid, what: &'static str) -> Result<Vec<SignedSpan>, ReadError> {
    let mut query = Query::new().tenant(tenant).parent_id(parent).versions(Versions::All);
    if what != "votes" {
        query = query.entity_type("test_result");
    }
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = ledger.scan(&Scope::runtime(tenant), &query, cursor.as_ref()).await?;
        cursor = page.next;
        // Members may write below a proposal as well. What they write must not count towards the limit.
        let found = page.rows.into_iter().filter_map(|row| row.span.ok());
        rows.extend(found.filter(|row| READ.contains(&row.entity_type.as_str())));
        if rows.len() > MAX_READ {
            return Err(ReadError::Flooded { what });
        }
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

/// The gate that a row says exactly this version has passed.
fn passed_gate(row: &SignedSpan, subject: &Version) -> Option<Gate> {
    let gate = row.meta("gate").filter(|_| row.entity_type == "test_result" && row.prev_hash.is_none())?;
    let of: Version = serde_json::from_value(gate.get("subject")?.clone()).ok()?;
    let is_passed = of == *subject && gate.get("passed")?.as_bool()?;
    is_passed.then(|| serde_json::from_value(gate.get("gate")?.clone()).ok())?
}

//! Moves a memory between layers: its owner asks for a review, a reviewer decides.

use std::collections::BTreeSet;

use logline_core::contract::{Context, Effects};
use logline_core::ledger::Query;
use logline_core::trust::governance::{Class, Decision, Environment, SignedStatement};
use logline_core::{PublicKey, SignedSpan, VerifiedSpan, Verifier};
use serde_json::{Value, json};
use uuid::Uuid;

use super::remember::stored;
use super::{MemoryKernel, Refusal, about, audit, believed, input, invalid, refused, seen_consent};
use crate::consent::{Asked, Cited, NoConsent, consent_id, covers};
use crate::form::{Layer, MEMORY, Mode, Status};
use crate::members::{MAX_NAME, Members};

impl MemoryKernel {
    pub(super) async fn review(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let members = Members::of(input(request), "the input", &["step", "id", "decision_id"]).map_err(invalid)?;
        let id = members.id("id").map_err(invalid)?.ok_or_else(|| invalid("`id` is missing: it names the memory"))?;
        let found = believed(context, &request.tenant_id, id).await?.filter(|found| found.entity_type == MEMORY);
        let found = found.ok_or_else(|| refused("there is no such memory"))?;
        let before = stored(&found)?;
        let id_of_consent = consent_id(&request.tenant_id, &found.owner_id, None);
        let consent = seen_consent(context, &request.tenant_id, id_of_consent).await?.into_version();
        let consent = consent.ok_or(NoConsent::Missing)?;
        let asked = Asked { tenant: &request.tenant_id, owner: &found.owner_id, mode: Mode::On, session: None };
        covers(&asked, &Cited::of(&consent), Some(&*consent), context.attempt.started)?;
        let relied = consent.premise()?;
        if before.terms.ttl_at.is_some_and(|at| at <= context.attempt.started) {
            return Err(refused("the memory has expired"));
        }
        let draft = found.next().related([request.id]);
        let (draft, action) = match members.needed("step", MAX_NAME).map_err(invalid)? {
            "ask" => {
                if found.owner_id != request.owner_id {
                    return Err(refused("there is no such memory"));
                }
                if before.status != Status::Active || before.terms.layer != Layer::Temporary {
                    return Err(refused("only an active memory of the layer temporary can be reviewed"));
                }
                (draft.did("asked").status(Status::NeedsReview.as_str()), "ask")
            }
            "decide" => {
                if before.status != Status::NeedsReview {
                    return Err(refused("the memory does not wait for a review: its owner asks for one"));
                }
                let decision = members.id("decision_id").map_err(invalid)?;
                let decision = decision.ok_or_else(|| invalid("`decision_id` is missing: it names the reviewer's span"))?;
                match self.decision(request, context, &found, decision).await? {
                    Decision::Approve => {
                        let draft = draft.did("promoted").status(Status::Active.as_str()).without_meta("ttl_at");
                        (draft.meta("layer", Layer::Permanent.as_str()).meta("decision", decision.to_string()), "promote")
                    }
                    Decision::Reject => {
                        let draft = draft.did("demoted").status(Status::Denied.as_str());
                        (draft.meta("decision", decision.to_string()), "demote")
                    }
                }
            }
            other => return Err(invalid(format!("`step` must be ask or decide, not `{}`", other.escape_debug()))),
        };
        let seq = draft.columns().seq;
        let status = draft.columns().status.clone();
        let emitted = vec![about(draft, request, context), audit(request, context, (id, seq), &found.owner_id, action).await?];
        let output = json!({"memory": id.to_string(), "seq": seq, "status": status});
        Ok(Effects::new(Ok(output)).emitted(emitted).relies_on([relied]))
    }

    /// What a reviewer has decided about exactly this version.
    async fn decision(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        memory: &SignedSpan,
        decision: Uuid,
    ) -> Result<Decision, Refusal> {
        let span = believed(context, &request.tenant_id, decision).await?;
        let span = span.ok_or_else(|| refused("there is no such decision that is signed by an approver of the tenant"))?;
        let signed = SignedStatement::of(&span, &mut Verifier::new()).map_err(|e| refused(e.to_string()))?;
        let said = signed.statement();
        let checks = [
            (said.ledger == context.trusted.ledger, "the decision is for another ledger"),
            (said.tenant == request.tenant_id, "the decision is for another tenant"),
            (said.class == Class::Memory, "the decision is not about a memory"),
            (said.environment == Environment::Production, "memories are reviewed for the environment production"),
            (said.subject == memory.id, "the decision is about another memory"),
            (said.approves == memory.seal.curr_hash, "the decision is about another version: review it again"),
            (context.attempt.started < said.expires, "the decision has expired: review it again"),
            // Who brings a memory does not decide about it. Anybody may write another name into a span of their own, so that names alone
            // say little.
            (span.owner_id != memory.owner_id, AUTHOR),
            (!authors(context, memory).await?.contains(&span.seal.public_key), AUTHOR),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(refused(*reason)),
            None => Ok(said.decision),
        }
    }
}

const AUTHOR: &str = "the reviewer is the author of the memory: somebody else must review it";

/// The keys that have brought a version of a memory: those that signed it, the request that wrote its text, and the request for its review.
async fn authors(context: &Context<'_>, memory: &SignedSpan) -> Result<BTreeSet<PublicKey>, Refusal> {
    let provenance = memory.meta("provenance").and_then(|provenance| provenance.get("request")).and_then(Value::as_str);
    let request =
        provenance.and_then(|id| id.parse().ok()).ok_or_else(|| refused("the memory does not say which request wrote it"))?;
    let mut keys = BTreeSet::from([memory.seal.public_key]);
    for request in [Some(request), memory.related_to.first().copied()].into_iter().flatten() {
        // Its first version is what somebody asked for; the later ones are hosts'.
        let query = Query::timeline().tenant(&memory.tenant_id).id(request).limit(1);
        let first = context.runtime.scan(&query, None).await?.into_spans()?.into_iter().next();
        let first = first
            .ok_or_else(|| refused("the request that wrote the memory is not there: import it, or keep the memory anew"))?;
        keys.insert(first.seal.public_key);
    }
    Ok(keys)
}

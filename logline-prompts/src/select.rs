//! Chooses a variant of a family for a request.

use logline_core::contract::{Context, KernelError, Reader};
use logline_core::ledger::LedgerError;
use logline_core::request::{State, reference};
use logline_core::{Draft, Failure, Hash, Timestamp, VerifiedSpan, canonical, ids};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bandit::{Arm, Choice, choose};
use crate::family::Family;
use crate::learn::{Known, known};
use crate::load::{LoadError, VARIANT, Versions, find};
use crate::record::about;
use crate::results::Newest;

/// The most bytes of the name of a session.
const MAX_SESSION: usize = 256;

/// A variant of the family at the time of a choice, as a `prompt_selection` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Candidate {
    /// The version, with its hash; `null` if it is not in use.
    pub(crate) variant: Value,
    /// The id.
    pub(crate) id: Uuid,
    /// Why it cannot be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<String>,
}

/// A variant that was chosen, now or earlier in the session.
pub(crate) struct Selected {
    pub(crate) variant: Uuid,
    /// The version that was chosen.
    pub(crate) reference: Value,
    /// The `prompt_selection`.
    pub(crate) selection: Uuid,
    pub(crate) propensity: Value,
    /// The record to write; `None` if it was chosen earlier.
    pub(crate) record: Option<Draft>,
}

/// The parent of all selections of a session: sessions of different owners are different.
pub(crate) fn session_of(family: Uuid, owner: &str, session: &str) -> Uuid {
    ids::derive("prompt_session", &[&family.to_string(), owner, session])
}

/// What a choice needs of its request. It is the same in all attempts, so that a later one does not choose, ask and pay again.
pub(crate) struct Asked {
    /// When it was due: no newer results decide.
    pub(crate) at: Timestamp,
    /// The hash of its second version. A host has signed it, so the asker cannot pick it.
    pub(crate) claim: Hash,
}

impl Asked {
    pub(crate) async fn of(reader: &Reader<'_>, tenant: &str, request: Uuid) -> Result<Option<Self>, LedgerError> {
        let (first, second) = (reader.version(tenant, request, 0).await?, reader.version(tenant, request, 1).await?);
        let (Some(first), Some(second)) = (first, second) else { return Ok(None) };
        let due = State::of(&first).ok().and_then(|state| state.terms.due_at);
        Ok(Some(Self { at: due.map_or(first.at, |due| due.max(first.at)), claim: second.seal.curr_hash }))
    }
}

/// The seed of a choice.
pub(crate) fn seed(family: &Hash, posterior: Option<&Hash>, claim: &Hash) -> Hash {
    let of = json!({"for": "prompt_selection", "family": family, "posterior": posterior, "claim": claim});
    Hash::of(&canonical::to_vec(&of))
}

/// The candidates that can be chosen, as arms, each with its place in the list.
pub(crate) fn arms(candidates: &[Candidate], posterior: &[Known]) -> Vec<(usize, Arm)> {
    let of = |candidate: &Candidate| {
        let hash = candidate.variant.get("curr_hash").and_then(Value::as_str);
        let known = posterior.iter().find(|known| hash.is_some() && known.hash() == hash);
        known.map_or(Arm { known: 0, share: 0 }, |known| Arm { known: known.counts().total(), share: known.share })
    };
    let is_in = |(_, candidate): &(usize, &Candidate)| candidate.out.is_none();
    candidates.iter().enumerate().filter(is_in).map(|(at, candidate)| (at, of(candidate))).collect()
}

/// Takes out what exceeds a guard; the first variant stays if nothing else would.
pub(crate) fn veto(candidates: &mut [Candidate], posterior: &[Known]) {
    let vetoed = |candidate: &Candidate| {
        let hash = candidate.variant.get("curr_hash").and_then(Value::as_str);
        posterior.iter().find(|known| hash.is_some() && known.hash() == hash)?.veto.clone()
    };
    let in_use: Vec<usize> =
        (0..candidates.len()).filter(|&at| candidates.get(at).is_some_and(|one| one.out.is_none())).collect();
    let stays = |candidate: &Candidate| candidate.out.is_none() && vetoed(candidate).is_none();
    let last_resort = if candidates.iter().any(stays) { None } else { in_use.first().copied() };
    for at in in_use {
        if let Some(candidate) = candidates.get_mut(at).filter(|_| Some(at) != last_resort) {
            candidate.out = vetoed(candidate);
        }
    }
}

/// Chooses a variant for a request, or the one that was chosen earlier in the session.
pub(crate) async fn select(
    request: &VerifiedSpan,
    context: &Context<'_>,
    span: &VerifiedSpan,
    session: Option<&str>,
) -> Result<Result<Selected, Failure>, KernelError> {
    let invalid = |reason: String| Ok(Err(Failure::new("prompt_invalid", reason)));
    let family = match Family::read(span) {
        Ok(family) => family,
        Err(reason) => return invalid(format!("prompt_family {}: {reason}", span.id)),
    };
    let tenant = request.tenant_id.as_str();
    let authorities = &context.trusted.authorities;
    let newest = Newest { reader: &context.runtime, authorities, tenant };
    let mut candidates = Vec::new();
    for id in &family.variants {
        candidates.push(match find(&context.owner, Versions::of(context), tenant, (VARIANT, *id)).await {
            Ok(variant) => Candidate { variant: reference(&variant), id: *id, out: None },
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => Candidate { variant: Value::Null, id: *id, out: Some(error.to_string()) },
        });
    }
    let Some(asked) = Asked::of(&context.runtime, tenant, request.id).await? else {
        return invalid("the first versions of the request cannot be read".to_owned());
    };
    let posterior = newest.one("prompt_posterior", span.id, |posterior| posterior.at <= asked.at).await?;
    let all_known = posterior.as_ref().and_then(known).unwrap_or_default();
    veto(&mut candidates, &all_known);
    let parent = match session {
        Some(session) if session.is_empty() || session.len() > MAX_SESSION => {
            return invalid(format!("`session` must have 1 to {MAX_SESSION} bytes"));
        }
        Some(session) => {
            let parent = session_of(span.id, &request.owner_id, session);
            let earlier = newest.one("prompt_selection", parent, |_| true).await?;
            if let Some(selected) = earlier.and_then(|earlier| again(&earlier, &candidates)) {
                return Ok(Ok(selected));
            }
            parent
        }
        None => span.id,
    };
    let hash = posterior.as_ref().map(|posterior| posterior.seal.curr_hash);
    let seed = seed(&span.seal.curr_hash, hash.as_ref(), &asked.claim);
    let arms = arms(&candidates, &all_known);
    let of: Vec<Arm> = arms.iter().map(|(_, arm)| *arm).collect();
    let Some(choice) = choose(&of, family.floor, family.min_samples, &seed) else {
        let why = candidates.iter().filter_map(|one| one.out.as_deref()).collect::<Vec<_>>().join("; ");
        return invalid(format!("no variant of the family can be chosen: {why}"));
    };
    let chosen = arms.get(choice.arm).and_then(|(at, _)| candidates.get(*at)).cloned();
    let Some(chosen) = chosen else { return invalid("no variant was chosen".to_owned()) };
    let draft = Draft::new("prompt_selection")
        .id(ids::derive("prompt_selection", &[&context.attempt.execution_id.to_string()]))
        .did("chose")
        .this(format!("prompt.{}", family.name))
        .name(family.name.as_str())
        .parent(parent)
        .related([request.id, context.attempt.execution_id, span.id])
        .status("complete")
        .meta("family", reference(span))
        .meta("posterior", posterior.as_ref().map_or(Value::Null, |posterior| reference(posterior)))
        .meta("request", request.id.to_string())
        .meta("session", session.map_or(Value::Null, Value::from))
        .meta("candidates", serde_json::to_value(&candidates).unwrap_or_default())
        .meta("seed", seed.to_string());
    let draft = chose(draft, &choice, &chosen);
    Ok(Ok(Selected {
        variant: chosen.id,
        reference: chosen.variant,
        selection: draft.columns().id,
        propensity: json!(choice.propensity),
        record: Some(about(draft, request, "kernel:prompt_bandit").at(context.attempt.started)),
    }))
}

fn chose(draft: Draft, choice: &Choice, chosen: &Candidate) -> Draft {
    draft.meta("variant", chosen.variant.clone()).meta("propensity", choice.propensity).meta("why", json!(choice.why))
}

/// What was chosen earlier in the session, if it can still be chosen.
fn again(earlier: &VerifiedSpan, candidates: &[Candidate]) -> Option<Selected> {
    let id: Uuid = earlier.meta("variant")?.get("id")?.as_str()?.parse().ok()?;
    let now = candidates.iter().find(|candidate| candidate.id == id && candidate.out.is_none())?;
    let propensity = earlier.meta("propensity").cloned().unwrap_or_default();
    Some(Selected { variant: id, reference: now.variant.clone(), selection: earlier.id, propensity, record: None })
}

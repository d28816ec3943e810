//! Makes a recorded choice again.

use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::ledger::LedgerError;
use logline_core::trust::Trusted;
use logline_core::trust::governance::{Class, ReadError};
use logline_core::{Hash, VerifiedSpan, Visibility, ids};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::bandit::{Arm, Choice, Counts, DRAWS, choose, shares};
use crate::family::Family;
use crate::learn::{self, Known, known};
use crate::load::{LoadError, VARIANT, VersionError, active, trusted, version};
use crate::results::Newest;
use crate::select::{self, Asked, Candidate, arms, veto};
use crate::variant::Variant;

/// Why a record of a choice does not hold, or cannot be checked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifySelectionError {
    /// There is no such record.
    #[error("there is no prompt_selection {0}")]
    NoRecord(Uuid),
    /// The record, or one that it names, does not say what it must, or says something else than what comes out.
    #[error("prompt_selection {id}: {reason}")]
    Wrong {
        /// The id.
        id: Uuid,
        /// What does not hold.
        reason: String,
    },
    /// A record cannot be trusted.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was promoted could not be read.
    #[error(transparent)]
    Promotions(#[from] ReadError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Checks a `prompt_selection`: signatures and signers of it, its family, the posterior and the chosen variant, that the shares follow from
/// the counts and the choice from the shares, and that nobody picked a seed.
///
/// The counts themselves are what the host counted when the posterior was recorded.
///
/// # Errors
/// See [`VerifySelectionError`].
pub async fn verify_selection(
    reader: &Reader<'_>,
    obeyed: &Trusted,
    tenant: &str,
    id: Uuid,
) -> Result<Choice, VerifySelectionError> {
    let authorities = &obeyed.authorities;
    let wrong = |reason: &str| VerifySelectionError::Wrong { id, reason: reason.to_owned() };
    let found = reader.version(tenant, id, 0).await?.ok_or(VerifySelectionError::NoRecord(id))?;
    let record = trusted(found, authorities, "prompt_selection")?;
    let named = async |member: &str, what: &'static str| {
        let reference = record.meta(member).unwrap_or(&Value::Null);
        version(reader, authorities, tenant, reference, what).await.map_err(|error| match error {
            VersionError::Load(error) => error.into(),
            error => VerifySelectionError::Wrong { id, reason: format!("metadata.{member}: {error}") },
        })
    };
    let family_span = named("family", "prompt_family").await?;
    let family = Family::read(&family_span).map_err(|reason| wrong(&format!("the family: {reason}")))?;
    let posterior = match record.meta("posterior") {
        None | Some(Value::Null) => None,
        Some(_) => Some(named("posterior", "prompt_posterior").await?),
    };
    let all_known = match &posterior {
        Some(posterior) => shared(posterior, &family_span).map_err(wrong)?,
        None => Vec::new(),
    };
    let candidates = record.meta("candidates").cloned().unwrap_or_default();
    let candidates: Vec<Candidate> =
        serde_json::from_value(candidates).map_err(|_| wrong("metadata.candidates is malformed"))?;
    if candidates.iter().map(|candidate| candidate.id).ne(family.variants.iter().copied()) {
        return Err(wrong("its candidates are not the variants of the family"));
    }
    // Who was not in use stays out; who exceeded a guard must be out for that reason alone.
    let mut again: Vec<Candidate> = candidates.clone();
    again.iter_mut().filter(|candidate| !candidate.variant.is_null()).for_each(|candidate| candidate.out = None);
    veto(&mut again, &all_known);
    if again != candidates {
        return Err(wrong("a candidate was left out or let in against the guards"));
    }
    for candidate in &candidates {
        check_candidate(reader, obeyed, &record, &family, candidate).await?.map_err(wrong)?;
    }
    let request = record.meta("request").and_then(Value::as_str).and_then(|id| id.parse().ok());
    let request: Uuid = request.ok_or_else(|| wrong("metadata.request is missing"))?;
    let asked = Asked::of(reader, tenant, request).await?.ok_or_else(|| wrong("its request is not there"))?;
    let of_attempt = |attempt: u32| {
        let execution = ids::execution(tenant, request, attempt);
        ids::derive("prompt_selection", &[&execution.to_string()]) == id
    };
    if !(1..=MAX_ATTEMPTS).any(of_attempt) {
        return Err(wrong("it is of no attempt of its request"));
    }
    // A posterior that was being written while the choice was made may have been too late for it.
    let settled = asked.at.saturating_sub(SETTLED);
    let newest = Newest { reader, authorities, tenant };
    let due = newest.one("prompt_posterior", family_span.id, |posterior| posterior.at <= settled).await?;
    if let Some(due) = due
        && posterior.as_ref().is_none_or(|used| used.at < due.at)
    {
        return Err(wrong("a newer posterior was there, and was not used"));
    }
    if posterior.as_ref().is_some_and(|used| used.at > asked.at) {
        return Err(wrong("its posterior is newer than its request"));
    }
    let posterior_hash = posterior.as_ref().map(|posterior| posterior.seal.curr_hash);
    let seed = select::seed(&family_span.seal.curr_hash, posterior_hash.as_ref(), &asked.claim);
    if record.meta("seed").and_then(Value::as_str) != Some(seed.to_string().as_str()) {
        return Err(wrong("its seed does not follow from family, posterior and claim"));
    }
    let arms = arms(&candidates, &all_known);
    let of: Vec<Arm> = arms.iter().map(|(_, arm)| *arm).collect();
    let choice = choose(&of, family.floor, family.min_samples, &seed).ok_or_else(|| wrong("there was nothing to choose"))?;
    let chosen = arms.get(choice.arm).and_then(|(at, _)| candidates.get(*at)).map(|candidate| &candidate.variant);
    if chosen != record.meta("variant") {
        return Err(wrong("another variant comes out"));
    }
    // A whole number is recorded as one, so numbers are compared, not their texts.
    let propensity = record.meta("propensity").and_then(Value::as_f64);
    if propensity != Some(choice.propensity) || record.meta("why") != Some(&json!(choice.why)) {
        return Err(wrong("the choice was not as likely as it says"));
    }
    named("variant", VARIANT).await?;
    Ok(choice)
}

/// Attempts of a request that are looked at.
const MAX_ATTEMPTS: u32 = 1_000;

/// After this time a posterior that was begun is there.
const SETTLED: Duration = Duration::from_secs(300);

/// Versions of a variant that are looked at.
const MAX_VERSIONS: u32 = 1_000;

/// Checks that a candidate is what it says: this version of this variant of the family, or a variant that was not in use.
async fn check_candidate(
    reader: &Reader<'_>,
    obeyed: &Trusted,
    record: &VerifiedSpan,
    family: &Family,
    candidate: &Candidate,
) -> Result<Result<(), &'static str>, VerifySelectionError> {
    let (tenant, authorities) = (record.tenant_id.as_str(), &obeyed.authorities);
    if !candidate.variant.is_null() {
        let found = match version(reader, authorities, tenant, &candidate.variant, VARIANT).await {
            Ok(found) => found,
            Err(VersionError::Load(error)) => return Err(error.into()),
            Err(_) => return Ok(Err("a candidate is not the version that it names")),
        };
        let is_of = Variant::read(&found).is_ok_and(|variant| variant.family == family.name);
        return Ok(if found.id == candidate.id && is_of { Ok(()) } else { Err("a candidate is no variant of the family") });
    }
    // The last version before the choice.
    let mut before = None;
    for seq in 0..MAX_VERSIONS {
        match reader.version(tenant, candidate.id, seq).await? {
            Some(next) if next.at <= record.at => before = Some(next),
            _ => break,
        }
    }
    // Where only promoted versions are used, the one that was in force then is the one that could be chosen.
    if obeyed.requires_promotion(tenant, VARIANT) {
        let pointer = reader.promoted(obeyed, tenant, Class::Prompt, candidate.id).await?;
        before = match pointer.was_in_force_at(record.at) {
            Some(held) => reader.version(tenant, candidate.id, held.subject.seq).await?,
            None => None,
        };
    }
    let was_active = before.and_then(|before| active(before, authorities, VARIANT).ok());
    // Who asked may not have been able to see it.
    let was_seen =
        was_active.is_some_and(|variant| variant.visibility != Visibility::Private || variant.owner_id == record.owner_id);
    Ok(if was_seen { Err("a variant that was in use was left out") } else { Ok(()) })
}

/// What a posterior says, if its shares follow from its counts.
fn shared(posterior: &VerifiedSpan, family: &VerifiedSpan) -> Result<Vec<Known>, &'static str> {
    let all = known(posterior).ok_or("the variants of its posterior are malformed")?;
    let of = posterior.meta("family").and_then(|named| named.get("id")).and_then(Value::as_str);
    if of != Some(family.id.to_string().as_str()) {
        return Err("its posterior is of another family");
    }
    let text = |member: &str| posterior.meta(member).and_then(Value::as_str);
    let hash: Option<Hash> = posterior.meta("family").and_then(|named| named.get("curr_hash")?.as_str()?.parse().ok());
    let execution: Option<Uuid> = text("execution").and_then(|id| id.parse().ok());
    let (Some(hash), Some(execution)) = (hash, execution) else { return Err("its posterior is malformed") };
    let seed = learn::seed(&hash, execution);
    if text("seed") != Some(seed.to_string().as_str()) || posterior.meta("draws") != Some(&json!(DRAWS)) {
        return Err("the seed of its posterior does not follow from family and execution");
    }
    let counts: Vec<Counts> = all.iter().map(Known::counts).collect();
    if shares(&counts, &seed, DRAWS).into_iter().ne(all.iter().map(|known| known.share)) {
        return Err("the shares of its posterior do not follow from its counts");
    }
    Ok(all)
}

//! Reads a variant and its blocks from the ledger.

use std::collections::BTreeMap;

use logline_core::contract::{Context, Reader};
use logline_core::ledger::LedgerError;
use logline_core::trust::governance::Version;
use logline_core::trust::{Authorities, Trusted};
use logline_core::{Hash, SignedSpan, SpanKey, Timestamp, VerifiedSpan, Verifier};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::block::Block;
use crate::variant::Variant;

/// A variant and its blocks, with the verified spans that they stand in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Loaded {
    /// The variant.
    pub variant: Variant,
    /// Its blocks, in the order in which the variant names them.
    pub blocks: Vec<Block>,
    /// The span of the variant.
    pub variant_span: VerifiedSpan,
    /// The spans of the blocks, in the same order.
    pub block_spans: Vec<VerifiedSpan>,
    /// The promotions that have put them in force, by the id of each; empty if none is needed.
    pub promotions: BTreeMap<Uuid, Version>,
}

/// Why a variant cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such span that the asker may see.
    #[error("no {what} {id} that the request's owner can see: check the id and the span's visibility")]
    NotFound {
        /// `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
    },
    /// The span is of another type.
    #[error("span {id} is of type `{found}`, not {what}")]
    OtherType {
        /// `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
        /// The type that it has.
        found: String,
    },
    /// The span is not what was signed, or its signer may not sign it.
    #[error("{what} {id} cannot be trusted: {reason}")]
    NotTrusted {
        /// `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// The manifest uses promoted versions only, and none of this span may be used.
    #[error("{what} {id} cannot be used: {reason}")]
    NotInForce {
        /// `prompt_family`, `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// The span is not active.
    #[error("{what} {id} has the status `{status}`, not `active`: publish a version that is, or use another")]
    NotActive {
        /// `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
        /// The status that it has.
        status: String,
    },
    /// The span cannot be read as what it is.
    #[error("{what} {id}: {reason}")]
    Malformed {
        /// `prompt_variant` or `prompt_block`.
        what: &'static str,
        /// The id.
        id: Uuid,
        /// What is wrong, and where.
        reason: String,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(crate) const VARIANT: &str = "prompt_variant";
const BLOCK: &str = "prompt_block";

/// Which versions are read.
#[derive(Clone, Copy)]
pub struct Versions<'a> {
    trusted: &'a Trusted,
    /// The ledger's time; `None` to read last versions.
    now: Option<Timestamp>,
}

impl<'a> Versions<'a> {
    /// Those that a host uses at `now`: where the manifest demands promotion, the promoted ones.
    #[must_use]
    pub fn in_force(trusted: &'a Trusted, now: Timestamp) -> Self {
        Self { trusted, now: Some(now) }
    }

    /// The last ones, promoted or not: to evaluate what shall be promoted.
    #[must_use]
    pub fn last(trusted: &'a Trusted) -> Self {
        Self { trusted, now: None }
    }

    pub(crate) fn of(context: &Context<'a>) -> Self {
        Self::in_force(context.trusted, context.attempt.started)
    }
}

/// Reads a variant and each of its blocks. A publisher of the tenant must have signed them, and they must be active.
///
/// # Errors
/// See [`LoadError`].
pub async fn load(reader: &Reader<'_>, versions: Versions<'_>, tenant: &str, variant: Uuid) -> Result<Loaded, LoadError> {
    let mut promotions = BTreeMap::new();
    let (variant_span, promotion) = promoted(reader, versions, tenant, (VARIANT, variant)).await?;
    promotions.extend(promotion.map(|promotion| (variant_span.id, promotion)));
    let variant = Variant::read(&variant_span).map_err(malformed(VARIANT, variant))?;
    let (mut blocks, mut block_spans) = (Vec::new(), Vec::new());
    for id in &variant.blocks {
        let (span, promotion) = promoted(reader, versions, tenant, (BLOCK, *id)).await?;
        promotions.extend(promotion.map(|promotion| (span.id, promotion)));
        blocks.push(Block::read(&span).map_err(malformed(BLOCK, *id))?);
        block_spans.push(span);
    }
    Ok(Loaded { variant, blocks, variant_span, block_spans, promotions })
}

pub(crate) fn malformed(what: &'static str, id: Uuid) -> impl FnOnce(String) -> LoadError {
    move |reason| LoadError::Malformed { what, id, reason }
}

pub(crate) async fn find(
    reader: &Reader<'_>,
    versions: Versions<'_>,
    tenant: &str,
    named: (&'static str, Uuid),
) -> Result<VerifiedSpan, LoadError> {
    promoted(reader, versions, tenant, named).await.map(|(span, _)| span)
}

/// As [`find`], with the promotion that has put the version in force.
async fn promoted(
    reader: &Reader<'_>,
    versions: Versions<'_>,
    tenant: &str,
    (what, id): (&'static str, Uuid),
) -> Result<(VerifiedSpan, Option<Version>), LoadError> {
    let last = reader.find(tenant, id).await?.ok_or(LoadError::NotFound { what, id })?;
    let used = in_use(reader, versions, last, what).await?;
    Ok((active(used.0, &versions.trusted.authorities, what)?, used.1))
}

/// The version of a span to use, where `last` is its last one, and the promotion that has put it in force.
pub(crate) async fn in_use(
    reader: &Reader<'_>,
    versions: Versions<'_>,
    last: SignedSpan,
    what: &'static str,
) -> Result<(SignedSpan, Option<Version>), LoadError> {
    let last = reader.last_that_counts(versions.trusted, last).await?;
    let Some(now) = versions.now else { return Ok((last, None)) };
    let id = last.id;
    match reader.in_force(versions.trusted, last, now).await {
        Ok(in_force) => Ok((in_force.span, in_force.promotion)),
        Err(error) => Err(LoadError::NotInForce { what, id, reason: error.refusal()?.message }),
    }
}

/// Checks a span, and that it is in use.
pub(crate) fn active(span: SignedSpan, authorities: &Authorities, what: &'static str) -> Result<VerifiedSpan, LoadError> {
    let id = span.id;
    let span = trusted(span, authorities, what)?;
    match span.status.as_deref() {
        Some("active") => Ok(span),
        status => Err(LoadError::NotActive { what, id, status: status.unwrap_or_default().to_owned() }),
    }
}

/// Why a version that a record names is not to be had.
#[derive(Debug, Error)]
pub(crate) enum VersionError {
    #[error("the reference is malformed")]
    Malformed,
    #[error("{key} is named with hash {named}, and the ledger {found}")]
    Other { key: SpanKey, named: Hash, found: String },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The version of a span of `tenant` that a reference names, if it is still what it was.
pub(crate) async fn version(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    named: &Value,
    what: &'static str,
) -> Result<VerifiedSpan, VersionError> {
    let text = |name: &str| named.get(name).and_then(Value::as_str);
    let number = |name: &str| named.get(name).and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
    let id: Option<Uuid> = text("id").and_then(|id| id.parse().ok());
    let hash: Option<Hash> = text("curr_hash").and_then(|hash| hash.parse().ok());
    let (Some(id), Some(seq), Some(named)) = (id, number("seq"), hash) else { return Err(VersionError::Malformed) };
    let other = |found: String| {
        let key = SpanKey { tenant_id: tenant.to_owned(), id, seq };
        VersionError::Other { key, named, found }
    };
    let found = reader.version(tenant, id, seq).await.map_err(LoadError::from)?;
    let found = found.ok_or_else(|| other("does not have it".to_owned()))?;
    if found.seal.curr_hash != named {
        return Err(other(format!("has it with {}", found.seal.curr_hash)));
    }
    Ok(trusted(found, authorities, what)?)
}

/// Checks type, hash, signature and signer of a span.
pub(crate) fn trusted(span: SignedSpan, authorities: &Authorities, what: &'static str) -> Result<VerifiedSpan, LoadError> {
    let id = span.id;
    if span.entity_type != what {
        return Err(LoadError::OtherType { what, id, found: span.entity_type.clone() });
    }
    let not_trusted = |reason: String| LoadError::NotTrusted { what, id, reason };
    let span = span.verify(&mut Verifier::new()).map_err(|error| not_trusted(error.to_string()))?;
    authorities.check(&span).map_err(|error| not_trusted(error.to_string()))?;
    Ok(span)
}

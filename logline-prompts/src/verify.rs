//! Builds a recorded prompt again, from the versions that its record names.

use logline_core::contract::{CipherError, Confidential, Reader, sealed_text};
use logline_core::ledger::LedgerError;
use logline_core::trust::Authorities;
use logline_core::{Hash, SpanKey, VerifiedSpan, Verifier};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::block::Block;
use crate::build::{BuildError, Built, build};
use crate::load::{LoadError, VersionError, malformed, version};
use crate::record::{KEYED, hashes};
use crate::variant::Variant;

/// Why a record of a prompt does not hold, or cannot be checked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyBuildError {
    /// There is no such record, or it is not what was signed, or no host of the tenant has signed it.
    #[error("prompt_build {id}: {reason}")]
    NoRecord {
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// The record lacks a member, or has one that cannot be read.
    #[error("prompt_build {id}: metadata.{member} is missing or malformed")]
    Malformed {
        /// The id.
        id: Uuid,
        /// The member.
        member: &'static str,
    },
    /// A version that the record names is not there, or is another one.
    #[error("prompt_build {id} names {key} with hash {named}, and the ledger {found}")]
    OtherVersion {
        /// The id.
        id: Uuid,
        /// The version.
        key: SpanKey,
        /// The hash in the record.
        named: Hash,
        /// What the ledger has.
        found: String,
    },
    /// A version that the record names cannot be trusted.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The named versions do not build.
    #[error("prompt_build {id} cannot be built again: {source}")]
    Build {
        /// The id.
        id: Uuid,
        /// Why.
        source: BuildError,
    },
    /// The repetition has another text.
    #[error("prompt_build {id} says that its text has the hash {recorded}, and it has {again}")]
    OtherText {
        /// The id.
        id: Uuid,
        /// The hash in the record.
        recorded: String,
        /// The hash of the text that was built again.
        again: Hash,
    },
    /// Text and variables are encrypted. A retry does not help.
    #[error("prompt_build {id} is encrypted under its owner's key: verify it where the keys are")]
    Confidential {
        /// The id.
        id: Uuid,
    },
    /// Text and variables cannot be decrypted, or were forgotten.
    #[error("prompt_build {id}: {source}")]
    Cipher {
        /// The id.
        id: Uuid,
        /// Why.
        source: CipherError,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Checks a `prompt_build`: its signature and signer, each version that it names, and that these versions with its variables give the
/// recorded text and hash.
///
/// # Errors
/// See [`VerifyBuildError`]; [`VerifyBuildError::Confidential`] if it belongs to a confidential request.
pub async fn verify_build(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
) -> Result<Built, VerifyBuildError> {
    verify_build_with(reader, authorities, tenant, id, None).await
}

/// As [`verify_build`], also for confidential requests: `key` is what their owner's key opens
/// ([`Host::confidential`](logline_core::Host::confidential)).
///
/// # Errors
/// See [`VerifyBuildError`]; [`VerifyBuildError::Cipher`] with [`CipherError::Erased`] if the owner has forgotten something since.
pub async fn verify_build_with(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
    key: Option<&Confidential>,
) -> Result<Built, VerifyBuildError> {
    let no_record = |reason: String| VerifyBuildError::NoRecord { id, reason };
    let record = reader.version(tenant, id, 0).await?.ok_or_else(|| no_record("there is none".to_owned()))?;
    if record.entity_type != "prompt_build" {
        return Err(no_record(format!("it is of type `{}`", record.entity_type)));
    }
    let record = record.verify(&mut Verifier::new()).map_err(|error| no_record(error.to_string()))?;
    authorities.check(&record).map_err(|error| no_record(error.to_string()))?;
    let member = |member: &'static str| record.meta(member).ok_or(VerifyBuildError::Malformed { id, member });
    let span = named(reader, authorities, &record, member("variant")?, "prompt_variant").await?;
    let variant = Variant::read(&span).map_err(malformed("prompt_variant", span.id))?;
    let mut blocks = Vec::new();
    let listed = member("blocks")?.as_array().ok_or(VerifyBuildError::Malformed { id, member: "blocks" })?;
    for block in listed {
        let span = named(reader, authorities, &record, block, "prompt_block").await?;
        blocks.push(Block::read(&span).map_err(malformed("prompt_block", span.id))?);
    }
    if blocks.iter().map(|block| block.id).ne(variant.blocks.iter().copied()) {
        return Err(no_record("its blocks are not those of its variant".to_owned()));
    }
    let is_keyed = record.meta("hashed").and_then(Value::as_str) == Some(KEYED);
    let (vars, text) = if is_keyed {
        opened(&record, key.ok_or(VerifyBuildError::Confidential { id })?).await?
    } else {
        (record.input.clone().unwrap_or_default(), record.content.clone().unwrap_or_default())
    };
    let built = build(&variant, &blocks, &vars).map_err(|source| VerifyBuildError::Build { id, source })?;
    let recorded = member("compiled_hash")?.as_str().unwrap_or_default();
    let again = match key.filter(|_| is_keyed) {
        None => built.compiled_hash,
        Some(key) => {
            let hashes = hashes(key, &built.given).await.map_err(|source| VerifyBuildError::Cipher { id, source })?;
            built.keyed_hash(&hashes)
        }
    };
    if recorded == again.to_string() && text.as_str() == Some(built.text.as_str()) {
        Ok(Built { compiled_hash: again, ..built })
    } else {
        Err(VerifyBuildError::OtherText { id, recorded: recorded.to_owned(), again })
    }
}

/// Variables and text of an encrypted record.
async fn opened(record: &VerifiedSpan, key: &Confidential) -> Result<(Value, Value), VerifyBuildError> {
    let id = record.id;
    let mut opened = [Value::Null, Value::Null];
    for ((name, column), value) in [("input", &record.input), ("content", &record.content)].into_iter().zip(&mut opened) {
        let sealed = column.as_ref().filter(|column| sealed_text(column).is_some());
        let sealed = sealed.ok_or(VerifyBuildError::Malformed { id, member: "hashed" })?;
        *value = key.open(id, name, sealed).await.map_err(|source| VerifyBuildError::Cipher { id, source })?;
    }
    let [vars, text] = opened;
    Ok((vars, text))
}

/// The version that a reference of a record names.
async fn named(
    reader: &Reader<'_>,
    authorities: &Authorities,
    record: &VerifiedSpan,
    named: &Value,
    what: &'static str,
) -> Result<VerifiedSpan, VerifyBuildError> {
    let id = record.id;
    let member = if what == "prompt_variant" { "variant" } else { "blocks" };
    version(reader, authorities, &record.tenant_id, named, what).await.map_err(|error| match error {
        VersionError::Malformed => VerifyBuildError::Malformed { id, member },
        VersionError::Other { key, named, found } => VerifyBuildError::OtherVersion { id, key, named, found },
        VersionError::Load(error) => error.into(),
    })
}

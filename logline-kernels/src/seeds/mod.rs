//! Seeds: unsigned drafts in `seeds/*.ndjson`. They are sealed when they are installed.

use logline_core::ledger::{Ledger, LedgerError, LedgerExt as _};
use logline_core::{
    Clock, Draft, InvalidSpan, KernelSet, ParsedSpan, Rules, Scope, SealError, Signer, SpanKey, VerifiedSpan, parse_line,
};
use thiserror::Error;

const KERNELS: &str = include_str!("../../seeds/kernels.ndjson");
const GOVERNANCE: &str = include_str!("../../seeds/governance.ndjson");
const PROVIDERS: &str = include_str!("../../seeds/providers.ndjson");

/// The result of installing one seed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Installed {
    /// The seed was appended, as the first or the next version.
    Appended(SpanKey),
    /// The last version in the ledger is the same, so nothing was appended.
    Unchanged(SpanKey),
}

/// The seeds could not be installed. Seeds before the failed one are installed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A seed is not a valid unsigned draft. The tests prove that the seeds of this crate are valid.
    #[error("seed line {line} is invalid: {source}")]
    Seed {
        /// The line of the seed, counted from 1.
        line: usize,
        /// Why the line is not valid.
        source: InvalidSpan,
    },
    /// The seal failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Installs the function spans of a set in tenant `system`, sealed by its publisher. A seed that exists already is not changed.
/// One that differs from the last version is appended as the next version. So it is safe to install again, and to install is
/// also how to upgrade.
///
/// # Errors
/// If a seed cannot be sealed or appended.
pub async fn install(
    ledger: &dyn Ledger,
    set: &KernelSet,
    publisher: &dyn Signer,
    clock: &dyn Clock,
) -> Result<Vec<Installed>, InstallError> {
    let mut installed = Vec::new();
    for draft in set.drafts() {
        installed.push(install_one(ledger, draft.clone(), publisher, clock).await?);
    }
    Ok(installed)
}

/// Installs one seed, as [`install`] does.
///
/// # Errors
/// If the seed cannot be sealed or appended.
pub async fn install_one(
    ledger: &dyn Ledger,
    draft: Draft,
    publisher: &dyn Signer,
    clock: &dyn Clock,
) -> Result<Installed, InstallError> {
    let (tenant, id) = (draft.columns().tenant_id.clone(), draft.columns().id);
    let scope = Scope::runtime(&tenant);
    let draft = match ledger.head(&scope, &tenant, id).await? {
        None => draft,
        Some(existing) => match draft.clone().following(&existing) {
            Some(next) => next,
            None if existing.seal.public_key == publisher.public_key() => return Ok(Installed::Unchanged(existing.key())),
            // The same, signed by another key: this publisher takes it over.
            None => draft.seq(existing.seq.saturating_add(1)).follows(existing.seal.curr_hash),
        },
    };
    let span: VerifiedSpan = draft.at(clock.now()).seal(publisher).await?;
    let key = span.key();
    ledger.append_one(&scope, span).await?;
    tracing::info!(seed = %key, "seed installed");
    Ok(Installed::Appended(key))
}

/// Reads seeds from NDJSON, one draft per line. Empty lines are skipped.
///
/// # Errors
/// [`InstallError::Seed`] for the first line that is not a valid unsigned draft.
pub fn parse_seeds(lines: &str) -> Result<Vec<Draft>, InstallError> {
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| seed(line).map_err(|source| InstallError::Seed { line: index + 1, source })).collect()
}

/// The seeds of this crate. Its tests prove that they can be read.
pub(crate) fn kernels() -> Vec<Draft> {
    parse_seeds(KERNELS).unwrap_or_default()
}

/// The seed of the kernel `provider_exec`.
pub(crate) fn providers() -> Vec<Draft> {
    parse_seeds(PROVIDERS).unwrap_or_default()
}

/// The seed of the kernel `governance`.
pub(crate) fn governance() -> Vec<Draft> {
    parse_seeds(GOVERNANCE).unwrap_or_default()
}

fn seed(line: &str) -> Result<Draft, InvalidSpan> {
    match parse_line(line.as_bytes(), &Rules::default())? {
        ParsedSpan::Unsigned(draft) => Ok(*draft),
        _ => Err(InvalidSpan::UnknownColumn { column: "signature".to_owned() }),
    }
}

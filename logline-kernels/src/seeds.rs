//! The seeds: unsigned drafts of kernels and policies, readable in `seeds/*.ndjson`, sealed when they are installed.

use logline_core::ledger::{Ledger, LedgerError, LedgerExt as _};
use logline_core::{
    Clock, Draft, InvalidSpan, ParsedSpan, Rules, Scope, SealError, Signer, SpanKey, VerifiedSpan, ids, parse_line,
};
use thiserror::Error;
use uuid::Uuid;

const KERNELS: &str = include_str!("../seeds/kernels.ndjson");
const POLICIES: &str = include_str!("../seeds/policies.ndjson");

/// What became of one seed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Installed {
    /// It was appended, as the first or the next version.
    Appended(SpanKey),
    /// The last version there says the same.
    Unchanged(SpanKey),
}

/// The seeds could not be installed. Those before the failure are.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A seed of this crate is broken, which its tests rule out.
    #[error("seed line {line} is invalid: {source}")]
    Seed {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: InvalidSpan,
    },
    /// The seal failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Installs the kernels' seeds in tenant `system`, sealed by its publisher. A seed that is there already is left alone; one that
/// differs from the last version is appended as the next. So installing again is harmless, and upgrading is installing.
///
/// # Errors
/// Where a seed cannot be sealed or appended.
pub async fn install(ledger: &dyn Ledger, publisher: &dyn Signer, clock: &dyn Clock) -> Result<Vec<Installed>, InstallError> {
    let mut installed = Vec::new();
    for draft in seeds(KERNELS)? {
        installed.push(install_one(ledger, draft, publisher, clock).await?);
    }
    Ok(installed)
}

/// Installs the built-in policies (`docs/policies.md`) in a tenant, owned by `owner` and sealed by the tenant's publisher; the same
/// as [`install`] otherwise. To change what they do publish another `input`: a policy whose `input` was changed keeps it.
///
/// # Errors
/// Where a seed cannot be sealed or appended.
pub async fn install_policies(
    ledger: &dyn Ledger,
    tenant: &str,
    owner: &str,
    publisher: &dyn Signer,
    clock: &dyn Clock,
) -> Result<Vec<Installed>, InstallError> {
    let mut installed = Vec::new();
    for draft in built_in_policies()? {
        let mut draft = draft.tenant(tenant).owner(owner);
        let existing = ledger.find(&Scope::runtime(tenant), tenant, draft.columns().id).await?;
        if let Some(existing) = existing {
            let columns = draft.columns_mut();
            columns.owner_id.clone_from(&existing.owner_id);
            columns.input.clone_from(&existing.input);
            columns.status.clone_from(&existing.status);
        }
        installed.push(install_one(ledger, draft, publisher, clock).await?);
    }
    Ok(installed)
}

/// The built-in policies, of no tenant yet. Their ids follow from their names.
///
/// # Errors
/// Where a seed of this crate is broken, which its tests rule out.
pub fn built_in_policies() -> Result<Vec<Draft>, InstallError> {
    let policies = seeds(POLICIES)?.into_iter().map(|draft| {
        let id = policy_id(draft.columns().name.as_deref().unwrap_or_default());
        draft.id(id)
    });
    Ok(policies.collect())
}

/// The id of a built-in policy, in whatever tenant.
#[must_use]
pub fn policy_id(name: &str) -> Uuid {
    ids::derive("policy", &[name])
}

async fn install_one(
    ledger: &dyn Ledger,
    draft: Draft,
    publisher: &dyn Signer,
    clock: &dyn Clock,
) -> Result<Installed, InstallError> {
    let (tenant, id) = (draft.columns().tenant_id.clone(), draft.columns().id);
    let scope = Scope::runtime(&tenant);
    let draft = match ledger.find(&scope, &tenant, id).await? {
        None => draft,
        Some(existing) => {
            let mut same = draft.clone().seq(existing.seq);
            // A seed has no time and no predecessor of its own.
            same.columns_mut().at = existing.at;
            same.columns_mut().prev_hash = existing.prev_hash;
            if same.columns() == &existing.span && existing.seal.public_key == publisher.public_key() {
                return Ok(Installed::Unchanged(existing.key()));
            }
            draft.seq(existing.seq.saturating_add(1)).follows(existing.seal.curr_hash)
        }
    };
    let span: VerifiedSpan = draft.at(clock.now()).seal(publisher).await?;
    let key = span.key();
    ledger.append_one(&scope, span).await?;
    tracing::info!(seed = %key, "seed installed");
    Ok(Installed::Appended(key))
}

fn seeds(lines: &str) -> Result<Vec<Draft>, InstallError> {
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| seed(line).map_err(|source| InstallError::Seed { line: index + 1, source })).collect()
}

fn seed(line: &str) -> Result<Draft, InvalidSpan> {
    match parse_line(line.as_bytes(), &Rules::default())? {
        ParsedSpan::Unsigned(draft) => Ok(*draft),
        _ => Err(InvalidSpan::UnknownColumn { column: "signature".to_owned() }),
    }
}

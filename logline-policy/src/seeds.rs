//! The seeds: the function span of the agent and the built-in policies. They are the files `seeds/*.ndjson`.

use logline_core::ledger::{Ledger, LedgerExt as _};
use logline_core::{Clock, Draft, Scope, Signer, ids};
use logline_kernels::{InstallError, Installed, install_one, parse_seeds};
use uuid::Uuid;

const KERNELS: &str = include_str!("../seeds/kernels.ndjson");
const POLICIES: &str = include_str!("../seeds/policies.ndjson");

/// The function span of the agent. The tests of this crate prove that it can be read.
pub(crate) fn kernels() -> Vec<Draft> {
    parse_seeds(KERNELS).unwrap_or_default()
}

/// Installs the built-in policies (`docs/policies.md`) in a tenant, owned by `owner` and sealed by the tenant's publisher.
/// Otherwise it works like [`install`](logline_kernels::install). To change what a policy does, publish its next version with
/// another `input`. A policy that exists keeps its `owner_id`, `input` and `status`.
///
/// # Errors
/// If a seed cannot be sealed or appended.
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

/// The built-in policies, without a tenant. Their ids follow from their names.
///
/// # Errors
/// If a seed of this crate is invalid. The tests of this crate prove that none is.
pub fn built_in_policies() -> Result<Vec<Draft>, InstallError> {
    let policies = parse_seeds(POLICIES)?.into_iter().map(|draft| {
        let id = policy_id(draft.columns().name.as_deref().unwrap_or_default());
        draft.id(id)
    });
    Ok(policies.collect())
}

/// The id of the built-in policy `name`. It is the same in every tenant.
#[must_use]
pub fn policy_id(name: &str) -> Uuid {
    ids::derive("policy", &[name])
}

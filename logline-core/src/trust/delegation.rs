//! Keys of hosts, named by an authority of the manifest for a time: adding a host takes no quorum of root keys.
//!
//! A delegation is a span of type `delegation` in tenant `system` whose metadata holds key, tenants and interval. It gives the role
//! runtime, to that key, for what is dated within the interval; it gives nothing that its signer has not, and cannot be passed on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::keys::{self, SignatureError, Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger, LedgerError, Query, Versions};
use crate::span::draft::Draft;
use crate::span::seal::{SealError, VerifiedSpan};
use crate::span::{SYSTEM_TENANT, SignedSpan, Span};
use crate::trust::manifest::covers;
use crate::trust::{Authorities, TrustError, TrustRoot};
use crate::value::clock::Clock;
use crate::value::hex::PublicKey;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The longest that one delegation may last. Renew it by another.
pub const MAX_DELEGATION: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 60 * 60);

/// A host's key, and for which tenants and how long it is a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The host's key.
    pub key: PublicKey,
    /// The tenants it records for; `*` is every tenant except `system`, which a host that boots kernels needs as well.
    pub tenants: Vec<String>,
    /// The first moment that it may date a span with.
    pub not_before: Timestamp,
    /// The moment from which on it may not.
    pub expires: Timestamp,
}

/// Why a delegation gives nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DelegationError {
    /// It names a key that nobody can trust.
    #[error("delegation of {key}: {source}")]
    Key {
        /// The key.
        key: PublicKey,
        /// Why.
        source: SignatureError,
    },
    /// It names no tenant.
    #[error("delegation of {key} names no tenant: name those that the host records for, and `system` if it boots kernels")]
    NoTenant {
        /// The key.
        key: PublicKey,
    },
    /// It ends before it begins, or lasts longer than a delegation may.
    #[error("delegation of {key} from {not_before} to {expires}: it must end after it begins, within {} days", MAX_DELEGATION.as_secs() / 86_400)]
    Interval {
        /// The key.
        key: PublicKey,
        /// Its beginning.
        not_before: Timestamp,
        /// Its end.
        expires: Timestamp,
    },
    /// It has ended already.
    #[error("delegation of {key} ended {expires}: it would never have been in force")]
    Ended {
        /// The key.
        key: PublicKey,
        /// Its end.
        expires: Timestamp,
    },
    /// Its signer cannot give what it gives.
    #[error(
        "key {signer} cannot delegate for tenant `{tenant}`: the manifest must name it runtime of that tenant and of `system`"
    )]
    Signer {
        /// The signer.
        signer: PublicKey,
        /// A tenant for which it is no runtime.
        tenant: String,
    },
    /// No manifest is in force.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The seal failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Delegation {
    /// Makes `key` a runtime of `tenants` from `not_before` until `expires`.
    pub fn new<T: Into<String>>(
        key: PublicKey,
        tenants: impl IntoIterator<Item = T>,
        not_before: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self { key, tenants: tenants.into_iter().map(Into::into).collect(), not_before, expires }
    }

    /// Reads the delegation of a span. `None` for spans of another type or tenant, and for what is no delegation.
    #[must_use]
    pub fn from_span(span: &Span) -> Option<Self> {
        if span.entity_type != "delegation" || span.tenant_id != SYSTEM_TENANT {
            return None;
        }
        let delegation: Self = serde_json::from_value(span.meta("delegation")?.clone()).ok()?;
        delegation.check().ok()?;
        Some(delegation)
    }

    /// What holds for every delegation, whoever signs it.
    ///
    /// # Errors
    /// A weak key, no tenant, or an impossible interval.
    pub fn check(&self) -> Result<(), DelegationError> {
        let Self { key, not_before, expires, .. } = *self;
        keys::check_key(&key).map_err(|source| DelegationError::Key { key, source })?;
        if self.tenants.is_empty() {
            return Err(DelegationError::NoTenant { key });
        }
        if expires <= not_before || expires.since(not_before) > MAX_DELEGATION {
            return Err(DelegationError::Interval { key, not_before, expires });
        }
        Ok(())
    }

    /// Whether the key may sign what `tenant` has dated `at`.
    #[must_use]
    pub fn covers(&self, tenant: &str, at: Timestamp) -> bool {
        self.not_before <= at && at < self.expires && covers(&self.tenants, tenant)
    }

    /// The span to be. Saying the same twice is one span.
    fn to_draft(&self) -> Draft {
        let value = json!({
            "key": self.key.to_string(),
            "tenants": self.tenants,
            "not_before": self.not_before.to_string(),
            "expires": self.expires.to_string(),
        });
        Draft::new("delegation")
            .id(ids::derive("delegation", &[&value.to_string()]))
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .who("runtime")
            .did("delegated")
            .this("host.key")
            .status("complete")
            .metadata(Value::Object([("delegation".to_owned(), value)].into_iter().collect()))
            .deterministic()
    }
}

impl TrustRoot {
    /// Seals a delegation with a key that the manifest names runtime of all its tenants and of `system`, and appends it. Hosts see
    /// it when they are built and at [`Host::refresh`](crate::Host::refresh).
    ///
    /// # Errors
    /// Where it would give nothing. Nothing is appended then.
    pub async fn delegate(
        &self,
        ledger: &dyn Ledger,
        delegation: &Delegation,
        signer: &dyn Signer,
        clock: &dyn Clock,
    ) -> Result<VerifiedSpan, DelegationError> {
        delegation.check()?;
        let now = clock.now();
        if delegation.expires <= now {
            return Err(DelegationError::Ended { key: delegation.key, expires: delegation.expires });
        }
        let trusted = self.resolve(ledger).await?;
        let signer_key = signer.public_key();
        if let Some(tenant) = trusted.authorities.not_delegable(&signer_key, delegation) {
            return Err(DelegationError::Signer { signer: signer_key, tenant: tenant.to_owned() });
        }
        let span = delegation.to_draft().at(now).seal(signer).await?;
        ledger.append(&Scope::runtime(SYSTEM_TENANT), vec![span.clone()], &AppendOptions::keep()).await?;
        Ok(span)
    }
}

/// Adds the delegations that `ledger` holds to `authorities`. What is damaged, not signed or signed by a stranger gives nothing and
/// is passed over; a tombstone takes nothing back, or whoever can hide a span could condemn what a host has signed.
pub(crate) async fn read(ledger: &dyn Ledger, authorities: &mut Authorities) -> Result<(), LedgerError> {
    let scope = Scope::runtime(SYSTEM_TENANT);
    let query = Query::new().tenant(SYSTEM_TENANT).entity_type("delegation").versions(Versions::All);
    let mut verifier = Verifier::new();
    let mut cursor = None;
    loop {
        let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
        cursor = page.next;
        for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            admit(span, authorities, &mut verifier);
        }
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn admit(span: SignedSpan, authorities: &mut Authorities, verifier: &mut Verifier) {
    let Some(delegation) = Delegation::from_span(&span) else { return };
    // Strangers are turned away before the cost of their signature.
    if authorities.not_delegable(&span.seal.public_key, &delegation).is_some() {
        return;
    }
    if let Ok(span) = span.verify(verifier) {
        authorities.delegate(&span);
    }
}

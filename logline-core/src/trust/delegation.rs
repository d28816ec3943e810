//! Delegations: a runtime key that the manifest names makes the key of another host a runtime key, for a limited time. So a
//! new host needs no approval by root keys.
//!
//! A delegation is a span of type `delegation` in tenant `system`. Its metadata holds the key, the tenants and the interval. It
//! gives that key the role runtime for spans dated within the interval. It cannot give more than its signer has, and a
//! delegated key cannot delegate.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::keys::{self, SignatureError, Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Query, Versions};
use crate::span::draft::Draft;
use crate::span::seal::{SealError, VerifiedSpan};
use crate::span::{SYSTEM_TENANT, SignedSpan, Span};
use crate::trust::manifest::covers;
use crate::trust::{Authorities, TrustError, TrustRoot, own};
use crate::value::clock::Clock;
use crate::value::hex::PublicKey;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The longest duration of one delegation, 366 days. To renew a delegation, publish another one.
pub const MAX_DELEGATION: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 60 * 60);

/// Makes a host's key a runtime key of some tenants, for a limited time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The host's key.
    pub key: PublicKey,
    /// The tenants that it may record for, by name. `*` means every tenant except `system`. A host that boots kernels needs
    /// `system` as well.
    pub tenants: Vec<String>,
    /// The earliest `at` of a span that the key may sign.
    pub not_before: Timestamp,
    /// The end, exclusive: the key may sign only spans dated before it.
    pub expires: Timestamp,
}

/// Why a delegation is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DelegationError {
    /// It names a key that is malformed, weak or not canonically encoded.
    #[error("delegation of {key}: {source}")]
    Key {
        /// The delegated key.
        key: PublicKey,
        /// Why it cannot be trusted.
        source: SignatureError,
    },
    /// It names no tenant.
    #[error("delegation of {key} names no tenant: name those that the host records for, and `system` if it boots kernels")]
    NoTenant {
        /// The delegated key.
        key: PublicKey,
    },
    /// It does not end after it begins, or it lasts longer than [`MAX_DELEGATION`].
    #[error("delegation of {key} from {not_before} to {expires}: it must end after it begins, within {} days", MAX_DELEGATION.as_secs() / 86_400)]
    Interval {
        /// The delegated key.
        key: PublicKey,
        /// When it begins.
        not_before: Timestamp,
        /// When it ends.
        expires: Timestamp,
    },
    /// It ended before it was published.
    #[error("delegation of {key} ended at {expires} and would have no effect: choose a later end")]
    Ended {
        /// The delegated key.
        key: PublicKey,
        /// When it ended.
        expires: Timestamp,
    },
    /// Its signer does not have the rights that it would give.
    #[error(
        "key {signer} cannot delegate for tenant `{tenant}`: the manifest must name it runtime of that tenant and of `system`"
    )]
    Signer {
        /// The key that was to sign the delegation.
        signer: PublicKey,
        /// A tenant of which the signer is not a runtime key by the manifest.
        tenant: String,
    },
    /// Somebody else's span has the id that the delegation would have.
    #[error(
        "span {id} in tenant `system` was signed by another key: it does not count, and the delegation cannot be stored; run fsck"
    )]
    Occupied {
        /// The id.
        id: Uuid,
    },
    /// The manifest could not be resolved.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The span could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Delegation {
    /// Makes `key` a runtime key of `tenants` from `not_before` until `expires`.
    pub fn new<T: Into<String>>(
        key: PublicKey,
        tenants: impl IntoIterator<Item = T>,
        not_before: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self { key, tenants: tenants.into_iter().map(Into::into).collect(), not_before, expires }
    }

    /// Reads the delegation in a span. `None` if the span has another type or tenant, or holds no valid delegation.
    #[must_use]
    pub fn from_span(span: &Span) -> Option<Self> {
        if span.entity_type != "delegation" || span.tenant_id != SYSTEM_TENANT {
            return None;
        }
        let delegation: Self = serde_json::from_value(span.meta("delegation")?.clone()).ok()?;
        delegation.check().ok()?;
        Some(delegation)
    }

    /// Makes the checks that do not depend on the signer.
    ///
    /// # Errors
    /// If the key cannot be trusted, no tenant is named, or the interval is impossible.
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

    /// Whether the key may sign a span of `tenant` that is dated `at`.
    #[must_use]
    pub fn covers(&self, tenant: &str, at: Timestamp) -> bool {
        self.is_valid_at(at) && covers(&self.tenants, tenant)
    }

    /// Whether it is in force at the time `at`.
    pub(crate) fn is_valid_at(&self, at: Timestamp) -> bool {
        self.not_before <= at && at < self.expires
    }

    /// Drafts its span. The id follows from the content, so the same delegation is stored once.
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
    /// Seals a delegation and appends it. The manifest must name the signer as a runtime key of `system` and of every tenant of
    /// the delegation. Hosts read delegations when they are built and at [`Host::refresh`](crate::Host::refresh).
    ///
    /// # Errors
    /// If the delegation would have no effect, or the ledger fails. Nothing is appended then.
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
        if let Some(tenant) = trusted.authorities.not_delegable_now(&signer_key, delegation) {
            return Err(DelegationError::Signer { signer: signer_key, tenant: tenant.to_owned() });
        }
        let span = delegation.to_draft().at(now).seal(signer).await?;
        let id = span.id;
        own::append_own(ledger, span).await?.ok_or(DelegationError::Occupied { id })
    }
}

/// Adds the delegations in `ledger` to `authorities`. It skips rows that are damaged, unsigned, or signed by a key that cannot
/// delegate. A tombstone takes nothing back: otherwise anybody who can hide a span could invalidate what a host has signed.
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
    // Check who signed first: it is much cheaper than verifying the signature.
    if authorities.not_delegable(&span.seal.public_key, &delegation).is_some() {
        return;
    }
    if let Ok(span) = span.verify(verifier) {
        authorities.delegate(&span);
    }
}

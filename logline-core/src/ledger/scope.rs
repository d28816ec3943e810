//! Scopes: every call of a ledger names a scope, and every backend enforces the predicates of this module.

use thiserror::Error;

use crate::roles;
use crate::span::{SYSTEM_TENANT, Span, Visibility};
use crate::value::ids;

/// Whose rows a call of the ledger may read and write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One user of one tenant. It writes its own rows, and reads these and the `tenant` and `public` rows of its tenant.
    User {
        /// The user's tenant.
        tenant: String,
        /// The user. It is the `owner_id` of the rows that the user writes.
        user: String,
    },
    /// The runtime of one tenant, for rows of every owner: workers, policies, and Stage-0 (in `system`).
    Runtime {
        /// The tenant whose rows it reads and writes.
        tenant: String,
    },
    /// Every row of every tenant. For fsck, export and restore.
    Operator,
}

/// Why a scope may not append a span.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denied {
    /// The scope has an empty tenant or an empty user.
    #[error("the scope has no tenant or no user: name both, nothing can be written without an identity")]
    NoIdentity,
    /// The span belongs to another tenant.
    #[error("scope of tenant `{scope}` cannot write in tenant `{span}`")]
    Tenant {
        /// The scope's tenant.
        scope: String,
        /// The span's tenant.
        span: String,
    },
    /// A user writes in tenant `system`, whose spans every host obeys.
    #[error("a user cannot write in tenant `system`: a host or an operator can")]
    System,
    /// The span belongs to another owner.
    #[error("user `{scope}` cannot write a span owned by `{span}`")]
    Owner {
        /// The scope's user.
        scope: String,
        /// The span's owner.
        span: String,
    },
    /// The first version has a derived id that this user may not use.
    #[error(
        "id {id} is a derived id (version 5), which only the runtime assigns: use a UUIDv7, or the id that `ids::idempotent` \
         derives from your metadata.idempotency_key"
    )]
    DerivedId {
        /// The id of the refused span.
        id: uuid::Uuid,
    },
    /// Only hosts may write this type, or this version of it, or nobody may.
    #[error("a user cannot write this version of type `{entity_type}`: only the runtime may write it")]
    Reserved {
        /// The type of the refused span.
        entity_type: String,
    },
}

impl Scope {
    /// A scope for one user of one tenant.
    pub fn user(tenant: impl Into<String>, user: impl Into<String>) -> Self {
        Self::User { tenant: tenant.into(), user: user.into() }
    }

    /// A scope for all rows of one tenant.
    pub fn runtime(tenant: impl Into<String>) -> Self {
        Self::Runtime { tenant: tenant.into() }
    }

    /// The tenant of the scope. `None` for the operator.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::User { tenant, .. } | Self::Runtime { tenant } => Some(tenant),
            Self::Operator => None,
        }
    }

    /// Whether the scope has an empty tenant or user. Such a scope reads nothing and writes nothing.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::User { tenant, user } => tenant.is_empty() || user.is_empty(),
            Self::Runtime { tenant } => tenant.is_empty(),
            Self::Operator => false,
        }
    }

    /// Whether the scope may read `span`. `named` is the tenant that the call names, `None` if it names none.
    #[must_use]
    pub fn may_read(&self, span: &Span, named: Option<&str>) -> bool {
        if self.is_nobody() || named.is_some_and(|tenant| tenant != span.tenant_id) {
            return false;
        }
        let Some(tenant) = self.tenant() else { return true };
        if span.tenant_id != tenant {
            // Public rows of another tenant are returned only if the call names that tenant. Those of `system` always are.
            return span.visibility == Visibility::Public && (named.is_some() || span.tenant_id == SYSTEM_TENANT);
        }
        match self {
            Self::User { user, .. } => span.owner_id == *user || span.visibility != Visibility::Private,
            Self::Runtime { .. } | Self::Operator => true,
        }
    }

    /// Checks whether the scope may append `span`. Which key may *sign* it is decided elsewhere, see [`crate::trust`].
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn check_append(&self, span: &Span) -> Result<(), Denied> {
        if self.is_nobody() {
            return Err(Denied::NoIdentity);
        }
        let Some(tenant) = self.tenant() else { return Ok(()) };
        if span.tenant_id != tenant {
            return Err(Denied::Tenant { scope: tenant.to_owned(), span: span.tenant_id.clone() });
        }
        if let Self::User { user, .. } = self {
            // Every host obeys what stands there.
            if tenant == SYSTEM_TENANT {
                return Err(Denied::System);
            }
            if span.owner_id != *user {
                return Err(Denied::Owner { scope: user.clone(), span: span.owner_id.clone() });
            }
            if roles::is_reserved_for_runtime(span) {
                return Err(Denied::Reserved { entity_type: span.entity_type.clone() });
            }
            // Executions, emitted spans and scheduled requests have ids that anybody can compute. A user who could write the
            // first version of such an id would block the span that the runtime records later.
            if span.prev_hash.is_none() && span.id.get_version_num() == 5 && !has_own_derived_id(span) {
                return Err(Denied::DerivedId { id: span.id });
            }
        }
        Ok(())
    }
}

fn has_own_derived_id(span: &Span) -> bool {
    let key = span.meta("idempotency_key").and_then(serde_json::Value::as_str);
    key.is_some_and(|key| span.id == ids::idempotent(&span.tenant_id, &span.owner_id, &span.entity_type, key))
}

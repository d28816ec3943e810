//! Who is asking: every call of a ledger names a scope, and every backend holds it to these predicates.

use thiserror::Error;

use crate::roles;
use crate::span::{SYSTEM_TENANT, Span, Visibility};
use crate::value::ids;

/// Whose eyes and hands a call of the ledger has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One user of one tenant.
    User {
        /// The tenant.
        tenant: String,
        /// The user, the `owner_id` of what they write.
        user: String,
    },
    /// Every owner of one tenant: workers, policies, Stage-0 (in `system`).
    Runtime {
        /// The tenant.
        tenant: String,
    },
    /// Everything: fsck, export, restore.
    Operator,
}

/// Why a scope may not append a span.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denied {
    /// A scope with an empty tenant or user.
    #[error("the scope names no tenant or no user: nothing can be written without an identity")]
    NoIdentity,
    /// Another tenant's row.
    #[error("scope of tenant `{scope}` cannot write in tenant `{span}`")]
    Tenant {
        /// The scope's tenant.
        scope: String,
        /// The span's tenant.
        span: String,
    },
    /// Another owner's row.
    #[error("user `{scope}` cannot write a span owned by `{span}`")]
    Owner {
        /// The scope's user.
        scope: String,
        /// The span's owner.
        span: String,
    },
    /// A derived id that is not the user's to take.
    #[error(
        "id {id} is a derived one (version 5), which the runtime assigns: use a UUIDv7, or the id that `ids::idempotent` derives \
         from your metadata.idempotency_key"
    )]
    DerivedId {
        /// The id.
        id: uuid::Uuid,
    },
    /// A type that only hosts write.
    #[error("type `{entity_type}` (this version) is written by the runtime only")]
    Reserved {
        /// The type.
        entity_type: String,
    },
}

impl Scope {
    /// One user of one tenant.
    pub fn user(tenant: impl Into<String>, user: impl Into<String>) -> Self {
        Self::User { tenant: tenant.into(), user: user.into() }
    }

    /// Every owner of one tenant.
    pub fn runtime(tenant: impl Into<String>) -> Self {
        Self::Runtime { tenant: tenant.into() }
    }

    /// The tenant it is confined to; `None` for the operator.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::User { tenant, .. } | Self::Runtime { tenant } => Some(tenant),
            Self::Operator => None,
        }
    }

    /// Whether it names nobody: such a scope sees nothing and writes nothing.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::User { tenant, user } => tenant.is_empty() || user.is_empty(),
            Self::Runtime { tenant } => tenant.is_empty(),
            Self::Operator => false,
        }
    }

    /// Whether it may read `span`, where `named` is the tenant that the call asked for, if it asked for one.
    #[must_use]
    pub fn may_read(&self, span: &Span, named: Option<&str>) -> bool {
        if self.is_nobody() || named.is_some_and(|tenant| tenant != span.tenant_id) {
            return false;
        }
        let Some(tenant) = self.tenant() else { return true };
        if span.tenant_id != tenant {
            // Others' public rows show only to whoever names their tenant; the system's to everybody.
            return span.visibility == Visibility::Public && (named.is_some() || span.tenant_id == SYSTEM_TENANT);
        }
        match self {
            Self::User { user, .. } => span.owner_id == *user || span.visibility != Visibility::Private,
            Self::Runtime { .. } | Self::Operator => true,
        }
    }

    /// Whether it may append `span`. (Who may *sign* it is another question, see [`crate::trust`].)
    ///
    /// # Errors
    /// Why not.
    pub fn check_append(&self, span: &Span) -> Result<(), Denied> {
        if self.is_nobody() {
            return Err(Denied::NoIdentity);
        }
        let Some(tenant) = self.tenant() else { return Ok(()) };
        if span.tenant_id != tenant {
            return Err(Denied::Tenant { scope: tenant.to_owned(), span: span.tenant_id.clone() });
        }
        if let Self::User { user, .. } = self {
            if span.owner_id != *user {
                return Err(Denied::Owner { scope: user.clone(), span: span.owner_id.clone() });
            }
            if roles::is_reserved_for_runtime(span) {
                return Err(Denied::Reserved { entity_type: span.entity_type.clone() });
            }
            // Executions, emitted spans and scheduled requests have ids that anybody can compute. A user who could begin one
            // of them would block what the runtime has yet to record.
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

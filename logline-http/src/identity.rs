//! Who calls: what an accepted token says.

use std::collections::BTreeSet;

use logline_core::{Scope, Timestamp};

use crate::problem::{Code, Problem};

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What a token permits. A call needs one of these, and is confined to the token's tenant and user besides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Permission {
            $($(#[$doc])* $variant,)*
        }

        impl Permission {
            /// All permissions.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in tokens and keys.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The permission with this name.
            #[must_use]
            pub fn of(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
            }
        }
    };
}

permissions! {
    /// Reads what the user may see: spans, timelines, streams, requests, metrics.
    Read = "spans:read";
    /// Writes spans.
    Write = "spans:write";
    /// Submits requests.
    Execute = "requests:execute";
    /// Cancels and revives the user's requests.
    Manage = "requests:manage";
    /// Issues, rotates and revokes API keys of the user.
    ManageKeys = "keys:manage";
    /// Reads every row of the tenant, whoever owns it. For auditors and dashboards.
    ReadTenant = "tenant:read";
    /// Cancels and revives every request of the tenant.
    ManageTenant = "tenant:manage";
}

/// The identity that a token stands for. The scope of every call of the ledger follows from it, and from nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The tenant.
    pub tenant: String,
    /// The user, who owns what the caller writes.
    pub user: String,
    /// Names the token or key in logs and rate limits: the id of an API key, or the subject and issuer of a JWT. Not a secret.
    pub credential: String,
    /// What it permits.
    pub permissions: BTreeSet<Permission>,
    /// When it ends; `None` if it has no end of its own.
    pub expires: Option<Timestamp>,
}

impl Identity {
    /// The identity of `user` in `tenant`, with these permissions and no end.
    pub fn new(
        tenant: impl Into<String>,
        user: impl Into<String>,
        credential: impl Into<String>,
        permissions: impl IntoIterator<Item = Permission>,
    ) -> Self {
        Self {
            tenant: tenant.into(),
            user: user.into(),
            credential: credential.into(),
            permissions: permissions.into_iter().collect(),
            expires: None,
        }
    }

    /// Sets when it ends.
    #[must_use]
    pub fn expires(mut self, at: Option<Timestamp>) -> Self {
        self.expires = at;
        self
    }

    /// The scope in which the caller writes.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::user(&self.tenant, &self.user)
    }

    /// The scope in which the caller reads.
    #[must_use]
    pub fn read_scope(&self) -> Scope {
        if self.permissions.contains(&Permission::ReadTenant) { Scope::runtime(&self.tenant) } else { self.scope() }
    }

    pub(crate) fn need(&self, permission: Permission) -> Result<(), Problem> {
        let implied = match permission {
            Permission::Read => Some(Permission::ReadTenant),
            Permission::Manage => Some(Permission::ManageTenant),
            _ => None,
        };
        if self.permissions.contains(&permission) || implied.is_some_and(|implied| self.permissions.contains(&implied)) {
            return Ok(());
        }
        Err(Problem::new(Code::NotPermitted, format!("it needs the permission `{}`", permission.as_str())))
    }

    /// Refuses a tenant or an owner that the caller names and that is not the token's.
    pub(crate) fn check_named(&self, tenant: Option<&str>, owner: Option<&str>) -> Result<(), Problem> {
        let other = |name: &str| Problem::new(Code::OtherIdentity, format!("`{name}` is not that of the token: leave it out"));
        if tenant.is_some_and(|tenant| tenant != self.tenant) {
            return Err(other("tenant_id"));
        }
        if owner.is_some_and(|owner| owner != self.user) {
            return Err(other("owner_id"));
        }
        Ok(())
    }
}

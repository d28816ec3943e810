//! The roles that a key can have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key may sign, in the tenants that its authority in the manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Signs and approves manifests. Root keys are listed in the manifest's `root`, never among its authorities.
    Root,
    /// Signs behaviour: functions, policies, prompts, contracts.
    Publisher,
    /// Signs approvals and rejections.
    Approver,
    /// Signs requests, notes and the tenant's own types.
    Member,
    /// Signs the record of what ran. Hosts have this role.
    Runtime,
}

impl Role {
    /// The name of the role in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Publisher => "publisher",
            Self::Approver => "approver",
            Self::Member => "member",
            Self::Runtime => "runtime",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Root, Self::Publisher, Self::Approver, Self::Member, Self::Runtime]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role: use root, publisher, approver, member or runtime"))
    }
}

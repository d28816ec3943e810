//! Which role may sign which type of span: the one table that the driver, the importer and fsck share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// What a key is trusted with, for the tenants its authority names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Seals and approves manifests. Root keys stand in the manifest's `root`, never among its authorities.
    Root,
    /// Publishes behaviour: functions, policies, prompts, contracts.
    Publisher,
    /// Approves and rejects.
    Approver,
    /// Writes requests, notes and the tenant's own types.
    Member,
    /// A host: records what ran.
    Runtime,
}

impl Role {
    /// The text in a manifest.
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
            .ok_or_else(|| format!("`{text}` is no role: use root, publisher, approver, member or runtime"))
    }
}

/// Types that publishers sign.
const PUBLISHED: &[&str] = &[
    "app_bundle",
    "blob",
    "bundle_template",
    "function",
    "memory_contract",
    "pact",
    "policy",
    "prompt_block",
    "prompt_eval",
    "prompt_variant",
    "provider",
    "slo",
    "test_plan",
];

/// Types that only hosts sign.
const RECORDED: &[&str] = &[
    "boot_event",
    "bundle_instantiation",
    "checkpoint",
    "consent",
    "delegation",
    "error_report",
    "escalation_request",
    "execution",
    "export_artifact",
    "export_request",
    "metric",
    "promotion",
    "provider_request",
    "redaction",
    "registration",
    "rollback",
    "status_patch",
    "test_result",
];

/// Families of such types as well: whatever is named like the runtime's own records is the runtime's.
fn is_recorded(entity_type: &str) -> bool {
    let prefixed = ["policy_", "memory"].iter().any(|prefix| entity_type.starts_with(prefix));
    let suffixed = ["_build", "_run", "_selection", "_execution"].iter().any(|suffix| entity_type.ends_with(suffix));
    prefixed || suffixed || RECORDED.contains(&entity_type)
}

/// The roles one of which a span's signer needs.
#[must_use]
pub fn required(span: &Span) -> &'static [Role] {
    let is_first = span.prev_hash.is_none();
    match span.entity_type.as_str() {
        "manifest" => &[Role::Root],
        "approval" | "rejection" => &[Role::Approver],
        "request" if !is_first => &[Role::Runtime],
        published if PUBLISHED.contains(&published) => &[Role::Publisher],
        recorded if is_recorded(recorded) => &[Role::Runtime],
        // Requests, notes and the open set.
        _ => &[Role::Member, Role::Publisher, Role::Runtime],
    }
}

/// Whether only a host may write this span, so that no user's session and no guest can.
#[must_use]
pub fn is_reserved_for_runtime(span: &Span) -> bool {
    required(span) == [Role::Runtime]
}

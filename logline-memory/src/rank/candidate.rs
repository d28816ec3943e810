//! What the ranking knows of a memory, and why a memory is left out.

use std::fmt;

use logline_core::Timestamp;
use uuid::Uuid;

/// Which memory: the same id in two tenants names two memories.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The tenant.
    pub tenant: String,
    /// The id.
    pub id: Uuid,
}

impl Key {
    /// The memory `id` of `tenant`.
    pub fn new(tenant: impl Into<String>, id: Uuid) -> Self {
        Self { tenant: tenant.into(), id }
    }
}

/// Where a memory was found. The order is that in which memories are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// In the session of the call.
    Session,
    /// Private, and not reviewed yet.
    Temporary,
    /// Private, and kept for good.
    Permanent,
    /// Shared in the tenant.
    Tenant,
    /// Public.
    Public,
}

impl Tier {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Session, Self::Temporary, Self::Permanent, Self::Tenant, Self::Public];

    /// The name of the scope in result spans: `session`, `private`, `tenant` or `public`.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Temporary | Self::Permanent => "private",
            Self::Tenant => "tenant",
            Self::Public => "public",
        }
    }
}

/// Why a memory is not in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Out {
    /// It is in the answer already, found in an earlier scope.
    SameMemory,
    /// An earlier one has the same text, apart from case and spaces.
    SameText,
    /// It matches much less than the best of its scope.
    Weak,
    /// Its scope has given as many memories as one scope may.
    ScopeLimit,
    /// It does not fit into what is left of the token budget.
    Budget,
    /// The answer has as many memories as were asked for.
    Limit,
    /// It was superseded between the search and the answer.
    Superseded,
    /// It has expired.
    Expired,
    /// The consent that covers it is not live.
    Unconsented,
    /// It is being forgotten, or is.
    Forgotten,
    /// It cannot be read: its key is gone, or its row is damaged.
    Unreadable,
}

impl Out {
    /// The name of the reason in result spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameMemory => "same_memory",
            Self::SameText => "same_text",
            Self::Weak => "weak",
            Self::ScopeLimit => "scope_limit",
            Self::Budget => "budget",
            Self::Limit => "limit",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Unconsented => "unconsented",
            Self::Forgotten => "forgotten",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A memory that some search has found. `Debug` does not show its text.
#[derive(Clone, PartialEq)]
pub struct Candidate {
    /// Which memory.
    pub key: Key,
    /// Where it was found.
    pub tier: Tier,
    /// When its version was written.
    pub at: Timestamp,
    /// Whether a reviewer has approved it.
    pub is_promoted: bool,
    /// Its text. Empty if it is withheld.
    pub text: String,
    /// Why it must not be in the answer, if the caller knows a reason.
    pub withheld: Option<Out>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Candidate");
        shown.field("key", &self.key).field("tier", &self.tier).field("at", &self.at);
        shown.field("is_promoted", &self.is_promoted).field("withheld", &self.withheld).finish_non_exhaustive()
    }
}

/// How many tokens a text takes, about: one for every four bytes of UTF-8, rounded up, or one for each word if that is more, and four for
/// what a prompt puts around it. It needs no model's vocabulary and is rather too high for English; leave a margin for other scripts.
#[must_use]
pub fn tokens(text: &str) -> usize {
    text.len().div_ceil(4).max(text.split_whitespace().count()) + 4
}

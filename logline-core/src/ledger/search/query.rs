//! What a search asks for.

use std::collections::BTreeSet;

use crate::ledger::error::LedgerError;
use crate::ledger::scope::Scope;
use crate::ledger::search::entry::{Place, SearchEntry};
use crate::ledger::work::Tenants;
use crate::value::timestamp::Timestamp;

/// The most hits of one search.
pub const MAX_HITS: usize = 200;

/// The most bytes of a query's text that are read.
pub const MAX_QUERY_BYTES: usize = 4096;

/// The most words of a query. Further ones are left out.
pub const MAX_WORDS: usize = 32;

/// The longest word of a query, in characters. A longer one is cut.
const MAX_WORD: usize = 64;

/// Which memories a search looks at, of those that the caller's [`Scope`] may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchScope {
    /// Those of one session of the owner, of every layer.
    Session {
        /// The session: `metadata.session_id`.
        id: String,
    },
    /// The private ones of the owner, except those of sessions.
    Private,
    /// Those that the tenant shares among its users.
    Tenant,
    /// Those that are public, of every tenant that [`SearchQuery::tenants`] names.
    Public,
}

/// What a search asks for. A raw text of a user may be its text: signs and operators in it mean nothing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SearchQuery {
    /// Which memories to look at.
    pub scope: SearchScope,
    /// The text whose [`words`] are looked for.
    pub text: String,
    /// The time of the search. Memories that have ended by then are not found.
    pub now: Timestamp,
    /// The most hits, at most [`MAX_HITS`].
    pub limit: usize,
    /// Whose memories a runtime looks for. Ignored for a user, who looks for their own.
    pub owner: Option<String>,
    /// Only memories of these types, such as `fact`. Empty: all types.
    pub kinds: BTreeSet<String>,
    /// Only memories with all of these tags.
    pub tags: BTreeSet<String>,
    /// Only public memories of these tenants. It does not apply to other scopes.
    pub tenants: Tenants,
    /// Whether words that are like those of the text do, if no entry has one of these ([`SearchQuery::similar`]).
    pub similar: bool,
}

/// The place in which a caller's search looks, and who the caller is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Searched {
    /// The place.
    pub place: Place,
    /// The tenant of the scope.
    pub tenant: String,
    /// The owner of the memories. Empty for [`SearchScope::Tenant`] and [`SearchScope::Public`].
    pub owner: String,
}

impl SearchQuery {
    /// A search for the words of `text`.
    #[must_use]
    pub fn new(scope: SearchScope, text: impl Into<String>, now: Timestamp, limit: usize) -> Self {
        Self {
            scope,
            text: text.into(),
            now,
            limit: limit.min(MAX_HITS),
            owner: None,
            kinds: BTreeSet::new(),
            tags: BTreeSet::new(),
            tenants: Tenants::All,
            similar: false,
        }
    }

    /// Sets whose memories a runtime looks for.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Finds memories of this type only, or of another one that was set.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.insert(kind.into());
        self
    }

    /// Finds memories with this tag only.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Finds public memories of these tenants only.
    #[must_use]
    pub fn tenants(mut self, tenants: Tenants) -> Self {
        self.tenants = tenants;
        self
    }

    /// If no entry has a word of the query, finds entries that have words like them, as far as the backend can: PostgreSQL with pg_trgm.
    #[must_use]
    pub fn similar(mut self) -> Self {
        self.similar = true;
        self
    }

    /// The most hits that a backend returns.
    #[must_use]
    pub fn most(&self) -> usize {
        self.limit.min(MAX_HITS)
    }

    /// Where the search looks when `scope` sends it. `None` if the scope has no identity: it finds nothing.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] for an operator, and for a runtime that names no owner although the memories of one are asked for.
    pub fn searched(&self, scope: &Scope) -> Result<Option<Searched>, LedgerError> {
        if scope.is_nobody() {
            return Ok(None);
        }
        let (tenant, user) = match scope {
            Scope::User { tenant, user } => (tenant, Some(user.as_str())),
            Scope::Runtime { tenant } => (tenant, self.owner.as_deref().filter(|owner| !owner.is_empty())),
            Scope::Operator => {
                return Err(LedgerError::Refused {
                    reason: "an operator's scope searches nothing: search as the runtime of a tenant".to_owned(),
                });
            }
        };
        let owner = || {
            user.ok_or_else(|| LedgerError::Refused {
                reason: "a runtime that searches the memories of a user must name the owner".to_owned(),
            })
        };
        let (place, owner) = match &self.scope {
            SearchScope::Session { id } => (Place::session(tenant, owner()?, id), owner()?),
            SearchScope::Private => (Place::private(tenant, owner()?), owner()?),
            SearchScope::Tenant => (Place::tenant(tenant), ""),
            SearchScope::Public => (Place::public(), ""),
        };
        Ok(Some(Searched { place, tenant: tenant.clone(), owner: owner.to_owned() }))
    }

    /// Whether the filters let `entry` through: its end, type, tags, and for public memories the tenant.
    #[must_use]
    pub fn admits(&self, entry: &SearchEntry) -> bool {
        entry.ttl_at.is_none_or(|end| self.now < end)
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && self.tags.iter().all(|tag| entry.tags.contains(tag))
            && (self.scope != SearchScope::Public || self.tenants.contains(&entry.tenant_id))
    }
}

/// The words of a text, each once and in lower case: the longest runs of letters and digits. At most [`MAX_WORDS`] of the first
/// [`MAX_QUERY_BYTES`] of the text. No word has a sign that a search engine could read as an operator.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let text = text.get(..text.floor_char_boundary(MAX_QUERY_BYTES)).unwrap_or(text);
    let mut seen = BTreeSet::new();
    let found = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let found = found.map(|word| word.chars().take(MAX_WORD).flat_map(char::to_lowercase).collect::<String>());
    found.filter(|word| seen.insert(word.clone())).take(MAX_WORDS).collect()
}

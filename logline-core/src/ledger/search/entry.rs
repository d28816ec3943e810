//! What an index knows of a memory: derived from its last version, and from nothing else.

use serde_json::Value;
use uuid::Uuid;

use crate::span::{SignedSpan, Span, Visibility};
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// The longest text that is indexed, in characters. Of a longer one the beginning is.
pub const MAX_INDEXED: usize = 16_384;

/// The most tags of an entry. Further ones are left out.
pub const MAX_TAGS: usize = 32;

/// The longest tag, and the longest session id, in bytes. A longer tag is left out, and so is an entry with a longer session id.
pub const MAX_TAG_BYTES: usize = 256;

/// The entry of a memory that can be found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SearchEntry {
    /// The tenant of the memory.
    pub tenant_id: String,
    /// The owner of the memory: the user whom it is about.
    pub owner_id: String,
    /// The id of the memory.
    pub id: Uuid,
    /// The last version.
    pub seq: u32,
    /// The `curr_hash` of that version.
    pub curr_hash: Hash,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether its layer is `session`: it is then found in that session only.
    pub is_of_session: bool,
    /// The session in which it was made, if there was one.
    pub session_id: Option<String>,
    /// Its type, such as `fact`: what follows `memory.` in `this`.
    pub kind: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it ends to be found.
    pub ttl_at: Option<Timestamp>,
    /// The text, at most [`MAX_INDEXED`] characters.
    pub text: String,
}

/// Where an entry is found: a short text that stands for one tenant, one owner, or one session. Indexes put it beside the words, so that
/// the scope of a search is part of what is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    /// The memories of one session of one user.
    #[must_use]
    pub fn session(tenant: &str, owner: &str, session: &str) -> Self {
        Self::of('s', &[tenant, owner, session])
    }

    /// The private memories of one user.
    #[must_use]
    pub fn private(tenant: &str, owner: &str) -> Self {
        Self::of('p', &[tenant, owner])
    }

    /// What a tenant shares among its users.
    #[must_use]
    pub fn tenant(tenant: &str) -> Self {
        Self::of('t', &[tenant])
    }

    /// What everybody may see.
    #[must_use]
    pub fn public() -> Self {
        Self::of('u', &[])
    }

    /// The place as text: ASCII letters and digits, at most 34.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(kind: char, names: &[&str]) -> Self {
        // Names may contain anything. Written as JSON, two lists of names never have the same text.
        let text = Value::from(names.to_vec()).to_string();
        let hash = Hash::of(text.as_bytes()).to_string();
        // It ends with a digit, so that no stemmer takes a suffix off it.
        Self(format!("{kind}{}0", hash.get(..32).unwrap_or_default()))
    }
}

impl SearchEntry {
    /// The type of the spans that have entries.
    pub const ENTITY_TYPE: &'static str = "memory";

    /// Whether spans of this type can have an entry. A new version of such a span replaces its entry, or removes it.
    #[must_use]
    pub fn concerns(span: &Span) -> bool {
        span.entity_type == Self::ENTITY_TYPE
    }

    /// The entry of the memory whose last version is `span`. `None` if it is not to be found: it is not public by its sensitivity, its
    /// status is neither `active` nor `needs_review`, it is a tombstone, it has no text, or its session or its end cannot be read.
    #[must_use]
    pub fn of(span: &SignedSpan) -> Option<Self> {
        let is_live = matches!(span.status.as_deref(), Some("active" | "needs_review")) && !span.is_deleted;
        if !Self::concerns(span) || !is_live || text_of(span, "sensitivity") != Some("public") {
            return None;
        }
        let content = span.content.as_ref()?.get("text")?.as_str()?;
        let session_id = match span.meta("session_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(session)) if session.len() <= MAX_TAG_BYTES => Some(session.clone()),
            Some(_) => return None,
        };
        let ttl_at = match span.meta("ttl_at") {
            None | Some(Value::Null) => None,
            Some(at) => Some(at.as_str()?.parse().ok()?),
        };
        let tags = span.meta("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        Some(Self {
            tenant_id: span.tenant_id.clone(),
            owner_id: span.owner_id.clone(),
            id: span.id,
            seq: span.seq,
            curr_hash: span.seal.curr_hash,
            visibility: span.visibility,
            is_of_session: text_of(span, "layer") == Some("session"),
            session_id,
            kind: span.this.strip_prefix("memory.").unwrap_or("other").to_owned(),
            tags: tags.filter(|tag| tag.len() <= MAX_TAG_BYTES).take(MAX_TAGS).map(str::to_owned).collect(),
            ttl_at,
            text: content.chars().take(MAX_INDEXED).collect(),
        })
    }

    /// Where it is found by its visibility. `None` if its layer is `session`.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        if self.is_of_session {
            return None;
        }
        Some(match self.visibility {
            Visibility::Private => Place::private(&self.tenant_id, &self.owner_id),
            Visibility::Tenant => Place::tenant(&self.tenant_id),
            Visibility::Public => Place::public(),
        })
    }

    /// Where it is found by its session, whatever its layer and visibility.
    #[must_use]
    pub fn session_place(&self) -> Option<Place> {
        self.session_id.as_ref().map(|session| Place::session(&self.tenant_id, &self.owner_id, session))
    }
}

fn text_of<'s>(span: &'s Span, key: &str) -> Option<&'s str> {
    span.meta(key).and_then(Value::as_str)
}

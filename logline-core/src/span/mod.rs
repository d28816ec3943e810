//! The span: every column of one row of a ledger, before or without its seal.

pub mod canonical;
pub(crate) mod draft;
pub(crate) mod parse;
pub(crate) mod rules;
pub(crate) mod seal;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde_json::Value;
use uuid::Uuid;

use crate::value::hex::{Hash, PublicKey, Signature};
use crate::value::timestamp::Timestamp;

/// The tenant that holds kernels and the manifest. No tenant of a host may have this name.
pub const SYSTEM_TENANT: &str = "system";

/// The version of the canonical form that this crate writes (`docs/canonical-form.md`).
pub const CANONICAL_VERSION: u32 = 1;

/// The member of `metadata` that holds a deterministic draft's digest ([`Draft::deterministic`](crate::Draft::deterministic)).
pub const DIGEST_KEY: &str = "draft_digest";

/// Who besides the owner may read a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Visibility {
    /// The owner alone.
    #[default]
    Private,
    /// Every user of the same tenant.
    Tenant,
    /// Every user of the same tenant, and whoever names the tenant in a query.
    Public,
}

impl Visibility {
    /// The text in the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Tenant => "tenant",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Visibility {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "private" => Ok(Self::Private),
            "tenant" => Ok(Self::Tenant),
            "public" => Ok(Self::Public),
            _ => Err(()),
        }
    }
}

/// Every column of the ledger's `universal_registry` that a seal covers, except the signer's public key.
///
/// A plain record: the fields are the columns of the same name, and any value can stand in them. What may be *stored* is
/// decided when a [`Draft`](crate::Draft) is sealed or a line is parsed. JSON `null` in a JSON column means absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Identity, together with `tenant_id` and `seq`. New ids are UUIDv7.
    pub id: Uuid,
    /// Version within the id, 0 ..= 2^31 − 1; the next version has exactly `seq + 1`.
    pub seq: u32,
    /// What kind of thing this is: `function`, `request`, `execution`, `note`, … An open set.
    pub entity_type: String,
    /// Who did it.
    pub who: String,
    /// What was done, as a past participle.
    pub did: Option<String>,
    /// To what; a dotted name.
    pub this: String,
    /// When.
    pub at: Timestamp,
    /// The span this one belongs to, in the same tenant (kernel ids always mean `system`).
    pub parent_id: Option<Uuid>,
    /// Further spans this one refers to.
    pub related_to: Vec<Uuid>,
    /// The user who owns the row, within the tenant.
    pub owner_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// Who else may read it.
    pub visibility: Visibility,
    /// Where in its life the thing is: `scheduled`, `running`, `complete`, …
    pub status: Option<String>,
    /// A tombstone: as the last version it hides the id from `get` and `scan`, never from history or fsck.
    pub is_deleted: bool,
    /// A name for people.
    pub name: Option<String>,
    /// A description for people.
    pub description: Option<String>,
    /// Source or binary of a function, in the form its `runtime` defines.
    pub code: Option<String>,
    /// The language of `code`.
    pub language: Option<String>,
    /// What runs `code`, with its interface version: `native@1`, `wasm@1`.
    pub runtime: Option<String>,
    /// Input, any JSON.
    pub input: Option<Value>,
    /// Output, any JSON.
    pub output: Option<Value>,
    /// Error, as an object of `code` and `message`.
    pub error: Option<Value>,
    /// Content of prompts, notes and memories, any JSON.
    pub content: Option<Value>,
    /// How long it took, milliseconds, 0 ..= 2^31 − 1.
    pub duration_ms: Option<u32>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// `curr_hash` of the previous version; absent in a first version.
    pub prev_hash: Option<Hash>,
    /// Everything else.
    pub metadata: Option<Value>,
}

impl Span {
    /// A JSON column's member: `span.meta("attempt")` is `metadata.attempt`.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&Value> {
        self.metadata.as_ref().and_then(|m| m.get(key))
    }

    /// Tenant, id and version for a message: `acme/0197…/3`.
    #[must_use]
    pub fn key(&self) -> SpanKey {
        SpanKey { tenant_id: self.tenant_id.clone(), id: self.id, seq: self.seq }
    }
}

/// The identity of one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanKey {
    /// The tenant.
    pub tenant_id: String,
    /// The id.
    pub id: Uuid,
    /// The version.
    pub seq: u32,
}

impl fmt::Display for SpanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant_id, self.id, self.seq)
    }
}

/// The proof columns of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// BLAKE3-256 of the canonical payload.
    pub curr_hash: Hash,
    /// Ed25519 over DSSE's PAE of [`dsse::SPAN`](crate::keys::dsse::SPAN) and the hash.
    pub signature: Signature,
    /// The signer; covered by the hash.
    pub public_key: PublicKey,
}

/// A whole row as it was read, not yet verified: it may claim anything.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedSpan {
    /// The columns.
    pub span: Span,
    /// The proof columns, as claimed.
    pub seal: Seal,
}

impl Deref for SignedSpan {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

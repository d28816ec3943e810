//! The span: the columns of one row of a ledger, and the seal over them.

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

/// The tenant that holds kernels and the manifest. No customer's tenant may have this name.
pub const SYSTEM_TENANT: &str = "system";

/// The version of the canonical form that this crate writes (`docs/canonical-form.md`).
pub const CANONICAL_VERSION: u32 = 1;

/// The names of all columns of a row, sorted.
pub const COLUMNS: [&str; 31] = [
    "at",
    "code",
    "content",
    "curr_hash",
    "description",
    "did",
    "duration_ms",
    "entity_type",
    "error",
    "id",
    "input",
    "is_deleted",
    "language",
    "metadata",
    "name",
    "output",
    "owner_id",
    "parent_id",
    "prev_hash",
    "public_key",
    "related_to",
    "runtime",
    "seq",
    "signature",
    "status",
    "tenant_id",
    "this",
    "trace_id",
    "v",
    "visibility",
    "who",
];

/// The member of `metadata` that holds the digest of a draft, as [`Draft::deterministic`](crate::Draft::deterministic) sets it.
pub const DIGEST_KEY: &str = "draft_digest";

/// Who besides the owner may read a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Visibility {
    /// Only the owner.
    #[default]
    Private,
    /// Every user of the same tenant.
    Tenant,
    /// Every user of the same tenant. Users of other tenants can read the span too, if they name its tenant in the query. For
    /// spans of `system` they need not name it.
    Public,
}

impl Visibility {
    /// The text in the `visibility` column.
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
/// Each field is the column of the same name and may hold any value. The rules for what may be *stored* are checked when a
/// [`Draft`](crate::Draft) is sealed or a line is parsed. JSON `null` in a JSON column means absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Identifies the row, together with `tenant_id` and `seq`. New ids are UUIDv7.
    pub id: Uuid,
    /// The number of the version, 0 ..= 2^31 − 1. The next version of the same id has exactly `seq + 1`.
    pub seq: u32,
    /// The type of the span: `function`, `request`, `execution`, `note`, … Tenants may add types.
    pub entity_type: String,
    /// Who acted, such as `user:alice`.
    pub who: String,
    /// What was done, as a past participle such as `approved`.
    pub did: Option<String>,
    /// What it was done to, as a dotted name such as `note.meeting`.
    pub this: String,
    /// When it was done.
    pub at: Timestamp,
    /// The span that this one belongs to, in the same tenant. The id of a kernel always means a span in tenant `system`.
    pub parent_id: Option<Uuid>,
    /// Other spans that this one refers to.
    pub related_to: Vec<Uuid>,
    /// The user who owns the row, within the tenant.
    pub owner_id: String,
    /// The tenant that the row belongs to.
    pub tenant_id: String,
    /// Who besides the owner may read the row.
    pub visibility: Visibility,
    /// The stage in the life of the span: `scheduled`, `running`, `complete`, …
    pub status: Option<String>,
    /// Whether the version is a tombstone. As the last version, a tombstone hides the id from `get` and `scan`, but never from
    /// history or `fsck`.
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
    /// The input, any JSON.
    pub input: Option<Value>,
    /// The output, any JSON.
    pub output: Option<Value>,
    /// The failure, as an object with the members `code` and `message`.
    pub error: Option<Value>,
    /// The content of a prompt, a note or a memory, any JSON.
    pub content: Option<Value>,
    /// How long it took, in milliseconds, 0 ..= 2^31 − 1.
    pub duration_ms: Option<u32>,
    /// The trace that the span belongs to. Spans of the same work share it.
    pub trace_id: Option<String>,
    /// `curr_hash` of the version before; `None` in a first version.
    pub prev_hash: Option<Hash>,
    /// All data that has no column of its own, usually an object.
    pub metadata: Option<Value>,
}

impl Span {
    /// A member of `metadata`: `span.meta("attempt")` is `metadata.attempt`. `None` if it is absent.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&Value> {
        self.metadata.as_ref().and_then(|m| m.get(key))
    }

    /// Tenant, id and version. In a message they read `acme/0197…/3`.
    #[must_use]
    pub fn key(&self) -> SpanKey {
        SpanKey { tenant_id: self.tenant_id.clone(), id: self.id, seq: self.seq }
    }
}

/// The identity of one row. Its text form is `tenant_id/id/seq`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanKey {
    /// The tenant that the row belongs to.
    pub tenant_id: String,
    /// The id, which all versions of the span share.
    pub id: Uuid,
    /// The number of the version.
    pub seq: u32,
}

impl fmt::Display for SpanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant_id, self.id, self.seq)
    }
}

/// The seal of a row: the columns that prove its content and its signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// BLAKE3-256 of the canonical payload.
    pub curr_hash: Hash,
    /// The Ed25519 signature over DSSE's PAE of [`dsse::SPAN`](crate::keys::dsse::SPAN) and the hash.
    pub signature: Signature,
    /// The public key of the signer. The hash covers it.
    pub public_key: PublicKey,
}

/// A whole row as it was read. It is not verified yet, so nothing in it can be trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedSpan {
    /// The columns that the seal covers.
    pub span: Span,
    /// The seal as the row claims it.
    pub seal: Seal,
}

impl Deref for SignedSpan {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

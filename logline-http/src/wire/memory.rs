//! The shapes of memories.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What every call on memories says. The routes read these headers.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct Headers {
    /// `off` (default), `session-only` or `on`
    #[param(required = false, rename = "X-LogLine-Memory", pattern = "^(off|session-only|on)$")]
    memory: String,
    /// The session, of 1 to 128 visible ASCII characters
    #[param(required = false, rename = "X-LogLine-Session", pattern = "^[!-~]{1,128}$")]
    session: String,
    /// `public`, `internal` (default), `secret` or `pii`, for what is remembered
    #[param(required = false, rename = "X-LogLine-Sensitivity", pattern = "^(public|internal|secret|pii)$")]
    sensitivity: String,
}

/// A decision of the caller about what may be remembered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MemoryConsent)]
pub(crate) struct Consent {
    /// `grant` or `revoke`
    #[schema(pattern = "^(grant|revoke)$")]
    pub(crate) decision: String,
    #[schema(format = DateTime)]
    /// RFC 3339. When a grant ends. One for a session ends after a week at the latest.
    pub(crate) until: Option<String>,
}

/// A text to remember.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remember {
    #[schema(min_length = 1)]
    pub(crate) text: String,
    #[schema(pattern = "^(note|fact|profile|preference|relationship|plan|action|other)$")]
    /// `note` (default), `fact`, `profile`, `preference`, `relationship`, `plan`, `action` or `other`
    pub(crate) r#type: Option<String>,
    /// `session`, `temporary`, `permanent`, `shared` or `local`
    #[schema(pattern = "^(session|temporary|permanent|shared|local)$")]
    pub(crate) layer: Option<String>,
    /// Data beside the text.
    pub(crate) data: Option<Value>,
    /// Memories with the same key are versions of one.
    pub(crate) key: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    /// RFC 3339. When it is no longer found.
    #[schema(format = DateTime)]
    pub(crate) ttl_at: Option<String>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptMemory)]
pub(crate) struct Kept {
    pub(crate) id: Uuid,
    pub(crate) seq: u32,
    /// Whether it replaces an earlier version.
    pub(crate) superseded: bool,
}

/// A memory in the clear.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Memory {
    pub(crate) id: Uuid,
    pub(crate) seq: u32,
    pub(crate) r#type: String,
    pub(crate) layer: String,
    pub(crate) sensitivity: String,
    pub(crate) tags: Vec<String>,
    pub(crate) session: Option<String>,
    pub(crate) ttl_at: Option<String>,
    pub(crate) text: String,
    pub(crate) data: Option<Value>,
    pub(crate) key: Option<String>,
}

/// A memory that a search has found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MemoryHit)]
pub(crate) struct Hit {
    pub(crate) memory: Memory,
    pub(crate) score: f64,
    /// Where it was found: `session`, `private`, `tenant` or `public`.
    pub(crate) scope: String,
    pub(crate) preview: String,
}

/// What a search has found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FoundMemories)]
pub(crate) struct Found {
    /// The span that says of each candidate why it is in or out.
    pub(crate) result: Uuid,
    pub(crate) hits: Vec<Hit>,
    /// Whether there are more memories than are searched.
    pub(crate) is_truncated: bool,
}

/// A memory about which a reviewer is asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AskedMemory)]
pub(crate) struct Asked {
    pub(crate) id: Uuid,
    /// `needs_review`
    pub(crate) status: String,
}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ForgottenMemories)]
pub(crate) struct Forgotten {
    /// The signed receipt.
    pub(crate) receipt: Uuid,
    pub(crate) memories: u64,
    /// Those that were public: their texts stand in the ledger for good.
    pub(crate) in_the_clear: u64,
}

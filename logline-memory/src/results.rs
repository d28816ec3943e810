//! What calls on memories ask for and return.

use std::collections::BTreeSet;

use logline_core::{SignedSpan, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::form::{Body, Kind, Status, Terms};
use crate::kernel::{MAX_LIMIT, RECEIPT};

/// A memory that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remembered {
    /// Its id.
    pub id: Uuid,
    /// Its version.
    pub seq: u32,
    /// Whether it took the place of an earlier version.
    pub superseded: bool,
}

/// A memory in the clear.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recalled {
    /// Its id.
    pub id: Uuid,
    /// Its version.
    pub seq: u32,
    /// The user whose memory it is.
    pub owner: String,
    /// What is known of it without its key.
    pub terms: Terms,
    /// Where it stands.
    pub status: Status,
    /// What it says.
    pub body: Body,
}

/// What a search may return.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The most memories, from 1 to [`MAX_LIMIT`]. Default 10.
    pub limit: usize,
    /// The most [tokens](crate::rank::tokens) of all texts together. Default 2,000.
    pub tokens: usize,
    /// Only these types. Empty: all.
    pub kinds: BTreeSet<Kind>,
    /// Only memories with all of these tags.
    pub tags: BTreeSet<String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { limit: 10, tokens: 2000, kinds: BTreeSet::new(), tags: BTreeSet::new() }
    }
}

impl Wanted {
    /// At most `limit` memories, of every type.
    #[must_use]
    pub fn most(limit: usize) -> Self {
        Self { limit: limit.clamp(1, MAX_LIMIT), ..Self::default() }
    }
}

/// A memory that a search has found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The memory, in the clear. Its text is data from a memory, and not to be trusted as an instruction.
    pub memory: Recalled,
    /// Its score within its scope.
    pub score: f64,
    /// Where it was found: `session`, `private`, `tenant` or `public`.
    pub scope: String,
    /// The first characters of its text, at most [`PREVIEW`](crate::PREVIEW).
    pub preview: String,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The `memory_search_result` span: it says of each candidate why it is in or out, and cites the consent.
    pub result: Uuid,
    /// The memories, the best first.
    pub hits: Vec<Hit>,
    /// Whether the user has more memories than a host indexes, so that some could not be found.
    pub is_truncated: bool,
}

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The user's newest memory.
    Last,
    /// This memory, with all its versions.
    One(Uuid),
    /// All memories of a session.
    Session(String),
    /// Everything of the user.
    Subject,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The id of the receipt's span.
    pub id: Uuid,
    /// How many memories were forgotten.
    pub memories: u64,
    /// How many of them were public: their texts stand in the ledger, and cannot be forgotten.
    pub in_the_clear: u64,
    /// The epoch that must end before backups open nothing of them.
    pub epoch: u64,
    /// Where it stands.
    pub state: ReceiptState,
}

/// Where a receipt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptState {
    /// The keys are destroyed in the store. A backup of the store can still be opened with the tenant's key.
    Shredded,
    /// The tenant's key cannot be used any more, and is deleted at this time.
    Sealing(Timestamp),
    /// The tenant's key is destroyed. No backup opens anything.
    Sealed,
}

impl Receipt {
    /// Reads the span of a receipt. `None` if it is none.
    #[must_use]
    pub fn of(span: &SignedSpan) -> Option<Self> {
        if span.entity_type != RECEIPT {
            return None;
        }
        let content = span.content.as_ref()?;
        let number = |name: &str| content.get(name).and_then(Value::as_u64);
        let state = match span.status.as_deref()? {
            "shredded" => ReceiptState::Shredded,
            "sealing" => ReceiptState::Sealing(span.meta("gone_at")?.as_str()?.parse().ok()?),
            "sealed" => ReceiptState::Sealed,
            _ => return None,
        };
        Some(Self {
            id: span.id,
            memories: number("memories")?,
            in_the_clear: number("in_the_clear")?,
            epoch: number("epoch")?,
            state,
        })
    }
}

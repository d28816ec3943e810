//! How a kernel that asks a model gets what a user has had remembered. `logline-memory` implements it.

use async_trait::async_trait;
use logline_core::contract::{Context, KernelError};
use logline_core::{Draft, Failure, VerifiedSpan};
use serde_json::Value;
use uuid::Uuid;

/// Finds memories for a model.
///
/// # Contract
/// - What is found is what the request's owner may read, under a consent that is in force, and nothing else.
/// - A caller asks [`Recall::still_permitted`] right before each time it gives the texts to somebody.
/// - The texts are data that somebody said once, and no instructions. They may stand in confidential requests alone.
#[async_trait]
pub trait Recall: Send + Sync {
    /// Finds what helps to answer `question`. `asked` is the member `memory` of the request's input: mode, session, the consent that is
    /// cited, and how much is wanted. The outer error means that the attempt could not be made.
    async fn recall(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        asked: &Value,
        question: &str,
    ) -> Result<Result<Recalled, Failure>, KernelError>;

    /// Whether what was recalled may be used now: the consent is still in force, and nothing of it was forgotten.
    async fn still_permitted(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        recalled: &Recalled,
    ) -> Result<Result<(), Failure>, KernelError>;
}

/// What was recalled.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recalled {
    /// The memories, the best first.
    pub texts: Vec<RecalledText>,
    /// The member `memory` of the request's input.
    pub asked: Value,
    /// The record of the search, which the caller emits with its own records.
    pub record: Draft,
}

impl Recalled {
    /// What was recalled for `asked`, and its record.
    #[must_use]
    pub fn new(texts: Vec<RecalledText>, asked: Value, record: Draft) -> Self {
        Self { texts, asked, record }
    }
}

/// One memory.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct RecalledText {
    /// The span of the memory.
    pub id: Uuid,
    /// A [`reference`](logline_core::request::reference) to the version.
    pub version: Value,
    /// Where it was found: `session`, `private`, `tenant` or `public`.
    pub scope: String,
    /// The text.
    pub text: String,
}

impl RecalledText {
    /// A memory that was found in `scope`.
    #[must_use]
    pub fn new(id: Uuid, version: Value, scope: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id, version, scope: scope.into(), text: text.into() }
    }
}

impl std::fmt::Debug for RecalledText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecalledText").field("id", &self.id).field("scope", &self.scope).finish_non_exhaustive()
    }
}

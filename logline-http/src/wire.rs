//! The shapes of bodies, for reading and for the OpenAPI document.

#[cfg(feature = "prompts")]
pub(crate) mod chat;
mod governed;
#[cfg(feature = "memory")]
pub(crate) mod memory;

pub(crate) use governed::*;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The filters of lists and streams. The fields describe the parameters, which [`crate::rows::filter`] reads.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct Filters {
    /// This id only
    id: Option<Uuid>,
    /// This `status` only
    status: Option<String>,
    /// This owner only. Must be the token's user, unless the token reads the whole tenant
    owner_id: Option<String>,
    /// Must be the token's tenant
    tenant_id: Option<String>,
    /// This `parent_id` only, such as the function of requests
    parent_id: Option<Uuid>,
    /// This `trace_id` only
    trace_id: Option<String>,
}

/// What those take besides that are not of one type.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct OfType {
    /// This `entity_type` only
    r#type: Option<String>,
}

/// What lists take besides. [`crate::rows::paging`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct Paging {
    /// A cursor of an earlier page; of the timeline also an id of a stream
    after: Option<String>,
    /// 1 to 500, 50 if absent
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `newest` (default) or `oldest`
    #[param(pattern = "^(newest|oldest)$")]
    order: Option<String>,
}

/// A problem (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The section of the page that explains the code.
    pub(crate) r#type: String,
    /// The same for all problems of this code.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The stable code.
    pub(crate) code: String,
    /// What happened and what to do.
    pub(crate) detail: String,
    /// The id of the call, as in `X-Request-Id`.
    pub(crate) request_id: String,
}

/// One row of the ledger: the columns that are not null, and the seal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Span {
    /// The version of the canonical form.
    pub(crate) v: u32,
    pub(crate) id: Uuid,
    pub(crate) seq: u32,
    pub(crate) entity_type: String,
    pub(crate) who: String,
    pub(crate) did: Option<String>,
    pub(crate) this: String,
    /// RFC 3339, with six digits of a second.
    pub(crate) at: String,
    pub(crate) parent_id: Option<Uuid>,
    pub(crate) related_to: Option<Vec<Uuid>>,
    pub(crate) owner_id: String,
    pub(crate) tenant_id: String,
    /// `private`, `tenant` or `public`.
    pub(crate) visibility: String,
    pub(crate) status: Option<String>,
    pub(crate) is_deleted: bool,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) input: Option<Value>,
    pub(crate) output: Option<Value>,
    pub(crate) error: Option<Value>,
    pub(crate) content: Option<Value>,
    pub(crate) duration_ms: Option<u32>,
    pub(crate) trace_id: Option<String>,
    pub(crate) prev_hash: Option<String>,
    pub(crate) curr_hash: String,
    pub(crate) signature: String,
    pub(crate) public_key: String,
    pub(crate) metadata: Option<Value>,
}

/// A stored row that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Damaged {
    pub(crate) id: String,
    pub(crate) seq: String,
    pub(crate) reason: String,
}

/// A page of rows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SpanPage {
    pub(crate) spans: Vec<Span>,
    pub(crate) damaged: Vec<Damaged>,
    /// The cursor of the next page; null on the last one.
    pub(crate) next: Option<String>,
    /// On the last page, oldest first: where a stream can go on.
    pub(crate) reached: Option<String>,
}

/// Versions of one span, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionPage {
    pub(crate) spans: Vec<Span>,
    /// The `from_seq` of the next page; null on the last one.
    pub(crate) next_seq: Option<u32>,
}

/// Spans to append: sealed by the caller, or drafts that the host seals. One kind in one call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewSpans {
    #[schema(min_items = 1, max_items = 100)]
    pub(crate) spans: Vec<Value>,
}

/// What was appended, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipts {
    pub(crate) spans: Vec<Receipt>,
    /// `caller` or `host`: whose key signed them.
    pub(crate) sealed_by: String,
}

/// What became of one span.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    pub(crate) id: Uuid,
    pub(crate) seq: u32,
    pub(crate) curr_hash: String,
    /// `appended`, or `existing` if it was there already.
    pub(crate) outcome: String,
}

/// A request to submit.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Execute {
    /// The function: its id, or the name under which it was published.
    #[schema(min_length = 1)]
    pub(crate) function: String,
    /// The input of the function, any JSON.
    #[serde(default)]
    pub(crate) input: Value,
    /// The kind of the request. Default: `function.run`.
    pub(crate) this: Option<String>,
    /// RFC 3339. Default: at once.
    #[schema(format = DateTime)]
    pub(crate) due_at: Option<String>,
    /// RFC 3339. No attempt begins later.
    #[schema(format = DateTime)]
    pub(crate) deadline: Option<String>,
    /// 0 to 9, at most what the manifest allows members.
    #[schema(maximum = 9)]
    pub(crate) priority: Option<u8>,
    /// 1 to 1000. Default: the first failure ends it.
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) max_attempts: Option<u32>,
    /// The first pause between attempts, in milliseconds.
    pub(crate) backoff_ms: Option<u64>,
    /// `private` (default), `tenant` or `public`.
    #[schema(pattern = "^(private|tenant|public)$")]
    pub(crate) visibility: Option<String>,
    /// Must be the token's.
    pub(crate) tenant_id: Option<String>,
    /// Must be the token's.
    pub(crate) owner_id: Option<String>,
}

/// Whom a token stands for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IdentityBody {
    pub(crate) tenant: String,
    pub(crate) user: String,
    /// Words such as `spans:read`.
    pub(crate) permissions: Vec<String>,
    /// When the token ends; null if it has no end of its own.
    pub(crate) expires: Option<String>,
}

/// What decides who may sign, as a client can check it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrustBody {
    /// The hash of the ledger's first manifest, which tells it from every other.
    pub(crate) ledger: String,
    /// Where the host works, such as `production`.
    pub(crate) environment: String,
    /// The manifest that the host obeys.
    pub(crate) manifest: Span,
    /// The keys of hosts that may sign for the token's tenant.
    pub(crate) delegations: Vec<DelegationBody>,
    /// False if there are more, older ones.
    pub(crate) has_all_delegations: bool,
    /// By type: the roles that may sign first and later versions.
    pub(crate) types: std::collections::BTreeMap<String, SignedBy>,
    /// The same for types that are not named.
    pub(crate) other_types: SignedBy,
    /// Nobody may sign a type that begins with this and is not named.
    pub(crate) reserved_prefix: String,
}

/// The interval in which a key is a host's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DelegationBody {
    pub(crate) key: String,
    pub(crate) not_before: String,
    /// Exclusive.
    pub(crate) expires: String,
}

/// The roles that may sign a type. One of them is needed; if there is none, nobody may.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedBy {
    pub(crate) first: Vec<String>,
    pub(crate) later: Vec<String>,
}

/// A proposal and how its votes stand.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProposalBody {
    pub(crate) id: Uuid,
    pub(crate) proposal: Span,
    /// The version that is proposed; null if the token may not see it, or the proposal does not count.
    pub(crate) subject: Option<Span>,
    /// The version in force; null if there is none, or the token may not see it.
    pub(crate) in_force: Option<Span>,
    /// How many approvals are needed.
    pub(crate) needed: u32,
    pub(crate) counted: Vec<VoteBody>,
    pub(crate) rejected: Vec<VoteBody>,
    /// Votes that do not count, each with its reason.
    pub(crate) void: Vec<VoteBody>,
    /// Why it may not be carried out now; null if it may.
    pub(crate) refusal: Option<RefusalBody>,
    /// When it was carried out; null if it was not.
    pub(crate) carried_out: Option<String>,
}

/// Proposals that wait.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProposalList {
    pub(crate) proposals: Vec<ProposalBody>,
    pub(crate) damaged: Vec<Damaged>,
}

/// A vote.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VoteBody {
    pub(crate) id: Uuid,
    /// The key that votes.
    pub(crate) key: String,
    /// Why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Why a proposal may not be carried out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusalBody {
    /// Stable, as in the failure of a request, such as `not_approved`.
    pub(crate) code: String,
    pub(crate) reason: String,
}

/// A proof that a version is in a transparency log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProofBody {
    /// A `.tlog-proof`; null if there is none.
    pub(crate) proof: Option<String>,
    /// The key of the log, as `NAME+ID+BASE64`; null if there is no proof, or the service was not given the key.
    pub(crate) log_key: Option<String>,
    /// Why there is no proof; null if there is one.
    pub(crate) reason: Option<String>,
}

/// A request and how it goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RequestBody {
    pub(crate) id: Uuid,
    /// `scheduled`, `running`, `complete`, `error`, `dead` or `cancelled`.
    pub(crate) status: String,
    /// The attempts that have begun.
    pub(crate) attempts: Option<u32>,
    /// The output of the last attempt, if it had one.
    pub(crate) output: Option<Value>,
    /// The failure of the last attempt, if it had one.
    pub(crate) error: Option<Value>,
    /// Why it waits; null if it does not.
    pub(crate) waiting: Option<Waiting>,
    /// Its last version.
    pub(crate) request: Span,
    /// The record of its last attempt with a result.
    pub(crate) execution: Option<Span>,
}

/// Why a request waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Waiting {
    /// When it is due, or its lease ends; null if it is parked without an end.
    pub(crate) due: Option<String>,
    /// Whether a worker has claimed it.
    pub(crate) is_leased: bool,
    /// Why it is parked.
    pub(crate) parked: Option<String>,
}

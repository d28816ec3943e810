//! How far a policy has read: a chain of spans that name the last span it has decided about.

use chrono::NaiveDate;
use logline_core::{Draft, SignedSpan, SpanKey, Timestamp, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

/// The entity type of cursors. No policy concerns them.
pub(super) const CURSOR: &str = "policy_cursor";

pub(super) fn cursor_id(tenant: &str, policy: Uuid) -> Uuid {
    ids::derive(CURSOR, &[tenant, &policy.to_string()])
}

/// The span that a cursor names. `None` if the cursor is malformed.
pub(super) fn after(tenant: &str, cursor: &SignedSpan) -> Option<SpanKey> {
    let after = cursor.meta("after")?;
    let id = after.get("id")?.as_str()?.parse().ok()?;
    let seq = after.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok())?;
    Some(SpanKey { tenant_id: tenant.to_owned(), id, seq })
}

/// Builds the next cursor of a policy. It names a span, not a position in this ledger. It also names the agent, so that the
/// cursors of two agents always differ. If they were equal, both batches would be accepted and metrics would be counted twice.
pub(super) fn cursor(
    policy: &SignedSpan,
    before: Option<&VerifiedSpan>,
    last: &SpanKey,
    (day, effects): (NaiveDate, u64),
    now: Timestamp,
    agent: Uuid,
) -> Draft {
    let draft = match before {
        Some(before) => Draft::next_version(before),
        None => Draft::new(CURSOR)
            .id(cursor_id(&policy.tenant_id, policy.id))
            .tenant(&policy.tenant_id)
            .owner(&policy.owner_id)
            .who("kernel:policy_agent")
            .did("read")
            .this("policy.cursor")
            .parent(policy.id),
    };
    draft
        .at(now)
        .meta("after", json!({"id": last.id.to_string(), "seq": last.seq}))
        .meta("policy_seq", policy.seq)
        .meta("effects", json!({"day": day.to_string(), "count": effects}))
        .meta("agent", agent.to_string())
}

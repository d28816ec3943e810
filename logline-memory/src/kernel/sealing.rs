//! Ends what has passed: memories at their time, and epochs of the tenant's key.

use std::collections::BTreeMap;
use std::time::Duration;

use logline_core::contract::{Context, Destruction, Effects};
use logline_core::ledger::{Order, Query};
use logline_core::{Failure, SignedSpan, Timestamp, VerifiedSpan};
use serde_json::{Value, json};

use super::forgetting::{newest, select_where};
use super::lost::{are_lost, earlier, needs_key, unreadable, was_forgotten};
use super::{MemoryKernel, PAGE, RECEIPT, Refusal, SAMPLE, about, input, invalid};
use crate::belief::{Believed, Standing};
use crate::form::{MEMORY, Status, Stored};
use crate::members::Members;

/// How much earlier than the end of a memory an attempt may have begun that writes another version of it at the same time.
const RACE: Duration = Duration::from_secs(600);

impl MemoryKernel {
    /// Ends the memories of one user whose time has passed.
    pub(super) async fn expire(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let members = Members::of(input(request), "the input", &["lost"]).map_err(invalid)?;
        if members.get("lost").and_then(Value::as_bool) == Some(true) {
            return self.end_lost(request, context).await;
        }
        let now = context.attempt.started;
        let is_due = |row: &SignedSpan| ttl_at(row).is_some_and(|at| at <= now);
        let mut rows = select_where(request, context, PAGE, is_due).await?;
        if self.has_begun(request).await? {
            // INVARIANT: keys go first, then rows. A memory that was promoted in between is not due any more, but the key of its text is
            // destroyed, so it ends as well. It is looked for last: one that is promoted at this moment is found by one look or by both.
            let first = context.runtime.version(&request.tenant_id, request.id, 0).await?;
            let since = earlier(first.map_or(request.at, |first| first.at), RACE);
            let others = select_where(request, context, usize::MAX, |row| row.at >= since && !is_due(row)).await?;
            rows = newest(unreadable(&self.vault, &request.tenant_id, others).await?.into_iter().chain(rows));
            // The next call ends the others: their keys are still there.
            rows.truncate(PAGE);
        }
        if rows.is_empty() {
            return Ok(Effects::new(Ok(json!({"memories": 0}))));
        }
        self.end(request, context, &rows, ("expired", Status::Expired)).await
    }

    /// Ends the memories of one user that were committed after everything of the user was forgotten, and their keys with it.
    async fn end_lost(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let rows = select_where(request, context, usize::MAX, |_| true).await?;
        let mut lost = Vec::new();
        for row in unreadable(&self.vault, &request.tenant_id, rows).await? {
            if lost.len() < PAGE && was_forgotten(&context.runtime, &context.trusted.authorities, &row).await? {
                lost.push(row);
            }
        }
        if lost.is_empty() {
            return Ok(Effects::new(Ok(json!({"memories": 0}))));
        }
        self.end(request, context, &lost, ("lost", Status::Forgotten)).await
    }

    /// Ends the newest epoch of the tenant's key, and seals the receipts of what was forgotten before.
    pub(super) async fn seal_receipts(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let tenant = request.tenant_id.as_str();
        let (reader, authorities) = (&context.runtime, &context.trusted.authorities);
        self.catch_up(reader, authorities, tenant).await?;
        if let Some(owner) = self.without_keys(context, tenant).await? {
            let reason = format!(
                "memories of the user `{}` are in the ledger, and the store has no key of this user: restore the store of keys from its \
                 newest backup before an epoch ends, or forget everything of this user",
                owner.escape_debug()
            );
            return Err(Refusal::Failed(Failure::new("memory_keys_lost", reason)));
        }
        let closed = self.vault.close_epoch(tenant).await?;
        let now = context.attempt.started;
        let query = Query::new().tenant(tenant).entity_type(RECEIPT).order(Order::Append);
        let (mut sealed, mut waiting, mut more) = (0_u64, 0_u64, false);
        let mut emitted = Vec::new();
        let mut standing = Standing::of(reader, authorities, query);
        while let Some(row) = standing.next().await? {
            let Some(gone_at) = gone_at(&row, closed.newest, closed.destroyed, now) else { continue };
            if emitted.len() == PAGE {
                more = true;
                break;
            }
            let draft = row.next().related([request.id]).meta("sealed_in_epoch", closed.newest);
            let draft = match gone_at {
                Some(at) => {
                    waiting += 1;
                    draft.did("sealing").status("sealing").meta("gone_at", at.to_string())
                }
                None => {
                    sealed += 1;
                    draft.did("sealed").status("sealed")
                }
            };
            emitted.push(about(draft, request, context));
        }
        let output = json!({"epoch": closed.newest, "sealed": sealed, "waiting": waiting, "more": more});
        Ok(Effects::new(Ok(output)).emitted(emitted))
    }

    /// A user whose memories have no keys, and who has not forgotten everything: an older copy of the store is in use. The key of
    /// an epoch must not be destroyed then, because it wraps what the newer copy has.
    async fn without_keys(&self, context: &Context<'_>, tenant: &str) -> Result<Option<String>, Refusal> {
        let (reader, authorities) = (&context.runtime, &context.trusted.authorities);
        let mut owners: BTreeMap<String, Vec<Believed>> = BTreeMap::new();
        let mut standing = Standing::of(reader, authorities, Query::new().tenant(tenant).entity_type(MEMORY));
        while let Some(row) = standing.next().await? {
            if needs_key(&row) {
                let some = owners.entry(row.owner_id.clone()).or_default();
                some.extend(Some(row).filter(|_| some.len() < SAMPLE));
            }
        }
        for (owner, some) in owners {
            if are_lost(&self.vault, reader, authorities, &some).await? {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }
}

/// When the keys are gone that a receipt waits for. `None` if it waits for nothing, or for an epoch that goes on.
fn gone_at(row: &SignedSpan, newest: u64, destroyed: Destruction, now: Timestamp) -> Option<Option<Timestamp>> {
    let epoch = row.content.as_ref()?.get("epoch")?.as_u64()?;
    match row.status.as_deref()? {
        "shredded" if epoch < newest => match destroyed {
            Destruction::At(at) => Some(Some(at).filter(|at| *at > now)),
            _ => Some(None),
        },
        "sealing" => {
            let at: Option<Timestamp> = row.meta("gone_at").and_then(Value::as_str).and_then(|at| at.parse().ok());
            at.filter(|at| *at <= now).map(|_| None)
        }
        _ => None,
    }
}

/// When a memory expires that has not ended.
pub(crate) fn ttl_at(row: &SignedSpan) -> Option<Timestamp> {
    let stored = Stored::read(row).ok().filter(|stored| !matches!(stored.status, Status::Forgotten | Status::Expired))?;
    stored.terms.ttl_at
}

//! Ends what has passed: memories at their time, and epochs of the tenant's key.

use logline_core::contract::{Context, Destruction, Effects};
use logline_core::ledger::{Order, Query};
use logline_core::{Draft, SignedSpan, Timestamp, VerifiedSpan};
use serde_json::{Value, json};

use super::forgetting::select_where;
use super::lost::{unreadable, was_forgotten};
use super::{MemoryKernel, PAGE, RECEIPT, Refusal, about, each, input, invalid};
use crate::form::{Status, Stored};
use crate::members::Members;

impl MemoryKernel {
    /// Ends the memories of one user whose time has passed.
    pub(super) async fn expire(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let members = Members::of(input(request), "the input", &["lost"]).map_err(invalid)?;
        if members.get("lost").and_then(Value::as_bool) == Some(true) {
            return self.end_lost(request, context).await;
        }
        let now = context.attempt.started;
        let rows = select_where(request, context, PAGE, |row| ttl_at(row).is_some_and(|at| at <= now)).await?;
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
            if lost.len() < PAGE && was_forgotten(&context.runtime, &row).await? {
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
        let closed = self.vault.close_epoch(tenant).await?;
        let now = context.attempt.started;
        let query = Query::new().tenant(tenant).entity_type(RECEIPT).order(Order::Append);
        let (mut sealed, mut waiting, mut more) = (0_u64, 0_u64, false);
        let mut emitted = Vec::new();
        each(&context.runtime, &query, |row| {
            let Some(gone_at) = gone_at(&row, closed.newest, closed.destroyed, now) else { return true };
            if emitted.len() == PAGE {
                more = true;
                return false;
            }
            let draft = Draft::next_version(&row).related([request.id]).meta("sealed_in_epoch", closed.newest);
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
            true
        })
        .await?;
        let output = json!({"epoch": closed.newest, "sealed": sealed, "waiting": waiting, "more": more});
        Ok(Effects::new(Ok(output)).emitted(emitted))
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

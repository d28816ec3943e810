//! Forgets: the request is the signed intent, then keys are destroyed, then the receipt is written. An attempt that is stopped in between
//! is made again, and destroys what is left.

use std::collections::BTreeSet;

use logline_core::contract::{Context, Effects};
use logline_core::ledger::{Order, Query, Versions};
use logline_core::{Draft, Hash, Request, SignedSpan, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{MEMORY_FORGET, MemoryKernel, PAGE, RECEIPT, Refusal, about, audit, input, invalid, refused};
use crate::form::{MAX_NAME, MEMORY, Members, Sensitivity, Status, Stored, is_memory_of};
use crate::vault::Forget;

/// What a request wants to be forgotten.
enum What {
    /// The newest memory.
    Last,
    One(Uuid),
    Session(String),
    Subject,
}

impl What {
    fn read(value: Option<&Value>) -> Result<(Self, u64), String> {
        let members = Members::of(value, "the input", &["what", "id", "session_id", "round"])?;
        let what = match members.needed("what", MAX_NAME)? {
            "last" => Self::Last,
            "one" => Self::One(members.id("id")?.ok_or("`id` is missing: it names the memory")?),
            "session" => Self::Session(members.needed("session_id", MAX_NAME)?.to_owned()),
            "subject" => Self::Subject,
            other => {
                return Err(format!("`what` must be last, one, session or subject, not `{}`", other.escape_debug()));
            }
        };
        let round = members.get("round").map_or(Some(0), Value::as_u64).ok_or("`round` must be a whole number")?;
        Ok((what, round))
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::One(_) => "one",
            Self::Session(_) => "session",
            Self::Subject => "subject",
        }
    }
}

/// The memories that are to be forgotten, as they stand now.
#[derive(Default)]
struct Selected {
    rows: Vec<SignedSpan>,
}

impl MemoryKernel {
    pub(super) async fn forget(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let (what, round) = What::read(input(request)).map_err(invalid)?;
        let selected = select(request, context, &what).await?;
        let spans: BTreeSet<_> = selected.rows.iter().map(|row| row.id).collect();
        let forget = match what {
            What::Subject => Forget::All,
            _ => Forget::Spans(spans.clone()),
        };
        if spans.is_empty() && !matches!(what, What::Subject) && round == 0 {
            return Err(refused("there is no such memory of this user: nothing was forgotten"));
        }
        self.end(request, context, &selected.rows, &forget, (what.as_str(), Status::Forgotten), round).await
    }

    /// Destroys the keys of memories, and drafts their last versions and the receipt.
    pub(super) async fn end(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        rows: &[SignedSpan],
        forget: &Forget,
        (what, status): (&str, Status),
        round: u64,
    ) -> Result<Effects, Refusal> {
        let (tenant, owner) = (&request.tenant_id, &request.owner_id);
        let id = ids::derive("memory_receipt", &[tenant, &request.id.to_string()]);
        let forgotten = self.vault.forget(tenant, id, owner, forget).await?;
        let (now, later) = rows.split_at(rows.len().min(PAGE));
        let mut emitted = Vec::with_capacity(now.len() * 2 + 2);
        let mut in_the_clear = 0_u64;
        for row in now {
            in_the_clear += u64::from(row.meta("sensitivity").and_then(Value::as_str) == Some(Sensitivity::Public.as_str()));
            let draft = ended(row, status).related([request.id]);
            let seq = draft.columns().seq;
            emitted.push(about(draft, request, context));
            emitted.push(audit(request, context, (row.id, seq), owner, "redact").await?);
        }
        let mut names: Vec<_> = rows.iter().map(|row| format!("{}:{}\n", row.id, row.seq)).collect();
        names.sort_unstable();
        let receipt = Draft::new(RECEIPT)
            .id(id)
            .did(status.as_str())
            .this("memory.receipt")
            .parent(request.id)
            .related([context.attempt.execution_id])
            .status("shredded")
            .content(json!({
                "what": what,
                "memories": rows.len(),
                "in_the_clear": in_the_clear,
                "list_hash": Hash::of(names.concat().as_bytes()).to_string(),
                "epoch": forgotten.epoch,
            }));
        emitted.push(about(receipt, request, context));
        let mut output = json!({"receipt": id.to_string(), "memories": rows.len(), "state": "shredded", "more": !later.is_empty()});
        if !later.is_empty() {
            // Their keys are destroyed already; this ends their rows.
            let next = Request::new(tenant, owner, request.parent_id.unwrap_or(id), next_input(request, round))
                .this(MEMORY_FORGET)
                .who("kernel:memory");
            let next_id = ids::derive("memory_forget", &[tenant, &request.id.to_string()]);
            let next = next.into_draft(next_id);
            emitted.push(about(next, request, context));
            if let Some(members) = output.as_object_mut() {
                members.insert("next".to_owned(), next_id.to_string().into());
            }
        }
        Ok(Effects::new(Ok(output)).emitted(emitted))
    }
}

fn next_input(request: &SignedSpan, round: u64) -> Value {
    let mut input = request.input.clone().unwrap_or_default();
    if let Some(members) = input.as_object_mut() {
        members.insert("round".to_owned(), (round + 1).into());
    }
    input
}

/// The last version of a memory: it has neither text nor envelope.
fn ended(row: &SignedSpan, status: Status) -> Draft {
    let mut draft = Draft::next_version(row)
        .did(status.as_str())
        .name(MEMORY)
        .status(status.as_str())
        .content(json!({"redacted": true}))
        .without_meta("sealed")
        .without_meta("key")
        .meta("tags", Value::Array(Vec::new()));
    draft.columns_mut().description = None;
    draft
}

/// Reads the memories of the request's owner that are still there.
async fn select(request: &SignedSpan, context: &Context<'_>, what: &What) -> Result<Selected, Refusal> {
    let (tenant, owner) = (request.tenant_id.as_str(), request.owner_id.as_str());
    let stands = |row: &SignedSpan| {
        is_memory_of(row, tenant, owner)
            && !Stored::read(row).is_ok_and(|stored| matches!(stored.status, Status::Forgotten | Status::Expired))
    };
    if let What::One(id) = what {
        let found = context.runtime.find(tenant, *id).await?;
        return Ok(Selected { rows: found.into_iter().filter(stands).collect() });
    }
    let query = Query::new().tenant(tenant).entity_type(MEMORY).owner(owner).versions(Versions::Last).order(Order::Newest);
    let mut selected = Selected::default();
    let mut cursor = None;
    loop {
        let page = context.runtime.scan(&query, cursor.as_ref()).await?;
        for row in page.rows.into_iter().filter(stands) {
            let is_meant = match what {
                What::Session(session) => row.meta("session_id").and_then(Value::as_str) == Some(session),
                _ => true,
            };
            if is_meant {
                selected.rows.push(row);
            }
            if matches!(what, What::Last) && !selected.rows.is_empty() {
                return Ok(selected);
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(selected),
        }
    }
}

//! Forgets: the request is the signed intent, then keys are destroyed, then the receipt is written. An attempt that is stopped in between
//! is made again, and destroys what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logline_core::contract::{Context, Effects};
use logline_core::ledger::{Order, Query};
use logline_core::request::Request;
use logline_core::{Draft, Hash, SignedSpan, Timestamp, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::lost::{sealed_under, unreadable};
use super::{MEMORY_FORGET_REST, MemoryKernel, PAGE, RECEIPT, Refusal, about, audit, believed, input, invalid, refused};
use crate::belief::{Believed, Rows, Standing};
use crate::form::{MEMORY, Sensitivity, Status, Stored, is_memory_of};
use crate::members::{MAX_NAME, Members};
use crate::vault::{Forget, Forgotten};

/// What a request wants to be forgotten.
struct Asked {
    what: What,
    /// Only what was there at this time: later rounds of a request leave alone what came after it.
    until: Option<Timestamp>,
}

enum What {
    One(Uuid),
    Session(String),
    Subject,
}

impl What {
    fn read(value: Option<&Value>, is_rest: bool) -> Result<Asked, String> {
        // Only hosts name a time: what they ask for is the rest of a forgetting that has its receipt.
        let known: &[&str] = if is_rest { &["what", "id", "session_id", "until"] } else { &["what", "id", "session_id"] };
        let members = Members::of(value, "the input", known)?;
        let what = match members.needed("what", MAX_NAME)? {
            "one" => Self::One(members.id("id")?.ok_or("`id` is missing: it names the memory")?),
            "session" => Self::Session(members.needed("session_id", MAX_NAME)?.to_owned()),
            "subject" => Self::Subject,
            other => {
                return Err(format!("`what` must be one, session or subject, not `{}`", other.escape_debug()));
            }
        };
        Ok(Asked { what, until: members.time("until")? })
    }

    /// Whether it means this memory, whenever that was kept.
    fn may_mean(&self, row: &SignedSpan) -> bool {
        match self {
            Self::One(id) => row.id == *id,
            Self::Session(session) => row.meta("session_id").and_then(Value::as_str) == Some(session),
            Self::Subject => true,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::One(_) => "one",
            Self::Session(_) => "session",
            Self::Subject => "subject",
        }
    }
}

impl MemoryKernel {
    pub(super) async fn forget(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let mut asked = What::read(input(request), is_rest(request)).map_err(invalid)?;
        // Not refused if the store of keys was lost: if it comes back, receipts are compared with it.
        self.forget_again(&context.runtime, &context.trusted.authorities, &request.tenant_id).await?;
        asked.until = match asked.until {
            None => long_ago(request, context).await?,
            until => until,
        };
        let (tenant, owner, is_first) = (&request.tenant_id, &request.owner_id, !is_rest(request));
        let mut rows = select(request, context, &asked).await?;
        let newer = self.newer(request, context, &asked).await?;
        let is_all = matches!(asked.what, What::Subject) && is_first && newer.is_empty();
        let has_keys = matches!(asked.what, What::Subject) && self.vault.has_key(tenant, owner).await?;
        let has_begun = self.has_begun(request).await?;
        if rows.is_empty() && is_first && !has_keys && !has_begun {
            return Err(refused("there is no such memory of this user: nothing was forgotten"));
        }
        // The keys of these are gone already. If it was not this request that destroyed them, they may come back.
        let lost = if has_begun || !is_first { Vec::new() } else { unreadable(&self.vault, tenant, newer).await? };
        let lost: BTreeSet<_> = lost.into_iter().map(|row| row.id).collect();
        let (mut rounds, mut destroyed) = (0, BTreeSet::new());
        let forgotten = loop {
            destroyed.extend(rows.iter().map(|row| row.id));
            let forget = if is_all { Forget::All } else { Forget::Spans(destroyed.clone()) };
            let forgotten = self.vault.forget(tenant, receipt_id(request), owner, &forget).await?;
            // INVARIANT: what was committed before its key was destroyed is seen now, and gets its last version. What is committed later has
            // no key at that moment: its writer looks, and so does the loop `memory_keeper`. A memory that got another version while the first
            // look was on its way may have been missed by it, and still has its key.
            let again = select(request, context, &asked).await?;
            rows = newest(again.into_iter().chain(rows));
            rounds += 1;
            if is_all || rounds == ROUNDS || rows.iter().all(|row| destroyed.contains(&row.id)) {
                break forgotten;
            }
        };
        rows.retain(|row| is_all || destroyed.contains(&row.id));
        // What was kept meanwhile may have lost its key with the others: it ends with them.
        let newer = unreadable(&self.vault, tenant, self.newer(request, context, &asked).await?).await?;
        let newer = newer.into_iter().filter(|row| !lost.contains(&row.id));
        rows = newest(newer.chain(rows));
        let until = asked.until.unwrap_or(request.at);
        self.ended(request, context, &rows, (forgotten, until), (asked.what.as_str(), Status::Forgotten)).await
    }

    /// What the user has kept since a forgetting was asked for that is carried out much later. One memory is forgotten as it is.
    async fn newer(&self, request: &VerifiedSpan, context: &Context<'_>, asked: &Asked) -> Result<Vec<Believed>, Refusal> {
        let Some(until) = asked.until.filter(|_| !matches!(asked.what, What::One(_))) else { return Ok(Vec::new()) };
        select_where(request, context, usize::MAX, |row| row.at > until && asked.what.may_mean(row)).await
    }

    /// Whether an earlier attempt of this request has destroyed its keys, and ended before its receipt was written.
    pub(super) async fn has_begun(&self, request: &VerifiedSpan) -> Result<bool, Refusal> {
        Ok(self.vault.not_forgotten(&request.tenant_id, &[receipt_id(request)]).await?.is_empty())
    }

    /// Destroys the keys of these versions of memories and of those before them, and drafts their last versions and the receipt.
    pub(super) async fn end(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        rows: &[Believed],
        (what, status): (&str, Status),
    ) -> Result<Effects, Refusal> {
        let forget = versions(context, rows).await?;
        let forgotten = self.vault.forget(&request.tenant_id, receipt_id(request), &request.owner_id, &forget).await?;
        self.ended(request, context, rows, (forgotten, request.at), (what, status)).await
    }

    /// Drafts the last versions of memories whose keys are destroyed, and the receipt. What is too much for one batch is left to a request of
    /// its own, for which `until` is the time up to which memories are meant.
    async fn ended(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        rows: &[Believed],
        (forgotten, until): (Forgotten, Timestamp),
        (what, status): (&str, Status),
    ) -> Result<Effects, Refusal> {
        let (tenant, owner, id) = (&request.tenant_id, &request.owner_id, receipt_id(request));
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        self.shelves.forget(tenant, owner, &ids).await;
        let (now, later) = rows.split_at(rows.len().min(PAGE));
        let mut emitted = Vec::with_capacity(now.len() * 2 + 2);
        let is_public = |row: &&Believed| row.meta("sensitivity").and_then(Value::as_str) == Some(Sensitivity::Public.as_str());
        let in_the_clear = rows.iter().filter(is_public).count();
        for row in now {
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
        // Later rounds end the rows of what the first one has receipted.
        if !is_rest(request) {
            emitted.push(about(receipt, request, context));
        }
        let mut output =
            json!({"receipt": id.to_string(), "memories": rows.len(), "state": "shredded", "more": !later.is_empty()});
        if !later.is_empty() {
            // Their keys are destroyed already; this ends their rows.
            let next = Request::new(tenant, owner, request.parent_id.unwrap_or(id), next_input(request, until))
                .this(MEMORY_FORGET_REST)
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

/// Each memory once, as its newest version.
pub(super) fn newest(rows: impl IntoIterator<Item = Believed>) -> Vec<Believed> {
    let mut found: BTreeMap<Uuid, Believed> = BTreeMap::new();
    for row in rows {
        if found.get(&row.id).is_none_or(|other| other.seq < row.seq) {
            found.insert(row.id, row);
        }
    }
    found.into_values().collect()
}

/// The texts of these versions and of those before them.
async fn versions(context: &Context<'_>, rows: &[Believed]) -> Result<Forget, Refusal> {
    let mut keys = BTreeMap::new();
    for row in rows {
        let mut of_row = BTreeSet::new();
        let mut versions = Rows::of(&context.runtime, Query::timeline().tenant(&row.tenant_id).id(row.id));
        while let Some(version) = versions.next().await? {
            of_row.extend(sealed_under(&version).filter(|_| version.seq <= row.last_seq()));
        }
        keys.insert(row.id, of_row);
    }
    Ok(Forget::Versions(keys))
}

/// How often what is to be forgotten is looked for again, if others go on writing.
const ROUNDS: u32 = 4;

/// How long a forgetting may wait and still mean everything that is there when it is carried out: hosts' clocks differ, and nothing that was
/// there when it was asked for may be left.
const SOON: Duration = Duration::from_secs(60);

/// The time up to which memories are meant, if this is carried out long after it was asked for, such as by a host that found the request
/// of one that died. What the user has kept since is not forgotten.
async fn long_ago(request: &VerifiedSpan, context: &Context<'_>) -> Result<Option<Timestamp>, Refusal> {
    let first = context.runtime.version(&request.tenant_id, request.id, 0).await?;
    let meant = first.map_or(request.at, |first| first.at).saturating_add(SOON);
    Ok((meant < context.attempt.started).then_some(meant))
}

/// The id of the receipt of a request, which is the same in all of its attempts.
fn receipt_id(request: &SignedSpan) -> Uuid {
    ids::derive("memory_receipt", &[&request.tenant_id, &request.id.to_string()])
}

/// Whether a host asks for the rest of a forgetting.
fn is_rest(request: &SignedSpan) -> bool {
    request.this == MEMORY_FORGET_REST
}

fn next_input(request: &SignedSpan, until: Timestamp) -> Value {
    let mut input = request.input.clone().unwrap_or_default();
    if let Some(members) = input.as_object_mut() {
        members.entry("until").or_insert_with(|| until.to_string().into());
    }
    input
}

/// The last version of a memory: it has neither text nor envelope.
fn ended(row: &Believed, status: Status) -> Draft {
    let mut draft = row
        .next()
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
async fn select(request: &SignedSpan, context: &Context<'_>, asked: &Asked) -> Result<Vec<Believed>, Refusal> {
    if let What::One(id) = &asked.what {
        let found = believed(context, &request.tenant_id, *id).await?;
        return Ok(found.into_iter().filter(|row| is_there(row, request)).collect());
    }
    select_where(request, context, usize::MAX, |row| {
        asked.until.is_none_or(|until| row.at <= until) && asked.what.may_mean(row)
    })
    .await
}

/// Whether a row is a memory of the request's owner that has not ended.
fn is_there(row: &SignedSpan, request: &SignedSpan) -> bool {
    is_memory_of(row, &request.tenant_id, &request.owner_id)
        && !Stored::read(row).is_ok_and(|stored| matches!(stored.status, Status::Forgotten | Status::Expired))
}

/// The newest memories of the request's owner that have not ended and are meant, at most `max`.
pub(super) async fn select_where(
    request: &SignedSpan,
    context: &Context<'_>,
    max: usize,
    is_meant: impl Fn(&SignedSpan) -> bool,
) -> Result<Vec<Believed>, Refusal> {
    let query = Query::new().tenant(&request.tenant_id).entity_type(MEMORY).owner(&request.owner_id).order(Order::Newest);
    let (mut rows, mut standing) = (Vec::new(), Standing::of(&context.runtime, &context.trusted.authorities, query));
    while rows.len() < max
        && let Some(row) = standing.next().await?
    {
        rows.extend(Some(row).filter(|row| is_there(row, request) && is_meant(row)));
    }
    Ok(rows)
}

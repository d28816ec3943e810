//! Proves that what was forgotten opens nowhere, and finds what had used it.

use std::collections::BTreeMap;

use logline_core::contract::Reader;
use logline_core::ledger::{Ledger, LedgerError, Query, Versions};
use logline_core::trust::Authorities;
use logline_core::{Scope, SpanKey};
use serde_json::Value;
use uuid::Uuid;

use crate::belief::{Rows, Standing};
use crate::form::{Content, MEMORY, Status, Stored};
use crate::kernel::{CONTENT, RECEIPT};
use crate::memories::MemoryError;
use crate::results::{Receipt, ReceiptState};
use crate::vault::{Sealed, Vault};

/// What [`verify_erasure`] has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Erasure {
    /// Memories that were forgotten, or have expired.
    pub memories: u64,
    /// Their encrypted versions, each of which was tried.
    pub versions: u64,
    /// Versions that still open. There should be none.
    pub opened: Vec<SpanKey>,
    /// Receipts whose keys are destroyed in the store, while a backup of the store still opens with the tenant's key.
    pub shredded: u64,
    /// Receipts whose epoch's key is being deleted.
    pub sealing: u64,
    /// Receipts after which no backup opens anything.
    pub sealed: u64,
    /// Receipts that the store of keys does not remember: it comes from a backup. The kernel forgets again before it opens anything.
    pub not_remembered: Vec<Uuid>,
}

impl Erasure {
    /// Whether nothing opens that was forgotten.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.opened.is_empty() && self.not_remembered.is_empty()
    }
}

/// Tries to open every version of every memory of a tenant that was forgotten or has expired, with the keys that are left. Receipts and ends
/// count if hosts have signed them (`authorities`), and of what stands in the ledger after them, only what hosts have signed.
///
/// # Errors
/// If ledger or keys cannot be read.
pub async fn verify_erasure(
    ledger: &dyn Ledger,
    authorities: &Authorities,
    vault: &Vault,
    tenant: &str,
) -> Result<Erasure, MemoryError> {
    let mut found = Erasure::default();
    let mut receipts = Vec::new();
    let reader = Reader::new(ledger, Scope::runtime(tenant));
    let mut standing = Standing::of(&reader, authorities, Query::new().tenant(tenant).entity_type(RECEIPT));
    while let Some(row) = standing.next().await? {
        match Receipt::of(&row).map(|receipt| receipt.state) {
            Some(ReceiptState::Shredded) => found.shredded += 1,
            Some(ReceiptState::Sealing(_)) => found.sealing += 1,
            Some(ReceiptState::Sealed) => found.sealed += 1,
            None => {}
        }
        receipts.push(row.id);
    }
    for some in receipts.chunks(500) {
        found.not_remembered.extend(vault.not_forgotten(tenant, some).await?);
    }
    let mut gone: BTreeMap<Uuid, u32> = BTreeMap::new();
    let mut standing = Standing::of(&reader, authorities, Query::new().tenant(tenant).entity_type(MEMORY));
    while let Some(row) = standing.next().await? {
        let status = Stored::read(&row).map(|stored| stored.status);
        if matches!(status, Ok(Status::Forgotten | Status::Expired)) {
            gone.insert(row.id, row.seq);
        }
    }
    found.memories = u64::try_from(gone.len()).unwrap_or(u64::MAX);
    let mut sealed: Vec<(SpanKey, String, Vec<u8>)> = Vec::new();
    let mut rows = Rows::of(&reader, Query::new().tenant(tenant).entity_type(MEMORY).versions(Versions::All));
    while let Some(row) = rows.next().await? {
        // A later version may be a new memory under the same key.
        if gone.get(&row.id).is_some_and(|last| row.seq < *last)
            && let Ok(Stored { content: Content::Sealed(envelope), .. }) = Stored::read(&row)
        {
            sealed.push((row.key(), row.owner_id.clone(), envelope));
        }
    }
    sealed.sort_by(|left, right| left.1.cmp(&right.1));
    for of_owner in sealed.chunk_by(|left, right| left.1 == right.1) {
        let Some((_, owner, _)) = of_owner.first() else { continue };
        let texts: Vec<_> =
            of_owner.iter().map(|(key, _, envelope)| Sealed { span: key.id, field: CONTENT, envelope }).collect();
        for ((key, ..), text) in of_owner.iter().zip(vault.open(tenant, owner, &texts).await?) {
            found.versions += 1;
            match text {
                Ok(_) => found.opened.push(key.clone()),
                Err(error) if error.is_of_text() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}

/// The spans that have used a memory: answers of searches that returned it, runs of prompts that told it to a model, and the intents of
/// the calls in which they did, also if the run failed. What they made of it may still stand where they have sent it.
///
/// # Errors
/// [`LedgerError::NotFound`] if nothing has used it, and the tenant never had such a memory; the ledger's.
pub async fn uses(ledger: &dyn Ledger, tenant: &str, memory: Uuid) -> Result<Vec<SpanKey>, LedgerError> {
    let (id, reader) = (memory.to_string(), Reader::new(ledger, Scope::runtime(tenant)));
    let mut found = Vec::new();
    let mut rows = Rows::of(&reader, Query::new().tenant(tenant).entity_type("memory_search_result"));
    while let Some(row) = rows.next().await? {
        let candidates = row.meta("candidates").and_then(Value::as_array);
        let is_in = |candidate: &Value| {
            candidate.get("id").and_then(Value::as_str) == Some(&id)
                && candidate.get("place").is_some_and(|place| !place.is_null())
        };
        if candidates.is_some_and(|candidates| candidates.iter().any(is_in)) {
            found.push(row.key());
        }
    }
    for entity_type in ["prompt_run", "provider_request"] {
        let mut rows = Rows::of(&reader, Query::new().tenant(tenant).entity_type(entity_type));
        while let Some(row) = rows.next().await? {
            let context = match entity_type {
                "prompt_run" => row.meta("context"),
                _ => row.meta("details").and_then(|details| details.get("context")),
            };
            let context = context.and_then(Value::as_array);
            let is_told = |cited: &Value| cited.get("used").and_then(Value::as_bool) != Some(false);
            let cites = |cited: &Value| cited.get("id").and_then(Value::as_str) == Some(&id) && is_told(cited);
            if context.is_some_and(|context| context.iter().any(cites)) {
                found.push(row.key());
            }
        }
    }
    if found.is_empty() && ledger.history(&Scope::runtime(tenant), tenant, memory, 0, 1).await?.is_empty() {
        ledger.get(&Scope::runtime(tenant), tenant, memory).await?;
    }
    Ok(found)
}

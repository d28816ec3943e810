//! Gives vectors to the memories of a tenant that have none yet.

use async_trait::async_trait;
use logline_core::contract::provider::{EmbedRequest, Purpose};
use logline_core::ledger::search::{Pending, SearchEntry};
use logline_core::ledger::{LedgerError, LedgerExt as _, Search};
use logline_core::{Scope, SignedSpan};
use uuid::Uuid;

use super::{EmbedError, Embedder};

/// Decides whether the text of a memory may be given to an embedder now.
#[async_trait]
pub trait Permits: Send + Sync {
    /// Whether the text of this version may be given away.
    ///
    /// # Errors
    /// If the ledger cannot be read. Then nothing is given away.
    async fn permits(&self, memory: &SignedSpan) -> Result<bool, LedgerError>;
}

/// What [`fill_pending`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// How many memories got a vector.
    pub filled: usize,
    /// How many had another version, or were not to be found any more, when their vector came.
    pub changed: usize,
    /// How many the embedder refused alone: they stay pending, and are found by text.
    pub refused: usize,
    /// How many may not be given to the embedder: they stay pending.
    pub withheld: usize,
}

/// Gives vectors to at most `most` memories of `tenant` in the order of their ids, beginning after `place` and going round once. Only public
/// texts are indexed, so only these reach the embedder, and of these only those that `permits` lets go.
///
/// `place` becomes the last memory that was looked at, also if the call fails: those that can get no vector then keep nobody else waiting.
///
/// If the embedder refuses a request because of what it contains, each text is tried alone, so that one text cannot keep the others
/// without vectors.
///
/// # Errors
/// [`EmbedError`], if the embedder or the ledger failed. What was filled before stays filled; a later call goes on.
pub async fn fill_pending<S: Search + ?Sized, E: Embedder + ?Sized>(
    ledger: &S,
    tenant: &str,
    embedder: &E,
    permits: &dyn Permits,
    place: &mut Option<Uuid>,
    most: usize,
) -> Result<Filled, EmbedError> {
    let scope = Scope::runtime(tenant);
    let (start, mut is_round) = (*place, place.is_none());
    let (mut done, mut looked_at) = (Filled::default(), 0);
    while looked_at < most {
        let limit = EmbedRequest::MAX_TEXTS.min(most - looked_at);
        let mut pending = ledger.pending(&scope, embedder.model(), *place, limit).await?;
        if is_round && let Some(start) = start {
            // What comes after the start was looked at first.
            pending.retain(|entry| entry.id <= start);
        }
        let Some(last) = pending.last() else {
            *place = None;
            if is_round {
                break;
            }
            is_round = true;
            continue;
        };
        *place = Some(last.id);
        looked_at += pending.len();
        let mut texts: Vec<(Pending, String)> = Vec::with_capacity(pending.len());
        for entry in pending {
            let Some(span) = ledger.find(&scope, tenant, entry.id).await? else {
                done.changed += 1;
                continue;
            };
            match SearchEntry::of(&span).filter(|found| found.seq == entry.seq && !found.text.trim().is_empty()) {
                None => done.changed += 1,
                Some(found) if permits.permits(&span).await? => texts.push((entry, found.text)),
                Some(_) => done.withheld += 1,
            }
        }
        fill(ledger, &scope, embedder, texts, &mut done).await?;
    }
    Ok(done)
}

async fn fill<S: Search + ?Sized, E: Embedder + ?Sized>(
    ledger: &S,
    scope: &Scope,
    embedder: &E,
    texts: Vec<(Pending, String)>,
    done: &mut Filled,
) -> Result<(), EmbedError> {
    if texts.is_empty() {
        return Ok(());
    }
    let (entries, texts): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
    let mut vectors = Vec::with_capacity(texts.len());
    match embedder.embed(&texts, Purpose::Document).await {
        Ok(made) => vectors.extend(made.into_iter().map(Some)),
        Err(error) if error.is_providers() || matches!(error, EmbedError::Open { .. }) => return Err(error),
        Err(_) => {
            for text in texts {
                match embedder.embed(&[text], Purpose::Document).await {
                    Ok(made) => vectors.push(made.into_iter().next()),
                    Err(error) if error.is_providers() || matches!(error, EmbedError::Open { .. }) => return Err(error),
                    Err(_) => vectors.push(None),
                }
            }
        }
    }
    for (entry, vector) in entries.into_iter().zip(vectors) {
        match vector {
            None => done.refused += 1,
            Some(vector) if ledger.put_vector(scope, entry.id, entry.seq, &vector).await? => done.filled += 1,
            Some(_) => done.changed += 1,
        }
    }
    Ok(())
}

//! Gives vectors to the memories of a tenant that have none yet.

use logline_core::Scope;
use logline_core::contract::provider::{EmbedRequest, Purpose};
use logline_core::ledger::search::{Pending, SearchEntry};
use logline_core::ledger::{LedgerExt as _, Search};

use super::{EmbedError, Embedder};

/// What [`fill_pending`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// How many memories got a vector.
    pub filled: usize,
    /// How many had another version, or were not to be found any more, when their vector came.
    pub changed: usize,
    /// How many the embedder refused alone: they stay pending, and are found by text.
    pub refused: usize,
}

/// Gives vectors to at most `most` memories of `tenant`, the ones with the smallest ids first. Only public texts are indexed, so only
/// these reach the embedder.
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
    most: usize,
) -> Result<Filled, EmbedError> {
    let scope = Scope::runtime(tenant);
    let (mut done, mut after) = (Filled::default(), None);
    let mut looked_at = 0;
    while looked_at < most {
        let limit = EmbedRequest::MAX_TEXTS.min(most - looked_at);
        let pending = ledger.pending(&scope, embedder.model(), after, limit).await?;
        let Some(last) = pending.last() else { break };
        after = Some(last.id);
        looked_at += pending.len();
        let mut texts: Vec<(Pending, String)> = Vec::with_capacity(pending.len());
        for entry in pending {
            let span = ledger.find(&scope, tenant, entry.id).await?;
            match span
                .as_ref()
                .and_then(SearchEntry::of)
                .filter(|found| found.seq == entry.seq && !found.text.trim().is_empty())
            {
                Some(found) => texts.push((entry, found.text)),
                None => done.changed += 1,
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

//! Appending a span under an id that anybody can compute, where the signature is what counts.

use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger, LedgerError, OnExisting};
use crate::span::SYSTEM_TENANT;
use crate::span::seal::VerifiedSpan;

/// Appends `span` in tenant `system`, or finds what the same key has stored under its id before. `None`: another key has the id.
///
/// [`OnExisting::Keep`] alone would not do: the digest that it compares does not cover the signer.
pub(super) async fn append_own(ledger: &dyn Ledger, span: VerifiedSpan) -> Result<Option<VerifiedSpan>, LedgerError> {
    let scope = Scope::runtime(SYSTEM_TENANT);
    let options = AppendOptions { on_existing: OnExisting::Keep, ..AppendOptions::default() };
    let receipts = match ledger.append(&scope, vec![span.clone()], &options).await {
        Ok(receipts) => receipts,
        Err(LedgerError::KeepMismatch { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if receipts.first().is_some_and(|receipt| receipt.curr_hash == span.seal.curr_hash) {
        return Ok(Some(span));
    }
    let stored = ledger.history(&scope, SYSTEM_TENANT, span.id, span.seq, 1).await?.into_iter().next();
    let stored = stored.filter(|stored| stored.seal.public_key == span.seal.public_key);
    Ok(stored.and_then(|stored| stored.verify(&mut Verifier::new()).ok()))
}

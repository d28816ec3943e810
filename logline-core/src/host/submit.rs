//! Records new requests.

use crate::host::{Host, HostError, publish};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger as _, LedgerError, OnExisting, Outcome};
use crate::request::{Request, lifecycle};
use crate::span::seal::VerifiedSpan;

impl Host {
    /// Records a request. A worker or [`Host::run_request`] carries it out. If a request with the same idempotency key was
    /// submitted before, its stored first version is returned.
    ///
    /// # Errors
    /// If the request is malformed, the ledger refuses it, or this host's key may not sign requests of the tenant.
    pub async fn submit(&self, request: Request) -> Result<VerifiedSpan, HostError> {
        publish::last(self.submit_all([request]).await?)
    }

    /// Records requests of one tenant, all of them or none, at most
    /// [`Capability::max_batch`](crate::ledger::Capability::max_batch). Returns the spans in the same order. Otherwise as
    /// [`Host::submit`].
    ///
    /// # Errors
    /// As [`Host::submit`]; [`HostError::TwoTenants`] if the requests belong to several tenants.
    pub async fn submit_all(&self, requests: impl IntoIterator<Item = Request>) -> Result<Vec<VerifiedSpan>, HostError> {
        let inner = &self.inner;
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let mut batch: Vec<VerifiedSpan> = Vec::new();
        // Looking up ids takes time, and only a derived id can exist already.
        let mut options = AppendOptions::default();
        for request in requests {
            if request.derived_id().is_some() {
                options.on_existing = OnExisting::Keep;
            }
            let draft = request.into_draft(inner.ids.next_id(inner.clock.now()));
            let span = driver.seal(draft, inner.signer.as_ref()).await?;
            lifecycle::check_shape(&span, &inner.rules)?;
            if let Some(first) = batch.first().filter(|first| first.tenant_id != span.tenant_id) {
                let (first, other) = (first.tenant_id.clone(), span.tenant_id.clone());
                return Err(HostError::TwoTenants { first, other });
            }
            batch.push(span);
        }
        let Some(first) = batch.first() else { return Ok(batch) };
        let scope = Scope::runtime(first.tenant_id.clone());
        let receipts = driver.append(&scope, batch.clone(), &options).await?;
        for (span, receipt) in batch.iter_mut().zip(receipts) {
            if receipt.outcome != Outcome::Appended {
                let stored = inner.ledger.history(&scope, &span.tenant_id, span.id, span.seq, 1).await?;
                let not_found = || LedgerError::NotFound { tenant: span.tenant_id.clone(), id: span.id };
                *span = stored.into_iter().next().ok_or_else(not_found)?.verify(&mut Verifier::new())?;
            }
        }
        Ok(batch)
    }
}

//! What publishers and loops have written with the host's help.

use crate::host::{Host, HostError};
use crate::keys::Signer;
use crate::ledger::AppendOptions;
use crate::ledger::scope::Scope;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

impl Host {
    /// Seals `draft` with `signer`, checks that it may sign such a span, and appends it: how a publisher publishes.
    ///
    /// # Errors
    /// Where the signer lacks the role, the draft breaks a rule or would not work, or the ledger refuses.
    pub async fn publish(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        for validator in &self.inner.installed.validators {
            validator.validate(draft.columns()).map_err(|reason| {
                let entity_type = draft.columns().entity_type.clone();
                HostError::NotValid { entity_type, reason }
            })?;
        }
        let trusted = self.trusted();
        let scope = Scope::runtime(draft.columns().tenant_id.clone());
        let written = self.driver(&trusted).write(&scope, vec![draft], signer, &AppendOptions::default()).await?;
        last(written)
    }

    /// Writes what a loop of this host has decided: seals `drafts` of `tenant` with the host's key, holds each to the authorities,
    /// and appends them as one batch.
    ///
    /// # Errors
    /// Where this host's key may not sign them, a draft breaks a rule, or the ledger refuses. Nothing is written then.
    pub async fn record(
        &self,
        tenant: &str,
        drafts: Vec<Draft>,
        options: &AppendOptions,
    ) -> Result<Vec<VerifiedSpan>, HostError> {
        let trusted = self.trusted();
        Ok(self.driver(&trusted).write(&Scope::runtime(tenant), drafts, self.inner.signer.as_ref(), options).await?)
    }
}

/// The last span of a batch that was written.
pub(super) fn last(written: Vec<VerifiedSpan>) -> Result<VerifiedSpan, HostError> {
    written.into_iter().last().ok_or(HostError::Internal { what: "an append of nothing" })
}

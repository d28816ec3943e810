//! Publishes spans for publishers, and writes what loops have decided.

use crate::host::{Host, HostError};
use crate::keys::Signer;
use crate::ledger::AppendOptions;
use crate::ledger::scope::Scope;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

impl Host {
    /// Publishes a span: checks `draft` with the validators, seals it with `signer`, checks that the signer may sign it, and
    /// appends it.
    ///
    /// # Errors
    /// If a validator refuses the draft, it breaks a rule, the signer lacks the role, or the ledger refuses.
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

    /// Writes what a loop of this host has decided: seals `drafts` of `tenant` with the host's key, checks that the key may
    /// sign each, and appends them as one batch.
    ///
    /// # Errors
    /// If this host's key may not sign them, a draft breaks a rule, or the ledger refuses. Nothing is written then.
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

//! The driver: the only code of a host that seals and appends spans. It writes a whole batch or nothing.

use thiserror::Error;

use crate::keys::Signer;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, Ledger, LedgerError};
use crate::span::draft::Draft;
use crate::span::rules::Rules;
use crate::span::seal::{SealError, VerifiedSpan};
use crate::trust::{Authorities, NotAuthorised};
use crate::value::clock::{Clock, IdSource};

/// Why drafts were not written. If one is refused, none is written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The signer may not sign a span of this type.
    #[error(transparent)]
    NotAuthorised(#[from] Box<NotAuthorised>),
    /// A draft could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(crate) struct Driver<'a> {
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) authorities: &'a Authorities,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) ids: &'a dyn IdSource,
    pub(crate) rules: Rules,
}

impl Driver<'_> {
    /// Stamps a draft, seals it with `signer`, and checks that the signer may sign it now.
    pub(crate) async fn seal(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, AdmitError> {
        let span = draft.stamp(self.clock, self.ids).seal_within(signer, &self.rules).await?;
        self.authorities.check_now(&span, self.clock.now())?;
        Ok(span)
    }

    /// Appends spans that [`Driver::seal`] has sealed, as one batch.
    pub(crate) async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        self.ledger.append(scope, batch, options).await
    }

    /// Seals `drafts` and appends them as one batch. Returns the spans in the same order.
    pub(crate) async fn write(
        &self,
        scope: &Scope,
        drafts: Vec<Draft>,
        signer: &dyn Signer,
        options: &AppendOptions,
    ) -> Result<Vec<VerifiedSpan>, AdmitError> {
        let mut batch = Vec::with_capacity(drafts.len());
        for draft in drafts {
            batch.push(self.seal(draft, signer).await?);
        }
        self.append(scope, batch.clone(), options).await?;
        Ok(batch)
    }
}

//! The driver: the only code that seals and appends. It admits what kernels ask for, or nothing of it.

use thiserror::Error;

use crate::clock::{Clock, IdSource};
use crate::draft::Draft;
use crate::keys::Signer;
use crate::ledger::{AppendOptions, Ledger, LedgerError, Receipt};
use crate::rules::Rules;
use crate::scope::Scope;
use crate::seal::{SealError, VerifiedSpan};
use crate::trust::{Authorities, NotAuthorised};

/// Why drafts were not written. None of them was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The signer may not sign such a span.
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
    /// Stamps and seals `drafts` with `signer`, holds each to the authorities, and appends them as one batch.
    pub(crate) async fn write(
        &self,
        scope: &Scope,
        drafts: Vec<Draft>,
        signer: &dyn Signer,
        options: &AppendOptions,
    ) -> Result<(Vec<VerifiedSpan>, Vec<Receipt>), AdmitError> {
        let mut batch = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let span = draft.stamp(self.clock, self.ids).seal_within(signer, &self.rules).await?;
            self.authorities.check_now(&span, self.clock.now())?;
            batch.push(span);
        }
        let receipts = self.ledger.append(scope, batch.clone(), options).await?;
        Ok((batch, receipts))
    }
}

//! Writes what users bring: spans that they have sealed themselves, and drafts that they ask the host to seal.

use crate::host::{Host, HostError};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, LedgerError};
use crate::request::{CAUSE, lifecycle};
use crate::roles::{self, Role};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::value::failure::Failure;

impl Host {
    /// Appends spans that others have sealed, as one batch. `scope` is that of the one who brings them: a user can bring only what
    /// this user may write. Every signer must hold the role that the type of its span needs, and what publishers bring is checked
    /// as [`Host::publish`] checks it.
    ///
    /// # Errors
    /// If the scope or the signer may not write a span, a validator or a kernel refuses it, a request is malformed, or the ledger
    /// refuses. Nothing is written then.
    pub async fn admit(&self, scope: &Scope, spans: Vec<VerifiedSpan>) -> Result<Vec<AppendReceipt>, HostError> {
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let now = self.inner.clock.now();
        // All cheap checks come before the first check of code.
        for span in &spans {
            scope.check_append(span).map_err(LedgerError::from)?;
            driver.authorities.check_now(span, now)?;
            if span.entity_type == "request" && span.prev_hash.is_none() {
                lifecycle::check_shape(span, &self.inner.rules)?;
            }
        }
        for span in &spans {
            self.check_draft(&Draft::from_columns(span.span.clone())).await?;
        }
        Ok(driver.append(scope, spans, &AppendOptions::default()).await?)
    }

    /// Seals first versions with this host's key for a user and appends them as one batch. The host vouches for who asked, not for
    /// the content. A receipt names the row that is stored, which is an earlier one if `options` keep it.
    ///
    /// INVARIANT: the host's key signs only what the user could have written with a member's key.
    ///
    /// # Errors
    /// If a draft is no first version, is a request ([`Host::submit`] takes those), is of a type that a member may not sign, or is
    /// not in `scope`; if it breaks a rule; if the ledger refuses. Nothing is written then.
    pub async fn seal_for(
        &self,
        scope: &Scope,
        drafts: Vec<Draft>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, HostError> {
        let mut checked = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let span = draft.columns();
            let refuse = |message: &str| HostError::NotValid {
                entity_type: span.entity_type.clone(),
                reason: Failure::new("not_permitted", message),
            };
            if span.prev_hash.is_some() {
                return Err(refuse("a host seals first versions only: seal later versions with a key of your own"));
            }
            // Kinds of requests, and members of their metadata, are believed because a host has signed them.
            if span.entity_type == "request" {
                return Err(refuse("a request is submitted, not written"));
            }
            scope.check_append(span).map_err(LedgerError::from)?;
            if !roles::required(span).contains(&Role::Member) {
                return Err(refuse("members may not sign this type: seal it with the key that may"));
            }
            // How many policies a span follows from is believed if a host has signed it.
            checked.push(draft.without_meta(CAUSE));
        }
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let mut batch = Vec::with_capacity(checked.len());
        for draft in checked {
            batch.push(driver.seal(draft, self.inner.signer.as_ref()).await?);
        }
        Ok(driver.append(scope, batch, options).await?)
    }
}

//! Publishes spans for publishers, and writes what loops have decided.

use crate::contract::{KernelError, Publishing, Reader};
use crate::host::{Host, HostError};
use crate::keys::{Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, LedgerExt as _};
use crate::span::Span;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::value::failure::Failure;

/// The status of what an operator has stopped.
const STOPPED: &str = "stopped";

/// How often [`Host::publish_if_changed`] reads the last version again.
const PUBLISH_TRIES: u32 = 5;

/// What becomes of a stop.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Stands,
    Ends,
}

impl Host {
    /// Publishes a span: checks `draft` with the validators, seals it with `signer`, checks that the signer may sign it, and
    /// appends it. The kernel that would run a function has its sandbox check the code.
    ///
    /// A span without [`Draft::visibility`] is private: only its owner sees it. A function that the users of the tenant shall
    /// ask for needs [`Visibility::Tenant`](crate::Visibility::Tenant).
    ///
    /// # Errors
    /// If a validator or a kernel refuses the draft, it breaks a rule, the signer lacks the role, or the ledger refuses.
    pub async fn publish(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        self.check_draft(&draft).await?;
        let trusted = self.trusted();
        let scope = Scope::runtime(draft.columns().tenant_id.clone());
        let written = self.driver(&trusted).write(&scope, vec![draft], signer, &AppendOptions::default()).await?;
        last(written)
    }

    /// Publishes a span as [`Host::publish`] does, unless its last version says the same already and its signer may sign it: then
    /// that version is returned. If the last version says something else, the draft becomes the next version. So a service may
    /// call this at each start. The draft must have an id of its own, such as one from [`ids::derive`](crate::ids::derive).
    ///
    /// # Errors
    /// As [`Host::publish`]; [`HostError::NotValid`] if the draft has no id, as it would be another span at each start;
    /// [`HostError::Stopped`] if the last version is a tombstone or has the status `stopped`: a start of a service ends no stop.
    pub async fn publish_if_changed(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        self.publish_next(draft, signer, Stop::Stands).await
    }

    /// As [`Host::publish_if_changed`], also if somebody has stopped or deleted what is published: it works again.
    ///
    /// # Errors
    /// As [`Host::publish_if_changed`], without [`HostError::Stopped`].
    pub async fn publish_again(&self, draft: Draft, signer: &dyn Signer) -> Result<VerifiedSpan, HostError> {
        self.publish_next(draft, signer, Stop::Ends).await
    }

    async fn publish_next(&self, draft: Draft, signer: &dyn Signer, stop: Stop) -> Result<VerifiedSpan, HostError> {
        if !draft.has_id() {
            let columns = draft.columns();
            let message =
                format!("give it an id of its own, such as `.id(ids::derive(\"{}\", &[tenant, name]))`", columns.entity_type);
            let reason = Failure::new("id_missing", message);
            return Err(HostError::NotValid { entity_type: columns.entity_type.clone(), reason });
        }
        let mut tries = 1;
        loop {
            match self.publish_once(draft.clone(), signer, stop).await {
                // Somebody else has published a version meanwhile, perhaps the same.
                Err(error) if error.is_conflict() && tries < PUBLISH_TRIES => tries += 1,
                published => return published,
            }
        }
    }

    async fn publish_once(&self, draft: Draft, signer: &dyn Signer, stop: Stop) -> Result<VerifiedSpan, HostError> {
        let (tenant, id) = (draft.columns().tenant_id.clone(), draft.columns().id);
        let scope = Scope::runtime(&tenant);
        let Some(existing) = self.inner.ledger.head(&scope, &tenant, id).await? else {
            return self.publish(draft, signer).await;
        };
        let stops = |span: &Span| span.is_deleted || span.status.as_deref() == Some(STOPPED);
        if stop == Stop::Stands && !stops(draft.columns()) {
            let counts = self.trusted().last_that_counts(&self.inner.ledger, &scope, existing.clone()).await?;
            if stops(&counts) && self.trusted().counts(&counts, &mut Verifier::new()) {
                return Err(HostError::Stopped { key: counts.key(), entity_type: counts.entity_type.clone() });
            }
        }
        let same = draft.clone().seq(existing.seq.saturating_add(1)).follows(existing.seal.curr_hash);
        let next = match draft.following(&existing) {
            Some(next) => next,
            None => match existing.verify(&mut Verifier::new()) {
                Ok(existing) if self.trusted().authorities.check(&existing).is_ok() => return Ok(existing),
                _ => same,
            },
        };
        self.publish(next, signer).await
    }

    /// Asks the validators and the kernels about a draft.
    pub(super) async fn check_draft(&self, draft: &Draft) -> Result<(), HostError> {
        let span = draft.columns();
        let inner = &self.inner;
        let invalid = |reason| HostError::NotValid { entity_type: span.entity_type.clone(), reason };
        for validator in &inner.installed.validators {
            validator.validate(span).map_err(invalid)?;
        }
        if inner.publishes_unchecked {
            return Ok(());
        }
        let trusted = self.trusted();
        let reader = || Reader::new(&inner.ledger, Scope::runtime(&span.tenant_id));
        for kernel in &inner.installed.kernels {
            let publishing = Publishing { reader: reader(), manifest: &trusted.manifest, sandboxes: &inner.sandboxes };
            match kernel.check(span, &publishing).await {
                Err(KernelError::Refused(reason)) => return Err(invalid(reason)),
                checked => checked?,
            }
        }
        Ok(())
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

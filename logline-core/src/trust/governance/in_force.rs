//! The one place that says which version of a span a host uses.

use std::sync::{Arc, Mutex};

use thiserror::Error;
use uuid::Uuid;

use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Order, Query};
use crate::span::SignedSpan;
use crate::trust::Trusted;
use crate::trust::governance::class::{Class, Environment};
use crate::trust::governance::pointer::Pointer;
use crate::trust::governance::proposal::Version;
use crate::trust::governance::read::ReadError;
use crate::trust::governance::rules::Governance;
use crate::value::hex::Hash;
use crate::value::recent::Recent;
use crate::value::timestamp::Timestamp;

/// The version of a span that a host uses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InForce {
    /// The version.
    pub span: SignedSpan,
    /// The promotion that has put it in force; `None` if none is needed: then it is the last version.
    pub promotion: Option<Version>,
}

/// Why a host uses no version of a span.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InForceError {
    /// The manifest demands a promotion, and none is in force.
    #[error(
        "no version of {class} {id} is promoted in {environment}, and the manifest uses nothing else: propose one \
         (`logline propose`), have it approved, and promote it"
    )]
    NotPromoted {
        /// The class.
        class: Class,
        /// The environment of this host.
        environment: Environment,
        /// The span's id.
        id: Uuid,
    },
    /// The last version of a function stops it.
    #[error(
        "function {id} is stopped: the status of its last version is `{status}`; publish a version with the status `active`"
    )]
    Stopped {
        /// The span's id.
        id: Uuid,
        /// The status.
        status: String,
    },
    /// The promoted version is not what was promoted.
    #[error("the promoted version of {id} cannot be used: {reason}; run fsck")]
    NotUsable {
        /// The span's id.
        id: Uuid,
        /// What is wrong.
        reason: String,
    },
    /// What was promoted could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl InForceError {
    /// The stable code, as in the failure of a request; `None` if a retry may help, as the ledger failed.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::NotPromoted { .. } => Some("not_promoted"),
            Self::Stopped { .. } => Some("function_stopped"),
            Self::NotUsable { .. } => Some("promotion_invalid"),
            Self::Read(ReadError::Ledger(_)) => None,
            Self::Read(_) => Some("promotion_unreadable"),
        }
    }

    /// The code and the message of a refusal.
    ///
    /// # Errors
    /// The error of the ledger, if it failed.
    pub fn refusal(self) -> Result<crate::value::failure::Failure, LedgerError> {
        match (self.code(), self) {
            (_, Self::Read(ReadError::Ledger(error))) => Err(error),
            (code, error) => Ok(crate::value::failure::Failure::new(code.unwrap_or("not_promoted"), error.to_string())),
        }
    }
}

/// The statuses with which a function runs. `paused` and `scheduled` are about its schedule: whoever asks for it gets it.
const RUNNING: &[&str] = &["active", "scheduled", "paused"];

/// Refuses a function that its last version stops: one whose status is another than `active`, `scheduled` and `paused`. Without a status it
/// runs.
///
/// # Errors
/// [`InForceError::Stopped`].
pub fn check_running(last: &SignedSpan) -> Result<(), InForceError> {
    match last.status.as_deref().filter(|_| last.entity_type == "function") {
        Some(status) if !RUNNING.contains(&status) => {
            Err(InForceError::Stopped { id: last.id, status: status.chars().take(64).collect() })
        }
        _ => Ok(()),
    }
}

/// How many pointers a host keeps in memory.
const MAX_POINTERS: usize = 4096;

/// Pointers that were read and verified, by the hash of their last version. Which of their rows count depends on the manifest, so each
/// [`Trusted`] has its own.
#[derive(Debug, Clone)]
pub(crate) struct Pointers(Arc<Mutex<Recent<Hash, Arc<Pointer>>>>);

impl Default for Pointers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(MAX_POINTERS))))
    }
}

impl Pointers {
    pub(super) fn find(&self, last: &Hash) -> Option<Pointer> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).find(last).map(|pointer| (**pointer).clone())
    }

    pub(super) fn keep(&self, last: Hash, pointer: &Pointer) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).keep(last, Arc::new(pointer.clone()));
    }
}

impl Trusted {
    /// Whether hosts of this environment use nothing but promoted versions of spans of this type in `tenant`.
    #[must_use]
    pub fn requires_promotion(&self, tenant: &str, entity_type: &str) -> bool {
        let governance = self.manifest.governance.as_ref();
        governance
            .zip(Class::of_entity_type(entity_type))
            .is_some_and(|(governance, class)| governance.requires(tenant, self.environment, class))
    }

    /// Whether hosts of this environment use nothing but promoted versions of anything in `tenant`.
    pub(crate) fn requires_promotions(&self, tenant: &str) -> bool {
        let requires =
            |governance: &Governance| Class::ALL.iter().any(|class| governance.requires(tenant, self.environment, *class));
        self.manifest.governance.as_ref().is_some_and(requires)
    }

    /// The last version of a span that counts, where `last` is its last row: what it says was signed, by a key that may sign it. Whoever can
    /// write to the store can write rows, and a row that does not count hides none that does. If none counts, `last`, so that the reason
    /// can be told.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn last_that_counts(
        &self,
        ledger: &dyn Ledger,
        scope: &Scope,
        last: SignedSpan,
    ) -> Result<SignedSpan, LedgerError> {
        if self.counts(&last, &mut Verifier::new()) {
            return Ok(last);
        }
        // Rarely needed, and large: callers should not have to carry it on their stacks.
        Box::pin(self.earlier_that_counts(ledger, scope, last)).await
    }

    /// Whether what a row says was signed, by a key that may sign it.
    pub fn counts(&self, row: &SignedSpan, verifier: &mut Verifier) -> bool {
        row.clone().verify(verifier).is_ok_and(|row| self.authorities.check(&row).is_ok())
    }

    async fn earlier_that_counts(
        &self,
        ledger: &dyn Ledger,
        scope: &Scope,
        last: SignedSpan,
    ) -> Result<SignedSpan, LedgerError> {
        tracing::warn!(key = %last.key(), "a version that nobody may have signed is passed over");
        let query = Query::timeline().tenant(&last.tenant_id).id(last.id).order(Order::Newest);
        let (mut verifier, mut cursor) = (Verifier::new(), None);
        loop {
            let page = ledger.scan(scope, &query, cursor.as_ref()).await?;
            let mut rows = page.rows.into_iter().filter_map(|row| row.span.ok());
            if let Some(found) = rows.find(|row| self.counts(row, &mut verifier)) {
                return Ok(found);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(last);
            }
        }
    }

    /// The version of a span that this host uses, where `last` is its last version: the promoted one where the manifest demands that,
    /// and otherwise the last one. Everything that obeys a span asks here: Stage-0, claims, `run_code`, schedules, policies, providers
    /// and builds of prompts.
    ///
    /// The last version can still stop a span, as a tombstone does, or a status of a function ([`check_running`]) in a version that counts: to
    /// stop needs no quorum. `scope` must see the promoted version as well.
    ///
    /// # Errors
    /// If no version may be used, or the ledger fails.
    pub async fn in_force(
        &self,
        ledger: &dyn Ledger,
        scope: &Scope,
        last: SignedSpan,
        now: Timestamp,
    ) -> Result<InForce, InForceError> {
        let last = match check_running(&last) {
            Ok(()) => last,
            // Only a version that counts stops a function.
            Err(_) => self.last_that_counts(ledger, scope, last).await.map_err(ReadError::from)?,
        };
        check_running(&last)?;
        let class =
            Class::of_entity_type(&last.entity_type).filter(|_| self.requires_promotion(&last.tenant_id, &last.entity_type));
        let Some(class) = class else { return Ok(InForce { span: last, promotion: None }) };
        let (tenant, id, environment) = (last.tenant_id.clone(), last.id, self.environment);
        let pointer = self.pointer(ledger, &tenant, environment, class, id).await?;
        let held = pointer.in_force(now).ok_or(InForceError::NotPromoted { class, environment, id })?;
        let promotion = Some(held.promotion);
        if held.subject == Version::of(&last) {
            return Ok(InForce { span: last, promotion });
        }
        let found = ledger.history(scope, &tenant, id, held.subject.seq, 1).await.map_err(ReadError::from)?;
        let found = found.into_iter().next().filter(|row| row.seq == held.subject.seq);
        let refuse = |reason: String| InForceError::NotUsable { id, reason };
        let span = found.ok_or_else(|| refuse(format!("version {} is not there, or not visible", held.subject.seq)))?;
        let span = self.checked(span, class, &held.subject).map_err(refuse)?;
        Ok(InForce { span: span.into_signed(), promotion })
    }
}

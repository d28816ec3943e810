//! What a host could not do.

use thiserror::Error;

use crate::contract::KernelError;
use crate::host::driver::AdmitError;
use crate::host::stage0::BootError;
use crate::ledger::{LedgerError, Retry};
use crate::request::NotRunnable;
use crate::span::seal::VerifyError;
use crate::trust::{NotAuthorised, TrustError};
use crate::value::failure::Failure;

/// What a host could not do. [`HostError::retry`] says what may help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The builder lacks a part.
    #[error("host has no {part}: set it on the builder")]
    Missing {
        /// The part, as the builder's method names it.
        part: &'static str,
    },
    /// Code that the host runs has panicked. Nothing of it was written.
    #[error("{what} panicked: nothing was written; report it, and look at the log for the place")]
    Panicked {
        /// What was running.
        what: &'static str,
    },
    /// Something that this library rules out.
    #[error("internal error: {what}; report it")]
    Internal {
        /// What was found.
        what: &'static str,
    },
    /// No manifest to obey.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A kernel was refused.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Something could not be written.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// A kernel could not do its work.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// What was to be published would not work.
    #[error("the {entity_type} was not published: {reason}")]
    NotValid {
        /// Its type.
        entity_type: String,
        /// What is wrong with it.
        reason: Failure,
    },
    /// Requests of several tenants in one batch.
    #[error("a batch of requests is one tenant's, this has `{first}` and `{other}`: submit one batch for each")]
    TwoTenants {
        /// The first one's.
        first: String,
        /// Another.
        other: String,
    },
    /// The request cannot be run.
    #[error(transparent)]
    NotRunnable(#[from] NotRunnable),
    /// The ledger has lost the manifest that this host obeys.
    #[error("the ledger's manifest is version {found}, this host already obeys {current}: it was rolled back; run fsck")]
    ManifestRollback {
        /// Found now.
        found: u64,
        /// In force.
        current: u64,
    },
    /// The request's stored row does not verify.
    #[error("request is not what was signed: {0}")]
    NotVerified(#[from] VerifyError),
    /// The request was signed by a key that may not ask for anything.
    #[error("request is not authorised: {0}")]
    NotAuthorised(#[from] Box<NotAuthorised>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl HostError {
    /// The code with which a request is closed that can never be claimed.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::NotVerified(_) => Some("request_not_verified"),
            Self::NotAuthorised(_) => Some("request_not_authorised"),
            Self::NotRunnable(NotRunnable::Malformed { .. }) => Some("request_malformed"),
            Self::NotRunnable(NotRunnable::NotPermitted { .. }) => Some("request_not_permitted"),
            Self::NotRunnable(NotRunnable::UnknownKind { .. }) => Some("request_unknown"),
            _ => None,
        }
    }

    /// The ledger's error, if the ledger is the reason.
    #[must_use]
    pub fn ledger_error(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error)
            | Self::Admit(AdmitError::Ledger(error))
            | Self::Boot(BootError::Ledger(error))
            | Self::Trust(TrustError::Ledger(error))
            | Self::Kernel(KernelError::Ledger(error)) => Some(error),
            _ => None,
        }
    }

    /// What may help: the ledger's word where it is the reason, nothing otherwise.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.ledger_error().map_or(Retry::No, LedgerError::retry)
    }

    /// Whether something else is already recorded under an id that follows from what was to be written.
    #[must_use]
    pub fn is_keep_mismatch(&self) -> bool {
        matches!(self.ledger_error(), Some(LedgerError::KeepMismatch { .. }))
    }

    /// Whether another worker was faster, or has the request now.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self.ledger_error(), Some(LedgerError::Conflict(_)))
    }
}

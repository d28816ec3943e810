//! The error of a host.

use thiserror::Error;

use crate::contract::{CipherError, KernelError};
use crate::host::driver::AdmitError;
use crate::host::stage0::BootError;
use crate::ledger::{LedgerError, Retry};
use crate::request::NotRunnable;
use crate::span::SpanKey;
use crate::span::seal::VerifyError;
use crate::trust::{NotAuthorised, TrustError};
use crate::value::failure::Failure;

/// Why a host could not do something. [`HostError::retry`] says whether a retry may help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The host lacks a part.
    #[error("host has no {part}: set it on the builder")]
    Missing {
        /// The part that is missing.
        part: &'static str,
    },
    /// The host could not carry out a single request.
    #[error("host has no {lacks}, so it could not carry out any request: add one with the builder's `sandbox`")]
    NotEquipped {
        /// What it lacks.
        lacks: String,
    },
    /// There is no loop to run.
    #[error(
        "host has nothing to run: install behaviours on the builder (`.install(logline::behaviours())`), or name the loops"
    )]
    NothingToRun,
    /// Code that the host was running panicked. Nothing was written.
    #[error("{what} panicked: nothing was written; find the position in the log and report it")]
    Panicked {
        /// What was running.
        what: &'static str,
    },
    /// A state that this library should never reach.
    #[error("internal error: {what}; report it")]
    Internal {
        /// What was found.
        what: &'static str,
    },
    /// The manifest could not be resolved.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A kernel was not booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Spans could not be written.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// A kernel could not carry out an attempt.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A validator refused the span that was to be published.
    #[error("the {entity_type} was not published: {reason}")]
    NotValid {
        /// The type of the span.
        entity_type: String,
        /// What is wrong with the span.
        reason: Failure,
    },
    /// Somebody has stopped what was to be published. A retry does not help.
    #[error(
        "{key} has stopped this {entity_type}, and nothing was published: if it shall work again, use `Host::publish_again`, \
         `logline publish --again` or, for a module, `logline function publish`"
    )]
    Stopped {
        /// The version that stops it.
        key: SpanKey,
        /// The type of the span.
        entity_type: String,
    },
    /// The requests of one batch belong to several tenants.
    #[error("a batch of requests must be of one tenant, this one has `{first}` and `{other}`: submit one batch for each")]
    TwoTenants {
        /// The tenant of the first request.
        first: String,
        /// The tenant of a later request.
        other: String,
    },
    /// The idempotency key was used for another request.
    #[error(
        "idempotency key `{key}` was used for another request, {request}, which differs in {differ}: send the same request, or use another key"
    )]
    OtherRequest {
        /// The idempotency key.
        key: String,
        /// The stored request.
        request: SpanKey,
        /// The columns, and members of metadata, that differ.
        differ: String,
    },
    /// A confidential request could not be encrypted, or what came of it could not be decrypted.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The request cannot be run.
    #[error(transparent)]
    NotRunnable(#[from] NotRunnable),
    /// The ledger has lost the manifest that this host obeys.
    #[error("the ledger's manifest is version {found}, this host already obeys {current}: it was rolled back; run fsck")]
    ManifestRollback {
        /// The version that the ledger has now.
        found: u64,
        /// The version that this host obeys.
        current: u64,
    },
    /// The hash or signature of the request's stored row is invalid.
    #[error("request is not what was signed: {0}")]
    NotVerified(#[from] VerifyError),
    /// The request was signed by a key that may not sign requests.
    #[error("request is not authorised: {0}")]
    NotAuthorised(#[from] Box<NotAuthorised>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl HostError {
    /// If the request can never be claimed for this reason: the error code with which it is closed.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::NotVerified(_) => Some("request_not_verified"),
            Self::NotAuthorised(_) => Some("request_not_authorised"),
            Self::NotRunnable(NotRunnable::Malformed { .. }) => Some("request_malformed"),
            Self::NotRunnable(NotRunnable::NotPermitted { .. } | NotRunnable::PriorityTooHigh { .. }) => {
                Some("request_not_permitted")
            }
            Self::NotRunnable(NotRunnable::UnknownKind { .. }) => Some("request_unknown"),
            _ => None,
        }
    }

    /// The ledger's error; `None` if the ledger is not the reason.
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

    /// Whether a retry may help: [`LedgerError::retry`] if the ledger is the reason, [`Retry::Later`] if keys are away or a request is not due yet,
    /// otherwise [`Retry::No`].
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Cipher(CipherError::Unavailable { .. }) => Retry::Later,
            Self::NotRunnable(
                NotRunnable::NotDue { .. } | NotRunnable::Deferred { .. } | NotRunnable::UnknownSigner { .. },
            ) => Retry::Later,
            _ => self.ledger_error().map_or(Retry::No, LedgerError::retry),
        }
    }

    /// Whether other content is already stored under the id of a deterministic draft.
    #[must_use]
    pub fn is_keep_mismatch(&self) -> bool {
        matches!(self, Self::OtherRequest { .. }) || matches!(self.ledger_error(), Some(LedgerError::KeepMismatch { .. }))
    }

    /// Whether another worker was faster, or holds the request now.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self.ledger_error(), Some(LedgerError::Conflict(_)))
    }
}

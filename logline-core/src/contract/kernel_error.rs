//! Why a host could not carry out an attempt.

use thiserror::Error;

use crate::ledger::LedgerError;
use crate::span::SpanKey;
use crate::value::failure::Failure;

/// Why the host could not carry out the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The attempt no longer holds its request, so its result could not be recorded.
    #[error("the attempt has lost its claim: its outcome is not recorded, another attempt may be made")]
    LostClaim,
    /// The kernel would refuse to run what was to be published.
    #[error("{0}")]
    Refused(Failure),
    /// The kernel cannot run on the span that it was given.
    #[error("kernel cannot run on span {key}: {reason}")]
    Subject {
        /// The span that the kernel was given.
        key: SpanKey,
        /// Why the kernel cannot run on it.
        reason: String,
    },
}

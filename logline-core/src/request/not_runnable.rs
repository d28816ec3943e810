//! Why a request is not carried out.

use thiserror::Error;

use crate::span::SpanKey;
use crate::value::timestamp::Timestamp;

/// Why a request cannot be run now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotRunnable {
    /// Another type.
    #[error("span {key} is of type `{entity_type}`, not a request")]
    NotARequest {
        /// The span.
        key: SpanKey,
        /// Its type.
        entity_type: String,
    },
    /// Somebody is at it, or it is not due yet.
    #[error("request {key} is `{status}` and not due: wait for whoever is at it, or for its time, and retry")]
    NotDue {
        /// The request.
        key: SpanKey,
        /// `scheduled` for later, or `running` under a lease.
        status: String,
    },
    /// Its tenant has used its quota.
    #[error("request {key} waits until {until}: its tenant has used its quota of today")]
    Deferred {
        /// The request.
        key: SpanKey,
        /// When it is due again.
        until: Timestamp,
    },
    /// This host cannot carry it out; another may.
    #[error(
        "request {key} is of `{this}`, for which this host has no kernel that may run: install the kernel, or leave the request to \
         another host"
    )]
    NoKernel {
        /// The request.
        key: SpanKey,
        /// Its `this`.
        this: String,
    },
    /// No kernel that the manifest allows carries out such requests.
    #[error(
        "request {key} is of `{this}`, which no kernel that the manifest allows carries out: check the spelling, or install the kernel"
    )]
    UnknownKind {
        /// The request.
        key: SpanKey,
        /// Its `this`.
        this: String,
    },
    /// Its signer is not known, and this host has just read the manifest: the request is left as it is.
    #[error("request {key} is signed by a key that this host does not know yet: it reads the manifest again within a second, retry")]
    UnknownSigner {
        /// The request.
        key: SpanKey,
    },
    /// It asks for what only a host may ask for.
    #[error("request {key} is of `{this}`, which only a host may ask for")]
    NotPermitted {
        /// The request.
        key: SpanKey,
        /// Its `this`.
        this: String,
    },
    /// It cannot be revived.
    #[error("request {key} is `{status}`: only one that is dead, cancelled or ended in error can be revived")]
    NotEnded {
        /// The request.
        key: SpanKey,
        /// Its status.
        status: String,
    },
    /// Its first version is none that a request can begin with.
    #[error("request {key} cannot be run: {reason}")]
    Malformed {
        /// The request.
        key: SpanKey,
        /// Why.
        reason: String,
    },
    /// It has ended.
    #[error("request {key} has ended with status `{status}`: submit a new one")]
    Ended {
        /// The request.
        key: SpanKey,
        /// Its status.
        status: String,
    },
}

//! Why a request cannot be run.

use thiserror::Error;

use crate::span::SpanKey;
use crate::value::timestamp::Timestamp;

/// Why a request cannot be run now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotRunnable {
    /// The span is not a request.
    #[error("span {key} is of type `{entity_type}`, not a request")]
    NotARequest {
        /// The version that was given.
        key: SpanKey,
        /// The type of the span.
        entity_type: String,
    },
    /// A worker is running it, or it is not due yet.
    #[error("request {key} is `{status}` and not due: wait until it is due or its lease has ended, and retry")]
    NotDue {
        /// The version of the request that was read.
        key: SpanKey,
        /// `scheduled` if it is not due yet, or `running` if a worker has a lease on it.
        status: String,
    },
    /// Its tenant has used up a quota of the day.
    #[error("request {key} waits until {until}: its tenant has used up a quota of today")]
    Deferred {
        /// The version of the request that was read.
        key: SpanKey,
        /// When it is due again: the start of the next UTC day.
        until: Timestamp,
    },
    /// This host cannot carry it out. Another host may be able to.
    #[error(
        "request {key} asks for `{this}`, but this host has no kernel for it that may run: install the kernel, or leave the \
         request to another host"
    )]
    NoKernel {
        /// The version of the request that was read.
        key: SpanKey,
        /// The kind of the request, from its `this` column.
        this: String,
    },
    /// The manifest allows no kernel that carries out such requests.
    #[error(
        "request {key} asks for `{this}`, but the manifest allows no kernel for it: check the spelling, or install the kernel"
    )]
    UnknownKind {
        /// The version of the request that was read.
        key: SpanKey,
        /// The kind of the request, from its `this` column.
        this: String,
    },
    /// This host does not know its signer yet. It reads the manifest again within a second. The request is not changed.
    #[error("request {key} is signed by a key that this host does not know yet: retry after its next read of the manifest")]
    UnknownSigner {
        /// The version of the request that was read.
        key: SpanKey,
    },
    /// This host lacks what it takes, such as a sandbox for the function's runtime: the request is left to other hosts.
    #[error("request {key} needs a {lacks}, which this host does not have: add it, or leave the request to another host")]
    NotEquipped {
        /// The request.
        key: SpanKey,
        /// What the host lacks.
        lacks: String,
    },
    /// Only a host may make a request of this kind.
    #[error("request {key} asks for `{this}`: only a host may make such a request")]
    NotPermitted {
        /// The version of the request that was read.
        key: SpanKey,
        /// The kind of the request, from its `this` column.
        this: String,
    },
    /// A member has signed it, and its priority is above what the manifest allows members.
    #[error("request {key} has priority {priority}: the manifest allows members at most {max}, ask a host to submit it")]
    PriorityTooHigh {
        /// The version of the request that was read.
        key: SpanKey,
        /// Its priority.
        priority: u8,
        /// The manifest's `throttle.member_max_priority`.
        max: u8,
    },
    /// It cannot be revived, because of its status.
    #[error("request {key} is `{status}`: only a request that is dead, cancelled or ended in error can be revived")]
    NotEnded {
        /// The version of the request that was read.
        key: SpanKey,
        /// The value of its `status` column.
        status: String,
    },
    /// It breaks the rules for requests, so it can never run.
    #[error("request {key} cannot be run: {reason}")]
    Malformed {
        /// The version of the request that was read.
        key: SpanKey,
        /// The rule that it breaks.
        reason: String,
    },
    /// It has ended.
    #[error("request {key} has ended with status `{status}`: submit a new one")]
    Ended {
        /// The version of the request that was read.
        key: SpanKey,
        /// The value of its `status` column.
        status: String,
    },
}

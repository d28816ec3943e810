//! The life of a request, as versions of its span.
//!
//! ```text
//! scheduled --claim--> running --> complete
//!     ^                   |------> error        (a retry cannot help, or was not asked for)
//!     |<--back-off--------|------> dead         (attempts used up, or its deadline passed)
//!     |<--revive-------------------+
//!                                  cancelled    (from scheduled or running)
//! ```
//!
//! Each step is a pure function that makes drafts from the version before. Due times and leases use the time of the ledger, so
//! the clocks of hosts need not agree. `docs/execution.md` is the specification.

mod builder;
pub(crate) mod call;
mod execution;
pub(crate) mod lifecycle;
mod not_runnable;
pub(crate) mod quota;
pub(crate) mod state;

pub use builder::{FUNCTION_RUN, Request};
pub use call::{CallKind, call_hash};
pub use execution::{Details, Frame, Recorded, record, reference};
pub use not_runnable::NotRunnable;
pub use quota::{Charges, MAX_KEY_BYTES, MAX_KEYS, MAX_UNITS};
pub use state::{
    CAUSE, DEFAULT_BACKOFF, DEFAULT_LEASE, DEFAULT_LOST_ATTEMPTS, DEFAULT_PRIORITY, MAX_ATTEMPTS, MAX_BACKOFF, MAX_LEASE,
    MAX_PRIORITY, OnUnknown, PARENT_SPAN, Phase, QueueEntry, State, Step, Terms, Unreadable, WITHIN, Within, asks_the_same,
    cause, without_host_only,
};

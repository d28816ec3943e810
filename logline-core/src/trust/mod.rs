//! Trust: the root keys that a host pins, the manifest that they approve, and the authorities that the manifest names.
//!
//! `docs/trust.md` describes the rules.

mod authority;
pub mod capability;
mod delegation;
mod ended;
mod file;
pub mod governance;
mod limits;
mod log_list;
mod manifest;
mod own;
mod root;

pub(crate) use authority::Candidate;
pub use authority::{Authorities, NotAuthorised};
pub use delegation::{Delegation, DelegationError, MAX_DELEGATION};
pub(crate) use ended::Ends;
pub use ended::{Before, Ended, LogEnd, Logs, MAX_ENDED_LOGS};
pub use limits::{Budget, Limits, MAX_EMITTED, Money, Share};
pub use log_list::{LogList, MAX_LISTS};
pub use manifest::{Authority, Manifest, ManifestError, RootSet, Throttle, Times};
pub use root::{SkipReason, Skipped, TrustError, TrustRoot, Trusted, approval};

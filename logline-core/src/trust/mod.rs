//! Trust: the root keys that a host pins, the manifest that they approve, and the authorities that the manifest names.
//!
//! `docs/trust.md` describes the rules.

mod authority;
mod delegation;
mod file;
mod limits;
mod manifest;
mod own;
mod root;

pub(crate) use authority::Candidate;
pub use authority::{Authorities, NotAuthorised};
pub use delegation::{Delegation, DelegationError, MAX_DELEGATION};
pub use limits::{Limits, MAX_EMITTED, Share};
pub use manifest::{Authority, Manifest, ManifestError, RootSet, Throttle, Times};
pub use root::{SkipReason, Skipped, TrustError, TrustRoot, Trusted, approval};

//! Who is trusted with what: the pinned root, the manifest it leads to, and the authorities the manifest names.
//!
//! `docs/trust.md` tells the whole story.

mod authority;
mod delegation;
mod limits;
mod manifest;
mod root;

pub use authority::{Authorities, NotAuthorised};
pub use delegation::{Delegation, DelegationError, MAX_DELEGATION};
pub use limits::{Limits, MAX_EMITTED, Share};
pub use manifest::{Authority, Manifest, ManifestError, RootSet, Throttle, Times};
pub use root::{SkipReason, Skipped, TrustError, TrustRoot, Trusted, approval};

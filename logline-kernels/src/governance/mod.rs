//! Governance: carries out what a quorum has approved, and writes down which gates a version has passed.
//!
//! What counts is decided in `logline_core::trust::governance`, by pure functions. After the quorum only hosts act: any host, once.

mod gates;
mod kernel;

use logline_core::KernelSet;
use uuid::{Uuid, uuid};

pub use gates::GateTest;
pub use kernel::{Governor, PROMOTE, ROLLBACK, TEST};

/// The id of the kernel `governance`.
pub const GOVERNANCE: Uuid = uuid!("00000000-0000-4000-8000-000000000020");

/// The kernel `governance` and its seed, to install beside the kernels of `behaviours`, which it asks whether they accept a version.
#[must_use]
pub fn governance(behaviours: &KernelSet) -> KernelSet {
    Governor::new(behaviours.clone()).behaviour()
}

//! The behaviours of LogLine as kernels, and their seeds.
//!
//! A host registers [`native`] and installs the seeds once; Stage-0 then boots each kernel from its signed span.

mod guest;
mod run_code;
mod seeds;

use std::sync::Arc;

use logline_core::kernel::Kernel;

pub use run_code::RunCode;
pub use seeds::{InstallError, Installed, install};

/// Every kernel of this crate, to be registered with a host.
#[must_use]
pub fn native() -> Vec<Arc<dyn Kernel>> {
    vec![Arc::new(RunCode)]
}

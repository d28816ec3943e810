//! The behaviours of LogLine as kernels, and their seeds.
//!
//! A host registers [`native`] and installs the seeds once; Stage-0 then boots each kernel from its signed span.

mod guest;
mod run;
mod run_code;
mod seeds;
mod worker;

use std::sync::Arc;

use logline_core::kernel::{Kernel, Service};

pub use run::Run;
pub use run_code::RunCode;
pub use seeds::{InstallError, Installed, install};
pub use worker::{Worked, WorkerOptions};

/// Every kernel of this crate, to be registered with a host.
#[must_use]
pub fn native() -> Vec<Arc<dyn Kernel>> {
    vec![Arc::new(RunCode)]
}

/// Every loop of this crate, to be registered with a host that [runs](Run) them.
#[must_use]
pub fn services() -> Vec<Service> {
    vec![worker::SERVICE]
}

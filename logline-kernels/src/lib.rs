//! The behaviours of LogLine as kernels, and their seeds.
//!
//! A host installs [`all`]: `Host::builder().install(logline_kernels::all())`. [`install`] seals the function spans of a set into the
//! ledger once; Stage-0 then boots each kernel and loop from its signed span, where the manifest allows it.

pub mod harness;
mod replay;
mod run_code;
pub mod schedule;
mod seeds;
mod worker;

use logline_core::KernelSet;

pub use harness::{Loops, Ran, Run};
pub use replay::{Difference, Replay, ReplayError, replay};
pub use run_code::{HOST_COLUMNS, RunCode, publish_module};
pub use schedule::{Scheduler, SchedulerOptions, SchedulerReport};
pub use seeds::{InstallError, Installed, install, install_one, parse_seeds};
pub use worker::{Worker, WorkerOptions, WorkerReport};

/// Everything of this crate: the kernel `run_code`, the loops `request_worker` and `observer_bot`, what checks functions before they are
/// published, and the seeds of the three.
#[must_use]
pub fn all() -> KernelSet {
    KernelSet::new()
        .kernel(RunCode::default())
        .service(Worker::default())
        .service(Scheduler::default())
        .validator(schedule::FunctionValidator)
        .seeds(seeds::kernels())
}

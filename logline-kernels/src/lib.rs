#![doc = include_str!("../README.md")]

pub mod governance;
pub mod harness;
mod measured;
pub mod provider;
pub mod recall;
mod replay;
mod run_code;
pub mod schedule;
mod seeds;
pub mod tool;
mod worker;

use logline_core::KernelSet;

pub use harness::{Loops, Ran, Run};
pub use measured::Measured;
pub use replay::{Difference, Replay, ReplayError, replay};
pub use run_code::{HOST_COLUMNS, RunCode, publish_module};
pub use schedule::{Scheduler, SchedulerOptions, SchedulerReport};
pub use seeds::{InstallError, Installed, install, install_one, parse_seeds};
pub use worker::{Worker, WorkerOptions, WorkerReport};

/// As [`all`], with the kernel `provider_exec`, and with functions that can ask the same providers.
#[must_use]
pub fn with_providers(exec: &provider::ProviderExec) -> KernelSet {
    set(RunCode::default().providers(exec.providers())).and(exec.behaviours())
}

/// Everything in this crate that needs no clients: the kernel `run_code`, the loops `request_worker` and `observer_bot`, the validator that checks
/// functions before they are published, and the seeds of the kernel and the loops.
#[must_use]
pub fn all() -> KernelSet {
    set(RunCode::default())
}

fn set(run_code: RunCode) -> KernelSet {
    KernelSet::new()
        .kernel(run_code)
        .service(Worker::default())
        .service(Scheduler::default())
        .validator(schedule::FunctionValidator)
        .seeds(seeds::kernels())
}

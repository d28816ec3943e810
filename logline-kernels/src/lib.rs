//! The behaviours of LogLine as kernels, and their seeds.
//!
//! A host registers [`native`] and installs the seeds once; Stage-0 then boots each kernel from its signed span.

mod blob;
mod guest;
mod journal;
mod observer;
mod pace;
pub mod policy;
mod record;
mod replay;
mod run;
mod run_code;
pub mod schedule;
mod seeds;
mod standing;
mod worker;

use std::sync::Arc;

use logline_core::kernel::{Kernel, Service, Validator};

pub use blob::publish_module;
pub use observer::{Observed, ObserverOptions};
pub use policy::agent::{AgentOptions, Decided};
pub use policy::due::PolicyDue;
pub use replay::{Difference, Replay, ReplayError, replay};
pub use run::{Loops, Ran, Run};
pub use run_code::RunCode;
pub use seeds::{InstallError, Installed, built_in_policies, install, install_policies, policy_id};
pub use worker::{Worked, WorkerOptions};

/// Every kernel of this crate, to be registered with a host.
#[must_use]
pub fn native() -> Vec<Arc<dyn Kernel>> {
    vec![Arc::new(RunCode::default()), Arc::new(PolicyDue)]
}

/// Every loop of this crate, to be registered with a host that [runs](Run) them.
#[must_use]
pub fn services() -> Vec<Service> {
    vec![worker::SERVICE, observer::SERVICE, policy::agent::SERVICE]
}

/// What refuses policies and schedules that would not work when they are published, to be registered with a host.
#[must_use]
pub fn validators() -> Vec<Arc<dyn Validator>> {
    vec![Arc::new(policy::Standards)]
}

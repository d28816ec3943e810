#![doc = include_str!("../README.md")]

mod action;
mod active;
mod agent;
mod batch;
mod bound;
mod cursor;
mod dry_run;
mod due;
mod effects;
mod expression;
mod gate;
mod policy;
mod seeds;
mod site;
mod template;
mod tenant;
mod value;
mod wasm;

use logline_core::KernelSet;

pub use action::{Action, MAX_ACTIONS};
pub use agent::PolicyAgent;
pub use dry_run::{DryRunOptions, Foreseen, dry_run};
pub use due::PolicyDue;
pub use effects::MAX_DEPTH;
pub use gate::DryRunTest;
pub use policy::{DEFAULT_EFFECTS_PER_DAY, Decision, Facts, Policy, PolicyValidator};
pub use seeds::{built_in_policies, install_policies, policy_id};
pub use site::{AgentOptions, AgentReport};
pub use wasm::Sandboxed;

/// The column `this` of a request to decide about a span again at a time that the policy has named.
pub const POLICY_DUE: &str = "policy.due";

/// The name of the kernel and of the loop. Both boot from the same function span.
const NAME: &str = "policy_agent";
const VERSION: u32 = 1;

/// Everything in this crate: the kernel and the loop `policy_agent`, the validator that checks policies before they are
/// published, and the seed of `policy_agent`.
#[must_use]
pub fn all() -> KernelSet {
    KernelSet::new().kernel(PolicyDue).service(PolicyAgent::default()).validator(PolicyValidator).seeds(seeds::kernels())
}

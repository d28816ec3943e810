#![doc = include_str!("../README.md")]

#[cfg(all(feature = "sqlite", feature = "wasm"))]
mod dev;
mod failed;
pub mod home;
mod signal;

#[cfg(all(feature = "sqlite", feature = "wasm"))]
pub use dev::{Dev, DevError, dev};
pub use failed::Failed;
#[cfg(feature = "bedrock")]
pub use logline_bedrock as bedrock;
pub use logline_core as core;
#[cfg(feature = "http")]
pub use logline_http as http;
pub use logline_kernels as kernels;
#[cfg(feature = "log")]
pub use logline_log as log;
#[cfg(feature = "memory")]
pub use logline_memory as memory;
#[cfg(feature = "openai")]
pub use logline_openai as openai;
#[cfg(feature = "postgres")]
pub use logline_pg as postgres;
#[cfg(feature = "policies")]
pub use logline_policy as policy;
#[cfg(feature = "prompts")]
pub use logline_prompts as prompts;
#[cfg(feature = "sqlite")]
pub use logline_sqlite as sqlite;
#[cfg(feature = "wasm")]
pub use logline_wasm as wasm;
pub use signal::shutdown_signal;

/// Every kernel, loop and validator of the features that are on, with their seeds.
#[must_use]
pub fn behaviours() -> core::KernelSet {
    let set = kernels::all();
    #[cfg(feature = "policies")]
    let set = set.and(policy::all());
    governed(set)
}

/// As [`behaviours`], with a host's providers: functions and prompts may ask them. Prompts need the feature `prompts`.
#[must_use]
pub fn behaviours_with(providers: &kernels::provider::ProviderExec) -> core::KernelSet {
    #[cfg(feature = "prompts")]
    return behaviours_with_prompts(providers, &prompts::RunPrompt::new(providers.providers()));
    #[cfg(not(feature = "prompts"))]
    governed(with_policies(kernels::with_providers(providers)))
}

/// As [`behaviours_with`], with this kernel for prompts, which may have been given what [finds memories](prompts::RunPrompt::recall).
#[cfg(feature = "prompts")]
#[must_use]
pub fn behaviours_with_prompts(providers: &kernels::provider::ProviderExec, run: &prompts::RunPrompt) -> core::KernelSet {
    governed(with_policies(kernels::with_providers(providers)).and(prompts::all(run)))
}

fn with_policies(set: core::KernelSet) -> core::KernelSet {
    #[cfg(feature = "policies")]
    let set = set.and(policy::all());
    set
}

/// The set with the kernel that carries out what a quorum has approved.
fn governed(set: core::KernelSet) -> core::KernelSet {
    let governor = kernels::governance::Governor::new(set.clone());
    #[cfg(feature = "policies")]
    let governor = governor.test(policy::DryRunTest);
    set.and(governor.behaviour())
}

//! The kernels of this crate, with the seeds of their function spans.

use logline_core::KernelSet;

use crate::chooser::PromptBandit;
use crate::eval::EvalPrompt;
use crate::kernel::BuildPrompt;
use crate::run::RunPrompt;

const SEEDS: &str = include_str!("../seeds/prompts.ndjson");

/// Building and running prompts, evaluating variants, and choosing between them. `run` asks the providers that it was given.
#[must_use]
pub fn all(run: &RunPrompt) -> KernelSet {
    // The tests prove that the seeds can be read.
    let seeds = logline_kernels::parse_seeds(SEEDS).unwrap_or_default();
    KernelSet::new()
        .kernel(BuildPrompt)
        .kernel(run.clone())
        .kernel(PromptBandit)
        .kernel(EvalPrompt::new(run.providers()))
        .seeds(seeds)
}

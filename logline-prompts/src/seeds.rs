//! The kernels of this crate, with the seeds of their function spans.

use logline_core::KernelSet;

use crate::chooser::PromptBandit;
use crate::kernel::BuildPrompt;
use crate::run::RunPrompt;

const SEEDS: &str = include_str!("../seeds/prompts.ndjson");

/// Building and running prompts, and choosing between variants. `run` asks the providers that it was given.
#[must_use]
pub fn all(run: &RunPrompt) -> KernelSet {
    // The tests prove that the seeds can be read.
    let seeds = logline_kernels::parse_seeds(SEEDS).unwrap_or_default();
    KernelSet::new().kernel(BuildPrompt).kernel(run.clone()).kernel(PromptBandit).seeds(seeds)
}

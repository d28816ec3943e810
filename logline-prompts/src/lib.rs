#![doc = include_str!("../README.md")]

mod block;
mod build;
mod contract;
mod explain;
mod ids;
mod kernel;
mod language;
mod load;
mod record;
mod render;
mod run;
mod seeds;
mod variable;
mod variant;
mod verify;

pub use block::{Block, MAX_BLOCKS, Rank};
pub use build::{BuildError, Built, MAX_TEXT_BYTES, build};
pub use contract::{answer_contract, insufficient};
pub use explain::{ExplainError, Explained, Try, explain};
pub use ids::{BUILD_PROMPT, PROMPT_RUNNER, build_prompt, prompt_runner};
pub use kernel::{BuildPrompt, PROMPT_BUILD};
pub use load::{LoadError, Loaded, load};
pub use run::{PROMPT_RUN, RunPrompt};
pub use seeds::all;
pub use variable::{Kind, Variable};
pub use variant::{Ran, Shot, Variant};
pub use verify::{VerifyBuildError, verify_build};

#![doc = include_str!("../README.md")]

pub mod bandit;
mod block;
mod build;
mod chooser;
mod contract;
mod conversation;
mod directives;
pub mod eval;
mod explain;
mod family;
mod ids;
mod kernel;
mod language;
mod learn;
mod load;
mod question;
pub mod rates;
mod record;
mod render;
mod results;
mod run;
mod samples;
mod seeds;
mod select;
mod talk;
mod templates;
mod tools;
mod variable;
mod variant;
mod verify;
mod verify_selection;

pub use block::{Block, MAX_BLOCKS, Rank};
pub use build::{BuildError, Built, MAX_TEXT_BYTES, build};
pub use chooser::{PROMPT_LEARN, PROMPT_SELECT, PromptBandit};
pub use contract::{answer_contract, insufficient};
pub use explain::{Checked, ExplainError, Explained, ToolCall, Try, explain, explain_with};
pub use family::{Family, Guard, MAX_VARIANTS, Metric};
pub use ids::{
    BUILD_PROMPT, PROMPT_BANDIT, PROMPT_EVAL, PROMPT_RUNNER, build_prompt, prompt_bandit, prompt_eval, prompt_runner,
};
pub use kernel::{BuildPrompt, PROMPT_BUILD};
pub use load::{LoadError, Loaded, Versions, load};
pub use run::{PROMPT_RUN, RunPrompt};
pub use samples::{sample_id, samples};
pub use seeds::all;
pub use tools::{MAX_TOOL_ROUNDS, MAX_TOOLS};
pub use variable::{Kind, Variable};
pub use variant::{Ran, Shot, Variant};
pub use verify::{VerifyBuildError, verify_build, verify_build_with};
pub use verify_selection::{VerifySelectionError, verify_selection};

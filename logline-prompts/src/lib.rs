#![doc = include_str!("../README.md")]

mod block;
mod build;
mod ids;
mod kernel;
mod language;
mod load;
mod render;
mod variable;
mod variant;
mod verify;

pub use block::{Block, MAX_BLOCKS, Rank};
pub use build::{BuildError, Built, MAX_TEXT_BYTES, build};
pub use ids::{BUILD_PROMPT, build_prompt};
pub use kernel::{BuildPrompt, PROMPT_BUILD, all};
pub use load::{LoadError, Loaded, load};
pub use variable::{Kind, Variable};
pub use variant::{Shot, Variant};
pub use verify::{VerifyBuildError, verify_build};

//! Evaluating variants: fixtures are asked, answers are checked, and rates come with their intervals.

mod check;
mod fixture;
pub mod import;
mod judge;
mod kernel;
pub mod report;
mod suite;
mod tally;
mod trials;

pub use fixture::{Expectation, Fixture, FixtureKind};
pub use kernel::{EvalPrompt, PROMPT_EVALUATE};
pub use suite::{Gate, Judge, Labelled, MAX_FIXTURES, Suite};
pub use tally::{Agreement, Counts, EvalRun, GateResult, JudgeReport, KindRate, Trial, Verdict};

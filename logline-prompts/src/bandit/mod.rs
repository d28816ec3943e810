//! Choosing between the variants of a family: pure functions, whose results anybody can compute again.
//!
//! The choice is Thompson sampling: a variant is shown as often as it is likely to be the best. How likely that is, its *share*, is
//! computed when the counts are renewed, from a recorded seed; a choice then draws from the shares. So the probability of each choice
//! is known exactly, and recorded with it.

mod chance;
mod choice;
mod drift;
mod shares;

pub use chance::Chance;
pub use choice::{Arm, Choice, Why, choose};
pub use drift::since_change;
pub use shares::{Counts, DRAWS, shares};

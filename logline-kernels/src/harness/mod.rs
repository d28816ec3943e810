//! For crates that implement loops: running loops together, pauses, and the list of active schedules and policies.

pub mod active;
mod hold;
mod loops;
mod pace;

pub use hold::holding;
pub use loops::{Loops, Ran, Run};
pub use pace::{Backoff, is_general, jittered, may_pass};

//! What loops and kernels share: running loops together, pauses, and the list of what is active. For crates that bring loops.

pub mod active;
mod loops;
mod pace;

pub use loops::{Loops, Ran, Run};
pub use pace::{Backoff, is_general, jittered, may_pass};

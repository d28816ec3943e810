//! Schedules: functions that run by themselves at the times in their metadata.

mod rule;
mod scheduler;
mod validator;

pub use rule::{CatchUp, GRACE, MAX_CAUGHT_UP, Schedule};
pub use scheduler::{Scheduler, SchedulerOptions, SchedulerReport};
pub use validator::FunctionValidator;

/// The name of the loop.
const NAME: &str = "observer_bot";

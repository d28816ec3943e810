//! Schedules: functions that run by themselves, at times that their metadata names.

mod rule;
mod scheduler;
mod validator;

pub use rule::{CatchUp, GRACE, MAX_CAUGHT_UP, Schedule};
pub use scheduler::{Scheduler, SchedulerOptions, SchedulerReport};
pub use validator::FunctionValidator;

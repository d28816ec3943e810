//! `run_code`: runs a tenant's function in a sandbox for one request.

mod blob;
mod emit;
mod guest;
mod journal;
mod kernel;
mod outcome;
mod query;

pub use blob::publish_module;
pub use emit::HOST_COLUMNS;
pub use kernel::RunCode;

pub(crate) use blob::{Blobs, Code};
pub(crate) use guest::{Facts, Guest};
pub(crate) use journal::{Answer, Journal, Source, foreign_cursor, full, page};
pub(crate) use kernel::{NAME, call};
pub(crate) use outcome::Outcome;

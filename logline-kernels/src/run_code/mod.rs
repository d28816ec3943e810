//! `run_code`: runs a tenant's function in a sandbox for one request.

mod blob;
mod call;
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
pub(crate) use call::{Wanted, answer as call_answer};
pub(crate) use guest::{Facts, Guest};
pub(crate) use journal::{Answer, CALL_ROOM, Journal, Named, Source, foreign_cursor, full, page};
pub(crate) use kernel::{NAME, call};
pub(crate) use outcome::Outcome;

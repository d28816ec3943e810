//! The values that spans are made of: hashes and keys as hex, strict JSON, timestamps, ids, and recorded failures.

pub(crate) mod clock;
pub(crate) mod failure;
pub(crate) mod hex;
pub mod ids;
pub mod json;
pub mod new_file;
pub(crate) mod recent;
pub(crate) mod timestamp;

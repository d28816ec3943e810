//! What the scan, the engine and the calls must agree on: the names of the one import, and the bounds of memory and tables.

/// The module of the one import.
pub(crate) const MODULE: &str = "logline";

/// The name of the one import.
pub(crate) const HOST_CALL: &str = "host_call";

/// The most linear memory that any call can have.
pub(crate) const MAX_MEMORY: usize = 64 << 20;

/// The most elements of a table.
pub(crate) const MAX_TABLE: usize = 10_000;

/// Work charged for what goes to the host, and for what comes back, besides one unit per byte: what it costs the host must cost the
/// guest.
pub(crate) const HOST_MESSAGE_FUEL: u64 = 200;

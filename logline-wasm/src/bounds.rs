//! What the scan, the engine and the calls must agree on: the names of the only import, and the bounds of memory and tables.

/// The module name of the only import that a module may have.
pub(crate) const MODULE: &str = "logline";

/// The function name of that import.
pub(crate) const HOST_CALL: &str = "host_call";

/// The most linear memory that any call can have, bytes.
pub(crate) const MAX_MEMORY: usize = 64 << 20;

/// The most elements that a table can have.
pub(crate) const MAX_TABLE: usize = 10_000;

/// Fuel charged for the argument of a host call, and again for its answer, besides one unit per byte. The guest must pay for
/// the work that it causes on the host.
pub(crate) const HOST_MESSAGE_FUEL: u64 = 200;

/// Fuel charged for the answer to a query. A statement takes the database about as long as a guest's 50,000 instructions.
pub(crate) const QUERY_FUEL: u64 = 50_000;

/// Fuel charged for each row that a query looked at, whether or not it returned the row. The database takes about a microsecond.
pub(crate) const VISIT_FUEL: u64 = 1_000;

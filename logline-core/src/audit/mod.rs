//! Checking a ledger, and moving it: `fsck`, export and import.

pub mod fsck;
pub mod ndjson;

//! Checks and copies ledgers: `fsck`, export and import.

pub mod fsck;
pub mod ndjson;
mod parallel;
mod promotions;
mod ran;

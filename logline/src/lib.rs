//! LogLine in one dependency: the crates that a service composes, under one name.

pub use logline_core as core;
pub use logline_kernels as kernels;
#[cfg(feature = "postgres")]
pub use logline_pg as pg;
#[cfg(feature = "policies")]
pub use logline_policy as policy;
#[cfg(feature = "sqlite")]
pub use logline_sqlite as sqlite;
#[cfg(feature = "wasm")]
pub use logline_wasm as wasm;

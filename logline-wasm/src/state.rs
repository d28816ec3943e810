//! The state of one call in its store, and the limits of memory and tables that are enforced while the guest runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logline_core::trust::Limits;
use wasmtime::{ModuleExport, ResourceLimiter};

use crate::bounds::MAX_TABLE;
use crate::channel::HostChannel;

/// The fuel that a guest uses before it lets others run. It lasts some tens of microseconds.
pub(crate) const SLICE: u64 = 50_000;

/// The state of one call.
pub(crate) struct CallState {
    pub(crate) channel: Arc<HostChannel>,
    /// The exports that ABI v1 needs; `None` for components.
    pub(crate) exports: Option<Exports>,
    pub(crate) limits: Limits,
    pub(crate) host_calls: u32,
    /// Whether a host call is waiting for the guest's `alloc`.
    pub(crate) in_alloc: bool,
    /// `memory` or `table`, if the guest asked for more of it than it may have.
    pub(crate) denied: Option<&'static str>,
}

/// The exports of a module that ABI v1 needs.
#[derive(Clone, Copy)]
pub(crate) struct Exports {
    pub(crate) memory: ModuleExport,
    pub(crate) alloc: ModuleExport,
    pub(crate) run: ModuleExport,
}

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.limits.memory_bytes {
            self.denied = Some("memory");
            return Ok(false);
        }
        self.channel.peak_memory.fetch_max(desired as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE {
            self.denied = Some("table");
            return Ok(false);
        }
        Ok(true)
    }
}

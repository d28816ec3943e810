//! What the store of one call holds, and the limits that it keeps while the guest runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logline_core::trust::Limits;
use wasmtime::{ModuleExport, ResourceLimiter};

use crate::bounds::MAX_TABLE;
use crate::channel::HostChannel;

/// Fuel between two points at which a guest lets others run: some tens of microseconds.
pub(crate) const SLICE: u64 = 50_000;

/// What a store of one call holds.
pub(crate) struct CallState {
    pub(crate) channel: Arc<HostChannel>,
    /// Where the instance has what ABI v1 needs; `None` for components.
    pub(crate) exports: Option<Exports>,
    pub(crate) limits: Limits,
    pub(crate) host_calls: u32,
    /// Whether the guest's `alloc` runs on behalf of a host call.
    pub(crate) in_alloc: bool,
    /// Whether the guest asked for more memory or table than it may have.
    pub(crate) denied: Option<&'static str>,
}

/// Where an instance has what the interface needs.
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

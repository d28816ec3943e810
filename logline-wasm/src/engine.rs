//! The engine and its settings, chosen once for every module.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// Calls that can be under way at once; further ones wait.
pub(crate) const POOL: u32 = 64;

/// The most linear memory that any call can have.
pub(crate) const MAX_MEMORY: usize = 64 << 20;

/// The most elements of a table.
pub(crate) const MAX_TABLE: usize = 10_000;

/// Engine, version and the settings that decide what code computes, as a name in receipts.
pub(crate) const NAME: &str = "wasmtime 48 cranelift; fuel 1; nan canonical; no simd";

pub(crate) fn new() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(POOL)
        .total_memories(POOL)
        .total_tables(POOL)
        // A call to the guest's `alloc` from within a host call runs on a stack of its own.
        .total_stacks(2 * POOL)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(MAX_MEMORY)
        .table_elements(MAX_TABLE)
        // Warm slots keep a little memory resident, so that most calls fault in no page.
        .linear_memory_keep_resident(256 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MAX_MEMORY as u64)
        .memory_guard_size(64 << 10)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .consume_fuel(true)
        // The same bytes compute the same on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_simd(false)
        .cranelift_opt_level(OptLevel::Speed)
        // What guests do not need is not there to be attacked.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_backtrace_max_frames(None);
    Engine::new(&config)
}

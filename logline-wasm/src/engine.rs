//! The engine and its settings, which are the same for every module.

use logline_core::{Hash, canonical};
use serde_json::json;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::bounds::{HOST_MESSAGE_FUEL, MAX_MEMORY, MAX_TABLE, QUERY_FUEL, VISIT_FUEL};
use crate::scan::{self, Scan};

/// The version of wasmtime that this crate is built with. A test compares it with `Cargo.lock`.
pub(crate) const VERSION: &str = "48.0.8";

/// The stack of a guest, bytes.
pub(crate) const STACK: usize = 512 << 10;

/// The name and version of the engine, as receipts have it.
pub(crate) fn name() -> String {
    format!("wasmtime {VERSION}")
}

/// A hash of everything that a module's output and fuel depend on: engine, version, and the settings below. The machine is not
/// part of it, because a module computes the same on every machine.
pub(crate) fn hash(runtime: &str, scan: Scan) -> Hash {
    let settings = json!({
        "engine": "wasmtime",
        "version": VERSION,
        "abi": runtime,
        "features": {
            "bulk_memory": true, "extended_const": true, "multi_value": true,
            "memory64": false, "multi_memory": false, "relaxed_simd": false, "simd": false, "tail_call": false,
        },
        "nan": "canonical",
        "fuel": {"operators": "default", "host_message": HOST_MESSAGE_FUEL, "host_message_byte": 1, "query": QUERY_FUEL, "visited_row": VISIT_FUEL, "answers": "before they are cut"},
        "memory_images": false,
        "memory_bytes": MAX_MEMORY,
        "table_elements": MAX_TABLE,
        "stack_bytes": STACK,
        "scan": scan::limits(scan),
    });
    Hash::of(&canonical::to_vec(&settings))
}

/// The settings that decide which modules are accepted, and which machine code they become. An engine that only compiles has
/// the same settings.
pub(crate) fn compiling() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(MAX_MEMORY as u64)
        .memory_guard_size(64 << 10)
        .max_wasm_stack(STACK)
        .async_stack_size(1 << 20)
        .consume_fuel(true)
        // Memory is initialised by code, which is bounded and uses fuel. A memory image would be as large as the distance
        // between two segments, and would hold a file descriptor.
        .memory_init_cow(false)
        // A module computes the same on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_simd(false)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_extended_const(true)
        // Features that guests do not need are off, so they cannot be attacked.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_backtrace_max_frames(None);
    #[cfg(feature = "component-model")]
    config.wasm_component_model(true);
    config
}

/// Makes an engine with a pool of instances for this many calls.
pub(crate) fn new(calls: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(calls)
        .total_memories(calls)
        .total_tables(calls)
        // Each call may need two stacks: the host calls the guest's `alloc` on another stack during a host call.
        .total_stacks(2 * calls)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(MAX_MEMORY)
        .table_elements(MAX_TABLE)
        // Used slots keep a little memory resident, so that most calls cause no page fault.
        .linear_memory_keep_resident(256 << 10);
    #[cfg(feature = "component-model")]
    pool.total_component_instances(calls)
        .max_core_instances_per_component(scan::MAX_CORE_INSTANCES)
        .total_core_instances(calls * scan::MAX_CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_tables_per_component(scan::MAX_CORE_INSTANCES)
        .total_tables(calls * scan::MAX_CORE_INSTANCES);
    let mut config = compiling();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_receipts_is_the_one_that_runs() {
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{VERSION}\"\n")), "set engine::VERSION");
    }

    #[test]
    fn the_settings_are_those_that_the_hash_names() {
        let features = Engine::new(&compiling()).unwrap();
        let accepts = |module: &str| wasmtime::Module::validate(&features, &wat::parse_str(module).unwrap()).is_ok();
        for (name, module, wanted) in [
            ("bulk_memory", "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))", true),
            ("multi_value", "(module (func (result i32 i32) (i32.const 0) (i32.const 0)))", true),
            ("extended_const", "(module (global i32 (i32.add (i32.const 1) (i32.const 1))))", true),
            ("memory64", "(module (memory i64 1))", false),
            ("multi_memory", "(module (memory 1) (memory 1))", false),
            ("simd", "(module (func (drop (v128.const i64x2 0 0))))", false),
            ("tail_call", "(module (func $f (return_call $f)))", false),
            ("threads", "(module (memory 1 1 shared))", false),
            ("exceptions", "(module (tag (param i32)))", false),
            ("gc", "(module (type (struct)))", false),
        ] {
            assert_eq!(accepts(module), wanted, "{name}");
        }
        // INVARIANT: the hash changes if one of the settings changes. Otherwise receipts of an older version would pass for
        // this one's.
        assert_eq!(
            hash(crate::RUNTIME, Scan::Cost).to_string(),
            "f5933051760c93097e31c9dea50de2d621db52ec05596120a6e575bc4bcd75f2"
        );
    }
}

//! What each fuzz target does with its bytes; the suite does it with the corpora.
#![allow(dead_code, reason = "each target uses its own part")]

use std::sync::OnceLock;

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::contract::{HostCalls, Job, Sandbox as _};
use logline_core::trust::Limits;
use logline_core::{Rules, Timestamp, json, parse_draft, parse_line, parse_unsealed};
use logline_wasm::{WasmOptions, WasmSandbox};
use serde_json::Value;

/// A line is read or refused, and what was read is written the same.
pub(crate) fn spans(bytes: &[u8]) {
    let rules = Rules::default();
    if let Ok(logline_core::ParsedSpan::Signed(span)) = parse_line(bytes, &rules) {
        let line = span.to_line();
        match parse_line(&line, &rules) {
            Ok(logline_core::ParsedSpan::Signed(again)) => assert_eq!(again.to_line(), line),
            other => panic!("what was read cannot be read again: {other:?}"),
        }
    }
    let _ = parse_unsealed(bytes, &rules);
    if let Ok(value) = json::parse(bytes) {
        let canonical = logline_core::canonical::to_vec(&value);
        let again = json::parse(&canonical).expect("the canonical form is acceptable JSON");
        assert_eq!(logline_core::canonical::to_vec(&again), canonical);
        let _ = parse_draft(value);
    }
}

/// A module is refused, or runs within its limits.
pub(crate) fn modules(bytes: &[u8]) {
    if logline_wasm::check(bytes).is_ok() {
        run(&logline_wasm::encode_binary(bytes));
    }
}

/// A guest that asks and answers with numbers of somebody's choosing.
pub(crate) fn answers(bytes: &[u8]) {
    let number = |at: usize| {
        let mut four = [0; 4];
        four.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
        i32::from_le_bytes(four)
    };
    let [op, pointer, len, high, low, place] = [0, 4, 8, 12, 16, 20].map(number);
    let data: String = bytes.iter().skip(24).take(4096).map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"(module
          (import "logline" "host_call" (func $host (param i32 i32 i32) (result i64)))
          (memory (export "memory") 1)
          (data (i32.const 0) "{data}")
          (func (export "alloc") (param i32) (result i32) (i32.const {place}))
          (func (export "run") (param i32 i32) (result i64)
            (drop (call $host (i32.const {op}) (i32.const {pointer}) (i32.const {len})))
            (i64.or (i64.shl (i64.extend_i32_u (i32.const {high})) (i64.const 32)) (i64.extend_i32_u (i32.const {low})))))"#
    );
    run(&module);
}

/// Every way in which a run of hostile code may end.
const ENDS: &[&str] = &[
    "fuel_exhausted",
    "host_call_limit",
    "invalid_module",
    "invalid_output",
    "memory_limit",
    "module_limit",
    "out_of_range",
    "output_limit",
    "re_entrant",
    "stack_overflow",
    "timeout",
    "trap",
];

fn run(code: &str) {
    static SANDBOX: OnceLock<WasmSandbox> = OnceLock::new();
    let sandbox = SANDBOX.get_or_init(|| WasmSandbox::with(WasmOptions::new().calls(4)).expect("a sandbox"));
    let limits = serde_json::json!({"fuel": 200_000, "memory_bytes": 1 << 20, "timeout_ms": 10_000, "host_calls": 10});
    let limits = Limits::default().with(&limits).expect("limits");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let argument = Value::from("argument");
    let report = runtime.block_on(sandbox.run(Job::new("acme", code, &argument, &limits), &mut Desk));
    if let Err(Failure { code, message }) = &report.result {
        assert!(code.starts_with("guest:") || ENDS.contains(&code.as_str()), "{code}: {message}");
    }
    assert!(report.receipt.fuel_used <= limits.fuel && report.receipt.peak_memory_bytes <= limits.memory_bytes);
}

struct Desk;

#[async_trait]
impl HostCalls for Desk {
    fn log(&mut self, _: Value) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        Ok(vec![7; bytes])
    }

    async fn query(&mut self, query: Value) -> Result<Value, Failure> {
        Ok(query)
    }

    fn emit(&mut self, draft: Value) -> Result<Value, Failure> {
        parse_draft(draft).map(|_| Value::Null).map_err(|e| Failure::new("invalid_draft", e.to_string()))
    }
}

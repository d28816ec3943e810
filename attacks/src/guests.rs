//! Functions in WebAssembly text.

/// A module with a bump allocator and this body of `run`, which has the parameters `$ptr` and `$len`.
fn module(items: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "logline" "host_call" (func $host (param i32 i32 i32) (result i64)))
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "alloc") (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1)))))
    (local.get $at))
  {items}
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    {body}))"#
    )
}

/// Returns its argument.
pub(crate) fn echo() -> String {
    module("", "(i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))")
}

/// Uses all its fuel.
pub(crate) fn spin() -> String {
    module("", "(loop $again (br $again)) (i64.const 0)")
}

/// Sends the same query over and over, until its fuel or its calls are used up.
pub(crate) fn query(query: &str) -> String {
    let data = query.replace('"', "\\22");
    let body = format!(
        "(loop $again (drop (call $host (i32.const 4) (i32.const 1024) (i32.const {}))) (br $again)) (i64.const 0)",
        query.len()
    );
    module(&format!(r#"(data (i32.const 1024) "{data}")"#), &body)
}

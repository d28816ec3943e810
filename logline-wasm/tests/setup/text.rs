//! Functions in WebAssembly text, for the tests of several crates.
#![allow(dead_code, reason = "each test file uses its own part")]

/// A module with a bump allocator and the given body of `run`, which has the parameters `$ptr` and `$len`. `$pack` makes a
/// result of a pointer and a length, `$host` calls the host.
pub(crate) fn module(items: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "logline" "host_call" (func $host (param i32 i32 i32) (result i64)))
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func $alloc (export "alloc") (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1)))))
    (local.get $at))
  (func $pack (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
  {items}
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    {body}))"#
    )
}

/// A module that asks the host one question and returns the answer, error or not, as its output.
pub(crate) fn ask(op: i32, argument: &str) -> String {
    let data = argument.replace('\\', "\\5c").replace('"', "\\22");
    module(
        &format!(r#"(data (i32.const 1024) "{data}")"#),
        &format!(
            "(i64.and (call $host (i32.const {op}) (i32.const 1024) (i32.const {})) (i64.const 0xffffffff7fffffff))",
            argument.len()
        ),
    )
}

/// A module that returns its argument.
pub(crate) fn echo() -> String {
    module("", "(call $pack (local.get $ptr) (local.get $len))")
}

/// A module that returns this text.
pub(crate) fn answer(text: &str) -> String {
    let data = text.replace('\\', "\\5c").replace('"', "\\22");
    module(
        &format!(r#"(data (i32.const 1024) "{data}")"#),
        &format!("(call $pack (i32.const 1024) (i32.const {}))", text.len()),
    )
}

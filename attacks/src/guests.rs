//! Functions in WebAssembly text.

#[path = "../../logline-wasm/tests/setup/text.rs"]
mod text;

pub(crate) use text::echo;
use text::module;

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

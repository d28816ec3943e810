//! Functions as components: the same host, limits and answers as modules by ABI v1. (`cargo xtask test` runs this with the feature.)
#![cfg(feature = "component-model")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use logline_core::Failure;
use logline_core::contract::{Job, Report, Sandbox as _};
use logline_core::trust::Limits;
use logline_wasm::{COMPONENT_RUNTIME, CacheKey, Compiler, WasmOptions, WasmSandbox};
use serde_json::{Value, json};

use setup::{Desk, block_on, echo};

/// A component whose `run` has this body, with `$ptr` and `$len` its argument. `$ok` and `$err` make a result of a text, `$now`, `$query`,
/// `$emit` and `$random` call the host and leave their result at an address.
fn component(items: &str, body: &str) -> String {
    format!(
        r#"(component
  (import "logline:kernel/host@1.0.0" (instance $host
    (type $record (record (field "code" string) (field "message" string)))
    (export "failure" (type $failure (eq $record)))
    (export "log" (func (param "level" string) (param "message" string) (param "fields" (option string)) (result (result (error $failure)))))
    (export "now" (func (result string)))
    (export "random" (func (param "bytes" u32) (result (result (list u8) (error $failure)))))
    (export "query" (func (param "json" string) (result (result string (error $failure)))))
    (export "emit" (func (param "json" string) (result (result string (error $failure)))))))
  (alias export $host "failure" (type $failure))
  (core module $libc
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32) (param $len i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $len)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1))))))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (alias export $host "log" (func $host_log))
  (alias export $host "now" (func $host_now))
  (alias export $host "random" (func $host_random))
  (alias export $host "query" (func $host_query))
  (alias export $host "emit" (func $host_emit))
  (core func $log (canon lower (func $host_log) (memory $memory) (realloc $realloc)))
  (core func $now (canon lower (func $host_now) (memory $memory) (realloc $realloc)))
  (core func $random (canon lower (func $host_random) (memory $memory) (realloc $realloc)))
  (core func $query (canon lower (func $host_query) (memory $memory) (realloc $realloc)))
  (core func $emit (canon lower (func $host_emit) (memory $memory) (realloc $realloc)))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "now" (func $now (param i32)))
    (import "host" "random" (func $random (param i32 i32)))
    (import "host" "query" (func $query (param i32 i32 i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
    (func $ok (param $ptr i32) (param $len i32) (result i32)
      (i32.store (i32.const 256) (i32.const 0)) (i32.store (i32.const 260) (local.get $ptr)) (i32.store (i32.const 264) (local.get $len))
      (i32.const 256))
    (func $err (param $ptr i32) (param $len i32) (result i32)
      (i32.store (i32.const 256) (i32.const 1))
      (i32.store (i32.const 260) (local.get $ptr)) (i32.store (i32.const 264) (local.get $len))
      (i32.store (i32.const 268) (local.get $ptr)) (i32.store (i32.const 272) (local.get $len))
      (i32.const 256))
    {items}
    (func (export "run") (param $ptr i32) (param $len i32) (result i32) {body}))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "log" (func $log)) (export "now" (func $now)) (export "random" (func $random))
      (export "query" (func $query)) (export "emit" (func $emit))))))
  (alias core export $main "run" (core func $run))
  (func (export "run") (param "json" string) (result (result string (error $failure)))
    (canon lift (core func $run) (memory $memory) (realloc $realloc))))"#
    )
}

fn sandbox() -> WasmSandbox {
    WasmSandbox::with(WasmOptions::new().calls(4)).unwrap()
}

async fn run_on(sandbox: &WasmSandbox, code: &str, limits: &Limits) -> Report {
    sandbox.components().run(Job::new("acme", code, &json!({"n": 1}), limits), &mut Desk::default()).await
}

async fn run(code: &str) -> Report {
    run_on(&sandbox(), code, &Limits::default()).await
}

fn failure(report: &Report) -> &Failure {
    report.result.as_ref().expect_err("it must fail")
}

#[test]
fn a_component_is_called_and_asks_its_host() {
    block_on(async {
        let echo = run(&component("", "(call $ok (local.get $ptr) (local.get $len))")).await;
        assert_eq!(echo.result, Ok(json!({"n": 1})));
        assert_eq!((echo.receipt.abi.as_str(), echo.receipt.host_calls), (COMPONENT_RUNTIME, 0));
        assert!(echo.receipt.fuel_used > 0 && echo.receipt.peak_memory_bytes >= 131_072);
        // The time between quotation marks.
        let now = component(
            "",
            r#"(call $now (i32.const 512))
               (i32.store8 (i32.sub (i32.load (i32.const 512)) (i32.const 1)) (i32.const 34))
               (i32.store8 (i32.add (i32.load (i32.const 512)) (i32.load (i32.const 516))) (i32.const 34))
               (call $ok (i32.sub (i32.load (i32.const 512)) (i32.const 1)) (i32.add (i32.load (i32.const 516)) (i32.const 2)))"#,
        );
        let now = run(&now).await;
        assert_eq!(now.result, Ok(json!("1970-01-01T00:00:00.000000Z")));
        assert_eq!(now.receipt.host_calls, 1);
        // How many bytes it drew, as a digit.
        let random = component(
            "",
            r#"(call $random (i32.const 7) (i32.const 512))
               (i32.store8 (i32.const 300) (i32.add (i32.const 48) (i32.load (i32.const 520))))
               (call $ok (i32.const 300) (i32.const 1))"#,
        );
        assert_eq!(run(&random).await.result, Ok(json!(7)));
    });
}

#[test]
fn refusals_of_the_host_are_results_and_errors_of_the_guest_are_its_own() {
    block_on(async {
        // Whatever is refused is returned with its code.
        let asks = |function: &str, text: &str| {
            let data = text.replace('"', "\\22");
            component(
                &format!(r#"(data (i32.const 1024) "{data}")"#),
                &format!(
                    "(call ${function} (i32.const 1024) (i32.const {}) (i32.const 512))
                     (if (result i32) (i32.load8_u (i32.const 512))
                       (then (call $err (i32.load (i32.const 516)) (i32.load (i32.const 520))))
                       (else (call $ok (i32.load (i32.const 516)) (i32.load (i32.const 520)))))",
                    text.len()
                ),
            )
        };
        assert_eq!(failure(&run(&asks("query", "{\"a\":1,\"a\":1}")).await).code, "guest:invalid_json");
        assert_eq!(failure(&run(&asks("emit", "nonsense")).await).code, "guest:invalid_json");
        let id = run(&asks("emit", "{}")).await;
        assert_eq!(failure(&id).code, "invalid_output", "an id is no JSON: {:?}", id.result);
        let random = component(
            "",
            "(call $random (i32.const 5000) (i32.const 512)) (call $err (i32.load (i32.const 516)) (i32.load (i32.const 520)))",
        );
        assert_eq!(failure(&run(&random).await).code, "guest:invalid_random");
    });
}

#[test]
fn a_component_is_held_to_the_same_limits() {
    block_on(async {
        let small: Limits = Limits::default()
            .with(&json!({"fuel": 1_000_000, "host_calls": 5, "output_bytes": 1000, "memory_bytes": 1 << 20, "host_call_bytes": 100}))
            .unwrap();
        let sandbox = sandbox();
        for (what, code, expected) in [
            ("spins", component("", "(loop $again (br $again)) (i32.const 0)"), "fuel_exhausted"),
            ("traps", component("", "unreachable"), "trap"),
            ("floods", component("", "(loop $again (call $now (i32.const 512)) (br $again)) (i32.const 0)"), "host_call_limit"),
            ("answers too much", component("", "(call $ok (i32.const 2048) (i32.const 2000))"), "output_limit"),
            ("answers from elsewhere", component("", "(call $ok (i32.const -8) (i32.const 100))"), "trap"),
            (
                "answers no UTF-8",
                component(r#"(data (i32.const 1024) "\ff\fe")"#, "(call $ok (i32.const 1024) (i32.const 2))"),
                "invalid_output",
            ),
            ("returns nothing", component("", "(i32.const 3)"), "trap"),
            (
                "hoards",
                component("", "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
                "memory_limit",
            ),
            (
                "asks too much",
                component(
                    "",
                    "(call $query (i32.const 1024) (i32.const 200) (i32.const 512)) (call $err (i32.load (i32.const 516)) (i32.load (i32.const 520)))",
                ),
                "guest:too_large",
            ),
        ] {
            let report = run_on(&sandbox, &code, &small).await;
            assert_eq!(failure(&report).code, expected, "{what}: {}", failure(&report).message);
        }
    });
}

#[test]
fn what_is_no_component_of_this_world_is_refused() {
    block_on(async {
        let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string)))))))"#;
        let nested = r#"(component (component))"#;
        let wrong = r#"(component (core module $m (func (export "run"))) (core instance $i (instantiate $m)) (alias core export $i "run" (core func $f)) (func (export "run") (canon lift (core func $f))))"#;
        for (code, reason) in [
            (wasi, "wasi:cli/environment"),
            (nested, "contains other components"),
            (wrong, "does not have the type of the world"),
            ("(component)", "does not export `run`"),
            (echo().as_str(), "publish it with runtime `wasm@1`"),
        ] {
            let report = run(code).await;
            assert_eq!(failure(&report).code, "invalid_module", "{code:.60}");
            assert!(failure(&report).message.contains(reason), "{code:.60}: {}", failure(&report).message);
        }
        let as_module = sandbox();
        let report =
            as_module.run(Job::new("acme", "(component)", &Value::Null, &Limits::default()), &mut Desk::default()).await;
        assert!(failure(&report).message.contains("publish it with runtime `wasm-component@1`"));
        let locals = component(&format!("(func {})", "(local i64)".repeat(501)), "(i32.const 0)");
        assert!(failure(&run(&locals).await).message.contains("501 locals"));
    });
}

#[test]
fn what_a_component_moves_to_its_host_is_bounded_before_it_is_copied_or_read() {
    block_on(async {
        let sandbox = sandbox();
        let grown = |body: &str| component("", &format!("(drop (memory.grow (i32.const 900))) {body}"));
        let most = 50 << 20;
        for (what, code) in [
            ("an argument", grown(&format!("(call $emit (i32.const 0) (i32.const {most}) (i32.const 512)) (i32.const 0)"))),
            ("an error", grown(&format!("(call $err (i32.const 0) (i32.const {most}))"))),
            ("an output", grown(&format!("(call $ok (i32.const 0) (i32.const {most}))"))),
        ] {
            let report = run_on(&sandbox, &code, &Limits::default()).await;
            assert_eq!(failure(&report).code, "trap", "{what}");
            assert!(failure(&report).message.contains("fuel allocated for hostcalls"), "{what}: {}", failure(&report).message);
        }
        // Within what may be moved, an error is no longer than an output may be.
        let error = component(
            "",
            "(memory.fill (i32.const 1024) (i32.const 1) (i32.const 100000)) (call $err (i32.const 1024) (i32.const 100000))",
        );
        assert_eq!(failure(&run(&error).await).code, "output_limit");
    });
}

#[test]
fn a_component_of_many_modules_is_refused_before_any_is_compiled() {
    let module = r#"(core module (memory 256) (data (i32.const 0) "a") (data (i32.const 16777214) "b"))"#;
    let binary = wat::parse_str(format!("(component {})", module.repeat(1000))).unwrap();
    let refused = logline_wasm::check(&binary).unwrap_err();
    assert!(refused.message.contains("more than 4 modules"), "{refused}");
}

#[test]
fn components_are_compiled_elsewhere_and_kept_as_modules_are() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let code = component("", "(call $ok (local.get $ptr) (local.get $len))");
        let compiler = Compiler::new(env!("CARGO_BIN_EXE_logline-wasm-compiler"));
        for compiler in [Some(compiler), None, None] {
            let mut options = WasmOptions::new().calls(2).disk(folder.path(), CacheKey::derive(&[1; 32]));
            if let Some(compiler) = compiler {
                options = options.compiler(compiler);
            }
            let sandbox = WasmSandbox::with(options).unwrap();
            assert_eq!(run_on(&sandbox, &code, &Limits::default()).await.result, Ok(json!({"n": 1})));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    });
}

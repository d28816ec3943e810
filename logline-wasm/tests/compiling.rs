//! Machine code that comes from elsewhere: a process that compiles, and files that keep what was compiled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use logline_wasm::{CacheKey, Compiler, WasmOptions, WasmSandbox};
use serde_json::json;

use setup::{block_on, code, echo, module, run};

const COMPILER: &str = env!("CARGO_BIN_EXE_logline-wasm-compiler");

fn with(options: WasmOptions) -> WasmSandbox {
    WasmSandbox::with(options.calls(2)).unwrap()
}

fn cached(folder: &Path, secret: u8) -> WasmSandbox {
    with(WasmOptions::new().disk(folder, CacheKey::derive(&[secret; 32])))
}

/// The one file of a cache.
fn file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

fn written(file: &Path) -> SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}

#[test]
fn a_module_is_compiled_once_for_several_processes() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let code = echo();
        assert_eq!(run(&cached(folder.path(), 1), &code).await.result, Ok(json!({"n": 1})));
        let first = written(&file(folder.path()));
        // Another process with the same key loads what the first has written.
        assert_eq!(run(&cached(folder.path(), 1), &code).await.result, Ok(json!({"n": 1})));
        assert_eq!(written(&file(folder.path())), first, "it was not compiled again");
    });
}

#[test]
fn a_poisoned_cache_is_not_loaded() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (code, other) = (echo(), module("", "(i64.const 0)"));
        assert!(run(&cached(folder.path(), 1), &code).await.result.is_ok());
        let path = file(folder.path());
        let honest = fs::read(&path).unwrap();
        let others = tempfile::tempdir().unwrap();
        run(&cached(others.path(), 1), &other).await.result.unwrap_err();
        let another_key = tempfile::tempdir().unwrap();
        assert!(run(&cached(another_key.path(), 2), &code).await.result.is_ok());
        let flipped = |at: usize| {
            let mut bytes = honest.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (attack, bytes) in [
            ("a flipped bit of the MAC", flipped(0)),
            ("a flipped bit of the code", flipped(honest.len() / 2)),
            ("a flipped bit at the end", flipped(honest.len() - 1)),
            ("a file cut short", honest[..honest.len() / 2].to_vec()),
            ("an empty file", Vec::new()),
            ("an attacker's file", b"\x7fELF".repeat(1000)),
            ("machine code without its MAC", honest[32..].to_vec()),
            ("another module's machine code, honestly sealed", fs::read(file(others.path())).unwrap()),
            ("the same module by another key", fs::read(file(another_key.path())).unwrap()),
        ] {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(run(&cached(folder.path(), 1), &code).await.result, Ok(json!({"n": 1})), "{attack}");
            assert_eq!(fs::read(&path).unwrap().len(), honest.len(), "{attack}: it was compiled again and replaced");
            assert_ne!(fs::read(&path).unwrap(), bytes, "{attack}");
        }
        // Another engine's, sealed by the right key: that of a host with other settings.
        let key = CacheKey::derive(&[1; 32]);
        let engine = with(WasmOptions::new().disk(folder.path(), key).compiler(Compiler::new(COMPILER)));
        assert_eq!(run(&engine, &code).await.result, Ok(json!({"n": 1})));
    });
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = WasmSandbox::with(WasmOptions::new().disk(&path, CacheKey::derive(&[1; 32]))).err().unwrap();
    assert!(error.to_string().contains("could not be set up"), "{error}");
    assert_eq!(format!("{:?}", CacheKey::derive(&[1; 32])), "CacheKey(…)");
}

#[test]
fn a_process_compiles_what_the_host_does_not() {
    block_on(async {
        let outside = with(WasmOptions::new().compiler(Compiler::new(COMPILER)));
        let inside = with(WasmOptions::new());
        let same = (run(&outside, &echo()).await, run(&inside, &echo()).await);
        assert_eq!(same.0.result, same.1.result);
        assert_eq!(same.0.receipt.fuel_used, same.1.receipt.fuel_used);
        // Which modules are refused is a setting, too.
        assert_ne!(same.0.receipt.engine_hash, same.1.receipt.engine_hash);
        let many_locals =
            module(&format!("(func {})", "(local i64)".repeat(2000)), "(call $pack (local.get $ptr) (local.get $len))");
        assert_eq!(code(&run(&inside, &many_locals).await), "invalid_module");
        assert_eq!(run(&outside, &many_locals).await.result, Ok(json!({"n": 1})));
        let wasi = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
        for refused in [wasi, "(module (func (result i32)))", "(module)"] {
            assert_eq!(code(&run(&outside, refused).await), "invalid_module", "{refused}");
        }
    });
}

#[test]
fn a_module_that_exhausts_the_compiler_ends_its_process_and_nothing_else() {
    block_on(async {
        let compiler = Compiler::new(COMPILER).memory_bytes(300 << 20).cpu_seconds(1);
        let sandbox = with(WasmOptions::new().compiler(compiler));
        // Every local changes in every one of many nested blocks.
        let leave: String = (0..1000)
            .map(|i| {
                format!(
                    "(local.set {} (i32.add (local.get {}) (i32.const 1))) (br_if {} (local.get 0))",
                    i % 500,
                    i % 500,
                    i % 400
                )
            })
            .collect();
        let needed: String = (0..500).map(|i| format!("(i32.store (i32.const 0) (local.get {i}))")).collect();
        let bomb = module(
            &format!("(func (local {}) {} {leave} {} {needed})", "i32 ".repeat(500), "(block ".repeat(400), ")".repeat(400)),
            "(i64.const 0)",
        );
        let report = run(&sandbox, &bomb).await;
        assert_eq!(code(&report), "compile_limit");
        assert!(report.result.unwrap_err().message.contains("make it smaller"));
        assert_eq!(run(&sandbox, &echo()).await.result, Ok(json!({"n": 1})), "the host goes on");
        let gone = with(WasmOptions::new().compiler(Compiler::new("/nowhere/compiler")));
        let report = run(&gone, &echo()).await;
        assert_eq!(code(&report), "compiler_failed");
        assert!(report.result.unwrap_err().message.contains("/nowhere/compiler"));
    });
}

#[cfg(unix)]
#[test]
fn what_others_have_put_in_the_cache_neither_blocks_nor_is_followed() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let code = echo();
        assert!(run(&cached(folder.path(), 1), &code).await.result.is_ok());
        let path = file(folder.path());
        let precious = tempfile::NamedTempFile::new().unwrap();
        fs::write(&precious, "precious").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(run(&cached(folder.path(), 1), &code).await.result, Ok(json!({"n": 1})), "a pipe");
        fs::remove_file(&path).unwrap();
        symlink(precious.path(), &path).unwrap();
        assert_eq!(run(&cached(folder.path(), 1), &code).await.result, Ok(json!({"n": 1})), "a link");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "it was replaced");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Where others may write, they may as well remove what is kept.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = WasmSandbox::with(WasmOptions::new().disk(folder.path(), CacheKey::derive(&[1; 32]))).err().unwrap();
        assert!(error.to_string().contains("no other user may write"), "{error}");
    });
}

#[cfg(unix)]
#[test]
fn a_module_that_exhausts_the_compiler_is_refused_once_and_what_was_killed_is_tried_again() {
    use std::os::unix::fs::PermissionsExt as _;

    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        for (signal, expected, times) in [("XCPU", "compile_limit", 1), ("KILL", "compiler_failed", 3)] {
            let (program, log) = (folder.path().join(signal), folder.path().join(format!("{signal}.log")));
            fs::write(&program, format!("#!/bin/sh\necho started >> {}\nkill -s {signal} $$\n", log.display())).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
            let sandbox = with(WasmOptions::new().compiler(Compiler::new(&program)));
            for _ in 0..3 {
                assert_eq!(code(&run(&sandbox, &echo()).await), expected);
            }
            assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), times, "{signal}");
        }
    });
}

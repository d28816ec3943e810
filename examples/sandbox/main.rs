//! The sandbox. Shows what a function can do and what it used, repeats a recorded run, and stops functions that mean harm.
//!
//! `cargo run --example sandbox -- --code FILE --input JSON --json` runs any module, WebAssembly text or binary, under the
//! default limits and prints one line. Exit status: 0 if the function answered, 1 if it failed, 2 if it could not be called.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its results")]

mod recorded;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use clap::Parser;
use logline_core::Failure;
use logline_core::contract::{HostCalls, Job, Report, Sandbox as _};
use logline_core::trust::Limits;
use logline_core::{Clock as _, SystemClock, Timestamp, canonical, json as strict};
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SCORE: &[u8] = include_bytes!("../../logline-wasm/guests/score_payments.wasm");
const RULES: &str = include_str!("../../logline-wasm/guests/score_payments/rules.json");

/// Runs a function in the sandbox.
#[derive(Parser)]
struct Options {
    /// The module to run: WebAssembly text, or a binary. Without it the example shows a tour.
    #[arg(long, value_name = "FILE", requires = "input")]
    code: Option<PathBuf>,
    /// The `input` of the call.
    #[arg(long, value_name = "JSON", requires = "code")]
    input: Option<String>,
    /// The `config` of the call. Default: null.
    #[arg(long, value_name = "JSON", requires = "code")]
    config: Option<String>,
    /// Print the result as one line of JSON.
    #[arg(long, requires = "code")]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(io::stderr).init();
    let options = Options::parse();
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let (failure, status) = match error.downcast::<Failure>() {
                Ok(failure) => (*failure, 1),
                Err(error) => (Failure::new("usage", error.to_string()), 2),
            };
            if options.json {
                println!("{}", line(&Err(failure), 0, 0));
            } else {
                eprintln!("sandbox: {failure}");
            }
            ExitCode::from(status)
        }
    }
}

/// The result of a call as one line of JSON.
fn line(result: &std::result::Result<Value, Failure>, fuel: u64, peak_memory_bytes: u64) -> String {
    let (name, value) = match result {
        Ok(output) => ("output", output.clone()),
        Err(failure) => ("error", failure.to_value()),
    };
    canonical::to_string(&json!({"ok": result.is_ok(), name: value, "fuel": fuel, "peak_memory_bytes": peak_memory_bytes}))
}

/// Reads a module from a file and returns it as the `code` column of a function.
fn code_of(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if bytes.starts_with(b"\0asm") {
        return Ok(logline_wasm::encode_binary(&bytes));
    }
    let text = String::from_utf8(bytes).ok().filter(|text| !text.trim().is_empty());
    let neither = || {
        let message = format!("{} is neither a WebAssembly binary (it would begin with \\0asm) nor text", file.display());
        Failure::new("invalid_module", message)
    };
    Ok(text.ok_or_else(neither)?)
}

async fn run(options: &Options) -> Result<bool> {
    let sandbox = WasmSandbox::new()?;
    let Some(file) = &options.code else { return tour(&sandbox).await };
    let code = code_of(file)?;
    let parse = |text: &Option<String>, name: &str| match text {
        Some(text) => strict::parse(text.as_bytes()).map_err(|e| format!("--{name} is not acceptable JSON: {e}")),
        None => Ok(Value::Null),
    };
    let (input, config) = (parse(&options.input, "input")?, parse(&options.config, "config")?);
    let (report, host) = call(&sandbox, &code, &config, &input, &Limits::default()).await;
    if options.json {
        println!("{}", line(&report.result, report.receipt.fuel_used, report.receipt.peak_memory_bytes));
    } else {
        show("it", &report, &host);
    }
    Ok(report.result.is_ok())
}

async fn tour(sandbox: &WasmSandbox) -> Result<bool> {
    let rules = strict::parse(RULES.as_bytes())?;
    let payment = json!({
        "id": "pay_1", "amount_minor": 620_000, "currency": "EUR", "card": {"country": "DE", "present": false},
        "customer": {"id": "cus_7", "age_days": 3, "country": "DE"}, "ip_country": "DE", "attempts_last_hour": 1
    });
    let (scored, host) = call(sandbox, &logline_wasm::encode_binary(SCORE), &rules, &payment, &Limits::default()).await;
    show("score_payments", &scored, &host);

    let holds = recorded::show(SCORE, rules, payment).await?;

    println!("\nand functions that mean harm, each with less than the default:");
    let limits: Limits = serde_json::from_value(json!({
        "fuel": 5_000_000, "timeout_ms": 2_000, "memory_bytes": 1 << 20, "output_bytes": 1_000, "host_calls": 10
    }))?;
    let mut all_stopped = true;
    for (name, code, expected) in [
        ("spins", body("(loop $again (br $again)) (i64.const 0)"), "fuel_exhausted"),
        (
            "hoards memory",
            body("(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable)) (i64.const 0)"),
            "memory_limit",
        ),
        (
            "recurses",
            items(
                "(func $f (param i64) (result i64) (i64.add (i64.const 1) (call $f (local.get 0))))",
                "(call $f (i64.const 0))",
            ),
            "stack_overflow",
        ),
        ("answers too much", body("(i64.const 0x0000_0000_0000_ffff)"), "output_limit"),
        ("answers from elsewhere", body("(i64.const 0x7fff_ffff_0000_0010)"), "out_of_range"),
        ("answers no JSON", body("(i64.const 0x0000_0000_0000_0004)"), "invalid_output"),
        (
            "floods the host",
            body("(loop $again (drop (call $host (i32.const 2) (local.get $ptr) (i32.const 0))) (br $again)) (i64.const 0)"),
            "host_call_limit",
        ),
        ("traps", body("unreachable"), "trap"),
        (
            "wants files",
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#.to_owned(),
            "invalid_module",
        ),
    ] {
        let (report, _) = call(sandbox, &code, &Value::Null, &json!("x".repeat(100)), &limits).await;
        let (code, said) = match &report.result {
            Ok(output) => ("-", output.to_string()),
            Err(failure) => (failure.code.as_str(), failure.to_string()),
        };
        all_stopped &= code == expected;
        println!("  {name:<23} {said}");
    }
    Ok(scored.result.is_ok() && holds && all_stopped)
}

/// A module whose exported `run` has this body.
fn body(body: &str) -> String {
    items("", body)
}

fn items(items: &str, body: &str) -> String {
    format!(
        r#"(module
          (import "logline" "host_call" (func $host (param i32 i32 i32) (result i64)))
          (memory (export "memory") 2)
          {items}
          (func (export "alloc") (param i32) (result i32) (i32.const 65536))
          (func (export "run") (param $ptr i32) (param $len i32) (result i64) {body}))"#
    )
}

async fn call(sandbox: &WasmSandbox, code: &str, config: &Value, input: &Value, limits: &Limits) -> (Report, Desk) {
    let call = json!({"config": config, "input": input, "function": null, "request": null});
    let mut host = Desk { started: SystemClock.now(), said: Vec::new() };
    let report = sandbox.run(Job::new("acme", code, &call, limits), &mut host).await;
    (report, host)
}

fn show(name: &str, report: &Report, host: &Desk) {
    match &report.result {
        Ok(output) => println!("{name} answered {}", canonical::to_string(output)),
        Err(failure) => println!("{name} failed: {failure}"),
    }
    for said in &host.said {
        println!("  it {said}");
    }
    let receipt = &report.receipt;
    println!(
        "  receipt: {} units of fuel, {} KiB of memory at most, {}",
        receipt.fuel_used,
        receipt.peak_memory_bytes >> 10,
        receipt.engine
    );
    println!("  code: BLAKE3 {}", receipt.code_hash);
}

/// A host without a ledger: it keeps what a function logs and emits.
struct Desk {
    started: Timestamp,
    said: Vec<String>,
}

#[async_trait]
impl HostCalls for Desk {
    fn log(&mut self, entry: Value) -> std::result::Result<(), Failure> {
        self.said.push(format!("logged {}", canonical::to_string(&entry)));
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.started
    }

    fn random(&mut self, _: usize) -> std::result::Result<Vec<u8>, Failure> {
        Err(Failure::new("not_permitted", "nothing records a seed here: run it through a host"))
    }

    async fn query(&mut self, _: Value) -> std::result::Result<Value, Failure> {
        Ok(json!({"spans": [], "cursor": null}))
    }

    fn emit(&mut self, draft: Value) -> std::result::Result<Value, Failure> {
        self.said.push(format!("emitted {}", canonical::to_string(&draft)));
        Ok(json!({"id": "00000000-0000-7000-8000-000000000000"}))
    }
}

//! The sandbox compared with wasmtime alone, and the cost of compiling, of many functions, and of functions that loop beside
//! others.
//!
//! `cargo bench -p logline-benches --bench sandbox [-- ROUNDS [fresh|compile|rotation|spinners]]`. With
//! `--features component-model` it also runs the same function as a component.
//!
//! - `fresh`: a call of a function that returns its argument, 1 KiB of JSON, with a new instance for each call. It alternates
//!   with wasmtime alone with the same settings (pool, fuel, `InstancePre`) and serde_json in both directions, but without a
//!   time limit, a host or asynchronous calls.
//! - `compile`: the time from the binary to the first answer, by size, without and with the cache of machine code on disk.
//! - `rotation`: one call of each of 1,000 different functions, repeated.
//! - `spinners`: 64 short calls at once, alone and beside four functions that loop without end.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a bench that fails may panic, and it prints"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use logline_core::Failure;
use logline_core::contract::{HostCalls, Job, Sandbox as _};
use logline_core::trust::Limits;
use logline_core::{Hash, Timestamp, canonical};
use logline_wasm::{CacheKey, WasmOptions, WasmSandbox};
use serde_json::{Value, json};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store};

/// A function that returns its argument. Different `items` make different functions.
fn echo(items: &str) -> String {
    format!(
        r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  {items}
  (func (export "alloc") (param $len i32) (result i32)
    (global.set $next (i32.add (global.get $next) (local.get $len)))
    (i32.sub (global.get $next) (local.get $len)))
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))"#
    )
}

const SPIN: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "run") (param i32 i32) (result i64) (loop $again (br $again)) (i64.const 0)))"#;

struct Desk;

fn nothing() -> Failure {
    Failure::new("not_permitted", "nothing is asked here")
}

#[async_trait]
impl HostCalls for Desk {
    fn log(&mut self, _: Value) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&mut self, _: usize) -> Result<Vec<u8>, Failure> {
        Err(nothing())
    }

    async fn query(&mut self, _: Value) -> Result<Value, Failure> {
        Err(nothing())
    }

    fn emit(&mut self, _: Value) -> Result<Value, Failure> {
        Err(nothing())
    }
}

/// 1 KiB of JSON, as a payment might be.
fn payment() -> Value {
    let items: Vec<_> =
        (0..10).map(|n| json!({"sku": format!("item-{n:04}"), "quantity": n, "price_minor": 1999 * n})).collect();
    json!({"id": "pay_0001", "amount_minor": 620_000, "currency": "EUR", "card": {"country": "DE", "present": false},
        "customer": {"id": "cus_7", "age_days": 3, "country": "DE", "email": "customer@example.com"}, "items": items,
        "ip_country": "DE", "attempts_last_hour": 1, "note": "x".repeat(180)})
}

/// wasmtime without the sandbox.
struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
}

impl Bare {
    fn new() -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(64).total_memories(64).total_tables(64).max_memory_size(64 << 20);
        pool.linear_memory_keep_resident(256 << 10);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config.consume_fuel(true).cranelift_nan_canonicalization(true).memory_reservation(64 << 20).memory_guard_size(64 << 10);
        let engine = Engine::new(&config).unwrap();
        // wasmtime is built here without its reader of WebAssembly text.
        let module = Module::new(&engine, wat::parse_str(echo("")).unwrap()).unwrap();
        let pre = Linker::new(&engine).instantiate_pre(&module).unwrap();
        Self { engine, pre }
    }

    fn call(&self, argument: &Value) -> Value {
        let argument = serde_json::to_vec(argument).unwrap();
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(100_000_000).unwrap();
        let instance = self.pre.instantiate(&mut store).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let alloc = instance.get_typed_func::<i32, i32>(&mut store, "alloc").unwrap();
        let run = instance.get_typed_func::<(i32, i32), i64>(&mut store, "run").unwrap();
        let len = i32::try_from(argument.len()).unwrap();
        let at = alloc.call(&mut store, len).unwrap();
        memory.write(&mut store, usize::try_from(at).unwrap(), &argument).unwrap();
        let packed = run.call(&mut store, (at, len)).unwrap().cast_unsigned();
        let (start, len) = ((packed >> 32) as usize, (packed & 0x7fff_ffff) as usize);
        serde_json::from_slice(&memory.data(&store)[start..start + len]).unwrap()
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn fresh(rounds: usize) {
    const CALLS: u32 = 2000;
    let (sandbox, bare) = (WasmSandbox::new().unwrap(), Bare::new());
    let (code, limits, payment) = (echo(""), Limits::default(), payment());
    let version = Hash::of(code.as_bytes());
    let job = || Job::new("acme", &code, &payment, &limits).version(version);
    assert_eq!(sandbox.run(job(), &mut Desk).await.result.unwrap(), bare.call(&payment));
    let (mut ours, mut bares, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(sandbox.run(job(), &mut Desk).await);
        }
        let own = started.elapsed().as_secs_f64() / f64::from(CALLS) * 1e6;
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(bare.call(&payment));
        }
        let plain = started.elapsed().as_secs_f64() / f64::from(CALLS) * 1e6;
        ours.push(own);
        bares.push(plain);
        ratios.push(own / plain);
    }
    let time = |f: &dyn Fn()| {
        let started = Instant::now();
        (0..CALLS).for_each(|_| f());
        started.elapsed().as_secs_f64() / f64::from(CALLS) * 1e6
    };
    let strict = time(&|| drop(black_box(logline_core::json::parse(&canonical::to_vec(&payment)))));
    let plain = time(&|| drop(black_box(serde_json::from_slice::<Value>(&serde_json::to_vec(&payment).unwrap()))));
    println!("of which canonical and strict JSON both ways {strict:.1} µs, serde_json {plain:.1} µs");
    let bytes = serde_json::to_vec(&payment).unwrap().len();
    println!(
        "fresh call, {bytes} bytes both ways: {:.1} µs, bare wasmtime and serde_json {:.1} µs, ratio {:.2}",
        median(ours),
        median(bares),
        median(ratios)
    );
}

/// The same function as a component.
#[cfg(feature = "component-model")]
const COMPONENT: &str = r#"(component
  (import "logline:kernel/host@1.0.0" (instance $host
    (type $record (record (field "code" string) (field "message" string)))
    (export "failure" (type $failure (eq $record)))))
  (alias export $host "failure" (type $failure))
  (core module $main
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32) (param $len i32) (result i32)
      (global.set $next (i32.add (global.get $next) (local.get $len)))
      (i32.sub (global.get $next) (local.get $len)))
    (func (export "run") (param $ptr i32) (param $len i32) (result i32)
      (i32.store (i32.const 4) (local.get $ptr)) (i32.store (i32.const 8) (local.get $len)) (i32.const 0)))
  (core instance $main (instantiate $main))
  (alias core export $main "memory" (core memory $memory))
  (alias core export $main "realloc" (core func $realloc))
  (alias core export $main "run" (core func $run))
  (func (export "run") (param "json" string) (result (result string (error $failure)))
    (canon lift (core func $run) (memory $memory) (realloc $realloc))))"#;

#[cfg(feature = "component-model")]
async fn component(rounds: usize) {
    const CALLS: u32 = 2000;
    let modules = WasmSandbox::new().unwrap();
    let components = modules.components();
    let (code, limits, payment) = (echo(""), Limits::default(), payment());
    let (module, component) = (Hash::of(code.as_bytes()), Hash::of(COMPONENT.as_bytes()));
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(modules.run(Job::new("acme", &code, &payment, &limits).version(module), &mut Desk).await);
        }
        let plain = started.elapsed().as_secs_f64();
        let started = Instant::now();
        for _ in 0..CALLS {
            let report = components.run(Job::new("acme", COMPONENT, &payment, &limits).version(component), &mut Desk).await;
            assert!(report.result.is_ok(), "{report:?}");
        }
        let own = started.elapsed().as_secs_f64();
        // The first round compiles.
        if round > 0 {
            times.push(own / f64::from(CALLS) * 1e6);
            ratios.push(own / plain);
        }
    }
    println!("the same as a component: {:.1} µs, ratio to the module {:.2}", median(times), median(ratios));
}

async fn compile(rounds: usize) {
    for functions in [1, 30, 300, 1500] {
        let body = "(local i64) (local.set 1 (i64.extend_i32_u (local.get 0))) (loop (local.set 1 (i64.add (i64.mul (local.get 1) (i64.const 31)) (i64.const 7))) (br_if 0 (i64.lt_u (local.get 1) (i64.const 1000)))) (i32.wrap_i64 (local.get 1))";
        let items: String =
            (0..functions).map(|n| format!("(func (export \"f{n}\") (param i32) (result i32) {body})")).collect();
        let code = logline_wasm::encode_binary(&wat::parse_str(echo(&items)).unwrap());
        let (limits, input) = (Limits::default(), json!(1));
        let (mut cold, mut cached) = (Vec::new(), Vec::new());
        for _ in 0..rounds.min(5) {
            let folder = tempfile::tempdir().unwrap();
            for times in [&mut cold, &mut cached] {
                let options = WasmOptions::new().calls(2).disk(folder.path(), CacheKey::derive(&[1; 32]));
                let sandbox = WasmSandbox::with(options).unwrap();
                let started = Instant::now();
                assert!(sandbox.run(Job::new("acme", &code, &input, &limits), &mut Desk).await.result.is_ok());
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        let (cold, cached) = (median(cold), median(cached));
        println!("module of {} bytes: compiled {cold:.2} ms, from disk {cached:.2} ms", code.len() / 4 * 3);
    }
}

async fn rotation() {
    const FUNCTIONS: usize = 1000;
    let sandbox = WasmSandbox::new().unwrap();
    let (limits, payment) = (Limits::default(), payment());
    let codes: Vec<_> = (0..FUNCTIONS).map(|n| echo(&format!("(global (export \"n\") i32 (i32.const {n}))"))).collect();
    let versions: Vec<_> = codes.iter().map(|code| Hash::of(code.as_bytes())).collect();
    for round in 0..4 {
        let started = Instant::now();
        for (code, version) in codes.iter().zip(&versions) {
            let job = Job::new("acme", code, &payment, &limits).version(*version);
            assert!(sandbox.run(job, &mut Desk).await.result.is_ok());
        }
        let each = started.elapsed().as_secs_f64() / FUNCTIONS as f64 * 1e6;
        println!("{FUNCTIONS} functions, round {round}: {each:.1} µs a call{}", if round == 0 { ", compiling" } else { "" });
    }
}

async fn spinners(rounds: usize) {
    let sandbox = Arc::new(WasmSandbox::with(WasmOptions::new().calls(128)).unwrap());
    let (code, payment) = (Arc::new(echo("")), Arc::new(payment()));
    let mut long = Limits::default();
    long.fuel = 100_000_000_000;
    long.timeout_ms = 600_000;
    for spinning in [0, 4] {
        let spinners: Vec<_> = (0..spinning)
            .map(|_| {
                let (sandbox, long) = (Arc::clone(&sandbox), long.clone());
                tokio::spawn(async move { sandbox.run(Job::new("spinner", SPIN, &Value::Null, &long), &mut Desk).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut times = Vec::new();
        for _ in 0..rounds * 20 {
            let calls = (0..64).map(|n| {
                let (sandbox, code, payment) = (Arc::clone(&sandbox), Arc::clone(&code), Arc::clone(&payment));
                tokio::spawn(async move {
                    let (limits, tenant) = (Limits::default(), format!("tenant-{}", n % 4));
                    let started = Instant::now();
                    assert!(sandbox.run(Job::new(&tenant, &code, &payment, &limits), &mut Desk).await.result.is_ok());
                    started.elapsed().as_secs_f64() * 1e6
                })
            });
            times.extend(join_all(calls).await.into_iter().map(Result::unwrap));
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!("64 short calls at once beside {spinning} that spin: p50 {:.0} µs, p99 {:.0} µs", at(0.5), at(0.99));
        spinners.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds = arguments.first().and_then(|n| n.parse().ok()).unwrap_or(15);
    let only = arguments.get(1).map_or("", String::as_str);
    let wants = |mode: &str| only.is_empty() || only == mode;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wants("fresh") {
            fresh(rounds).await;
            #[cfg(feature = "component-model")]
            component(rounds).await;
        }
        if wants("compile") {
            compile(rounds).await;
        }
        if wants("rotation") {
            rotation().await;
        }
        if wants("spinners") {
            spinners(rounds).await;
        }
    });
}

//! The sandbox of LogLine: functions of tenants as WebAssembly modules, run by wasmtime within limits that hold.
//!
//! A function's span has `runtime = "wasm@1"`, and in `code` WebAssembly text or the base64 of a binary. It sees its argument
//! and what it asks the host for, nothing else. `docs/wasm-abi.md` specifies the interface byte by byte.

mod abi;
mod call;
mod engine;
mod module;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::sandbox::{Failure, HostCalls, Job, Receipt, Report, Sandbox};
use logline_core::{Hash, canonical};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use wasmtime::Engine;

use call::Usage;
use module::{Compiled, Modules};

/// The value of a function's `runtime` column that this sandbox runs.
pub const RUNTIME: &str = "wasm@1";

/// The `code` column of a function whose module is `binary`.
#[must_use]
pub fn encode_binary(binary: &[u8]) -> String {
    module::encode(binary)
}

/// The engine could not be set up.
#[derive(Debug, Error)]
#[error("wasmtime could not be set up: {0}; check the limits on address space (ulimit -v)")]
pub struct SetupError(String);

/// Runs WebAssembly guests by ABI v1. It needs a tokio runtime with time enabled; one sandbox serves any number of calls, of
/// which up to 64 are under way at once and the others wait within their time limit.
pub struct WasmSandbox {
    engine: Engine,
    modules: Modules,
    slots: Semaphore,
}

impl WasmSandbox {
    /// Sets up the engine and its pool of instances.
    ///
    /// # Errors
    /// Where the system refuses the address space of the pool, about 4 GiB.
    pub fn new() -> Result<Self, SetupError> {
        let setup = |e: wasmtime::Error| SetupError(format!("{e:#}"));
        let engine = engine::new().map_err(setup)?;
        let modules = Modules::new(engine.clone()).map_err(setup)?;
        Ok(Self { engine, modules, slots: Semaphore::new(engine::POOL as usize) })
    }

    async fn call(
        &self,
        module: Arc<Compiled>,
        job: Job<'_>,
        host: &mut dyn HostCalls,
        usage: &Arc<Usage>,
    ) -> Result<Value, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::new("closed", "the sandbox is closed"))?;
        let argument = canonical::to_vec(job.call);
        // One question at a time: a guest waits for its answer.
        let (questions, mut asked) = mpsc::channel(1);
        let guest = call::call(self.engine.clone(), module, argument, job.limits.clone(), questions, Arc::clone(usage));
        tokio::pin!(guest);
        loop {
            tokio::select! {
                biased;
                result = &mut guest => return result,
                Some(question) = asked.recv() => {
                    let answer = abi::answer(host, question.op, question.argument).await;
                    // The guest cannot be gone: it is waiting right here.
                    let _ = question.reply.send(answer);
                }
            }
        }
    }
}

#[async_trait]
impl Sandbox for WasmSandbox {
    fn runtime(&self) -> &'static str {
        RUNTIME
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        let hash = Hash::of(job.code.as_bytes());
        let usage = Arc::new(Usage::default());
        let limit = Duration::from_millis(job.limits.timeout_ms);
        // Dropping the call drops its store, which ends the guest at its next yield.
        let result = match self.modules.get(job.code, hash, job.limits.module_bytes).await {
            Err(failure) => Err(failure),
            Ok(module) => match tokio::time::timeout(limit, self.call(module, job, host, &usage)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::new(
                    "timeout",
                    format!("the function did not end within {} ms: it waits or computes too long", job.limits.timeout_ms),
                )),
            },
        };
        let receipt = Receipt {
            code_hash: Some(hash),
            engine: engine::NAME.to_owned(),
            fuel_used: usage.fuel.load(Ordering::Relaxed),
            peak_memory_bytes: usage.peak_memory.load(Ordering::Relaxed),
        };
        Report { result, receipt }
    }
}

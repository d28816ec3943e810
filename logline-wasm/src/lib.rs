#![doc = include_str!("../README.md")]

mod abi;
mod artifact;
mod bounds;
mod cache;
mod call;
mod channel;
mod compiled;
mod compiler;
#[cfg(feature = "component-model")]
mod component;
mod decode;
mod disk;
mod engine;
mod function;
mod kind;
mod modules;
mod options;
mod scan;
mod share;
mod state;
mod threads;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::contract::{HostCalls, Job, Report, RunReceipt, Sandbox};
use logline_core::trust::Limits;
use logline_core::{Hash, canonical};
use serde_json::Value;
use thiserror::Error;
use tokio::time::Instant;
use wasmtime::Engine;

pub use artifact::CacheKey;
use channel::HostChannel;
pub use compiler::{Compiler, compiler_main};
pub use function::{function, function_id};
use kind::Kind;
use modules::Modules;
pub use options::WasmOptions;
use scan::Scan;
use share::Shares;
use threads::{Threads, Time};

/// The value of a function's `runtime` column that this sandbox runs.
pub const RUNTIME: &str = "wasm@1";

/// The text for the `code` column of a function whose module is `binary`: `blake3:` with the hash of the binary, a line feed,
/// and the binary in base64.
#[must_use]
pub fn encode_binary(binary: &[u8]) -> String {
    decode::encode(binary)
}

/// Checks whether the binary of a module may be compiled: its imports, and what compiling it may cost. The check takes
/// microseconds and needs no sandbox. It does not check that the module is valid and has the exports that the interface needs.
/// [`WasmSandbox::check`] does.
///
/// # Errors
/// `invalid_module`; the message says what to change.
pub fn check(binary: &[u8]) -> Result<(), Failure> {
    scan::scan(binary, Scan::Cost)
}

/// The sandbox could not be set up: its engine, its threads or its cache folder failed.
#[derive(Debug, Error)]
#[error("the sandbox could not be set up: {0}; check the limits on address space (ulimit -v) and threads")]
pub struct SetupError(String);

/// Runs WebAssembly guests by ABI v1. It needs a tokio runtime with time enabled. One sandbox serves any number of concurrent
/// calls.
///
/// A guest starts on its caller's thread. When it has computed for some tens of microseconds, it moves to a thread of the
/// sandbox. So a short call needs no change of threads, and a long call does not block its caller's thread.
pub struct WasmSandbox {
    inner: Arc<Inner>,
}

/// Runs components of the world `logline:kernel/kernel@1.0.0`. It shares the permits, threads and caches of a [`WasmSandbox`].
#[cfg(feature = "component-model")]
pub struct ComponentSandbox {
    inner: Arc<Inner>,
}

/// The value of a function's `runtime` column if the function is a component.
#[cfg(feature = "component-model")]
pub const COMPONENT_RUNTIME: &str = "wasm-component@1";

struct Inner {
    engine: Engine,
    engine_name: String,
    engine_hash: Hash,
    #[cfg(feature = "component-model")]
    component_hash: Hash,
    modules: Modules,
    shares: Shares,
    threads: Threads,
}

impl WasmSandbox {
    /// Sets up a sandbox with the default options.
    ///
    /// # Errors
    /// As [`WasmSandbox::with`].
    pub fn new() -> Result<Self, SetupError> {
        Self::with(WasmOptions::default())
    }

    /// Sets up the engine, its pool of instances and its threads.
    ///
    /// # Errors
    /// If the system refuses the threads, the cache folder, or the address space of the pool, which is 64 MiB for each call.
    pub fn with(options: WasmOptions) -> Result<Self, SetupError> {
        let setup = |e: wasmtime::Error| SetupError(format!("{e:#}"));
        let engine = engine::new(options.calls).map_err(setup)?;
        let threads = Threads::new(options.threads).map_err(|e| SetupError(e.to_string()))?;
        let shares = Shares::new(options.calls);
        let scan = if options.compiler.is_some() { Scan::Structure } else { Scan::Cost };
        let modules = Modules::new(engine.clone(), options).map_err(setup)?;
        let inner = Inner {
            engine,
            engine_name: engine::name(),
            engine_hash: engine::hash(RUNTIME, scan),
            #[cfg(feature = "component-model")]
            component_hash: engine::hash(COMPONENT_RUNTIME, scan),
            modules,
            shares,
            threads,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks whether `code` can be run for `tenant` within `limits`. The code is compiled and kept for the first call. It does
    /// not run, so a start function that fails, or initial data that do not fit, are found only by the first call.
    ///
    /// # Errors
    /// Those of a call whose code cannot be compiled: `invalid_module` and `module_limit`, where the message says what to
    /// change, `compile_timeout`, `compile_limit`, `compiler_failed`, `closed` and `internal`.
    pub async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        self.inner.check(Kind::Core, Job::new(tenant, code, &Value::Null, limits)).await
    }

    /// A sandbox for components that shares the engine, permits, threads and caches of this one. Register it with the host as
    /// well.
    #[cfg(feature = "component-model")]
    #[must_use]
    pub fn components(&self) -> ComponentSandbox {
        ComponentSandbox { inner: Arc::clone(&self.inner) }
    }
}

#[cfg(feature = "component-model")]
impl ComponentSandbox {
    /// Checks whether the component in `code` can be run, as [`WasmSandbox::check`] does for a module.
    ///
    /// # Errors
    /// As [`WasmSandbox::check`].
    pub async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        self.inner.check(Kind::Component, Job::new(tenant, code, &Value::Null, limits)).await
    }
}

impl Inner {
    async fn check(&self, kind: Kind, job: Job<'_>) -> Result<(), Failure> {
        let turns = self.shares.compiling(&job);
        self.modules.get(kind, &job, self.modules.code_hash(&job), &turns).await.map(drop)
    }

    async fn call(
        &self,
        kind: Kind,
        job: Job<'_>,
        code: Hash,
        host: &mut dyn HostCalls,
        channel: &Arc<HostChannel>,
    ) -> Result<Value, Failure> {
        let tenant = self.shares.tenant(&job);
        let module = self.modules.get(kind, &job, code, &tenant.compiling).await?;
        let limit = job.limits.timeout_ms;
        let calls = Duration::from_millis(job.limits.call_timeout_ms);
        let deadline = Instant::now() + Duration::from_millis(limit);
        let permit = tokio::time::timeout_at(deadline, self.shares.permit(&tenant, job.limits.memory_bytes)).await;
        let permit = permit.map_err(|_| {
            let message = format!(
                "the run did not start within {limit} ms: this tenant, or the host, has too many runs in progress; retry later"
            );
            Failure::new("busy", message)
        })?;
        let permit = permit.map_err(|_| Failure::new("closed", "the sandbox is closed"))?;
        let argument = canonical::to_vec(job.call);
        let guest = call::call(self.engine.clone(), module, argument, job.limits.clone(), Arc::clone(channel), permit);
        self.threads.run(guest, channel, host, Time { deadline, calls }).await.unwrap_or_else(|| {
            let message = format!(
                "the function did not end within {limit} ms, or its calls to providers within {} ms: it waits or computes too long",
                calls.as_millis()
            );
            Err(Failure::new("timeout", message))
        })
    }

    async fn run(&self, kind: Kind, (runtime, engine_hash): (&str, Hash), job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        let code = self.modules.code_hash(&job);
        let channel = Arc::new(HostChannel::default());
        let result = self.call(kind, job, code, host, &channel).await;
        let mut receipt = RunReceipt::new(code, runtime, &self.engine_name, engine_hash, job.limits);
        receipt.fuel_used = channel.fuel.load(Ordering::Relaxed);
        receipt.peak_memory_bytes = channel.peak_memory.load(Ordering::Relaxed);
        receipt.host_calls = channel.host_calls.load(Ordering::Relaxed);
        Report { result, receipt }
    }
}

/// The limits on time need the runtime's timer.
fn lacks_runtime() -> Option<String> {
    tokio::runtime::Handle::try_current().is_err().then(|| "Tokio runtime (with its timer enabled) around the call".to_owned())
}

#[async_trait]
impl Sandbox for WasmSandbox {
    fn runtime(&self) -> &'static str {
        RUNTIME
    }

    fn lacks(&self) -> Option<String> {
        lacks_runtime()
    }

    async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        Self::check(self, tenant, code, limits).await
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        self.inner.run(Kind::Core, (RUNTIME, self.inner.engine_hash), job, host).await
    }
}

#[cfg(feature = "component-model")]
#[async_trait]
impl Sandbox for ComponentSandbox {
    fn runtime(&self) -> &'static str {
        COMPONENT_RUNTIME
    }

    fn lacks(&self) -> Option<String> {
        lacks_runtime()
    }

    async fn check(&self, tenant: &str, code: &str, limits: &Limits) -> Result<(), Failure> {
        Self::check(self, tenant, code, limits).await
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        self.inner.run(Kind::Component, (COMPONENT_RUNTIME, self.inner.component_hash), job, host).await
    }
}

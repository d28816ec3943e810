//! What a sandbox may use of its machine.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::artifact::CacheKey;
use crate::compiler::Compiler;

/// How a [`WasmSandbox`](crate::WasmSandbox) is set up. The defaults suit a host with some cores and gigabytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WasmOptions {
    pub(crate) calls: u32,
    pub(crate) threads: usize,
    pub(crate) compiled_bytes: usize,
    pub(crate) disk: Option<(PathBuf, CacheKey)>,
    pub(crate) compiler: Option<Compiler>,
}

/// The most calls at once: each needs 64 MiB of address space.
const MAX_CALLS: u32 = 4096;

impl Default for WasmOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { calls: 64, threads: cores, compiled_bytes: 256 << 20, disk: None, compiler: None }
    }
}

impl WasmOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls that can be under way at once, 1 to 4096; further ones wait. Default 64.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = calls.clamp(1, MAX_CALLS);
        self
    }

    /// Threads for guests that compute for long, and as many for compiling. Default: one for each core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 256);
        self
    }

    /// Machine code to keep in memory, bytes; past it the longest unused goes, of the tenant that has the most. A module of more than a
    /// quarter is not kept. Default 256 MiB.
    #[must_use]
    pub fn compiled_bytes(mut self, bytes: usize) -> Self {
        self.compiled_bytes = bytes;
        self
    }

    /// Keeps machine code in files of this folder as well, so that a restart need not compile again. What is loaded from there runs
    /// with all rights of this process: only what carries a MAC by `key` is.
    #[must_use]
    pub fn disk(mut self, folder: impl Into<PathBuf>, key: CacheKey) -> Self {
        self.disk = Some((folder.into(), key));
        self
    }

    /// Compiles in processes of their own.
    #[must_use]
    pub fn compiler(mut self, compiler: Compiler) -> Self {
        self.compiler = Some(compiler);
        self
    }
}

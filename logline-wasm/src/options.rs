//! The resources of the machine that a sandbox may use.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::artifact::CacheKey;
use crate::compiler::Compiler;

/// The options of a [`WasmSandbox`](crate::WasmSandbox). The defaults suit a host with a few cores and a few gigabytes of
/// memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WasmOptions {
    pub(crate) calls: u32,
    pub(crate) threads: usize,
    pub(crate) compiled_bytes: usize,
    pub(crate) disk: Option<(PathBuf, CacheKey)>,
    pub(crate) compiler: Option<Compiler>,
}

/// The most calls that may run at once. Each needs 64 MiB of address space.
const MAX_CALLS: u32 = 4096;

impl Default for WasmOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { calls: 64, threads: cores, compiled_bytes: 256 << 20, disk: None, compiler: None }
    }
}

impl WasmOptions {
    /// The default options: no cache in files, and compiling within this process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many calls may run at once, 1 to 4096. Further calls wait. Default 64.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = calls.clamp(1, MAX_CALLS);
        self
    }

    /// Sets the number of threads for guests that compute for long, 1 to 256. The same number of threads compiles modules.
    /// Default: one for each core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 256);
        self
    }

    /// Sets how many bytes of machine code are kept in memory. If there are more, the tenant with the most bytes loses the
    /// module that was not used for the longest time. A module of more than a quarter of `bytes` is not kept. Default 256 MiB.
    #[must_use]
    pub fn compiled_bytes(mut self, bytes: usize) -> Self {
        self.compiled_bytes = bytes;
        self
    }

    /// Also keeps machine code in files in this folder, so that modules need not be compiled again after a restart. Code from a
    /// file runs with all rights of this process, so a file is loaded only if its MAC by `key` is valid.
    #[must_use]
    pub fn disk(mut self, folder: impl Into<PathBuf>, key: CacheKey) -> Self {
        self.disk = Some((folder.into(), key));
        self
    }

    /// Compiles each module in a process of its own, not within this process.
    #[must_use]
    pub fn compiler(mut self, compiler: Compiler) -> Self {
        self.compiler = Some(compiler);
        self
    }
}

//! From a function's `code` to compiled modules, and remembering them.
//!
//! Compiling is attack surface: the compiler's time and memory grow faster than the module. So a module is held to
//! [`MAX_LOCALS`], [`MAX_BODY`] and the size limit before the compiler sees it, and one is compiled at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::Hash;
use logline_core::sandbox::Failure;
use tokio::sync::Semaphore;
use wasmparser::{Parser, Payload, TypeRef};
use wasmtime::{Engine, InstancePre, Linker, Module};

use crate::abi;
use crate::call::CallState;

/// Locals of one function.
const MAX_LOCALS: u64 = 500;

/// Bytes of one function's body.
const MAX_BODY: usize = 64 << 10;

/// Functions of one module.
const MAX_FUNCTIONS: u32 = 10_000;

/// Parameters and results of one function or block type: the compiler makes values of them wherever the type is used.
const MAX_PARAMS: usize = 32;
const MAX_RESULTS: usize = 8;

/// How long a caller waits for a module to be compiled, its turn included. (A host's lease allows for it.)
const COMPILE_TIME: Duration = Duration::from_secs(30);

/// Compiled modules that are remembered; past it the longest unused is forgotten.
const MAX_CACHED: usize = 256;

/// A module that is ready to be called.
pub(crate) struct Compiled {
    pub(crate) pre: InstancePre<CallState>,
    /// Bytes of the binary.
    bytes: usize,
}

pub(crate) struct Modules {
    engine: Engine,
    linker: Arc<Linker<CallState>>,
    cache: Arc<Mutex<Cache>>,
    compiling: Arc<Semaphore>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Hash, (u64, Arc<Compiled>)>,
    clock: u64,
}

impl Cache {
    fn get(&mut self, hash: &Hash) -> Option<Arc<Compiled>> {
        self.clock += 1;
        let (used, module) = self.entries.get_mut(hash)?;
        *used = self.clock;
        Some(Arc::clone(module))
    }

    fn insert(&mut self, hash: Hash, module: Arc<Compiled>) {
        if self.entries.len() >= MAX_CACHED {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.clock += 1;
        self.entries.insert(hash, (self.clock, module));
    }
}

impl Modules {
    pub(crate) fn new(engine: Engine) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&engine);
        abi::link(&mut linker)?;
        Ok(Self { engine, linker: Arc::new(linker), cache: Arc::default(), compiling: Arc::new(Semaphore::new(1)) })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The module in `code`, whose hash is `hash`, compiled now or before.
    pub(crate) async fn get(&self, code: &str, hash: Hash, max_bytes: usize) -> Result<Arc<Compiled>, Failure> {
        if let Some(module) = self.cache().get(&hash) {
            return module.within(max_bytes);
        }
        let closed = || Failure::new("closed", "the sandbox is closed");
        let seconds = COMPILE_TIME.as_secs();
        let late = |_| {
            Failure::new(
                "compile_timeout",
                format!("the module was not compiled within {seconds} s: retry, or make it smaller"),
            )
        };
        let deadline = tokio::time::Instant::now() + COMPILE_TIME;
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.compiling).acquire_owned()).await.map_err(late)?;
        let permit = permit.map_err(|_| closed())?;
        // Somebody may have compiled it while this call waited.
        if let Some(module) = self.cache().get(&hash) {
            return module.within(max_bytes);
        }
        let (engine, linker, code) = (self.engine.clone(), Arc::clone(&self.linker), code.to_owned());
        let cache = Arc::clone(&self.cache);
        // The permit and the result belong to the compilation, not to whoever waits for it: a caller that gives up neither
        // lets a second compiler start nor throws the work away.
        let compile = tokio::task::spawn_blocking(move || {
            let module = Arc::new(compile(&engine, &linker, &code, max_bytes)?);
            cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(hash, Arc::clone(&module));
            drop(permit);
            Ok(module)
        });
        let compiled = tokio::time::timeout_at(deadline, compile).await.map_err(late)?;
        compiled.map_err(|e| invalid(format!("the compiler failed: {e}")))?
    }
}

impl Compiled {
    fn within(self: Arc<Self>, max_bytes: usize) -> Result<Arc<Self>, Failure> {
        too_large(self.bytes, max_bytes).map(|()| self)
    }
}

fn too_large(bytes: usize, max: usize) -> Result<(), Failure> {
    if bytes <= max {
        return Ok(());
    }
    Err(Failure::new("module_limit", format!("the module has {bytes} bytes, the limit is {max}: build it smaller")))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("invalid_module", message)
}

fn compile(engine: &Engine, linker: &Linker<CallState>, code: &str, max_bytes: usize) -> Result<Compiled, Failure> {
    let binary = decode(code)?;
    too_large(binary.len(), max_bytes)?;
    scan(&binary)?;
    let module = Module::from_binary(engine, &binary).map_err(|e| invalid(format!("{e:#}")))?;
    abi::check_exports(&module)?;
    let pre = linker.instantiate_pre(&module).map_err(|e| invalid(format!("{e:#}")))?;
    Ok(Compiled { pre, bytes: binary.len() })
}

/// The binary in a `code` column: WebAssembly text where it begins like one, base64 otherwise.
fn decode(code: &str) -> Result<Vec<u8>, Failure> {
    let code = code.trim();
    if code.starts_with('(') || code.starts_with(";;") {
        return wat::parse_str(code).map_err(|e| invalid(e.to_string()));
    }
    let binary = STANDARD.decode(code).map_err(|e| {
        invalid(format!("code is neither WebAssembly text (it would begin with `(`) nor base64 of a binary: {e}"))
    })?;
    if !binary.starts_with(b"\0asm") {
        return Err(invalid("the decoded code does not begin with the WebAssembly magic bytes"));
    }
    Ok(binary)
}

pub(crate) fn encode(binary: &[u8]) -> String {
    STANDARD.encode(binary)
}

/// Refuses what would cost the compiler too much, and every import but the one there is.
fn scan(binary: &[u8]) -> Result<(), Failure> {
    let mut functions = 0_u32;
    for payload in Parser::new(0).parse_all(binary) {
        match payload.map_err(|e| invalid(e.to_string()))? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|e| invalid(e.to_string()))?;
                    let known = (import.module, import.name) == (abi::MODULE, abi::HOST_CALL);
                    if !known || !matches!(import.ty, TypeRef::Func(_)) {
                        return Err(invalid(format!(
                            "it imports `{}.{}`: the only import there is is the function `{}.{}`",
                            import.module,
                            import.name,
                            abi::MODULE,
                            abi::HOST_CALL
                        )));
                    }
                }
            }
            Payload::TypeSection(types) => {
                for ty in types.into_iter_err_on_gc_types() {
                    let ty = ty.map_err(|e| invalid(e.to_string()))?;
                    if ty.params().len() > MAX_PARAMS || ty.results().len() > MAX_RESULTS {
                        return Err(invalid(format!(
                            "a type has {} parameters and {} results, the limits are {MAX_PARAMS} and {MAX_RESULTS}",
                            ty.params().len(),
                            ty.results().len()
                        )));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                if functions > MAX_FUNCTIONS {
                    return Err(invalid(format!("it has more than {MAX_FUNCTIONS} functions")));
                }
                let bytes = body.range().len();
                if bytes > MAX_BODY {
                    return Err(invalid(format!("a function has {bytes} bytes, the limit is {MAX_BODY}: split it")));
                }
                let mut locals = 0_u64;
                for local in body.get_locals_reader().map_err(|e| invalid(e.to_string()))? {
                    locals += u64::from(local.map_err(|e| invalid(e.to_string()))?.0);
                }
                if locals > MAX_LOCALS {
                    return Err(invalid(format!("a function has {locals} locals, the limit is {MAX_LOCALS}")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

//! From a function's `code` to a module that is ready to be called.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use logline_core::Failure;
use logline_core::Hash;
use logline_core::contract::Job;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use wasmtime::{Engine, Linker, Module};

use crate::abi;
use crate::artifact::Artifact;
use crate::cache::{Cache, Verdict};
use crate::compiled::{Code, Compiled, Core, too_large};
use crate::compiler::Compiler;
#[cfg(feature = "component-model")]
use crate::component;
use crate::decode::decode;
use crate::disk::Disk;
use crate::kind::Kind;
use crate::options::WasmOptions;
use crate::scan::{Scan, invalid, scan};
use crate::state::CallState;

/// How long a caller waits until a module is compiled, including the wait for its turn. The lease of a host allows for this
/// time.
const COMPILE_TIME: Duration = Duration::from_secs(30);

/// The largest binary that is compiled in the host's own process, bytes.
const MAX_BYTES: usize = 1 << 20;

/// Codes of the refusals that are kept, because compiling the module again would give the same refusal.
const KEPT: &[&str] = &["invalid_module", "compile_limit"];

/// How many modules are compiled at once. Each is of a different tenant.
const COMPILATIONS: usize = 2;

/// Machine code that wasmtime has loaded, not linked yet.
enum Machine {
    Core(Module),
    #[cfg(feature = "component-model")]
    Component(wasmtime::component::Component),
}

impl Machine {
    fn image_bytes(&self) -> usize {
        let image = match self {
            Self::Core(module) => module.image_range(),
            #[cfg(feature = "component-model")]
            Self::Component(component) => component.image_range(),
        };
        (image.end as usize).saturating_sub(image.start as usize)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Core(module) => module.serialize(),
            #[cfg(feature = "component-model")]
            Self::Component(component) => component.serialize(),
        }
    }
}

/// Compiles modules and keeps them, by the hash of their code.
pub(crate) struct Modules {
    maker: Arc<Maker>,
    compiling: Arc<Semaphore>,
    /// Threads that only compile.
    pool: rayon::ThreadPool,
}

/// Makes a module from code. The threads that compile share it.
struct Maker {
    engine: Engine,
    linker: Linker<CallState>,
    #[cfg(feature = "component-model")]
    components: wasmtime::component::Linker<CallState>,
    cache: Cache,
    disk: Option<Disk>,
    compiler: Option<Compiler>,
}

impl Modules {
    pub(crate) fn new(engine: Engine, options: WasmOptions) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&engine);
        abi::link(&mut linker)?;
        let pool = rayon::ThreadPoolBuilder::new();
        let pool = pool.num_threads(options.threads).thread_name(|n| format!("logline-compile-{n}")).build();
        let pool = pool.map_err(wasmtime::Error::new)?;
        let disk = options.disk.map(|(folder, key)| Disk::open(folder, key, &engine)).transpose()?;
        let cache = Cache::new(options.compiled_bytes);
        let maker = Maker {
            #[cfg(feature = "component-model")]
            components: component::linker(&engine)?,
            engine,
            linker,
            cache,
            disk,
            compiler: options.compiler,
        };
        let maker = Arc::new(maker);
        Ok(Self { maker, compiling: Arc::new(Semaphore::new(COMPILATIONS)), pool })
    }

    /// The hash of a job's code. It is remembered for each version of a function, so it is not computed for every call.
    pub(crate) fn code_hash(&self, job: &Job<'_>) -> Hash {
        let known = job.version.and_then(|version| self.maker.cache.code_of(&version));
        known.unwrap_or_else(|| {
            let hash = Hash::of(job.code.as_bytes());
            if let Some(version) = job.version {
                self.maker.cache.remember(version, hash);
            }
            hash
        })
    }

    /// The module in a job's code, from the cache or compiled now. `hash` is the hash of the code. `turns` lets its tenant
    /// compile one module at a time.
    pub(crate) async fn get(
        &self,
        kind: Kind,
        job: &Job<'_>,
        hash: Hash,
        turns: &Arc<Semaphore>,
    ) -> Result<Arc<Compiled>, Failure> {
        let hash = kind.cache_key(hash);
        let max_bytes = job.limits.module_bytes;
        let known = || self.maker.cache.get(&hash).map(|verdict| verdict.and_then(|module| module.within(max_bytes)));
        if let Some(known) = known() {
            return known;
        }
        let deadline = Instant::now() + COMPILE_TIME;
        // A tenant compiles one module at a time, so that it does not take the turns of the other tenants.
        let own = turn(turns, deadline).await?;
        let place = turn(&self.compiling, deadline).await?;
        // Another call may have compiled it while this call waited.
        if let Some(known) = known() {
            return known;
        }
        let (maker, code, tenant) = (Arc::clone(&self.maker), job.code.to_owned(), Arc::<str>::from(job.tenant));
        let (done, compiled) = oneshot::channel();
        // INVARIANT: the compilation, not its caller, holds the turn and keeps the result. If a caller gives up, no further
        // compilation starts too early, and the result is not lost.
        self.pool.spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| maker.make(kind, &code, &hash, max_bytes)));
            let verdict = made
                .unwrap_or_else(|_| Err(Failure::new("internal", "the compiler failed: see the host's log, and report it")));
            // No other failure is kept: a module above one tenant's limits may be within another's, and other failures may not
            // repeat.
            if !verdict.as_ref().is_err_and(|failure| !KEPT.contains(&failure.code.as_str())) {
                maker.cache.insert(hash, &tenant, verdict.clone());
            }
            drop((own, place));
            // The caller may no longer wait.
            let _ = done.send(verdict);
        });
        let compiled = tokio::time::timeout_at(deadline, compiled).await.map_err(|_| late())?;
        compiled.map_err(|_| Failure::new("closed", "the sandbox is closed"))?
    }
}

fn late() -> Failure {
    let seconds = COMPILE_TIME.as_secs();
    Failure::new("compile_timeout", format!("the module was not compiled within {seconds} s: retry, or make it smaller"))
}

async fn turn(turns: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
    let turn = tokio::time::timeout_at(deadline, Arc::clone(turns).acquire_owned()).await.map_err(|_| late())?;
    turn.map_err(|_| Failure::new("closed", "the sandbox is closed"))
}

impl Maker {
    fn make(&self, kind: Kind, code: &str, hash: &Hash, max_bytes: usize) -> Verdict {
        let binary = decode(kind, code, max_bytes)?;
        kind.check(&binary)?;
        if self.compiler.is_none() {
            too_large(binary.len(), MAX_BYTES)?;
            scan(&binary, Scan::Cost)?;
        }
        let cached = self.disk.as_ref().and_then(|disk| disk.load(hash, |artifact| self.load(kind, &artifact)));
        let is_new = cached.is_none();
        let machine = match cached {
            Some(machine) => machine,
            None => self.compile(kind, &binary)?,
        };
        let image_bytes = machine.image_bytes();
        let code = match &machine {
            Machine::Core(module) => Code::Core(Core {
                exports: abi::exports(module)?,
                pre: self.linker.instantiate_pre(module).map_err(|e| invalid(format!("{e:#}")))?,
            }),
            #[cfg(feature = "component-model")]
            Machine::Component(component) => Code::Component(component::Kernel::new(&self.components, component)?),
        };
        if let Some(disk) = self.disk.as_ref().filter(|_| is_new) {
            disk.store(hash, || machine.serialize());
        }
        Ok(Arc::new(Compiled { code, bytes: binary.len(), image_bytes }))
    }

    fn load(&self, kind: Kind, artifact: &Artifact<'_>) -> wasmtime::Result<Machine> {
        match kind {
            Kind::Core => artifact.load(&self.engine).map(Machine::Core),
            #[cfg(feature = "component-model")]
            Kind::Component => artifact.load_component(&self.engine).map(Machine::Component),
        }
    }

    fn compile(&self, kind: Kind, binary: &[u8]) -> Result<Machine, Failure> {
        let made = match (&self.compiler, kind) {
            (Some(compiler), _) => self.load(kind, &Artifact::of_compiler(&compiler.compile(binary)?)),
            (None, Kind::Core) => Module::from_binary(&self.engine, binary).map(Machine::Core),
            #[cfg(feature = "component-model")]
            (None, Kind::Component) => {
                wasmtime::component::Component::from_binary(&self.engine, binary).map(Machine::Component)
            }
        };
        made.map_err(|e| {
            // If the host could not map memory, the module is not the cause.
            let is_of_host = e.chain().any(|cause| cause.is::<io::Error>() || cause.is::<Errno>());
            if is_of_host {
                Failure::new("internal", format!("the module could not be loaded: {e:#}; retry"))
            } else {
                invalid(format!("{e:#}"))
            }
        })
    }
}

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

/// How long a caller waits for a module to be compiled, its turn included. (A host's lease allows for it.)
const COMPILE_TIME: Duration = Duration::from_secs(30);

/// Bytes of a binary that is compiled within the host.
const MAX_BYTES: usize = 1 << 20;

/// Refusals that are kept: whoever compiles the module again comes to the same.
const KEPT: &[&str] = &["invalid_module", "compile_limit"];

/// Modules that are compiled at once, each of another tenant.
const COMPILATIONS: usize = 2;

/// Machine code as wasmtime has it.
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

/// Modules by their code.
pub(crate) struct Modules {
    maker: Arc<Maker>,
    compiling: Arc<Semaphore>,
    /// Threads that do nothing but compile.
    pool: rayon::ThreadPool,
}

/// What makes modules of code.
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

    /// The hash of a job's code, which is computed once for each version of a function.
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

    /// The module in a job's code, whose hash is `hash`, compiled now or before. `turns` is its tenant's place among compilations.
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
        // A tenant compiles one module after the other, so that it does not take the other tenants' turns.
        let own = turn(turns, deadline).await?;
        let place = turn(&self.compiling, deadline).await?;
        // Somebody may have compiled it while this call waited.
        if let Some(known) = known() {
            return known;
        }
        let (maker, code, tenant) = (Arc::clone(&self.maker), job.code.to_owned(), Arc::<str>::from(job.tenant));
        let (done, compiled) = oneshot::channel();
        // The turn and the result belong to the compilation, not to whoever waits for it: a caller that gives up neither lets a
        // further compiler start nor throws the work away.
        self.pool.spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| maker.make(kind, &code, &hash, max_bytes)));
            let verdict = made
                .unwrap_or_else(|_| Err(Failure::new("internal", "the compiler failed: see the host's log, and report it")));
            // What does not fit one tenant's limits may fit another's, and what failed for other reasons may not fail again.
            if !verdict.as_ref().is_err_and(|failure| !KEPT.contains(&failure.code.as_str())) {
                maker.cache.insert(hash, &tenant, verdict.clone());
            }
            drop((own, place));
            // Nobody may be waiting any more.
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
            // Memory that the host could not map says nothing about the module.
            let is_of_host = e.chain().any(|cause| cause.is::<io::Error>() || cause.is::<Errno>());
            if is_of_host {
                Failure::new("internal", format!("the module could not be loaded: {e:#}; retry"))
            } else {
                invalid(format!("{e:#}"))
            }
        })
    }
}

//! Compiling in a process of its own, under limits of the operating system: whatever a module does to the compiler, the host does
//! not notice.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use logline_core::Failure;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use wasmtime::Engine;

use crate::engine;
#[cfg(feature = "component-model")]
use crate::kind::Kind;
use crate::scan::{self, Scan, invalid};

/// The program `logline-wasm-compiler`, and what one module may cost it. With it modules may be larger and more involved than what
/// is compiled within the host.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<String>,
    memory_bytes: u64,
    cpu_seconds: u64,
}

/// Ends that the compiler tells apart by its exit status.
const REFUSED: u8 = 3;

/// Signals by which a limit ends the compiler, and not somebody else.
const OWN_ENDS: [Signal; 3] = [Signal::XCPU, Signal::ABORT, Signal::SEGV];

/// Bytes of machine code for which an answer is read: more than any module of 16 MiB comes to.
const MAX_ANSWER: u64 = 512 << 20;

impl Compiler {
    /// The program at this path: `logline-wasm-compiler` of this crate in this version, or one whose `main` is [`compiler_main`].
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), memory_bytes: 2 << 30, cpu_seconds: 20 }
    }

    /// Arguments that come before the compiler's own, for a program that does other things as well.
    #[must_use]
    pub fn arguments<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Address space of one compilation, bytes. Default 2 GiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Processor time of one compilation, seconds. Default 20.
    #[must_use]
    pub fn cpu_seconds(mut self, seconds: u64) -> Self {
        self.cpu_seconds = seconds.max(1);
        self
    }

    /// The machine code of a module.
    pub(crate) fn compile(&self, binary: &[u8]) -> Result<Vec<u8>, Failure> {
        let unable = |e: io::Error| {
            Failure::new("compiler_failed", format!("{}: {e}; check the program, then retry", self.program.display()))
        };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args([self.memory_bytes.to_string(), self.cpu_seconds.to_string()])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(unable)?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // It reads all before it writes anything, so no pipe fills while nobody empties it. It may end early: then its status tells.
        let _ = input.map(|mut input| input.write_all(binary));
        let mut answer = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(MAX_ANSWER).read_to_end(&mut answer));
        let mut said = Vec::new();
        // Its messages are short.
        let _ = errors.map(|errors| errors.take(16 << 10).read_to_end(&mut said));
        let status = child.wait().map_err(unable)?;
        read.map_err(unable)?;
        match status.code() {
            Some(0) => Ok(answer),
            Some(code) if code == i32::from(REFUSED) => Err(invalid(String::from_utf8_lossy(&said))),
            // Its processor time is over, its memory, or its stack: it would be again.
            None if status.signal().is_some_and(|signal| OWN_ENDS.iter().any(|own| own.as_raw() == signal)) => {
                Err(Failure::new(
                    "compile_limit",
                    format!(
                        "the compiler ended with {status}: the module needs more than {} bytes of memory or {} s of processor time; make \
                     it smaller",
                        self.memory_bytes, self.cpu_seconds
                    ),
                ))
            }
            _ => Err(Failure::new(
                "compiler_failed",
                format!("the compiler ended with {status}: {}; check the program, then retry", String::from_utf8_lossy(&said)),
            )),
        }
    }
}

/// The `main` of a compiler: reads a module from standard input and writes its machine code to standard output. The last two
/// arguments are the address space, bytes, and the processor time, seconds, that it may use.
#[must_use]
pub fn compiler_main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |from_last: usize| arguments.len().checked_sub(from_last).and_then(|n| arguments.get(n)?.parse::<u64>().ok());
    let (Some(memory), Some(seconds)) = (number(2), number(1)) else {
        return tell(2, "usage: logline-wasm-compiler MEMORY_BYTES CPU_SECONDS < module.wasm > machine-code");
    };
    for (resource, most) in [(Resource::As, memory), (Resource::Cpu, seconds), (Resource::Core, 0), (Resource::Fsize, 0)] {
        // The first of the two ends a process by a signal that tells what it was.
        let maximum = if resource == Resource::Cpu { most.saturating_add(1) } else { most };
        if let Err(e) = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(maximum) }) {
            return tell(2, &format!("limits could not be set: {e}"));
        }
    }
    let mut binary = Vec::new();
    if let Err(e) = io::stdin().lock().read_to_end(&mut binary) {
        return tell(2, &e.to_string());
    }
    let mut config = engine::compiling();
    // One module, one thread: what it costs is what it may cost.
    config.parallel_compilation(false);
    let compiled = scan::scan(&binary, Scan::Structure)
        .and_then(|()| Engine::new(&config).map_err(|e| invalid(format!("{e:#}"))))
        .and_then(|engine| precompile(&engine, &binary).map_err(|e| invalid(format!("{e:#}"))));
    match compiled {
        Ok(artifact) => match io::stdout().lock().write_all(&artifact) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => tell(2, &e.to_string()),
        },
        Err(failure) => tell(REFUSED, &failure.message),
    }
}

fn precompile(engine: &Engine, binary: &[u8]) -> wasmtime::Result<Vec<u8>> {
    #[cfg(feature = "component-model")]
    if Kind::Component.check(binary).is_ok() {
        return engine.precompile_component(binary);
    }
    engine.precompile_module(binary)
}

fn tell(status: u8, message: &str) -> ExitCode {
    // Whoever started it may have gone.
    let _ = writeln!(io::stderr().lock(), "{message}");
    ExitCode::from(status)
}

//! Compiling in a process of its own, under limits of the operating system. If a module makes the compiler crash or use too
//! much, the host is not affected.

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

/// The program `logline-wasm-compiler`, and the memory and processor time that it may use for one module. It accepts larger and
/// more complex modules than the host compiles in its own process.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<String>,
    memory_bytes: u64,
    cpu_seconds: u64,
}

/// The exit status of a compiler that refused the module. Its message is on standard error.
const REFUSED: u8 = 3;

/// The signals that end a compiler that exceeds a limit. Any other signal comes from outside.
const OWN_ENDS: [Signal; 3] = [Signal::XCPU, Signal::ABORT, Signal::SEGV];

/// The most bytes that are read of an answer. The machine code of a module of 16 MiB is smaller.
const MAX_ANSWER: u64 = 512 << 20;

impl Compiler {
    /// Uses the program at this path. It must be `logline-wasm-compiler` of this version of the crate, or a program whose
    /// `main` is [`compiler_main`].
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), memory_bytes: 2 << 30, cpu_seconds: 20 }
    }

    /// Sets arguments that come before the compiler's own, for a program that has other functions as well. Default none.
    #[must_use]
    pub fn arguments<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the address space that one compilation may use, bytes. Default 2 GiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Sets the processor time that one compilation may use, seconds, at least 1. Default 20.
    #[must_use]
    pub fn cpu_seconds(mut self, seconds: u64) -> Self {
        self.cpu_seconds = seconds.max(1);
        self
    }

    /// Compiles a module or component and returns its machine code.
    pub(crate) fn compile(&self, binary: &[u8]) -> Result<Vec<u8>, Failure> {
        let unable = |e: io::Error| {
            Failure::new(
                "compiler_failed",
                format!("the compiler `{}` failed: {e}; check the program, then retry", self.program.display()),
            )
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
        // The compiler reads its whole input before it writes, so neither process blocks on a full pipe. If the compiler ends
        // early, this write fails, and the exit status says why.
        let _ = input.map(|mut input| input.write_all(binary));
        let mut answer = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(MAX_ANSWER).read_to_end(&mut answer));
        let mut said = Vec::new();
        // Standard error is read last. Its messages are short, so the compiler does not block on them.
        let _ = errors.map(|errors| errors.take(16 << 10).read_to_end(&mut said));
        let status = child.wait().map_err(unable)?;
        read.map_err(unable)?;
        match status.code() {
            Some(0) => Ok(answer),
            Some(code) if code == i32::from(REFUSED) => Err(invalid(String::from_utf8_lossy(&said))),
            // It used up its processor time, memory or stack. Another attempt would end in the same way.
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

/// The `main` of a compiler. It reads a module from standard input and writes its machine code to standard output. The last two
/// arguments of the program are the address space that it may use, bytes, and the processor time, seconds.
///
/// The exit status is 0 if the module was compiled, 3 if the module was refused, and 2 for any other error.
#[must_use]
pub fn compiler_main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |from_last: usize| arguments.len().checked_sub(from_last).and_then(|n| arguments.get(n)?.parse::<u64>().ok());
    let (Some(memory), Some(seconds)) = (number(2), number(1)) else {
        return tell(2, "usage: logline-wasm-compiler MEMORY_BYTES CPU_SECONDS < module.wasm > machine-code");
    };
    for (resource, most) in [(Resource::As, memory), (Resource::Cpu, seconds), (Resource::Core, 0), (Resource::Fsize, 0)] {
        // At the soft limit of processor time the process gets a signal of its own, SIGXCPU. At the hard limit it gets SIGKILL,
        // which does not say why.
        let maximum = if resource == Resource::Cpu { most.saturating_add(1) } else { most };
        if let Err(e) = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(maximum) }) {
            return tell(2, &format!("the limits could not be set: {e}"));
        }
    }
    let mut binary = Vec::new();
    if let Err(e) = io::stdin().lock().read_to_end(&mut binary) {
        return tell(2, &e.to_string());
    }
    let mut config = engine::compiling();
    // One thread for one module: then the limit of processor time is also a limit of the time that it takes.
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
    // The process that started this one may have ended, so a failure to write is ignored.
    let _ = writeln!(io::stderr().lock(), "{message}");
    ExitCode::from(status)
}

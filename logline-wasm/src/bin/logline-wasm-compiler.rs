//! Compiles one WebAssembly module under limits of the operating system. `logline_wasm::Compiler` starts it.

fn main() -> std::process::ExitCode {
    logline_wasm::compiler_main()
}

//! Compiles one WebAssembly module under limits of the operating system, for `logline_wasm::Compiler`.

fn main() -> std::process::ExitCode {
    logline_wasm::compiler_main()
}

//! Project tasks.
//!
//! - `cargo xtask test`: every test, installing what is missing.
//! - `cargo xtask ci`: the same, plus format, lints, docs and the dependency policy.
//! - `cargo xtask simulate [SEEDS]`: the simulation of a fleet with 5,000 seeds, or so many.
//! - `cargo xtask bombs`: what the worst modules that pass the sandbox's scan cost the compiler.
//! - `cargo xtask large`: the large-file test with 300 MB.
//! - `cargo xtask guests`: rebuilds the WebAssembly guests (needs the wasm32-unknown-unknown target).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to whoever runs it")]

mod packages;
mod postgres;
mod python;
mod run;

use std::process::ExitCode;
use std::time::Instant;

use run::{Failed, cargo, command, root};

/// The version of cargo-deny that CI installs beside the build.
const CARGO_DENY: &str = "0.20.2";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let started = Instant::now();
    let result = match task.as_str() {
        "test" => test(),
        "ci" => ci(),
        "large" => large(),
        "simulate" => simulate(),
        "bombs" => bombs(),
        "guests" => guests(),
        _ => {
            eprintln!("usage: cargo xtask test | ci | simulate [SEEDS] | bombs | large | guests");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => {
            println!("\nxtask {task}: everything holds ({} s)", started.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(Failed(what)) => {
            eprintln!("\nxtask {task}: failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Every test.
fn test() -> Result<(), Failed> {
    postgres::ensure_installed()?;
    cargo(&["test", "--workspace", "--no-fail-fast"])?;
    // Hosts may switch these on for the whole build, and no hash may change.
    for feature in ["serde_json/preserve_order", "serde_json/arbitrary_precision"] {
        cargo(&["test", "--package", "logline-core", "--features", feature, "--tests"])?;
    }
    // What hosts may switch on in the sandbox.
    cargo(&["test", "--package", "logline-wasm", "--features", "component-model", "--test", "components"])?;
    guest_tests()?;
    // Worker processes that are killed at random: whatever is lost or twice fails it.
    let file = root().join("target/worker_fleet.ledger");
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.clone().into_os_string();
        path.push(suffix);
        // It may not be there.
        let _ = std::fs::remove_file(path);
    }
    let sqlite = format!("sqlite:{}", file.display());
    for ledger in [&[][..], &["--ledger", &sqlite][..]] {
        let fleet = ["run", "--quiet", "--example", "worker_fleet", "--", "--chaos", "--requests", "1000", "--seconds", "6"];
        command("cargo").args(fleet).args(ledger).run()?;
    }
    // What follows by itself, and the sandbox: each ends well only where what it shows holds.
    for example in ["policies", "sandbox"] {
        command("cargo").args(["run", "--quiet", "--example", example]).run()?;
    }
    // The main job, and its ledger checked by a program that shares no code with it.
    let export = root().join("target/quickstart.ndjson");
    command("cargo").args(["run", "--quiet", "--example", "quickstart", "--", "--export"]).arg(&export).run()?;
    let python = python::environment()?;
    command(&python).args(["-c", CHECK_SUMS, "logline-wasm/guests/SHA256SUMS"]).run()?;
    command(&python).args(["-m", "unittest", "discover", "-s", "docs/verify"]).run()?;
    command(&python).arg("docs/verify/verify.py").arg(&export).run()
}

/// Functions in Rust whose artifacts are committed.
const GUESTS: [&str; 2] = ["fee", "score_payments"];

/// The guests' logic, natively; their artifacts are what the other tests run.
fn guest_tests() -> Result<(), Failed> {
    for guest in GUESTS {
        command("cargo")
            .args(["test", "--quiet", "--locked", "--manifest-path"])
            .arg(format!("logline-wasm/guests/{guest}/Cargo.toml"))
            .env("CARGO_TARGET_DIR", root().join("target/guests"))
            .run()?;
    }
    Ok(())
}

/// Whether every artifact is the one whose hash was committed.
const CHECK_SUMS: &str = "
import hashlib, pathlib, sys
sums = pathlib.Path(sys.argv[1])
for line in sums.read_text().splitlines():
    expected, name = line.split(maxsplit=1)
    found = hashlib.sha256((sums.parent / name.lstrip('*')).read_bytes()).hexdigest()
    print(name, 'holds' if found == expected else f'has {found}, expected {expected}')
    if found != expected:
        sys.exit(1)
";

/// Everything that must hold before a change lands.
fn ci() -> Result<(), Failed> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    let components =
        ["--package", "logline-wasm", "--package", "logline-cli", "--features", "component-model", "--all-targets"];
    cargo(&[&["clippy"], &components[..], &["--", "--deny", "warnings"]].concat())?;
    command("cargo").args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings").run()?;
    dependency_policy()?;
    test()
}

fn dependency_policy() -> Result<(), Failed> {
    let tools = root().join("target/tools");
    let deny = tools.join("bin/cargo-deny");
    if !deny.exists() {
        println!("installing cargo-deny {CARGO_DENY} into target/tools");
        command("cargo")
            .args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--no-default-features", "--quiet", "--root"])
            .arg(&tools)
            .run()?;
    }
    // The policy looks at every platform's crates; a build fetches its own only.
    cargo(&["fetch", "--locked"])?;
    command(&deny).args(["--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]).run()
}

/// What the suite does with some seeds, with many.
fn simulate() -> Result<(), Failed> {
    let seeds = std::env::args().nth(2).unwrap_or_else(|| "5000".to_owned());
    command("cargo")
        .args(["test", "--package", "logline-policy", "--test", "simulation", "whatever", "--", "--nocapture"])
        .env("LOGLINE_SIMULATION_SEEDS", seeds)
        .run()
}

/// What the suite does with one function of each kind, with whole modules; it prints what they cost.
fn bombs() -> Result<(), Failed> {
    command("cargo")
        .args(["test", "--release", "--package", "logline-wasm", "--test", "bombs", "--", "--nocapture"])
        .env("LOGLINE_BOMBS", "1")
        .run()
}

/// What the suite does with 30 MB, with 300.
fn large() -> Result<(), Failed> {
    command("cargo")
        .args(["test", "--release", "--package", "logline-cli", "--test", "cli", "a_large_file", "--", "--nocapture"])
        .env("LOGLINE_LARGE_MB", "300")
        .run()
}

/// Builds the guests from their sources; the artifacts and their hashes are then to be reviewed and committed.
fn guests() -> Result<(), Failed> {
    let guests = root().join("logline-wasm/guests");
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.map_err(|e| Failed(format!("CARGO_HOME: {e}")))?;
    // No path of the machine that built it may stand in an artifact.
    let flags = format!("--remap-path-prefix={home}=/cargo --remap-path-prefix={}=/logline", root().display());
    let target = root().join("target/guests");
    for guest in GUESTS {
        command("cargo")
            .args(["build", "--release", "--locked", "--target", "wasm32-unknown-unknown", "--manifest-path"])
            .arg(guests.join(guest).join("Cargo.toml"))
            .env("RUSTFLAGS", &flags)
            .env("CARGO_TARGET_DIR", &target)
            .run()?;
        let built = target.join(format!("wasm32-unknown-unknown/release/{guest}.wasm"));
        let copy = std::fs::copy(&built, guests.join(format!("{guest}.wasm")));
        copy.map_err(|e| Failed(format!("{}: {e}", built.display())))?;
    }
    println!("now run: cd {} && sha256sum *.wasm > SHA256SUMS", guests.display());
    Ok(())
}

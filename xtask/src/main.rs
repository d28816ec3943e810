//! Project tasks.
//!
//! - `cargo xtask test`: runs every test, and installs what is missing.
//! - `cargo xtask interop`: foreign tools judge what the adapters of model providers send: botocore and OpenAI's client; Go's
//!   `sumdb`, pymerkle and sigstore judge transparency logs, and are judged; a server with pgvector runs the trials of vectors; moto
//!   plays AWS KMS; schemathesis, promtool, hadolint and a generated TypeScript client judge the HTTP edge; Node and Chromium run the page.
//! - `cargo xtask edge`: of these, only what judges the HTTP edge.
//! - `cargo xtask page`: of these, only what runs the page.
//! - `cargo xtask screenshots`: writes the images of the page for the documentation.
//! - `cargo xtask ci`: both, plus format, lints, docs and the dependency policy.
//! - `cargo xtask simulate [SEEDS]`: the simulation of a fleet with 5,000 seeds, or with this many.
//! - `cargo xtask kill-log [ROUNDS]`: processes that keep a transparency log are killed 500 times, or this often.
//! - `cargo xtask attack [OPTIONS]`: programs that attack a shared host, and what the other users feel.
//! - `cargo xtask package`: packs every crate that is published, and compiles it from its package.
//! - `cargo xtask mutants [OPTIONS]`: changes the code of the trust chain and of requests, and lists the changes that no test of
//!   the core noticed.
//! - `cargo xtask memory-eval [--locomo FILE] [--longmemeval FILE] [--model DIR] [--seed N] [--plot FILE]`: how often memories are found, on a
//!   generated corpus, and on data sets that the user has.
//! - `cargo xtask bombs`: measures what the worst modules that pass the sandbox's scan cost the compiler.
//! - `cargo xtask large`: the large-file test with 300 MB.
//! - `cargo xtask guests`: rebuilds the WebAssembly guests (needs the wasm32-unknown-unknown target).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task prints to its user")]

mod edge;
mod interop;
mod kms;
mod packages;
mod page;
mod postgres;
mod python;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use run::{Failed, cargo, command, root};

/// The versions of the tools that are installed into `target/tools`.
const CARGO_DENY: &str = "0.20.2";
const CARGO_MUTANTS: &str = "27.1.0";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let started = Instant::now();
    let result = match task.as_str() {
        "test" => test(),
        "interop" => interop::interop(),
        "edge" => python::with_foreign_tools().and_then(|python| edge::judge(&python)),
        "page" => page::check(),
        "ci" => ci(),
        "screenshots" => page::screenshots(),
        "large" => large(),
        "simulate" => simulate(),
        "kill-log" => kill_log(),
        "attack" => attack(std::env::args().skip(2)),
        "mutants" => mutants(std::env::args().skip(2)),
        "package" => package(&[]),
        "memory-eval" => memory_eval(std::env::args().skip(2)),
        "bombs" => bombs(),
        "guests" => guests(),
        _ => {
            eprintln!(
                "usage: cargo xtask test | interop | edge | page | ci | screenshots | simulate [SEEDS] | kill-log [ROUNDS] | attack [OPTIONS] | package | memory-eval [OPTIONS] | mutants [OPTIONS] | bombs | large | guests"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => {
            println!("\nxtask {task}: passed ({} s)", started.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(Failed(what)) => {
            eprintln!("\nxtask {task}: failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the programs that attack a shared host.
fn attack(options: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    postgres::ensure_installed()?;
    command("cargo").args(["run", "--quiet", "--example", "attack", "--"]).args(options).run()
}

/// Measures how often memories are found. Paths are those of the caller's folder.
fn memory_eval(options: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    let here = std::env::current_dir().map_err(|e| Failed(format!("the current folder: {e}")))?;
    let mut run = command("cargo").args(["run", "--quiet", "--package", "logline-memory-eval", "--"]);
    let mut is_path = false;
    for option in options {
        let next_is_path = ["--locomo", "--longmemeval", "--model", "--plot"].contains(&option.as_str());
        run = if is_path { run.arg(here.join(option)) } else { run.arg(option) };
        is_path = next_is_path;
    }
    run.run()
}

/// Runs every test.
fn test() -> Result<(), Failed> {
    postgres::ensure_installed()?;
    cargo(&["test", "--workspace", "--no-fail-fast"])?;
    // A host's build may enable these features of serde_json. No hash may change then.
    let features = "serde_json/preserve_order,serde_json/arbitrary_precision";
    cargo(&["test", "--package", "logline-core", "--features", features, "--tests"])?;
    guest_tests()?;
    // Worker processes are killed at random. The example fails if anything is lost or happens twice.
    let file = root().join("target/worker_fleet.ledger");
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.clone().into_os_string();
        path.push(suffix);
        // The file may not exist.
        let _ = std::fs::remove_file(path);
    }
    let sqlite = format!("sqlite:{}", file.display());
    for ledger in [&[][..], &["--ledger", &sqlite][..]] {
        let fleet = ["run", "--quiet", "--example", "worker_fleet", "--", "--chaos", "--requests", "1000", "--seconds", "6"];
        command("cargo").args(fleet).args(ledger).run()?;
    }
    // Whatever one user does, the others are answered.
    attack(["--size", "50", "--rounds", "3"].map(str::to_owned))?;
    // Each of these examples fails if what it shows is not true.
    for example in ["policies", "sandbox", "ask_a_model", "explain_an_answer", "governance", "memory"] {
        command("cargo").args(["run", "--quiet", "--example", example]).run()?;
    }
    // By itself it simulates 2,000 sessions.
    command("cargo").args(["run", "--quiet", "--example", "prompt_lab", "--", "--sessions", "400"]).run()?;
    bedrock_chat()?;
    first_steps()?;
    // The quickstart exports its ledger, and a program that shares no code with the library verifies it.
    let export = root().join("target/quickstart.ndjson");
    command("cargo").args(["run", "--quiet", "--example", "quickstart", "--", "--export"]).arg(&export).run()?;
    let python = python::environment()?;
    command(&python).args(["-c", CHECK_SUMS, "logline-wasm/guests/SHA256SUMS"]).run()?;
    command(&python).args(["-m", "unittest", "discover", "-s", "docs/verify"]).run()?;
    command(&python).arg("docs/verify/verify.py").arg(&export).run()
}

/// Runs the example that needs AWS without anything of AWS. It says what is missing, and nothing else happens.
fn bedrock_chat() -> Result<(), Failed> {
    for (options, missing) in [(&[][..], "AWS_REGION"), (&["--region", "eu-central-1"][..], "AWS_ACCESS_KEY_ID")] {
        let mut run = command("cargo").args(["run", "--quiet", "--example", "bedrock_chat", "--"]).args(options);
        let nothing = ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK"];
        for variable in nothing {
            run = run.without(variable);
        }
        for file in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            run = run.env(file, root().join("target/no_such_file"));
        }
        let said = run.env("AWS_EC2_METADATA_DISABLED", "true").refusal()?;
        if !said.contains(missing) || said.contains("panicked") {
            return Err(Failed(format!("bedrock_chat must say that {missing} is missing: {said}")));
        }
    }
    Ok(())
}

/// Runs the example of the README in an empty folder, twice: the second time its ledger is there.
fn first_steps() -> Result<(), Failed> {
    let folder = root().join("target/first_steps");
    // It may not exist.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|e| Failed(format!("{}: {e}", folder.display())))?;
    for _ in 0..2 {
        let run = ["run", "--quiet", "--example", "first_steps", "--manifest-path"];
        command("cargo").args(run).arg(root().join("Cargo.toml")).folder(&folder).run()?;
    }
    Ok(())
}

/// The functions in Rust whose WebAssembly artifacts are committed.
const GUESTS: [&str; 2] = ["fee", "score_payments"];

/// Tests the logic of the guests natively. The other tests run their artifacts.
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

/// Checks that every artifact has the hash that was committed.
const CHECK_SUMS: &str = "
import hashlib, pathlib, sys
sums = pathlib.Path(sys.argv[1])
for line in sums.read_text().splitlines():
    expected, name = line.split(maxsplit=1)
    found = hashlib.sha256((sums.parent / name.lstrip('*')).read_bytes()).hexdigest()
    print(name, 'matches' if found == expected else f'has {found}, expected {expected}')
    if found != expected:
        sys.exit(1)
";

/// Runs all checks that must pass before a change is merged.
fn ci() -> Result<(), Failed> {
    cargo(&["fmt", "--all", "--check"])?;
    let components = ["--features", "logline-cli/component-model"];
    cargo(&[&["clippy", "--workspace", "--all-targets"], &components[..], &["--", "--deny", "warnings"]].concat())?;
    // The workspace's tests have components; a host's sandbox has none unless it asks for them.
    cargo(&["check", "--package", "logline-wasm"])?;
    command("cargo").args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings").run()?;
    dependency_policy()?;
    package(&["--no-verify"])?;
    test()?;
    interop::interop()
}

/// The crates that are published.
const PUBLISHED: [&str; 17] = [
    "logline-core",
    "logline-sqlite",
    "logline-pg",
    "logline-wasm",
    "logline-guest",
    "logline-kernels",
    "logline-policy",
    "logline-openai",
    "logline-bedrock",
    "logline-prompts",
    "logline-log",
    "logline-witness",
    "logline-memory",
    "logline-kms",
    "logline-http",
    "logline",
    "logline-cli",
];

/// Packs the crates that are published, and checks that each package has its licences and its page.
fn package(options: &[&str]) -> Result<(), Failed> {
    let crates = PUBLISHED.iter().flat_map(|name| ["--package", name]);
    command("cargo").args(["package", "--quiet", "--allow-dirty"]).args(crates).args(options).run()?;
    for name in PUBLISHED {
        let files = command("cargo").args(["package", "--allow-dirty", "--list", "--package", name]).output()?;
        for needed in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
            if !files.lines().any(|file| file == needed) {
                return Err(Failed(format!("the package of {name} has no {needed}")));
            }
        }
    }
    Ok(())
}

/// Installs a tool into `target/tools`, if it is not there. Returns the path of its program.
fn tool(name: &str, version: &str, options: &[&str]) -> Result<PathBuf, Failed> {
    let tools = root().join("target/tools");
    let program = tools.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} {version} into target/tools");
        // Without optimisation, which takes longer than what it saves.
        let install = ["install", name, "--version", version, "--locked", "--quiet", "--debug"];
        command("cargo").args(install).args(options).arg("--root").arg(&tools).run()?;
    }
    Ok(program)
}

fn dependency_policy() -> Result<(), Failed> {
    let deny = tool("cargo-deny", CARGO_DENY, &["--no-default-features"])?;
    // The policy checks the crates of every platform, but a build fetches only those of its own.
    cargo(&["fetch", "--locked"])?;
    command(&deny).args(["--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]).run()
}

/// Runs the simulation of the test suite with more seeds, optimised: it takes a fifth of the time.
fn simulate() -> Result<(), Failed> {
    let seeds = std::env::args().nth(2).unwrap_or_else(|| "5000".to_owned());
    command("cargo")
        .args(["test", "--release", "--package", "logline-policy", "--test", "simulation", "whatever", "--", "--nocapture"])
        .env("LOGLINE_SIMULATION_SEEDS", seeds)
        .run()
}

/// Runs the suite's test of killed processes with more rounds.
fn kill_log() -> Result<(), Failed> {
    let rounds = std::env::args().nth(2).unwrap_or_else(|| "500".to_owned());
    command("cargo")
        .args(["test", "--package", "logline-cli", "--test", "log_faults", "killed", "--", "--nocapture"])
        .env("LOGLINE_KILL_ROUNDS", rounds)
        .run()
}

/// The files whose mutants the tests of the core must notice.
const MUTATED: [&str; 4] = [
    "logline-core/src/trust/**/*.rs",
    "logline-core/src/request/**/*.rs",
    "logline-core/src/ledger/scope.rs",
    "logline-core/src/ledger/chain.rs",
];

/// Changes the code, one place at a time, and runs those of the core's tests that concern it on each change. The report is in
/// `target/mutants.out`. It takes an hour; `--shard 0/4` takes every fourth place.
fn mutants(options: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    let program = tool("cargo-mutants", CARGO_MUTANTS, &[])?;
    let files = MUTATED.iter().flat_map(|file| ["--file", file]);
    command(&program)
        .args(["mutants", "--package", "logline-core", "--baseline", "skip", "--timeout", "60", "--output", "target"])
        .args(files)
        .args(options)
        .args([
            "--",
            "--lib",
            "--test",
            "trust",
            "--test",
            "restore",
            "--test",
            "requests",
            "--test",
            "manifest",
            "--test",
            "memory_conformance",
        ])
        .run()
}

/// Runs the suite's test of the compiler's cost with whole modules instead of one function of each kind, and prints the cost.
fn bombs() -> Result<(), Failed> {
    command("cargo")
        .args(["test", "--release", "--package", "logline-wasm", "--test", "bombs", "--", "--nocapture"])
        .env("LOGLINE_BOMBS", "1")
        .run()
}

/// Runs the suite's large-file test with 300 MB instead of 30 MB.
fn large() -> Result<(), Failed> {
    command("cargo")
        .args(["test", "--release", "--package", "logline-cli", "--test", "cli", "a_large_file", "--", "--nocapture"])
        .env("LOGLINE_LARGE_MB", "300")
        .run()
}

/// Builds the guests from their sources. The artifacts and their hashes must then be reviewed and committed.
fn guests() -> Result<(), Failed> {
    let guests = root().join("logline-wasm/guests");
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.map_err(|e| Failed(format!("CARGO_HOME: {e}")))?;
    // An artifact must not contain paths of the machine that built it.
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

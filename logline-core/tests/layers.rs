//! The shape of the crate: modules import downwards only, and nothing comes in from outside that was not decided on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules from the bottom up. A module may use those above it in this list, never those below.
const LAYERS: &[&str] = &[
    "hex",
    "json",
    "timestamp",
    "span",
    "rules",
    "dsse",
    "clock",
    "ids",
    "keys",
    "recent",
    "keyfile",
    "canonical",
    "draft",
    "seal",
    "parse",
    "roles",
    "scope",
    "ledger",
    "memory",
    "sandbox",
    "trust",
    "kernel",
    "request",
    "stage0",
    "driver",
    "host",
    "ndjson",
    "fsck",
    "conformance",
];

/// The closed list of what core depends on.
const DEPENDENCIES: &[&str] = &[
    "async-trait",
    "blake3",
    "chrono",
    "ed25519-dalek",
    "futures-core",
    "futures-util",
    "getrandom",
    "ryu-js",
    "serde",
    "serde_json",
    "thiserror",
    "tracing",
    "uuid",
    "zeroize",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn modules_import_downwards_only() {
    let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let rank = |module: &str| LAYERS.iter().position(|m| *m == module);
    let mut upwards = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = rank(module).unwrap_or_else(|| panic!("module `{module}` has no layer: give it one in this test"));
        let text = fs::read_to_string(&file).unwrap();
        // Documentation may link anywhere.
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        for line in code {
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect();
                if rank(&used).is_some_and(|rank| rank > own) {
                    upwards.push(format!("{}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

fn tree(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn core_depends_on_nothing_but_the_closed_list() {
    let mut found = tree("logline-core", &["--depth", "1"]);
    found.remove("logline-core");
    let expected: BTreeSet<_> = DEPENDENCIES.iter().map(|d| (*d).to_owned()).collect();
    assert_eq!(found, expected);
    for banned in ["tokio", "sqlx", "rustls", "openssl", "native-tls", "rand"] {
        assert!(!tree("logline-core", &[]).contains(banned), "{banned}");
    }
}

#[test]
fn kernels_know_no_backend_and_backends_only_core() {
    let workspace = |package: &str| -> BTreeSet<String> {
        tree(package, &[]).into_iter().filter(|name| name.starts_with("logline") && name != package).collect()
    };
    let core = BTreeSet::from(["logline-core".to_owned()]);
    for package in ["logline-sqlite", "logline-pg", "logline-wasm", "logline-kernels"] {
        assert_eq!(workspace(package), core, "{package}");
    }
    assert_eq!(workspace("logline-guest"), BTreeSet::new(), "guests know no host");
}

#[test]
fn the_sandbox_has_no_features_that_guests_do_not_need() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--workspace", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("wasmtime-wasi"), "no WASI");
    let features = text.lines().find(|line| line.starts_with("wasmtime v")).expect("wasmtime is there");
    let features: Vec<_> = features.split_whitespace().nth(2).unwrap_or_default().split(',').collect();
    for banned in ["threads", "gc", "gc-drc", "gc-null", "cache", "component-model", "profiling", "default", "stack-switching"]
    {
        assert!(!features.contains(&banned), "wasmtime has feature {banned}: {features:?}");
    }
}

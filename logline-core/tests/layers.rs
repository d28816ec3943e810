//! The shape of the workspace: rooms use only those below them, only the driver appends, and nothing comes in from outside that was not
//! decided on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rooms of each crate from the bottom up: top-level modules, each a file or a folder. One may use those before it in the list, never
/// those after it.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "logline-core",
        &["value", "keys", "span", "roles", "request", "ledger", "trust", "contract", "host", "audit", "conformance"],
    ),
    (
        "logline-kernels",
        &[
            "measured",
            "harness",
            "seeds",
            "recall",
            "provider",
            "tool",
            "run_code",
            "replay",
            "schedule",
            "worker",
            "governance",
        ],
    ),
    (
        "logline-policy",
        &[
            "value",
            "bound",
            "expression",
            "template",
            "action",
            "effects",
            "cursor",
            "wasm",
            "policy",
            "batch",
            "dry_run",
            "gate",
            "due",
            "site",
            "active",
            "tenant",
            "agent",
            "seeds",
        ],
    ),
    (
        "logline-wasm",
        &[
            "function",
            "bounds",
            "scan",
            "kind",
            "engine",
            "artifact",
            "disk",
            "compiler",
            "options",
            "channel",
            "share",
            "state",
            "abi",
            "component",
            "compiled",
            "cache",
            "decode",
            "modules",
            "call",
            "threads",
        ],
    ),
    (
        "logline-sqlite",
        &[
            "error", "options", "place", "row", "search", "work", "schema", "turns", "readers", "select", "writer", "watcher",
            "inspect", "keys",
        ],
    ),
    (
        "logline-pg",
        &[
            "error",
            "stopper",
            "identity",
            "types",
            "position",
            "options",
            "definitions",
            "row",
            "tail",
            "admit",
            "migrate",
            "select",
            "work",
            "search",
            "doctor",
            "writer",
            "keys",
        ],
    ),
    ("logline-openai", &["error", "http", "body", "answer", "stream"]),
    (
        "logline-bedrock",
        &["value", "http", "error", "endpoint", "embed", "body", "answer", "pieces", "stream", "messages", "setup"],
    ),
    (
        "logline-prompts",
        &[
            "ids",
            "bandit",
            "rates",
            "variable",
            "block",
            "language",
            "render",
            "templates",
            "contract",
            "tools",
            "variant",
            "question",
            "conversation",
            "family",
            "build",
            "load",
            "record",
            "results",
            "kernel",
            "learn",
            "select",
            "chooser",
            "talk",
            "directives",
            "run",
            "eval",
            "verify",
            "verify_selection",
            "explain",
            "samples",
            "seeds",
        ],
    ),
    (
        "logline-log",
        &[
            "hash",
            "tree",
            "leaf",
            "note",
            "checkpoint",
            "tile",
            "policy",
            "proof",
            "store",
            "witness",
            "index",
            "ended",
            "audit",
            "integrator",
            "service",
        ],
    ),
    ("logline-witness", &["client", "peers", "server", "state"]),
    (
        "logline-memory",
        &[
            "index", "rank", "embed", "envelope", "wrap", "local", "vault", "members", "form", "contract", "belief", "consent",
            "kernel", "cipher", "results", "memories", "erasure", "export", "orphans", "keeper",
        ],
    ),
    ("logline-kms", &["errors", "names", "setup"]),
    (
        "logline-http",
        &[
            "problem",
            "params",
            "cursor",
            "described",
            "identity",
            "auth",
            "options",
            "slots",
            "bodies",
            "peers",
            "rates",
            "ready",
            "queue",
            "lately",
            "tail",
            "wire",
            "refusals",
            "service",
            "receive",
            "rows",
            "idempotency",
            "routes",
            "openapi",
            "page",
            "router",
            "serve",
        ],
    ),
    ("logline-guest", &["abi", "host"]),
    ("logline", &["failed", "home", "signal", "dev"]),
    ("logline-cli", &["open", "output", "when", "tenant_keys", "site", "commands"]),
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

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names behind `path` in a line of code: `crate::a::b` and `crate::{a, b}` name `a` and `b`.
fn named<'l>(line: &'l str, path: &str) -> Vec<&'l str> {
    let first = |text: &'l str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let mut names = Vec::new();
    for rest in line.split(path).skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group.split('}').next().unwrap_or_default().split(',').map(|item| first(item.trim()))),
            None => names.push(first(rest)),
        }
    }
    names
}

#[test]
fn rooms_use_only_those_below_them_in_every_crate() {
    let mut upwards = Vec::new();
    for (package, rooms) in ROOMS {
        let src = workspace().join(package).join("src");
        let rank = |room: &str| rooms.iter().position(|r| *r == room);
        let mut files = Vec::new();
        sources(&src, &mut files);
        let mut found = BTreeSet::new();
        for file in files {
            let relative = file.strip_prefix(&src).unwrap();
            let room = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            if ["lib", "main", "bin"].contains(&room) {
                continue;
            }
            let own = rank(room).unwrap_or_else(|| panic!("{package}: room `{room}` has no place: give it one in this test"));
            found.insert(room.to_owned());
            let text = fs::read_to_string(&file).unwrap();
            let is_flat = relative.iter().count() == 1;
            // Documentation may link anywhere.
            for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
                let mut used = named(line, "crate::");
                if is_flat {
                    used.extend(named(line, "super::"));
                }
                if used.into_iter().any(|used| rank(used).is_some_and(|rank| rank > own)) {
                    upwards.push(format!("{package}: {}: {}", relative.display(), line.trim()));
                }
            }
        }
        let listed: BTreeSet<_> = rooms.iter().map(|room| (*room).to_owned()).collect();
        assert_eq!(found, listed, "{package}");
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

/// Members of the workspace that have no rooms: the facade, which only hands on names, and what is not a library.
const WITHOUT_ROOMS: &[&str] = &[
    "logline-core/loopback",
    "logline-pg/testing",
    "attacks",
    "examples",
    "examples/quickstart",
    "benches",
    "benches/memory_eval",
    "docs",
    "xtask",
];

#[test]
fn every_member_of_the_workspace_has_rooms_or_is_named_as_an_exception() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: BTreeSet<_> = members.split('"').skip(1).step_by(2).collect();
    let known = ROOMS.iter().map(|(package, _)| *package).chain(WITHOUT_ROOMS.iter().copied());
    assert_eq!(members, known.collect(), "give it rooms in `ROOMS`");
}

/// Files that may append to a ledger, and why. Everything else goes through the driver, which holds every draft to the authorities.
const APPENDERS: &[(&str, &str)] = &[
    ("logline-core/src/host/driver.rs", "the driver"),
    ("logline-core/src/trust/root.rs", "manifests, sealed by root keys, which no host has"),
    ("logline-core/src/trust/own.rs", "approvals, and keys of hosts, sealed by an authority for a host that cannot write yet"),
    (
        "logline-core/src/audit/ndjson/importer.rs",
        "rows that others have sealed, and unsigned rows that an operator seals; both held to the same table",
    ),
    (
        "logline-kernels/src/seeds/mod.rs",
        "the function spans of kernels, sealed by the publisher of `system`, which no host has",
    ),
    ("logline-core/src/ledger/mod.rs", "forwards the calls of a shared ledger, and the sugar over them"),
];

#[test]
fn nothing_but_the_driver_and_a_named_few_appends() {
    let mut found = BTreeSet::new();
    for (package, _) in ROOMS.iter().filter(|(package, _)| !["logline-sqlite", "logline-pg", "logline-guest"].contains(package))
    {
        let mut files = Vec::new();
        sources(&workspace().join(package).join("src"), &mut files);
        for file in files {
            let name = format!("{package}/src/{}", file.strip_prefix(workspace().join(package).join("src")).unwrap().display());
            if name.contains("/conformance/") || name.contains("/in_memory/") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let mut code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            if code.any(|line| {
                line.contains("ledger.append")
                    || line.contains("ledger().append")
                    || line.contains(".append_one(")
                    || line.contains("(**self).append(")
            }) {
                found.insert(name);
            }
        }
    }
    let allowed: BTreeSet<_> = APPENDERS.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found, allowed, "route it through `Host::publish`, `Host::record` or the driver");
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
    let siblings = |package: &str| -> BTreeSet<String> {
        tree(package, &[]).into_iter().filter(|name| name.starts_with("logline") && name != package).collect()
    };
    let core = BTreeSet::from(["logline-core".to_owned()]);
    for package in ["logline-sqlite", "logline-pg", "logline-wasm", "logline-kernels"] {
        assert_eq!(siblings(package), core, "{package}");
    }
    let with_kernels = BTreeSet::from(["logline-core".to_owned(), "logline-kernels".to_owned()]);
    assert_eq!(siblings("logline-policy"), with_kernels, "policies know no backend and no sandbox");
    assert_eq!(siblings("logline-guest"), BTreeSet::new(), "guests know no host");
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

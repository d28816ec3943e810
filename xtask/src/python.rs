//! The Python environment of the independent verifier and of foreign tools, under `target`.

use std::path::{Path, PathBuf};

use crate::packages::install;
use crate::run::{Failed, command, root};

/// What the independent verifier needs.
const VERIFIER: &str = "docs/verify/requirements.txt";

/// The foreign tools that judge what adapters send.
const FOREIGN: &str = "interop/requirements.txt";

/// Says whether the packages of a file of requirements are installed in these versions.
const IS_INSTALLED: &str = "
import importlib.metadata, pathlib, sys
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    name, version = line.split('==')
    if importlib.metadata.version(name) != version:
        sys.exit(1)
";

/// Creates the environment if it does not exist, and returns its interpreter.
pub(crate) fn environment() -> Result<PathBuf, Failed> {
    let folder = root().join("target/python");
    let python = folder.join("bin/python");
    if !command(&python).arg("--version").succeeds() {
        if !command("python3").arg("--version").succeeds() {
            install("python3", &["python3", "python3-venv"])?;
        }
        if !command("python3").args(["-m", "venv", "--clear"]).arg(&folder).succeeds() {
            install("python3's venv module", &["python3-venv"])?;
            command("python3").args(["-m", "venv", "--clear"]).arg(&folder).run()?;
        }
    }
    packages(&python, VERIFIER)?;
    Ok(python)
}

/// The same environment with the foreign tools.
pub(crate) fn with_foreign_tools() -> Result<PathBuf, Failed> {
    let python = environment()?;
    packages(&python, FOREIGN)?;
    Ok(python)
}

/// Installs the packages of a file of requirements, unless they are there.
fn packages(python: &Path, requirements: &str) -> Result<(), Failed> {
    let ready = || command(python).args(["-c", IS_INSTALLED, requirements]).succeeds();
    if ready() {
        return Ok(());
    }
    command(python).args(["-m", "pip", "install", "--quiet", "--requirement", requirements]).run()?;
    if ready() { Ok(()) } else { Err(Failed(format!("the packages of {requirements} are not there after their installation"))) }
}

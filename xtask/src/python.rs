//! The Python environment of the independent verifier, under `target`.

use std::path::PathBuf;

use crate::packages::install;
use crate::run::{Failed, command, root};

/// Creates the environment if it does not exist, and returns its interpreter.
pub(crate) fn environment() -> Result<PathBuf, Failed> {
    let folder = root().join("target/python");
    let python = folder.join("bin/python");
    let ready = || command(&python).args(["-c", "import blake3, cryptography"]).succeeds();
    if ready() {
        return Ok(python);
    }
    if !command("python3").arg("--version").succeeds() {
        install("python3", &["python3", "python3-venv"])?;
    }
    if !command("python3").args(["-m", "venv", "--clear"]).arg(&folder).succeeds() {
        install("python3's venv module", &["python3-venv"])?;
        command("python3").args(["-m", "venv", "--clear"]).arg(&folder).run()?;
    }
    command(&python).args(["-m", "pip", "install", "--quiet", "--requirement", "docs/verify/requirements.txt"]).run()?;
    if ready() {
        Ok(python)
    } else {
        Err(Failed("blake3 and cryptography cannot be imported after their installation".to_owned()))
    }
}

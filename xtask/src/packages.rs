//! Installs what the machine lacks.

use crate::run::{Failed, command};

/// Installs Debian packages. If that fails, the error says what to install.
pub(crate) fn install(what: &str, packages: &[&str]) -> Result<(), Failed> {
    let failed = || Failed(format!("{what} is missing and could not be installed: install it and run this again"));
    command("apt-get").args(["update", "--quiet"]).run().map_err(|_| failed())?;
    command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--quiet"])
        .args(packages)
        .run()
        .map_err(|_| failed())
}

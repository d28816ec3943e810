//! The page: its modules in Node, the page in Chromium, and its images for the documentation.

use crate::packages::install;
use crate::run::{Failed, command, root};

const CHROMIUM: &str = "/usr/bin/chromium";

/// Runs the page's modules against the vectors, and the page over the example server.
pub(crate) fn check() -> Result<(), Failed> {
    set_up()?;
    let node =
        ["--test", "--test-reporter=spec", "interop/page/vectors.mjs", "interop/page/numbers.mjs", "interop/page/checks.mjs"];
    command("node").args(node).run()
}

/// Writes `docs/images/page-*.png`.
pub(crate) fn screenshots() -> Result<(), Failed> {
    set_up()?;
    command("node").arg("interop/page/screenshots.mjs").run()
}

/// Builds the server and the tool, and installs what is missing.
fn set_up() -> Result<(), Failed> {
    command("cargo").args(["build", "--quiet", "--workspace", "--example", "server", "--bin", "logline"]).run()?;
    if !command(CHROMIUM).arg("--version").succeeds() {
        install("chromium", &["chromium"])?;
    }
    // Ed25519 and the test runner as the checks use them are in Node 20.
    let is_recent = ["-e", "process.exit(Number(process.versions.node.split('.')[0]) >= 20 ? 0 : 1)"];
    if !command("node").args(is_recent).succeeds() {
        return Err(Failed("the page's checks need Node 20 or newer, and npm: install them and run this again".to_owned()));
    }
    let (pinned, tools) = (root().join("interop/page/package.json"), root().join("target/page-tools"));
    let wanted = std::fs::read(&pinned).map_err(|e| Failed(format!("{}: {e}", pinned.display())))?;
    let copy = tools.join("package.json");
    let is_installed =
        std::fs::read(&copy).is_ok_and(|found| found == wanted) && tools.join("node_modules/playwright-core").exists();
    if !is_installed {
        let written = std::fs::create_dir_all(&tools).and_then(|()| std::fs::write(&copy, wanted));
        written.map_err(|e| Failed(format!("{}: {e}", copy.display())))?;
        command("npm").args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]).folder(&tools).run()?;
    }
    Ok(())
}

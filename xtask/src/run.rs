//! Runs commands, and reports which one failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What failed, as text for the user.
pub(crate) struct Failed(pub(crate) String);

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // This crate's folder is one level below.
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.pop();
    folder
}

/// A command in the workspace's folder.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Task {
    let mut command = Command::new(program);
    command.current_dir(root());
    Task(command)
}

pub(crate) fn cargo(arguments: &[&str]) -> Result<(), Failed> {
    command("cargo").args(arguments).run()
}

pub(crate) struct Task(Command);

impl Task {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs it without this environment variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.env_remove(name);
        self
    }

    /// Runs it in this folder instead of the workspace's.
    pub(crate) fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Runs the command and shows its output.
    pub(crate) fn run(mut self) -> Result<(), Failed> {
        let shown = self.shown();
        println!("\n$ {shown}");
        let started = Instant::now();
        match self.0.status() {
            Ok(status) if status.success() => {
                println!("({} s)", started.elapsed().as_secs());
                Ok(())
            }
            Ok(status) => Err(Failed(format!("`{shown}`: {status}"))),
            Err(e) => Err(Failed(format!("`{shown}` could not be started: {e}"))),
        }
    }

    /// Runs the command and returns what it prints.
    pub(crate) fn output(mut self) -> Result<String, Failed> {
        let shown = self.shown();
        let output = self.0.output().map_err(|e| Failed(format!("`{shown}` could not be started: {e}")))?;
        if !output.status.success() {
            // Some tools say on standard output what is wrong.
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            return Err(Failed(format!("`{shown}`: {err}\n{out}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must end with status 1, and returns what it says.
    pub(crate) fn refusal(mut self) -> Result<String, Failed> {
        let shown = self.shown();
        println!("\n$ {shown}");
        let output = self.0.output().map_err(|e| Failed(format!("`{shown}` could not be started: {e}")))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(1) => Ok(said),
            _ => Err(Failed(format!("`{shown}` must end with status 1, not {}: {said}", output.status))),
        }
    }

    /// Whether the command runs and succeeds. Its output is not shown.
    pub(crate) fn succeeds(mut self) -> bool {
        self.0.output().is_ok_and(|output| output.status.success())
    }

    fn shown(&self) -> String {
        let words: Vec<_> =
            std::iter::once(self.0.get_program()).chain(self.0.get_args()).map(OsStr::to_string_lossy).collect();
        words.join(" ")
    }
}

//! Runs the tool in a folder of its own, as somebody at a shell does.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::process::{Command, Output};

use tempfile::TempDir;

/// The tool in this folder, with the ledger `demo.ledger` and nothing from the environment.
pub fn command(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logline"));
    command.current_dir(folder.path()).env_remove("LOGLINE_HOME").env_remove("LOGLINE_ENVIRONMENT");
    command.env("LOGLINE_LEDGER", "sqlite:demo.ledger").args(arguments);
    command
}

/// Runs the tool.
pub fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Standard output and standard error, if the exit status is `status`.
#[track_caller]
pub fn ended(status: i32, arguments: &[&str], output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{err}");
    (out, err)
}

/// Runs, expects this exit status, and returns standard output and standard error.
#[track_caller]
pub fn expect(folder: &TempDir, status: i32, arguments: &[&str]) -> (String, String) {
    ended(status, arguments, &run(folder, arguments))
}

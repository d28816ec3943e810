//! Keeps what went over the line, for `cargo xtask interop`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Lines of one process must not mix.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Adds a line to the file that the environment variable names, if there is one.
pub(crate) fn keep(variable: &str, kind: &str, head: &str, body: &[u8]) {
    let Some(file) = std::env::var_os(variable) else { return };
    let line = json!({"kind": kind, "head": head, "body": STANDARD.encode(body)}).to_string() + "\n";
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

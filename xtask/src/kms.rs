//! Runs the tests of AWS KMS against moto, a server that plays it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Failed, command, root};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is stopped when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing that anybody needs.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts moto on a free port, and runs the tests that need it.
pub(crate) fn kms(python: &Path) -> Result<(), Failed> {
    let failed = |what: &str, error: std::io::Error| Failed(format!("{what}: {error}"));
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|e| failed("no port", e))?.port();
    let server = Command::new(python)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .current_dir(root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed("moto does not start", e))?;
    let mut server = Server(server);
    let end = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end || server.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Err(Failed("moto does not answer: `python -m moto.server` in target/python says why".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let url = format!("http://127.0.0.1:{port}");
    let tests = ["test", "--quiet", "--workspace", "--test", "kms", "--", "--include-ignored"];
    command("cargo").args(tests).env("LOGLINE_KMS_URL", &url).run()?;
    // The tool has it by a feature.
    let tool = [
        "test",
        "--quiet",
        "--workspace",
        "--features",
        "logline-cli/kms",
        "--test",
        "memory",
        "--",
        "--include-ignored",
        "keys",
    ];
    command("cargo").args(tool).env("LOGLINE_KMS_URL", &url).run()
}

//! pgbouncer in front of a private server. It lends a server connection for one transaction (transaction mode).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{ServerError, failed, free_port, new_folder, run_as};

/// A running pgbouncer. It ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    keeper: Child,
    _folder: TempDir,
}

/// Starts pgbouncer, prints `ready`, and stops pgbouncer when standard input ends.
const KEEPER: &str = r#"
"$1" "$2/pgbouncer.ini" 2>"$2/log" & pid=$!
while ! grep -q "process up" "$2/log"; do
  kill -0 $pid 2>/dev/null || { cat "$2/log" >&2; echo failed; exit 1; }
  sleep 0.02
done
echo ready
cat >/dev/null
kill $pid; wait $pid
rm -rf "$2"/*
"#;

impl Pooler {
    pub(crate) fn start(server: u16, user: Option<(u32, u32)>) -> Result<Self, ServerError> {
        let program = binary().ok_or(ServerError::NoPooler)?;
        let folder = new_folder(user)?;
        let port = free_port()?;
        // From version 1.21 on, pgbouncer can keep named statements across transactions. The library does not rely on that.
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {0}/users\npool_mode = transaction\ndefault_pool_size = 2\n\
             max_client_conn = 200\nignore_startup_parameters = extra_float_digits\n",
            folder.path().display()
        );
        let users = ["api", "worker", "auditor", "host", "postgres"].map(|user| format!("\"{user}\" \"\"\n")).concat();
        std::fs::write(folder.path().join("pgbouncer.ini"), settings).map_err(failed("pgbouncer"))?;
        std::fs::write(folder.path().join("users"), users).map_err(failed("pgbouncer"))?;
        let mut command = run_as(user, "/bin/sh", folder.path());
        command.args(["-c", KEEPER, "keeper"]).arg(program).arg(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut keeper = command.spawn().map_err(failed("pgbouncer"))?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed("pgbouncer"))?;
        }
        if line.trim() != "ready" {
            return Err(ServerError::Failed { step: "pgbouncer", reason: "it did not start: see above".to_owned() });
        }
        Ok(Self { port, keeper, _folder: folder })
    }

    /// The URL with which `login` connects to `database` through this pooler.
    #[must_use]
    pub fn url(&self, login: &str, database: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // There is nobody to report a failure to.
        let _ = self.keeper.wait();
    }
}

fn binary() -> Option<&'static Path> {
    let packaged = Path::new("/usr/sbin/pgbouncer");
    if packaged.exists() {
        return Some(packaged);
    }
    let in_path = Command::new("pgbouncer").arg("--version").output().is_ok_and(|output| output.status.success());
    in_path.then_some(Path::new("pgbouncer"))
}

//! A private PostgreSQL server for tests, examples and benches: on loopback, in a temporary folder, gone with the process that
//! started it, however that ends.
//!
//! ```no_run
//! let server = logline_pg_testing::PrivateServer::start(&Default::default())?;
//! println!("{}", server.url("postgres", "postgres"));
//! # Ok::<(), logline_pg_testing::ServerError>(())
//! ```
//!
//! PostgreSQL refuses to run as root, so root starts it as the user `postgres` (or `nobody`).

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use thiserror::Error;

/// How the server is set up.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Whether commits wait for the disk, as in production. Default false: tests of contents need no durability.
    pub durable: bool,
    /// Lines for `postgresql.conf`.
    pub settings: Vec<String>,
}

/// Why there is no server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No binaries.
    #[error(
        "no PostgreSQL server binaries in PATH or /usr/lib/postgresql/*/bin: install PostgreSQL 15 or newer \
         (Debian: apt-get install postgresql), or set LOGLINE_PG_BIN to the folder that holds initdb and pg_ctl"
    )]
    NotInstalled,
    /// Root, and nobody to run it as.
    #[error("PostgreSQL refuses to run as root and there is neither a user `postgres` nor `nobody`: make one")]
    NoUser,
    /// A step failed.
    #[error("private PostgreSQL server: {step}: {reason}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What came of it.
        reason: String,
    },
}

fn failed(step: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |error| ServerError::Failed { step, reason: error.to_string() }
}

/// A running server. Dropping it, or the death of this process, stops it and removes its folder.
#[derive(Debug)]
pub struct PrivateServer {
    folder: TempDir,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    keeper: Child,
}

/// Starts the server, waits for its standard input to end (its starter died or let go), stops the server.
const KEEPER: &str = r#"
"$1/pg_ctl" -D "$2/data" -l "$2/log" -s -w -t 60 start || { tail -n 5 "$2/log" >&2; echo failed; exit 1; }
echo ready
cat >/dev/null
"$1/pg_ctl" -D "$2/data" -s -m immediate stop
rm -rf "$2"/*
"#;

impl PrivateServer {
    /// Makes a cluster and starts it. Superuser `postgres`, no password, loopback only.
    ///
    /// # Errors
    /// Where PostgreSQL is not installed or does not start.
    pub fn start(options: &ServerOptions) -> Result<Self, ServerError> {
        let binaries = binaries()?;
        let user = unprivileged()?;
        let folder = tempfile::Builder::new().prefix("logline-pg-").tempdir().map_err(failed("folder"))?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).map_err(failed("folder"))?;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed("port"))?.port();
        let data = folder.path().join("data");
        let mut initdb = run_as(user, binaries.join("initdb"), folder.path());
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data);
        let output = initdb.output().map_err(failed("initdb"))?;
        if !output.status.success() {
            return Err(ServerError::Failed { step: "initdb", reason: String::from_utf8_lossy(&output.stderr).into_owned() });
        }
        let mut settings = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {port}"),
            format!("unix_socket_directories = '{}'", folder.path().display()),
            "max_connections = 200".to_owned(),
            "max_prepared_transactions = 4".to_owned(),
        ];
        if !options.durable {
            settings.push("fsync = off".to_owned());
        }
        settings.extend(options.settings.iter().cloned());
        let config = data.join("postgresql.auto.conf");
        std::fs::write(&config, settings.join("\n") + "\n").map_err(failed("settings"))?;
        let mut command = run_as(user, "/bin/sh", folder.path());
        command.args(["-c", KEEPER, "keeper"]).arg(&binaries).arg(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // Its own group: an interrupt at the terminal ends this process, and the keeper then ends the server in order.
        command.process_group(0);
        let mut keeper = command.spawn().map_err(failed("start"))?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed("start"))?;
        }
        if line.trim() != "ready" {
            return Err(ServerError::Failed { step: "start", reason: "pg_ctl could not start it, see above".to_owned() });
        }
        Ok(Self { folder, binaries, user, port, keeper })
    }

    /// The URL of a database for a login.
    #[must_use]
    pub fn url(&self, login: &str, database: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of PostgreSQL's client programs, set to run against this server as superuser.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = run_as(self.user, self.binaries.join(name), self.folder.path());
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    /// Kills the server without a checkpoint, as a crash would, and starts it again.
    ///
    /// # Errors
    /// Where it does not come back.
    pub fn crash_and_restart(&self) -> Result<(), ServerError> {
        self.stop_hard()?;
        self.start_again()
    }

    /// Kills the server without a checkpoint.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn stop_hard(&self) -> Result<(), ServerError> {
        self.pg_ctl(&["-m", "immediate", "stop"])
    }

    /// Starts it after [`PrivateServer::stop_hard`].
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_again(&self) -> Result<(), ServerError> {
        let log = self.folder.path().join("log");
        self.pg_ctl(&["-l", &log.display().to_string(), "start"])
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<(), ServerError> {
        let mut command = run_as(self.user, self.binaries.join("pg_ctl"), self.folder.path());
        command.arg("-D").arg(self.folder.path().join("data")).args(["-s", "-w"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status().map_err(failed("pg_ctl"))? {
            status if status.success() => Ok(()),
            status => Err(ServerError::Failed { step: "pg_ctl", reason: format!("{arguments:?}: {status}") }),
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nobody is left to tell.
        let _ = self.keeper.wait();
    }
}

fn run_as(user: Option<(u32, u32)>, program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The folder of the newest server binaries.
fn binaries() -> Result<PathBuf, ServerError> {
    let set = std::env::var_os("LOGLINE_PG_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut packaged: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    packaged.sort_by_key(|folder| {
        folder.file_name().and_then(OsStr::to_str).and_then(|version| version.parse::<u32>().ok()).unwrap_or(0)
    });
    let folders = set.into_iter().chain(packaged.into_iter().rev().map(|f| f.join("bin"))).chain(std::env::split_paths(&path));
    let mut complete = folders.filter(|folder| ["initdb", "pg_ctl", "postgres"].iter().all(|p| folder.join(p).exists()));
    complete.next().ok_or(ServerError::NotInstalled)
}

/// Whom to run the server as, where this process is root.
fn unprivileged() -> Result<Option<(u32, u32)>, ServerError> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    let users = ["postgres", "nobody"].into_iter();
    let mut ids = users.filter_map(|user| Some((id(&["-u", user])?, id(&["-g", user])?)));
    ids.next().map(Some).ok_or(ServerError::NoUser)
}

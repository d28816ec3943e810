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

mod pooler;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use thiserror::Error;

pub use pooler::Pooler;

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
    /// No pgbouncer.
    #[error("no pgbouncer in PATH or /usr/sbin: install it (Debian: apt-get install pgbouncer)")]
    NoPooler,
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

/// Where a server's settings are.
const CONFIG: &str = "postgresql.auto.conf";

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
        Self::in_new_folder(&binaries, user, |folder| {
            let mut initdb = run_as(user, binaries.join("initdb"), folder);
            initdb
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
                .arg(folder.join("data"));
            run("initdb", &mut initdb)?;
            let mut settings = vec!["max_connections = 200".to_owned(), "max_prepared_transactions = 4".to_owned()];
            if !options.durable {
                settings.push("fsync = off".to_owned());
            }
            settings.extend(options.settings.iter().cloned());
            Ok(settings.join("\n") + "\n")
        })
    }

    /// Starts a server whose data `make` puts into the folder that it is given; it returns the settings.
    fn in_new_folder(
        binaries: &Path,
        user: Option<(u32, u32)>,
        make: impl FnOnce(&Path) -> Result<String, ServerError>,
    ) -> Result<Self, ServerError> {
        let folder = new_folder(user)?;
        let port = free_port()?;
        let mut settings = make(folder.path())?;
        settings += &format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n",
            folder.path().display()
        );
        let binaries = binaries.to_owned();
        std::fs::write(folder.path().join("data").join(CONFIG), settings).map_err(failed("settings"))?;
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

    /// Starts a replica that follows this server.
    ///
    /// # Errors
    /// Where the copy cannot be made or does not start.
    pub fn replica(&self) -> Result<Self, ServerError> {
        Self::in_new_folder(&self.binaries, self.user, |folder| {
            let data = folder.join("data");
            let mut copy = self.program("pg_basebackup");
            copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"]).arg(&data);
            run("pg_basebackup", &mut copy)?;
            // Of what is set there, the last counts.
            std::fs::read_to_string(data.join(CONFIG)).map_err(failed("settings"))
        })
    }

    /// Starts pgbouncer in front of this server: a server connection is lent for a transaction, and there are two.
    ///
    /// # Errors
    /// Where pgbouncer is not installed or does not start.
    pub fn pooler(&self) -> Result<Pooler, ServerError> {
        Pooler::start(self.port, self.user)
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

/// A folder that the server's user may write in.
fn new_folder(user: Option<(u32, u32)>) -> Result<TempDir, ServerError> {
    let folder = tempfile::Builder::new().prefix("logline-pg-").tempdir().map_err(failed("folder"))?;
    if let Some((uid, gid)) = user {
        chown(folder.path(), Some(uid), Some(gid)).map_err(failed("folder"))?;
    }
    Ok(folder)
}

fn free_port() -> Result<u16, ServerError> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed("port"))?.port())
}

/// Runs a program to its end.
fn run(step: &'static str, command: &mut Command) -> Result<(), ServerError> {
    let output = command.output().map_err(failed(step))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Failed { step, reason: String::from_utf8_lossy(&output.stderr).into_owned() })
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

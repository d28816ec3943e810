//! A private PostgreSQL server for tests, examples and benches. It listens on loopback and keeps its data in a temporary
//! folder. It ends with the process that started it, however that process ends.
//!
//! ```no_run
//! let server = logline_pg_testing::PrivateServer::start(&Default::default())?;
//! println!("{}", server.url("postgres", "postgres"));
//! # Ok::<(), logline_pg_testing::ServerError>(())
//! ```
//!
//! PostgreSQL refuses to run as root. If this process is root, the server runs as the user `postgres`, or as `nobody`.

mod pooler;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use thiserror::Error;

pub use pooler::Pooler;

/// How a private server is set up.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Whether commits wait for the disk, as in production. Default false: most tests need no durability.
    pub durable: bool,
    /// Additional settings, each a line such as `work_mem = '64MB'`.
    pub settings: Vec<String>,
    /// With these, clients may connect over TLS.
    pub tls: Option<ServerTls>,
}

/// What a server needs for TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
}

/// Why a private server or pooler could not be started or controlled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There are no PostgreSQL server binaries.
    #[error(
        "no PostgreSQL server binaries in PATH or /usr/lib/postgresql/*/bin: install PostgreSQL 15 or newer \
         (Debian: apt-get install postgresql), or set LOGLINE_PG_BIN to the folder that holds initdb and pg_ctl"
    )]
    NotInstalled,
    /// There is no pgbouncer.
    #[error("no pgbouncer in PATH or /usr/sbin: install it (Debian: apt-get install pgbouncer)")]
    NoPooler,
    /// This process is root, and there is no user to run the server as.
    #[error("PostgreSQL refuses to run as root and there is no user `postgres` or `nobody`: create one")]
    NoUser,
    /// A step failed.
    #[error("private PostgreSQL server: {step}: {reason}")]
    Failed {
        /// The step that failed, such as `initdb`.
        step: &'static str,
        /// Why it failed, such as the error output of the program.
        reason: String,
    },
}

fn failed(step: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |error| ServerError::Failed { step, reason: error.to_string() }
}

/// A running server. When this is dropped, or when this process ends, the server is stopped and its folder is removed.
#[derive(Debug)]
pub struct PrivateServer {
    folder: TempDir,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    keeper: Child,
}

/// The file in the data folder that has the server's settings.
const CONFIG: &str = "postgresql.auto.conf";

/// Starts the server and prints `ready`. When its standard input ends (its starter has ended or dropped it), it stops the
/// server.
const KEEPER: &str = r#"
"$1/pg_ctl" -D "$2/data" -l "$2/log" -s -w -t 60 start || { tail -n 5 "$2/log" >&2; echo failed; exit 1; }
echo ready
cat >/dev/null
"$1/pg_ctl" -D "$2/data" -s -m immediate stop
rm -rf "$2"/*
"#;

impl PrivateServer {
    /// Creates a cluster and starts it. The superuser is `postgres`, without a password. It listens on loopback only.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start.
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
            // What it does in the background holds snapshots and locks at times of its own choice.
            settings.push("autovacuum = off".to_owned());
            if !options.durable {
                settings.push("fsync = off".to_owned());
            }
            settings.extend(options.settings.iter().cloned());
            if let Some(tls) = &options.tls {
                settings.push("ssl = on".to_owned());
                for (name, pem) in [("server.crt", &tls.certificate), ("server.key", &tls.key)] {
                    write_private(&folder.join("data").join(name), pem, user).map_err(failed("certificate"))?;
                }
            }
            Ok(settings.join("\n") + "\n")
        })
    }

    /// Starts a server in a new folder. `make` puts the data into that folder and returns the settings.
    fn in_new_folder(
        binaries: &Path,
        user: Option<(u32, u32)>,
        make: impl FnOnce(&Path) -> Result<String, ServerError>,
    ) -> Result<Self, ServerError> {
        let folder = new_folder(user)?;
        let mut settings = make(folder.path())?;
        // Chosen as late as possible: until the server listens, another process may take it.
        let port = free_port()?;
        settings += &format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n",
            folder.path().display()
        );
        let binaries = binaries.to_owned();
        std::fs::write(folder.path().join("data").join(CONFIG), settings).map_err(failed("settings"))?;
        let mut command = run_as(user, "/bin/sh", folder.path());
        command.args(["-c", KEEPER, "keeper"]).arg(&binaries).arg(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // It is in a process group of its own. An interrupt at the terminal ends this process, and the keeper then stops the
        // server.
        command.process_group(0);
        let mut keeper = command.spawn().map_err(failed("start"))?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed("start"))?;
        }
        if line.trim() != "ready" {
            return Err(ServerError::Failed { step: "start", reason: "pg_ctl could not start it: see above".to_owned() });
        }
        Ok(Self { folder, binaries, user, port, keeper })
    }

    /// The URL with which `login` connects to `database`.
    #[must_use]
    pub fn url(&self, login: &str, database: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of PostgreSQL's client programs, such as `psql`, set up to run against this server as superuser.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = run_as(self.user, self.binaries.join(name), self.folder.path());
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    /// Stops the server without a checkpoint, as a crash would, and starts it again.
    ///
    /// # Errors
    /// If the server does not stop or does not start.
    pub fn crash_and_restart(&self) -> Result<(), ServerError> {
        self.stop_hard()?;
        self.start_again()
    }

    /// Stops the server without a checkpoint.
    ///
    /// # Errors
    /// If the server is not running.
    pub fn stop_hard(&self) -> Result<(), ServerError> {
        self.pg_ctl(&["-m", "immediate", "stop"])
    }

    /// Starts the server again after [`PrivateServer::stop_hard`].
    ///
    /// # Errors
    /// If the server does not start.
    pub fn start_again(&self) -> Result<(), ServerError> {
        let log = self.folder.path().join("log");
        self.pg_ctl(&["-l", &log.display().to_string(), "start"])
    }

    /// Starts a replica that follows this server.
    ///
    /// # Errors
    /// If the copy cannot be made or does not start.
    pub fn replica(&self) -> Result<Self, ServerError> {
        Self::in_new_folder(&self.binaries, self.user, |folder| {
            let data = folder.join("data");
            let mut copy = self.program("pg_basebackup");
            copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"]).arg(&data);
            run("pg_basebackup", &mut copy)?;
            // The new server's settings are appended to these. If a setting occurs twice, the last one counts.
            std::fs::read_to_string(data.join(CONFIG)).map_err(failed("settings"))
        })
    }

    /// Starts pgbouncer in front of this server. It lends a server connection for one transaction, and has at most two for each
    /// login and database.
    ///
    /// # Errors
    /// If pgbouncer is not installed or does not start.
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
        // There is nobody to report a failure to.
        let _ = self.keeper.wait();
    }
}

/// A temporary folder in which the server's user may write.
fn new_folder(user: Option<(u32, u32)>) -> Result<TempDir, ServerError> {
    let folder = tempfile::Builder::new().prefix("logline-pg-").tempdir().map_err(failed("folder"))?;
    if let Some((uid, gid)) = user {
        chown(folder.path(), Some(uid), Some(gid)).map_err(failed("folder"))?;
    }
    Ok(folder)
}

/// Writes a file that only the server's user can read.
fn write_private(path: &Path, text: &str, user: Option<(u32, u32)>) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = user {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn free_port() -> Result<u16, ServerError> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed("port"))?.port())
}

/// Runs a program to its end. If it fails, the error has its error output.
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

/// The folder of the server binaries: `LOGLINE_PG_BIN`, else the newest that Debian packages install, else one in PATH.
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

/// The user and group ids to run the server as; `None` if this process is not root.
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

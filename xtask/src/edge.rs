//! Foreign tools judge the HTTP edge: schemathesis the routes, on both ledgers, promtool metrics, rules and alerts, hadolint the container
//! file, and a client that is generated from the OpenAPI document, in TypeScript, makes a round trip.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use logline_pg_testing::PrivateServer;

use crate::packages::install;
use crate::postgres;
use crate::run::{Failed, Task, command, root};

/// The files of the example server.
const SERVER: &str = "examples/server";

/// A running server, which ends with this.
struct Server {
    child: Child,
    folder: PathBuf,
    ledger: String,
    url: String,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    /// Starts the example server on a new ledger: a file, or the database at this address.
    fn start(database: Option<&str>) -> Result<Self, Failed> {
        command("cargo").args(["build", "--quiet", "--workspace", "--example", "server", "--bin", "logline"]).run()?;
        let program = built("examples/server");
        let kind = if database.is_some() { "postgres" } else { "sqlite" };
        let folder = std::env::temp_dir().join(format!("logline-edge-{kind}-{}", std::process::id()));
        let failed = |error: std::io::Error| Failed(format!("{}: {error}", program.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let ledger = database.map_or_else(|| format!("sqlite:{}", folder.join("edge.ledger").display()), str::to_owned);
        let mut start = Command::new(&program);
        if database.is_some() {
            start.env("LOGLINE_SERVER_HOME", folder.join("home"));
        }
        let mut child = start
            .args(["--listen", "127.0.0.1:0", "--provider", "scripted"])
            .env("LOGLINE_SERVER_LEDGER", &ledger)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let output = child.stdout.take();
        let mut server = Self { child, folder, ledger, url: String::new(), token: String::new() };
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line).map_err(failed)?;
        }
        let member = |name: &str| {
            let value = line.split_once(&format!("\"{name}\":\"")).and_then(|(_, rest)| rest.split_once('"'));
            value.map(|(value, _)| value.to_owned()).ok_or_else(|| Failed(format!("the server says `{}`", line.trim())))
        };
        (server.url, server.token) = (member("url")?, member("token")?);
        Ok(server)
    }
}

/// A program that cargo has built.
fn built(program: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("debug").join(program)
}

/// Everything about the edge.
pub(crate) fn judge(python: &Path) -> Result<(), Failed> {
    container(python)?;
    rules()?;
    postgres::ensure_installed()?;
    let database = PrivateServer::start(&Default::default()).map_err(|error| Failed(error.to_string()))?;
    let on_postgres = Server::start(Some(&database.url("postgres", "postgres")))?;
    let on_sqlite = Server::start(None)?;
    // Both at once: the tool waits for answers more than it works.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| routes(python, &on_postgres).output());
        routes(python, &on_sqlite).run()?;
        let other = other.join().map_err(|_| Failed("a thread of this task panicked".to_owned()))??;
        let summary = other.lines().rev().take(12).collect::<Vec<_>>();
        println!("\non PostgreSQL:");
        summary.iter().rev().for_each(|line| println!("{line}"));
        Ok(())
    })?;
    client(&on_sqlite)?;
    metrics(python, &on_sqlite)
}

/// The container file. Nothing is built: that needs a daemon.
fn container(python: &Path) -> Result<(), Failed> {
    command(python.with_file_name("hadolint")).arg("--no-color").arg(root().join(SERVER).join("Containerfile")).run()
}

fn promtool() -> Result<(), Failed> {
    if command("promtool").arg("--version").succeeds() { Ok(()) } else { install("promtool", &["prometheus"]) }
}

/// Rules parse, and each alert fires when it should and rests when it should.
fn rules() -> Result<(), Failed> {
    promtool()?;
    let folder = root().join(SERVER);
    command("promtool").args(["check", "rules", "alerts.yml"]).folder(&folder).run()?;
    command("promtool").args(["test", "rules", "alerts_test.yml"]).folder(&folder).run()
}

/// All checks of schemathesis, with a fixed seed. Streams do not end, so tests of this repository hold them.
fn routes(python: &Path, server: &Server) -> Task {
    let tool = python.with_file_name("schemathesis");
    command(tool)
        .args(["--config-file", "interop/schemathesis.toml", "run", &format!("{}/openapi.json", server.url)])
        .args(["--header", &format!("Authorization: Bearer {}", server.token)])
        .args(["--checks", "all", "--max-examples", "2", "--seed", "1", "--workers", "1", "--warnings", "off"])
        .args(["--exclude-path", "/api/timeline/stream"])
}

/// The generated client compiles against the document, and makes a round trip.
fn client(server: &Server) -> Result<(), Failed> {
    if !command("npm").arg("--version").succeeds() {
        install("npm", &["nodejs", "npm"])?;
    }
    let folder = root().join("target/interop-client");
    let made = std::fs::create_dir_all(&folder);
    made.map_err(|error| Failed(format!("{}: {error}", folder.display())))?;
    command("cp").args(["-r", "interop/client/."]).arg(&folder).run()?;
    command("npm").args(["install", "--silent", "--no-audit", "--no-fund"]).folder(&folder).run()?;
    let document = root().join("docs/openapi.json");
    command("npx").arg("openapi-typescript").arg(document).args(["--output", "schema.d.ts"]).folder(&folder).run()?;
    command("npx").args(["tsc", "--project", "."]).folder(&folder).run()?;
    command("node").arg("built/round_trip.js").env("URL", &server.url).env("TOKEN", &server.token).folder(&folder).run()
}

/// Every metric that the dashboard and the alerts name is in what the server has measured after some work, and Prometheus takes it.
fn metrics(python: &Path, server: &Server) -> Result<(), Failed> {
    let work = command(python).arg("interop/live_metrics.py").args([&server.url, &server.token]);
    work.arg(built("logline")).arg(&server.ledger).run()?;
    let file = server.folder.join("metrics.txt");
    command("curl")
        .args(["--silent", "--show-error", "--fail", "--output"])
        .arg(&file)
        .arg(format!("{}/metrics", server.url))
        .run()?;
    command("sh").args(["-c", "promtool check metrics < \"$1\"", "sh"]).arg(&file).run()
}

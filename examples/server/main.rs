//! A service on one ledger: the HTTP edge and its page, the worker, schedules and policies in one process.
//!
//! `cargo run -p logline-examples --example server -- --listen 127.0.0.1:8080 --db demo.ledger`
//!
//! When it is ready it prints one line of JSON with its address, a token and the tenant; the page is at that address. It ends on SIGTERM and ctrl-c, after open
//! calls have ended; if its loops fail, it ends with status 1 and says why. `--config FILE` reads `config.toml`, `--check` only checks
//! it. It is for development: all keys are in one place ([`logline::home`]).
#![allow(clippy::print_stderr, reason = "a program says what is wrong")]

mod chat;
mod config;
mod site;
mod tls;
mod traces;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use logline_http::{Authenticator, Drain, NewKey, Permission, Plain, ServeOptions, router, serve_secure};
use logline_kernels::{Loops, Run as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use config::{Config, Line, Model};
use site::{Failed, Site};
use tls::Tls;
use traces::Traces;

#[derive(Parser)]
struct Arguments {
    /// A configuration file (TOML). Variables of the environment, `LOGLINE_SERVER_…`, and the arguments below count more.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Checks the configuration, says what is wrong with it, and ends.
    #[arg(long)]
    check: bool,
    /// The address to listen on. Port 0 takes a free one. Default 127.0.0.1:8080.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The SQLite file of the ledger. It is made if it does not exist.
    #[arg(long)]
    db: Option<PathBuf>,
    /// The tenant of the token that is printed. Default `acme`.
    #[arg(long)]
    tenant: Option<String>,
    /// What answers `/api/chat`: `openai`, with `chat.url` and `chat.model` of the configuration, or `scripted`, which is no model and is for
    /// trying out.
    #[arg(long)]
    provider: Option<String>,
}

/// The bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The bounds of the buckets of calls of models, in seconds, as the conventions for generative AI have them.
const MODEL_SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// The bounds of the buckets of counts.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { config, check, listen, db, tenant, provider } = Arguments::parse();
    let config = match Config::read(Line { file: config, listen, db, tenant, provider }, std::env::vars()) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("server: {fault}");
            }
            return ExitCode::from(2);
        }
    };
    if check {
        eprintln!("server: the configuration is valid");
        return ExitCode::SUCCESS;
    }
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Config) -> Result<(), Failed> {
    // The first line of standard output is for programs, so the log goes elsewhere.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    let traces = config.traces.as_ref().map(Traces::to).transpose()?;
    tracing_subscriber::registry().with(log).with(traces.as_ref().map(Traces::layer)).init();
    let exporter = PrometheusBuilder::new()
        // Counters whose names come from OpenTelemetry's conventions end with `_total` as well.
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_spans".to_owned()), &COUNTS)?
        .set_buckets_for_metric(Matcher::Prefix("gen_ai".to_owned()), &MODEL_SECONDS)?
        .install_recorder()?;
    logline_http::describe_metrics();
    let upkeep = exporter.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    if config.chat == Some(Model::Scripted) {
        eprintln!(
            "server: NO MODEL ANSWERS /api/chat: `chat.provider` is `scripted`, which repeats the question and is for trying out"
        );
    }
    let tls = config.tls.as_ref().map(|(cert, key)| Tls::read(cert, key)).transpose()?;
    let Site { host, keys, jwt, options } = Site::open(config).await?;
    let options = options.metrics(move || exporter.render());
    let permissions = Permission::ALL.iter().copied();
    let new =
        NewKey::new(&config.tenant, "demo", "printed at the start", permissions).lifetime(Duration::from_secs(24 * 60 * 60));
    let issued = keys.issue(new, "operator").await?;
    let listener = TcpListener::bind(config.listen).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ready = json!({
        "url": format!("{scheme}://{}", listener.local_addr()?), "token": *issued.token, "tenant": config.tenant,
    });
    let drain = options.drain.clone();
    let auth: Box<dyn Authenticator> = match jwt {
        Some(jwt) => Box::new(keys.or(jwt)),
        None => Box::new(keys),
    };
    let mut connections = ServeOptions::default();
    if options.client_header.is_some() {
        // Every call comes through a proxy, whose address all clients have.
        connections.max_connections_per_address = Some(connections.max_connections);
    }
    let app = router(host.clone(), auth, options);

    let ended = drain.clone();
    let (tell, mut failed) = oneshot::channel();
    let loops = tokio::spawn(async move {
        let ran = host.run(Loops::installed(&host), ended.wait()).await;
        // Whether it was told to or not.
        let _ = tell.send(());
        ran
    });
    let (interrupted, begun) = (logline::shutdown_signal(), drain.clone());
    let shutdown = async move {
        tokio::select! {
            () = interrupted => {}
            _ = &mut failed => {
                // Clients go to another instance, while the process ends.
                begun.begin();
            }
        }
    };
    writeln!(std::io::stdout(), "{ready}")?;
    std::io::stdout().flush()?;
    serve(listener, app, tls, connections, drain, shutdown).await;
    // Attempts in progress end or are given back.
    let ran = loops.await.map_err(|error| format!("the loops broke off: {error}"))?;
    if let Some(traces) = traces {
        tokio::task::spawn_blocking(move || traces.finish()).await?;
    }
    ran.map_err(|error| format!("the loops failed: {error}"))?;
    Ok(())
}

async fn serve(
    listener: TcpListener,
    app: axum::Router,
    tls: Option<Tls>,
    options: ServeOptions,
    drain: Drain,
    shutdown: impl Future<Output = ()>,
) {
    match tls {
        Some(tls) => serve_secure(listener, app, options, drain, shutdown, tls).await,
        None => serve_secure(listener, app, options, drain, shutdown, Plain).await,
    }
}

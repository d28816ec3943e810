//! A service on one SQLite file: the HTTP edge and its page, the worker, schedules and policies in one process.
//!
//! `cargo run -p logline-examples --example server -- --listen 127.0.0.1:8080 --db demo.ledger`
//!
//! When it is ready it prints one line of JSON with its address, a token and the tenant. The page is at that address. It ends on SIGTERM and ctrl-c, after open
//! calls have ended. It is for development: all keys are beside the file (`logline::dev`).

mod proofs;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use logline::home::{Home, KeyOf};
use logline_http::{ApiKeys, NewKey, Options, Permission, ServeOptions, ServiceKey, router, serve};
use logline_kernels::{Loops, Run as _};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A module that computes the fee of a payment.
const FEE: &[u8] = include_bytes!("../../logline/examples/fee.wasm");

#[derive(Parser)]
struct Arguments {
    /// The address to listen on. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The file of the ledger. It is made if it does not exist.
    #[arg(long)]
    db: PathBuf,
    /// The folder of transparency logs that `logline log run` keeps. With it the page shows whether a span is in the log.
    #[arg(long, requires = "log_key")]
    tiles: Option<PathBuf>,
    /// The key of the tenant's log, as `logline log checkpoint --log-key` prints it.
    #[arg(long, requires = "tiles")]
    log_key: Option<String>,
    /// The tenant of the token that is printed.
    #[arg(long, default_value = "acme")]
    tenant: String,
}

#[tokio::main]
async fn main() -> Result<(), logline::Failed> {
    let arguments = Arguments::parse();
    // The first line of standard output is for programs, so the log goes elsewhere.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let exporter = PrometheusBuilder::new().install_recorder()?;
    let upkeep = exporter.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });

    let dev = logline::dev(&arguments.db).await?;
    let host = dev.host().clone();
    let fee = json!({"rate": 25});
    dev.publish_module(&arguments.tenant, "fee", FEE, Some(fee)).await?;
    let keys = ApiKeys::new(host.clone());
    let permissions = [Permission::Read, Permission::Write, Permission::Execute, Permission::Manage];
    let new =
        NewKey::new(&arguments.tenant, "demo", "printed at the start", permissions).lifetime(Duration::from_secs(24 * 60 * 60));
    let issued = keys.issue(new, "operator").await?;

    // The host's own key stays the same over restarts, so cursors that were made before them stay valid.
    let secret = Home::beside(&arguments.db).key(KeyOf::Host)?.seed();
    let options = Options::new(ServiceKey::derive(secret.as_ref())).metrics(move || exporter.render());
    let options = match (arguments.tiles, arguments.log_key) {
        (Some(tiles), Some(key)) => options.prove(proofs::from_folder(&tiles, &key)?),
        _ => options,
    };
    let drain = options.drain.clone();
    let listener = TcpListener::bind(arguments.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = router(host.clone(), keys, options);

    let (mut terminate, ended) = (signal(SignalKind::terminate())?, drain.clone());
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let loops = tokio::spawn(async move { host.run(Loops::installed(&host), ended.wait()).await });
    let ready = json!({"url": url, "token": *issued.token, "tenant": arguments.tenant});
    writeln!(std::io::stdout(), "{ready}")?;
    std::io::stdout().flush()?;
    serve(listener, app, ServeOptions::default(), drain, shutdown).await;
    // Attempts in progress end or are given back.
    loops.await??;
    Ok(())
}

//! The edge with its worker, on SQLite or PostgreSQL, with the limits of the service out of the way.

use std::sync::Arc;

use logline::home::{Home, KeyOf, Setup};
use logline_core::ledger::WorkQueue;
use logline_core::{Host, SystemClock};
use logline_http::{ApiKeys, NewKey, Options, Permission, Rate, ServeOptions, ServiceKey, router, serve};
use logline_kernels::{Loops, Run as _};
use logline_pg::{PgLedger, PgOptions};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::json;
use tokio::net::TcpListener;

use crate::client::DATABASE;

const FEE: &[u8] = include_bytes!("../../../logline/examples/fee.wasm");

/// How many tenants there are. Each may have a part of the streams.
pub(crate) const TENANTS: usize = 10;

pub(crate) async fn start() {
    let folder = tempfile::tempdir().unwrap();
    let ledger: Arc<dyn WorkQueue> = match std::env::var(DATABASE) {
        Ok(url) => Arc::new(PgLedger::connect(PgOptions::new(&url).unwrap()).await.unwrap()),
        Err(_) => Arc::new(SqliteLedger::open(folder.path().join("bench.ledger")).unwrap()),
    };
    let (home, set) = (Home::folder(folder.path()), logline::behaviours());
    let ready = home.set_up(&ledger, &Setup::default().add_kernels(), &set, &SystemClock).await.unwrap();
    let host = Host::builder()
        .ledger(ledger)
        .trust(ready.trust)
        .key(home.key(KeyOf::Host).unwrap())
        .install(set)
        .sandbox(WasmSandbox::new().unwrap())
        .build()
        .await
        .unwrap();
    let keys = ApiKeys::new(host.clone());
    let publisher = home.key(KeyOf::Publisher).unwrap();
    let mut tokens = Vec::new();
    for tenant in 0..TENANTS {
        let tenant = format!("tenant-{tenant}");
        let fee = logline_wasm::function(&tenant, "fee").input(json!({"rate": 25}));
        logline_kernels::publish_module(&host, fee, FEE, &publisher).await.unwrap();
        let new = NewKey::new(&tenant, "alice", "bench", Permission::ALL.iter().copied());
        tokens.push(keys.issue(new, "bench").await.unwrap().token.to_string());
    }
    let mut options = Options::new(ServiceKey::derive(&[7; 32]));
    (options.key_rate, options.tenant_rate) = (Rate::new(1_000_000, 1_000_000), Rate::new(1_000_000, 1_000_000));
    (options.max_streams, options.max_streams_per_tenant) = (20_000, 20_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), options.drain.clone());
    let app = router(host.clone(), keys, options);
    tokio::spawn(async move { host.run(Loops::installed(&host), std::future::pending()).await.map(drop) });
    println!("{}", json!({"address": address, "tokens": tokens}));
    // Whoever has started it ends it.
    let mut connections = ServeOptions::default();
    connections.max_connections_per_address = Some(connections.max_connections);
    serve(listener, app, connections, drain, std::future::pending()).await;
}

//! A private server per test process, and a database of its own per test.
#![allow(dead_code, reason = "each test file uses a part")]

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// The server of this process; it goes when the process does.
pub(crate) fn server() -> &'static PrivateServer {
    static SERVER: OnceLock<PrivateServer> = OnceLock::new();
    SERVER.get_or_init(|| PrivateServer::start(&ServerOptions::default()).unwrap_or_else(|e| panic!("{e}")))
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

pub(crate) async fn connection(login: &str, database: &str) -> PgConnection {
    PgConnection::connect(&server().url(login, database)).await.unwrap()
}

/// Runs statements as superuser.
pub(crate) async fn superuser(database: &str, sql: &str) {
    let mut connection = connection("postgres", database).await;
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// The name of a new database.
fn new_name() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("trial_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A new, empty database.
pub(crate) async fn empty_database() -> String {
    let name = new_name();
    superuser("postgres", &format!("CREATE DATABASE {name}")).await;
    name
}

/// A new database with a ledger, and logins with one role each: `api`, `worker` and `auditor`. Like `auditor`, `host` may take
/// all three.
pub(crate) async fn database() -> String {
    static TEMPLATE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            superuser("postgres", "CREATE DATABASE template_ledger").await;
            migrate(&options("postgres", "template_ledger")).await.unwrap();
            let logins = [
                ("api", "logline_app"),
                ("worker", "logline_runtime"),
                ("auditor", "logline_operator"),
                ("host", "logline_operator"),
                ("stranger", ""),
            ];
            for (login, roles) in logins {
                superuser("postgres", &format!("CREATE ROLE {login} LOGIN")).await;
                if !roles.is_empty() {
                    superuser("postgres", &format!("GRANT {roles} TO {login}")).await;
                }
            }
        })
        .await;
    let name = new_name();
    superuser("postgres", &format!("CREATE DATABASE {name} TEMPLATE template_ledger")).await;
    name
}

pub(crate) fn options(login: &str, database: &str) -> PgOptions {
    PgOptions::new(&server().url(login, database)).unwrap()
}

/// A ledger of its own, through a login that may take every role but owns nothing.
pub(crate) async fn ledger() -> (String, PgLedger) {
    let database = database().await;
    let ledger = PgLedger::connect(options("host", &database)).await.unwrap();
    (database, ledger)
}

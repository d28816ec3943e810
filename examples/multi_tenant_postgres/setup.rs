//! A database with the ledger's schema, and logins with one role each.

use logline_pg::{PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::Result;

/// Where the ledger is, for each of its logins.
pub(crate) struct Database {
    pub(crate) api: String,
    pub(crate) worker: String,
    pub(crate) auditor: String,
    /// For messages: no password.
    pub(crate) shown: String,
    /// Stops with the example.
    _server: Option<PrivateServer>,
}

/// The login of each kind of process, its password, and the one role it is granted. An API host that is broken into cannot
/// write as a worker.
const LOGINS: [(&str, &str); 3] =
    [("example_api", "logline_app"), ("example_worker", "logline_runtime"), ("example_auditor", "logline_operator")];

/// Made up for this example; yours come from where you keep secrets.
const PASSWORD: &str = "only-for-this-example";

/// The database of `DATABASE_URL`, or one on a private server.
pub(crate) async fn database() -> Result<Database> {
    let given = std::env::var("DATABASE_URL").ok();
    let server = if given.is_none() {
        println!("DATABASE_URL is not set: starting a private PostgreSQL server");
        // Durable, as in production: what the numbers below say includes the disk.
        Some(PrivateServer::start(&ServerOptions { durable: true, ..Default::default() })?)
    } else {
        None
    };
    let admin = match (&given, &server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.url("postgres", "postgres"),
        (None, None) => return Err("no database".into()),
    };
    migrate(&PgOptions::new(&admin)?).await?;
    let connect: PgConnectOptions = admin.parse()?;
    let mut superuser = connect.clone().connect().await?;
    for (login, role) in LOGINS {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT {role} TO {login}"
        );
        superuser.execute(AssertSqlSafe(sql)).await?;
    }
    superuser.close().await?;
    let url = |login: &str| connect.clone().username(login).password(PASSWORD).to_url_lossy().to_string();
    let database = connect.get_database().unwrap_or("postgres");
    let shown = format!("{database} on {}:{}", connect.get_host(), connect.get_port());
    let [api, worker, auditor] = LOGINS.map(|(login, _)| url(login));
    Ok(Database { api, worker, auditor, shown, _server: server })
}

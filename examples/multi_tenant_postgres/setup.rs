//! Prepares a database with the ledger's schema, logins with one role each, and a key for each writer process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use logline_core::ledger::Ledger;
use logline_core::roles::Role;
use logline_core::trust::{Delegation, Manifest, RootSet, TrustError, TrustRoot};
use logline_core::{Clock as _, KeyPair, SYSTEM_TENANT, Signer as _, SystemClock};
use logline_pg::{PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::Result;

/// The URL of the ledger for each of its logins.
pub(crate) struct Database {
    pub(crate) api: String,
    pub(crate) worker: String,
    pub(crate) auditor: String,
    /// The database's name for messages, without the password.
    pub(crate) shown: String,
    /// The private server, if the example started one. It stops when this is dropped.
    _server: Option<PrivateServer>,
}

/// The login of each kind of process and the one role that it is granted. With separate logins, an attacker who has taken over
/// an API host cannot write as a worker.
const LOGINS: [(&str, &str); 3] =
    [("example_api", "logline_app"), ("example_worker", "logline_runtime"), ("example_auditor", "logline_operator")];

/// Only for this example. Take real passwords from your secret store.
const PASSWORD: &str = "only-for-this-example";

/// Prepares the database of `DATABASE_URL`, or one on a private server.
pub(crate) async fn database() -> Result<Database> {
    let given = std::env::var("DATABASE_URL").ok();
    let server = if given.is_none() {
        println!("DATABASE_URL is not set: starting a private PostgreSQL server");
        // Durable, as in production, so that the printed times include the disk.
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

/// The trust root, and a temporary folder with a key for each writer.
pub(crate) struct Keys {
    pub(crate) trust: TrustRoot,
    folder: tempfile::TempDir,
}

/// How long a delegation to a writer's key is valid.
const DELEGATED: Duration = Duration::from_secs(60 * 60);

impl Keys {
    /// Publishes a manifest that names one runtime authority. That authority then delegates to each writer's key, for the
    /// writer's tenant and one hour. Adding a host therefore needs neither a root key nor a new manifest.
    pub(crate) async fn prepare(ledger: &dyn Ledger, writers: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (root, authority) = (KeyPair::generate()?, KeyPair::generate()?);
        let trust = TrustRoot::new([root.public_key()], 1);
        match trust.resolve(ledger).await {
            Err(TrustError::NoManifest { skipped, .. }) if skipped.is_empty() => {}
            Err(TrustError::NoManifest { .. }) => {
                return Err("the database holds another ledger's manifest: give the example an empty one".into());
            }
            other => drop(other?),
        }
        let tenants = [SYSTEM_TENANT, "acme", "globex"];
        let manifest =
            Manifest::first(RootSet::new([root.public_key()], 1)).grant(authority.public_key(), Role::Runtime, tenants);
        trust.publish(ledger, &manifest, &root, &SystemClock).await?;
        let now = SystemClock.now();
        for (number, (tenant, _)) in writers.iter().enumerate() {
            let (key, _) = KeyPair::load_or_create(key_file(folder.path(), number))?;
            let delegation = Delegation::new(key.public_key(), [*tenant], now, now.saturating_add(DELEGATED));
            trust.delegate(ledger, &delegation, &authority, &SystemClock).await?;
        }
        Ok(Self { trust, folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The file of a writer's key.
pub(crate) fn key_file(folder: &Path, writer: usize) -> PathBuf {
    folder.join(format!("writer-{writer}.key"))
}

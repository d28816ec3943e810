//! Opens ledgers by URL, and reads scopes from flags and trust roots from files.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use logline_core::Scope;
use logline_core::ledger::{Ledger, Tenants, Waiting, WorkQueue};
use logline_pg::{PgLedger, PgOptions};
use logline_sqlite::{SqliteLedger, SqliteOptions};
use uuid::Uuid;

use crate::Error;

/// Where a ledger is.
pub(crate) enum Location {
    /// The path of a SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PgOptions>),
}

impl Location {
    /// Parses the URL of a ledger. An empty URL counts as missing.
    pub(crate) fn of(url: Option<&str>) -> Result<Self, Error> {
        let url = url.filter(|url| !url.is_empty());
        let url = url.ok_or("no ledger: pass --ledger sqlite:FILE or postgres://LOGIN@HOST/DATABASE, or set LOGLINE_LEDGER")?;
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(Box::new(PgOptions::new(url)?)));
        }
        let Some(file) = url.strip_prefix("sqlite:") else {
            // The URL may contain a password, so the error does not show it.
            return Err("the ledger's URL is not supported: use sqlite:FILE or postgres://LOGIN@HOST/DATABASE".into());
        };
        let file = file.strip_prefix("//").unwrap_or(file);
        if file.is_empty() {
            return Err("the ledger's URL has no file name: use sqlite:FILE".into());
        }
        if file.contains('?') {
            return Err(
                "options after `?` are not supported: use sqlite:FILE (commands that only read open it read-only)".into()
            );
        }
        Ok(Self::Sqlite(PathBuf::from(file)))
    }

    /// Refuses a file that does not exist, for commands that do not create one.
    pub(crate) fn check_exists(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(path) if path.is_dir() => Err(format!("`{}` is a folder, not a ledger", path.display()).into()),
            Self::Sqlite(path) if !path.exists() => Err(format!(
                "there is no ledger `{}`: check the path, or make one with `logline init` or `logline import`",
                path.display()
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// The trust root that `logline init` has made beside a file, if it is there.
    pub(crate) fn trust_beside(&self) -> Option<PathBuf> {
        let Self::Sqlite(path) = self else { return None };
        Some(logline::home::Home::beside(path).trust_file().to_owned()).filter(|file| file.exists())
    }

    /// Opens the ledger for writing. A file is created if it does not exist; a database is not.
    pub(crate) async fn for_writing(&self) -> Result<Arc<dyn WorkQueue>, Error> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteLedger::open(path)?),
            Self::Postgres(options) => Arc::new(PgLedger::connect(options.as_ref().clone()).await?),
        })
    }
}

/// Reads the open requests of some tenants, page by page, until `take` has seen all of them or returns false.
pub(crate) async fn open_requests(
    ledger: &dyn WorkQueue,
    tenants: &Tenants,
    mut take: impl FnMut(&Waiting) -> bool,
) -> Result<(), Error> {
    let mut after: Option<(String, Uuid)> = None;
    loop {
        let from = after.as_ref().map(|(tenant, id)| (tenant.as_str(), *id));
        let page = ledger.open_requests(tenants, from, usize::MAX).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.work.tenant_id.clone(), last.work.id));
        if !page.iter().all(&mut take) {
            return Ok(());
        }
    }
}

/// The database, for commands that only PostgreSQL has.
pub(crate) fn database(url: Option<&str>) -> Result<PgOptions, Error> {
    match Location::of(url)? {
        Location::Postgres(options) => Ok(*options),
        Location::Sqlite(_) => Err("this command is for --ledger postgres://…: a SQLite file needs no set-up".into()),
    }
}

/// Opens an existing ledger for reading.
pub(crate) async fn for_reading(url: Option<&str>) -> Result<Arc<dyn Ledger>, Error> {
    Ok(queue_for_reading(url).await?)
}

/// Opens an existing ledger for reading, with its queue.
pub(crate) async fn queue_for_reading(url: Option<&str>) -> Result<Arc<dyn WorkQueue>, Error> {
    let location = Location::of(url)?;
    location.check_exists()?;
    let path = match location {
        Location::Sqlite(path) => path,
        database @ Location::Postgres(_) => return database.for_writing().await,
    };
    Ok(Arc::new(SqliteLedger::open_with(SqliteOptions::new(path).read_only())?))
}

/// The identity to read as. Without either flag it is the operator, who sees everything.
#[derive(Args)]
pub(crate) struct Identity {
    /// Read as the runtime of this tenant, or with --user as that user of it.
    #[arg(long)]
    tenant: Option<String>,
    /// Read as this user of --tenant.
    #[arg(long, requires = "tenant")]
    user: Option<String>,
}

impl Identity {
    pub(crate) fn scope(&self) -> Scope {
        match (&self.tenant, &self.user) {
            (Some(tenant), Some(user)) => Scope::user(tenant, user),
            (Some(tenant), None) => Scope::runtime(tenant),
            (None, _) => Scope::Operator,
        }
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

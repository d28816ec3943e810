//! How a ledger in PostgreSQL is reached.

use std::fmt::Display;
use std::time::Duration;

use logline_core::ledger::LedgerError;
use sqlx::postgres::PgConnectOptions;

use crate::identity::Link;

/// How a ledger in PostgreSQL is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PgOptions {
    /// Server, login, database, TLS.
    pub connect: PgConnectOptions,
    /// Connections of the pool, at most. Default 10. A host that follows the ledger has one more, to listen.
    pub max_connections: u32,
    /// How many of them write, each a group of appends at a time; at least one must be left to read. More writers than the disk
    /// syncs at once only make groups smaller. Default 2.
    pub writers: usize,
    /// How long to wait for a free connection. Default 10 seconds.
    pub acquire_timeout: Duration,
    /// The server's limit for one statement. Default 30 seconds.
    pub statement_timeout: Duration,
    /// How long a scan that has reached the end waits for transactions that began before it, so that it shows what they
    /// committed in its place. Default 250 ms.
    pub settle: Duration,
    /// How often a watch looks for rows when nobody has told it of any. Default 1 second; [`PgOptions::through_pooler`] makes it
    /// 25 ms.
    pub poll_interval: Duration,
    /// Whether connections go through a pooler that hands out a server connection per transaction (pgbouncer, RDS Proxy): then
    /// `LISTEN` and named prepared statements do not work and are not used. Default false.
    pub pooler: bool,
}

impl PgOptions {
    /// The defaults for `postgres://login:password@host:port/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] for a URL that is none.
    pub fn new(url: &str) -> Result<Self, LedgerError> {
        // The URL may hold a password, so the error does not show it.
        let refused = |why: &dyn Display| LedgerError::Refused {
            reason: format!("not a URL such as postgres://login@host/database: {why}"),
        };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(refused(&"it begins with something else"));
        }
        let connect: PgConnectOptions = url.parse().map_err(|e| refused(&e))?;
        let is_named = connect.get_application_name().is_some();
        Ok(Self::from_connect(if is_named { connect } else { connect.application_name("logline") }))
    }

    /// The defaults for what sqlx already knows how to reach.
    #[must_use]
    pub fn from_connect(connect: PgConnectOptions) -> Self {
        Self {
            connect,
            max_connections: 10,
            writers: 2,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            settle: Duration::from_millis(250),
            poll_interval: Duration::from_secs(1),
            pooler: false,
        }
    }

    pub(crate) fn link(&self) -> Link {
        if self.pooler { Link::Pooled } else { Link::Direct }
    }

    /// Sets the most connections.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many connections write.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how long to wait for a free connection.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets the server's limit for one statement.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long a scan at the end waits for earlier transactions.
    #[must_use]
    pub fn settle(mut self, wait: Duration) -> Self {
        self.settle = wait;
        self
    }

    /// Sets how often a watch looks unasked.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// For a transaction pooler between here and the server.
    #[must_use]
    pub fn through_pooler(mut self) -> Self {
        self.pooler = true;
        self.poll_interval = Duration::from_millis(25);
        self
    }
}

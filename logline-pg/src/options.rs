//! Options for connecting to a ledger in PostgreSQL.

use std::fmt::Display;
use std::time::Duration;

use logline_core::ledger::LedgerError;
use sqlx::postgres::PgConnectOptions;

use crate::identity::Link;

/// How to connect to a ledger in PostgreSQL, and how to use the connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PgOptions {
    /// Server, login, database and TLS settings.
    pub connect: PgConnectOptions,
    /// The most connections of the pool. Default 10. A host that watches or works has one more, for `LISTEN`.
    pub max_connections: u32,
    /// How many of these connections write. Each commits one group of appends at a time. At least one connection must be left
    /// to read. More writers than the disk can sync at once only make groups smaller. Default 2.
    pub writers: usize,
    /// How long a call waits for a free connection before it fails as [`LedgerError::Unavailable`]. Default 10 seconds.
    pub acquire_timeout: Duration,
    /// The server's time limit for one statement. It is not set behind a pooler. Default 30 seconds.
    pub statement_timeout: Duration,
    /// How long a scan that has reached the end waits for transactions that began before it, so that it shows their rows in
    /// order. Default 250 ms.
    pub settle: Duration,
    /// How often a watch polls for rows when no notification comes. Default 1 second; [`PgOptions::through_pooler`] sets it to
    /// 25 ms.
    pub poll_interval: Duration,
    /// Whether connections go through a pooler that lends a server connection for one transaction (pgbouncer, RDS Proxy).
    /// `LISTEN` and named prepared statements do not work there and are not used. Default false.
    pub pooler: bool,
}

impl PgOptions {
    /// The defaults for `postgres://login:password@host:port/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if `url` is not a valid PostgreSQL URL.
    pub fn new(url: &str) -> Result<Self, LedgerError> {
        // The URL may hold a password, so the error does not show it.
        let refused = |why: &dyn Display| LedgerError::Refused {
            reason: format!("the database URL is not valid: {why}: use one such as postgres://login@host/database"),
        };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(refused(&"it does not begin with postgres://"));
        }
        let connect: PgConnectOptions = url.parse().map_err(|e| refused(&e))?;
        let is_named = connect.get_application_name().is_some();
        Ok(Self::from_connect(if is_named { connect } else { connect.application_name("logline") }))
    }

    /// The defaults, with connection settings of sqlx.
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

    /// Sets the most connections of the pool. Default 10.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many connections write. Default 2.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how long a call waits for a free connection. Default 10 seconds.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets the server's time limit for one statement. Default 30 seconds.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long a scan at the end waits for transactions that began before it. Default 250 ms.
    #[must_use]
    pub fn settle(mut self, wait: Duration) -> Self {
        self.settle = wait;
        self
    }

    /// Sets how often a watch polls when no notification comes. Default 1 second.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Adapts the options to a pooler that lends a server connection for one transaction: sets `pooler`, and `poll_interval` to
    /// 25 ms.
    #[must_use]
    pub fn through_pooler(mut self) -> Self {
        self.pooler = true;
        self.poll_interval = Duration::from_millis(25);
        self
    }
}

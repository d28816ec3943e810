//! The identity of a transaction: the role and the settings that row-level security reads.

use std::fmt::Write as _;

use std::time::Duration;

use logline_core::Scope;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres, Row as _, Transaction};

use crate::stopper::{Running, Stopper};

/// The group role of a scope.
pub(crate) fn role(scope: &Scope) -> &'static str {
    match scope {
        Scope::User { .. } => "logline_app",
        Scope::Runtime { .. } => "logline_runtime",
        Scope::Operator => "logline_operator",
    }
}

pub(crate) fn user(scope: &Scope) -> &str {
    match scope {
        Scope::User { user, .. } => user,
        Scope::Runtime { .. } | Scope::Operator => "",
    }
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// What is between this host and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// No pooler.
    Direct,
    /// A pooler that lends a server connection for one transaction. A statement that was prepared in one transaction may be
    /// unknown in the next. Statements that must reach the same server connection must be in one transaction.
    Pooled,
}

impl Link {
    /// Whether prepared statements are kept for as long as the connection lives.
    pub(crate) fn keeps_statements(self) -> bool {
        self == Self::Direct
    }
}

/// A connection for statements that need no identity. Behind a pooler it is a transaction.
pub(crate) enum Plain {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Plain {
    pub(crate) async fn begin(pool: &PgPool, link: Link) -> Result<Self, sqlx::Error> {
        Ok(match link {
            Link::Direct => Self::Connection(acquire(pool).await?),
            Link::Pooled => match pool.begin().await {
                Ok(transaction) => Self::Transaction(transaction),
                Err(error) => return Err(cause(&pool.connect_options(), error).await),
            },
        })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }

    pub(crate) async fn end(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }
}

/// A connection for one statement that takes on its identity by itself. It goes back to its pool only after [`OneStatement::end`]: if the
/// statement fails or is cancelled, the state of the connection is unknown and it is closed.
pub(crate) struct OneStatement(Option<Plain>);

impl OneStatement {
    pub(crate) async fn begin(pool: &PgPool, link: Link) -> Result<Self, sqlx::Error> {
        Plain::begin(pool, link).await.map(|plain| Self(Some(plain)))
    }

    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.as_mut().map(Plain::connection).ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) async fn end(mut self) -> Result<(), sqlx::Error> {
        match self.0.take() {
            Some(plain) => plain.end().await,
            None => Ok(()),
        }
    }
}

impl Drop for OneStatement {
    fn drop(&mut self) {
        match self.0.take() {
            Some(Plain::Connection(connection)) => drop(connection.detach()),
            // It is rolled back before anybody else uses its connection.
            Some(Plain::Transaction(transaction)) => drop(transaction),
            None => {}
        }
    }
}

/// A transaction with the identity of a scope.
///
/// The connection goes back to its pool only after [`Identified::commit`]. If its user fails, panics or is cancelled, its state
/// is unknown and it is closed, after its statement has been stopped on the server.
pub(crate) struct Identified {
    connection: Option<PoolConnection<Postgres>>,
    stopper: Option<Stopper>,
    /// The transaction, when it has begun.
    running: Option<Running>,
}

impl Identified {
    /// Begins in one round trip. The identity ends with the transaction, so the connection carries none to its next user.
    ///
    /// Behind a pooler there is no `stopper`, because the pooler decides which process a connection uses.
    pub(crate) async fn begin(
        pool: &PgPool,
        stopper: Option<&Stopper>,
        access: Access,
        scope: &Scope,
        named: Option<&str>,
    ) -> Result<Self, sqlx::Error> {
        let texts = [role(scope), scope.tenant().unwrap_or_default(), user(scope), named.unwrap_or_default()];
        let [role, tenant, user, named] = texts.map(literal);
        let access = match access {
            Access::ReadOnly => "READ ONLY",
            Access::ReadWrite => "READ WRITE",
        };
        // An index serves every query here in its own order, whatever the values. If statistics are old (after a restore or a
        // first load), the planner would collect a whole tenant in a bitmap and sort it, or read the whole table. If they are
        // not, it would plan a query on a large table at every call, which takes longer than reading a page.
        let begin = format!(
            "BEGIN {access}; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan; \
             SELECT pg_backend_pid(), now()::text, ledger.identify({role}, {tenant}, {user}, {named})"
        );
        let mut begun = Self { connection: Some(acquire(pool).await?), stopper: stopper.cloned(), running: None };
        // A message of several statements cannot have parameters. The values are hexadecimal literals, so they cannot change
        // the statement.
        let row = begun.connection()?.fetch_one(AssertSqlSafe(begin)).await?;
        begun.running = Some(Running { pid: row.try_get(0)?, began: row.try_get(1)? });
        Ok(begun)
    }

    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Commits the transaction and gives the connection back to the pool.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.connection()?.execute("COMMIT").await?;
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Identified {
    fn drop(&mut self) {
        match (self.connection.take(), &self.stopper, self.running.take()) {
            (Some(connection), Some(stopper), Some(running)) => stopper.stop(running, connection),
            (Some(connection), ..) => drop(connection.detach()),
            (None, ..) => {}
        }
    }
}

/// An SQL expression for `text`. It contains the text as hexadecimal digits only, never the text itself.
fn literal(text: &str) -> String {
    let mut sql = String::from("convert_from('\\x");
    for byte in text.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push_str("', 'UTF8')");
    sql
}

/// How long to wait for the server when a pool has not given a connection in time.
const PROBE: Duration = Duration::from_secs(2);

/// Takes a connection from the pool.
pub(crate) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    match pool.acquire().await {
        Ok(connection) => Ok(connection),
        Err(error) => Err(cause(&pool.connect_options(), error).await),
    }
}

/// Why the pool has given no connection in time. The pool does not say whether all its connections are busy or the server does
/// not answer, so this tries to connect once.
pub(crate) async fn cause(options: &PgConnectOptions, error: sqlx::Error) -> sqlx::Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    match tokio::time::timeout(PROBE, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => {
            // It has told what it was made for.
            let _ = connection.close().await;
            error
        }
        Ok(Err(refused)) => refused,
        Err(_) => {
            let message = format!("the server has not answered within {PROBE:?}");
            sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_identity_reaches_the_statement() {
        assert_eq!(literal("a'; --\\"), "convert_from('\\x61273b202d2d5c', 'UTF8')");
    }
}

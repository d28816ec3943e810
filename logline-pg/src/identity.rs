//! Whom a transaction speaks for: the role and the settings that row-level security reads.

use std::fmt::Write as _;

use logline_core::Scope;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Postgres, Transaction};

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

/// What is between here and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing.
    Direct,
    /// A pooler that hands out a server connection per transaction: a statement that is named in one is unknown in the next, and
    /// what is to reach one server connection stands in one transaction.
    Pooled,
}

impl Link {
    /// Whether statements are prepared once for a connection.
    pub(crate) fn keeps_statements(self) -> bool {
        self == Self::Direct
    }
}

/// A connection for statements that need no identity.
pub(crate) enum Plain {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Plain {
    pub(crate) async fn begin(pool: &PgPool, link: Link) -> Result<Self, sqlx::Error> {
        Ok(match link {
            Link::Direct => Self::Connection(pool.acquire().await?),
            Link::Pooled => Self::Transaction(pool.begin().await?),
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

/// A transaction in the identity of a scope.
///
/// A connection goes back to its pool only after [`Identified::commit`]. One whose user failed, panicked or was cancelled is in a
/// state nobody has looked at: it is closed.
pub(crate) struct Identified {
    connection: Option<PoolConnection<Postgres>>,
}

impl Identified {
    /// Begins in one round trip. The identity ends with the transaction, so the connection carries none to its next user.
    pub(crate) async fn begin(pool: &PgPool, access: Access, scope: &Scope, named: Option<&str>) -> Result<Self, sqlx::Error> {
        let texts = [role(scope), scope.tenant().unwrap_or_default(), user(scope), named.unwrap_or_default()];
        let [role, tenant, user, named] = texts.map(literal);
        let access = match access {
            Access::ReadOnly => "READ ONLY",
            Access::ReadWrite => "READ WRITE",
        };
        // Every query here is served by an index in its own order, whatever the values. Where statistics lag behind (a restore, a
        // first load), the planner would rather collect a whole tenant in a bitmap and sort it; where they do not, it would plan a
        // large table's query at every call, which takes longer than a page.
        let begin = format!(
            "BEGIN {access}; SET LOCAL enable_bitmapscan = off; SET LOCAL plan_cache_mode = force_generic_plan; \
             SELECT ledger.identify({role}, {tenant}, {user}, {named})"
        );
        let mut begun = Self { connection: Some(pool.acquire().await?) };
        // Several statements in one message take no parameters; the literals are hexadecimal, whatever the texts hold.
        begun.connection()?.execute(AssertSqlSafe(begin)).await?;
        Ok(begun)
    }

    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Ends the transaction and gives the connection back.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.connection()?.execute("COMMIT").await?;
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Identified {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// An expression for `text` in which nothing of it stands as it is.
fn literal(text: &str) -> String {
    let mut sql = String::from("convert_from('\\x");
    for byte in text.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push_str("', 'UTF8')");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_identity_reaches_the_statement() {
        assert_eq!(literal("a'; --\\"), "convert_from('\\x61273b202d2d5c', 'UTF8')");
    }
}

//! Whom a transaction speaks for: the role and the settings that row-level security reads.

use std::fmt::Write as _;

use logline_core::Scope;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

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

/// Begins a read-only transaction in the identity of `scope`, in one round trip. The identity ends with the transaction, so a
/// pooled connection carries none to its next user.
pub(crate) async fn read(
    pool: &PgPool,
    scope: &Scope,
    named: Option<&str>,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let texts = [role(scope), scope.tenant().unwrap_or_default(), user(scope), named.unwrap_or_default()];
    let [role, tenant, user, named] = texts.map(literal);
    let begin = format!("BEGIN READ ONLY; SELECT ledger.identify({role}, {tenant}, {user}, {named})");
    // Several statements in one message take no parameters; the literals are hexadecimal, whatever the texts hold.
    pool.begin_with(AssertSqlSafe(begin)).await
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

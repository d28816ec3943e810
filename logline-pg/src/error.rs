//! Maps errors of the database to errors of the ledger.

use logline_core::ledger::LedgerError;

/// The SQLSTATE that the registry raises for a version that does not follow the last one.
const NO_LINK: &str = "LL001";

/// The SQLSTATE that an append raises if a claim for which it is made is not held.
const CLAIM_LOST: &str = "LL002";

/// The SQLSTATE of a write on a replica or in a read-only session.
pub(crate) const READ_ONLY: &str = "25006";

/// Why a group was not written.
pub(crate) enum Failure {
    Database(sqlx::Error),
    Ledger(LedgerError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// What a writer can do about a failed insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setback {
    /// Another writer was first: read what is stored, and decide again.
    Raced,
    /// A claim for which one of the appends is made is lost.
    ClaimLost,
    /// The same statement may succeed if it is repeated.
    Again,
    /// The connection failed, or its server takes no writes. It is unknown whether the statement was carried out. Another
    /// connection may work.
    Lost,
    /// One of the rows is refused, or waits for a lock. The others may succeed without it.
    Apart,
    /// The whole group fails.
    Final,
}

pub(crate) fn setback(error: &sqlx::Error) -> Setback {
    let Some(error) = error.as_database_error() else { return Setback::Lost };
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        "23505" | NO_LINK => Setback::Raced,
        CLAIM_LOST => Setback::ClaimLost,
        "40001" | "40P01" => Setback::Again,
        // After a failover another server takes the writes.
        READ_ONLY => Setback::Lost,
        _ if code.starts_with("57P") || code.starts_with("08") => Setback::Lost,
        // No row causes these: out of resources, system errors, damaged storage. 53100 is a full disk, where fewer rows may
        // fit.
        _ if ["53", "58", "XX"].iter().any(|class| code.starts_with(class)) && code != "53100" => Setback::Final,
        _ => Setback::Apart,
    }
}

/// The ledger error that a database error means to the caller.
pub(crate) fn from_sqlx(error: sqlx::Error) -> LedgerError {
    let database = error.as_database_error();
    let message = database.map_or_else(|| error.to_string(), |e| e.message().to_owned());
    let code = database.and_then(|e| e.code()).unwrap_or_default().into_owned();
    let advice = match code.as_str() {
        "" => match &error {
            sqlx::Error::PoolTimedOut => {
                return unavailable(
                    "every connection of the pool is busy: raise `max_connections`, or send less at once",
                    error,
                );
            }
            sqlx::Error::PoolClosed => return LedgerError::Closed,
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
                return LedgerError::Refused { reason: error.to_string() };
            }
            _ => return unavailable(&message, error),
        },
        READ_ONLY => return LedgerError::ReadOnly { reason: format!("{message}: this is a replica or a read-only session") },
        "53100" => return LedgerError::Full { reason: message },
        "3F000" | "42P01" | "42883" => "this database holds no ledger, or an older one: run `logline migrate`",
        "42501" => "the login lacks a role: grant logline_app, logline_runtime or logline_operator to it",
        "28000" | "28P01" => "the server refused the login: check user, password and pg_hba.conf",
        "3D000" => "the database does not exist: create it, then run `logline migrate`",
        "XX001" | "XX002" => return LedgerError::Corrupt { reason: message, source: Some(Box::new(error)) },
        // Connections, resources, interruptions and conflicts: all of these are temporary.
        _ if ["08", "53", "55", "57", "58", "40", "25"].iter().any(|class| code.starts_with(class)) => {
            return unavailable(&message, error);
        }
        _ => return LedgerError::Refused { reason: format!("{message} (SQLSTATE {code})") },
    };
    LedgerError::Refused { reason: format!("{message}; {advice}") }
}

fn unavailable(reason: &str, error: sqlx::Error) -> LedgerError {
    LedgerError::Unavailable { reason: reason.to_owned(), source: Some(Box::new(error)) }
}

/// A copy of a group's error for another of its members. Only one member gets the source.
pub(crate) fn same_again(error: &LedgerError) -> LedgerError {
    match error {
        LedgerError::Refused { reason } => LedgerError::Refused { reason: reason.clone() },
        LedgerError::ReadOnly { reason } => LedgerError::ReadOnly { reason: reason.clone() },
        LedgerError::Full { reason } => LedgerError::Full { reason: reason.clone() },
        LedgerError::Unavailable { reason, .. } => LedgerError::Unavailable { reason: reason.clone(), source: None },
        LedgerError::Closed => LedgerError::Closed,
        other => LedgerError::Unavailable { reason: other.to_string(), source: None },
    }
}

//! Maps errors of SQLite to errors of the ledger.

use logline_core::ledger::LedgerError;
use rusqlite::{Error, ErrorCode};

/// The ledger error that an error of SQLite means to the caller.
pub(crate) fn from_sqlite(error: Error) -> LedgerError {
    let reason = error.to_string();
    // A value that is not what its column holds stays so: no retry helps.
    let is_damaged = matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::InvalidColumnType(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..)
    );
    if is_damaged {
        return LedgerError::Corrupt { reason, source: Some(Box::new(error)) };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerError::Full { reason },
        Some(ErrorCode::ReadOnly) => LedgerError::ReadOnly { reason },
        Some(ErrorCode::NotADatabase) => LedgerError::NotALedger { reason },
        Some(ErrorCode::DatabaseCorrupt) => LedgerError::Corrupt { reason, source: Some(Box::new(error)) },
        _ => LedgerError::Unavailable { reason, source: Some(Box::new(error)) },
    }
}

//! Writes a ledger as lines.

use std::io::{self, Write};

use thiserror::Error;

use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, Query};
use crate::value::hex::Hash;

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Spans written, one line each.
    pub spans: u64,
    /// Bytes written.
    pub bytes: u64,
    /// BLAKE3 of all bytes written: `b3sum` of the file.
    pub hash: Hash,
    /// The position of the last row; `None` if no row was written.
    pub until: Option<Cursor>,
    /// The tenant whose rows were exported; `None` if no tenant was named.
    pub tenant: Option<String>,
}

/// Why an export could not be completed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The ledger failed, or a row is damaged.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The output could not be written.
    #[error("export could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Writes every version of every span that `scope` may see (only of `tenant`, if given) to `out`, in append order, one line
/// each. It calls `progress` with the number of lines after each page.
///
/// # Errors
/// If the ledger or the output fails. If the ledger fails, what was written so far consists of whole lines.
pub async fn export(
    ledger: &dyn Ledger,
    scope: &Scope,
    tenant: Option<&str>,
    out: &mut (dyn Write + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Exported, ExportError> {
    let mut query = Query::timeline();
    query.tenant = tenant.map(str::to_owned);
    let mut exported = Exported { spans: 0, bytes: 0, hash: Hash([0; 32]), until: None, tenant: tenant.map(str::to_owned) };
    let mut hasher = blake3::Hasher::new();
    let mut cursor = None;
    loop {
        let page = ledger.scan(scope, &query, cursor.as_ref()).await?;
        for row in page.rows {
            let mut line = row.span.map_err(LedgerError::from)?.to_line();
            line.push(b'\n');
            out.write_all(&line)?;
            hasher.update(&line);
            exported.spans += 1;
            exported.bytes += line.len() as u64;
            exported.until = Some(row.cursor);
        }
        progress(exported.spans);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    out.flush()?;
    exported.hash = Hash(*hasher.finalize().as_bytes());
    Ok(exported)
}

//! Checks the file itself. Every scan uses an index, and whoever can write the file can make indexes that show other rows than
//! the table has, or a schema that hides rows.

use std::collections::BTreeSet;

use logline_core::ledger::{Inspection, LedgerError};
use rusqlite::Connection;

use crate::error::from_sqlite;
use crate::{schema, search};

/// The most problems that SQLite lists.
const MOST: u32 = 100;

pub(crate) fn inspect(connection: &Connection) -> Result<Inspection, LedgerError> {
    let mut problems = schema_differences(connection)?;
    // One view of the file for all that follows. FTS5 keeps what it has read of its index until the next search, and without one it would
    // compare that with pages that were written since, and report damage.
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    search::refresh(&snapshot)?;
    // Compares every index with its table, in both directions, and checks the unique ones.
    let mut check = connection.prepare(&format!("PRAGMA integrity_check({MOST})")).map_err(from_sqlite)?;
    let found = check.query_map([], |row| row.get::<_, String>(0)).map_err(from_sqlite)?;
    for line in found {
        let line = line.map_err(from_sqlite)?;
        if line != "ok" {
            problems.push(format!("integrity_check: {line}"));
        }
    }
    match search::stray(connection)? {
        0 => {}
        stray => {
            problems.push(format!("{stray} entries of the index of memories are not of last versions: run `logline rebuild`"))
        }
    }
    let sql = "SELECT count(*) FROM universal_registry NOT INDEXED";
    let rows: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(from_sqlite)?;
    Ok(Inspection::new(rows.try_into().unwrap_or(0), problems))
}

/// What differs between the schema of the file and the one that this library makes.
fn schema_differences(connection: &Connection) -> Result<Vec<String>, LedgerError> {
    let ours = Connection::open_in_memory().map_err(from_sqlite)?;
    for ddl in schema::ALL {
        ours.execute_batch(ddl).map_err(from_sqlite)?;
    }
    let (ours, theirs) = (definitions(&ours)?, definitions(connection)?);
    let name = |(kind, name, _): &(String, String, String)| format!("{kind} `{name}`");
    let missing =
        ours.difference(&theirs).map(|object| format!("schema: the {} of this library is missing or changed", name(object)));
    let extra = theirs.difference(&ours).map(|object| format!("schema: the {} is not this library's", name(object)));
    Ok(missing.chain(extra).collect())
}

/// Kind, name and SQL text of everything in the schema. SQLite makes `sqlite_sequence` and statistics by itself.
fn definitions(connection: &Connection) -> Result<BTreeSet<(String, String, String)>, LedgerError> {
    let sql = "SELECT type, name, tbl_name || ': ' || coalesce(sql, '') FROM sqlite_schema
        WHERE name NOT IN ('sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4')";
    let mut select = connection.prepare(sql).map_err(from_sqlite)?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(from_sqlite)?;
    rows.collect::<Result<_, _>>().map_err(from_sqlite)
}

//! Open work, active spans, and quota counters. These tables follow from the rows, and change in the transaction that adds a
//! row.

use std::ops::Bound;
use std::time::Duration;

use logline_core::ledger::quota::Uses;
use logline_core::ledger::work::{MAX_CLAIMABLE, MAX_HOLD, MAX_TOUCHED, PollBudget, Rebuilt, in_turns};
use logline_core::ledger::{
    ActiveKind, Activity, Due, LedgerError, Limit, Order, Parking, Poll, Polled, Position, Tenants, Touched, Waiting, Work,
};
use logline_core::request::{CallKind, MAX_PRIORITY, QueueEntry};
use logline_core::{Clock as _, SignedSpan, SystemClock, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::error::from_sqlite;
use crate::row::{self, COLUMNS};
use crate::search;

/// The tables of open work, of active spans (schedules and policies, which hosts attend to without a request), and of quota
/// counters. `ready_at` is in microseconds since 1970-01-01 UTC, and [`NEVER`] for a request that is parked without an end.
pub(crate) const DDL: &str = "
CREATE TABLE work (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  owner_id TEXT NOT NULL,
  curr_hash TEXT NOT NULL,
  priority INTEGER NOT NULL,
  ready_at INTEGER NOT NULL,
  leased INTEGER NOT NULL,
  parked TEXT,
  PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX work_ready ON work (tenant_id, priority, ready_at, id);
CREATE TABLE active (
  kind TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  owner_id TEXT NOT NULL,
  curr_hash TEXT NOT NULL,
  refused INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, tenant_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX active_listed ON active (kind, tenant_id, id) WHERE NOT refused;
CREATE TABLE quota (
  tenant_id TEXT NOT NULL,
  key TEXT NOT NULL,
  day TEXT NOT NULL,
  used INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;
";

/// The ledger's clock is the machine's: all processes that open the file run on one machine.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Updates the tables for a new row.
pub(crate) fn update(connection: &Connection, span: &SignedSpan, now: Timestamp) -> Result<(), LedgerError> {
    match Activity::of(span) {
        Activity::Never => {}
        Activity::Inactive => return deactivate(connection, span),
        Activity::Active(kind) => return activate(connection, span, kind),
    }
    let (ready, priority, leased) = match QueueEntry::of(span, now) {
        None => return Ok(()),
        Some(QueueEntry::Closed) => {
            let mut delete =
                connection.prepare_cached("DELETE FROM work WHERE tenant_id = ?1 AND id = ?2").map_err(from_sqlite)?;
            return delete.execute(params![span.tenant_id, span.id.to_string()]).map(drop).map_err(from_sqlite);
        }
        Some(QueueEntry::Scheduled { due, priority }) => (due, priority, false),
        Some(QueueEntry::Leased { lease, priority }) => (now.saturating_add(lease), priority, true),
    };
    let sql = "INSERT OR REPLACE INTO work (tenant_id, id, seq, owner_id, curr_hash, priority, ready_at, leased)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let mut insert = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let (id, hash) = (span.id.to_string(), span.seal.curr_hash.to_string());
    let row = params![span.tenant_id, id, span.seq, span.owner_id, hash, priority, ready.unix_micros(), leased];
    insert.execute(row).map(drop).map_err(from_sqlite)
}

fn deactivate(connection: &Connection, span: &SignedSpan) -> Result<(), LedgerError> {
    // Both kinds are named so that the primary key is used. An id keeps its type, so at most one of them has it.
    let sql = "DELETE FROM active WHERE kind IN ('schedule', 'policy') AND tenant_id = ?1 AND id = ?2";
    let mut delete = connection.prepare_cached(sql).map_err(from_sqlite)?;
    delete.execute(params![span.tenant_id, span.id.to_string()]).map(drop).map_err(from_sqlite)
}

fn activate(connection: &Connection, span: &SignedSpan, kind: ActiveKind) -> Result<(), LedgerError> {
    let sql = "INSERT OR REPLACE INTO active (kind, tenant_id, id, seq, owner_id, curr_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let (id, hash) = (span.id.to_string(), span.seal.curr_hash.to_string());
    insert.execute(params![kind.as_str(), span.tenant_id, id, span.seq, span.owner_id, hash]).map(drop).map_err(from_sqlite)
}

pub(crate) fn active(
    connection: &Connection,
    kind: ActiveKind,
    tenants: &Tenants,
    after: &(String, String),
    limit: usize,
) -> Result<Vec<Work>, LedgerError> {
    let sql = "SELECT tenant_id, owner_id, id, seq, curr_hash FROM active
        WHERE kind = ?1 AND NOT refused AND (tenant_id, id) > (?2, ?3) AND tenant_id <= ?4 ORDER BY tenant_id, id LIMIT ?5";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    listed(tenants, after, limit, |tenant, id, last, room| {
        let rows = select.query_map(params![kind.as_str(), tenant, id, last, room], decode).map_err(from_sqlite)?;
        rows.collect::<Result<_, _>>().map_err(from_sqlite)
    })
}

/// The open requests of some tenants, in the order of (tenant, id).
pub(crate) fn open_requests(
    connection: &Connection,
    tenants: &Tenants,
    after: &(String, String),
    limit: usize,
) -> Result<Vec<Waiting>, LedgerError> {
    let sql = "SELECT tenant_id, owner_id, id, seq, curr_hash, ready_at, leased, parked FROM work
        WHERE (tenant_id, id) > (?1, ?2) AND tenant_id <= ?3 ORDER BY tenant_id, id LIMIT ?4";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    listed(tenants, after, limit, |tenant, id, last, room| {
        let rows = select.query_map(params![tenant, id, last, room], decode_waiting).map_err(from_sqlite)?;
        rows.collect::<Result<_, _>>().map_err(from_sqlite)
    })
}

/// Reads up to `limit` entries of a table that is ordered by (tenant, id), after one of them. `page` reads entries after a (tenant,
/// id) up to a last tenant.
fn listed<T>(
    tenants: &Tenants,
    (tenant, id): &(String, String),
    limit: usize,
    mut page: impl FnMut(&str, &str, &str, i64) -> Result<Vec<T>, LedgerError>,
) -> Result<Vec<T>, LedgerError> {
    let rows = |room: usize| i64::try_from(room).unwrap_or(i64::MAX);
    let Tenants::Only(names) = tenants else {
        // No tenant's name is greater than this text.
        return page(tenant, id, "\u{10ffff}", rows(limit));
    };
    let mut found: Vec<T> = Vec::new();
    for name in names.range::<str, _>((Bound::Included(tenant.as_str()), Bound::Unbounded)) {
        let room = limit.saturating_sub(found.len());
        if room == 0 {
            break;
        }
        let id = if name == tenant { id } else { "" };
        found.extend(page(name, id, name, rows(room))?);
    }
    Ok(found)
}

pub(crate) fn refuse_active(connection: &Connection, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(from_sqlite)?;
    {
        let sql = "UPDATE active SET refused = 1 WHERE kind = ?1 AND tenant_id = ?2 AND id = ?3 AND seq = ?4";
        let mut update = transaction.prepare_cached(sql).map_err(from_sqlite)?;
        for work in refused {
            update.execute(params![kind.as_str(), work.tenant_id, work.id.to_string(), work.seq]).map_err(from_sqlite)?;
        }
    }
    transaction.commit().map_err(from_sqlite)
}

pub(crate) fn offer_active(connection: &Connection, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
    let names = tenants.names();
    let sql = "UPDATE active SET refused = 0 WHERE kind = ?1 AND refused
        AND (?2 IS NULL OR tenant_id IN (SELECT value FROM json_each(?2)))";
    let names = names.map(|names| serde_json::Value::from(names).to_string());
    connection.execute(sql, params![kind.as_str(), names]).map(drop).map_err(from_sqlite)
}

/// The tenants of the rows after `after`. All tenants if there are more than [`MAX_TOUCHED`].
pub(crate) fn touched(connection: &Connection, after: Option<i64>) -> Result<Touched, LedgerError> {
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    let end = "SELECT coalesce(max(pos), 0) FROM universal_registry";
    let end: i64 = snapshot.query_row(end, [], |row| row.get(0)).map_err(from_sqlite)?;
    let most = i64::try_from(MAX_TOUCHED).unwrap_or(i64::MAX);
    let tenants = match after.filter(|after| end.saturating_sub(*after) <= most) {
        None => Tenants::All,
        Some(after) => {
            let sql = "SELECT DISTINCT tenant_id FROM universal_registry WHERE pos > ?1";
            let mut select = snapshot.prepare_cached(sql).map_err(from_sqlite)?;
            let rows = select.query_map([after], |row| row.get(0)).map_err(from_sqlite)?;
            Tenants::Only(rows.collect::<Result<_, _>>().map_err(from_sqlite)?)
        }
    };
    Ok(Touched { tenants, cursor: Position::Append(end).to_cursor() })
}

/// Adds what a new row uses to `uses`, or fails if a limit forbids it.
pub(crate) fn admit(connection: &Connection, uses: &mut Uses, span: &SignedSpan, limits: &[Limit]) -> Result<(), LedgerError> {
    let day = uses.today().to_string();
    uses.add(span, limits, |key| used(connection, &day, &span.tenant_id, key))
}

/// Adds what an append uses to the counters. A counter of another day starts again at zero.
pub(crate) fn charge(connection: &Connection, uses: &Uses) -> Result<(), LedgerError> {
    let sql = "INSERT INTO quota (tenant_id, key, day, used) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
        used = excluded.used + CASE WHEN day = excluded.day THEN used ELSE 0 END, day = excluded.day";
    for ((tenant, key), units) in uses.units() {
        let mut insert = connection.prepare_cached(sql).map_err(from_sqlite)?;
        insert.execute(params![tenant, key, uses.today().to_string(), units]).map_err(from_sqlite)?;
    }
    Ok(())
}

pub(crate) fn used(connection: &Connection, day: &str, tenant: &str, key: &str) -> Result<u64, LedgerError> {
    let sql = "SELECT used FROM quota WHERE tenant_id = ?1 AND key = ?2 AND day = ?3";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let used: Option<i64> = select.query_row(params![tenant, key, day], |row| row.get(0)).optional().map_err(from_sqlite)?;
    Ok(used.map_or(0, |used| used.try_into().unwrap_or(0)))
}

/// Polls the queue and reads the rows. What it returns is not due for others until the hold has passed.
pub(crate) fn take(connection: &Connection, poll: &Poll) -> Result<Polled, LedgerError> {
    let behaviour = if poll.hold.is_zero() { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = Transaction::new_unchecked(connection, behaviour).map_err(from_sqlite)?;
    let polled = polled(&transaction, poll)?;
    transaction.commit().map_err(from_sqlite)?;
    Ok(polled)
}

fn polled(connection: &Connection, poll: &Poll) -> Result<Polled, LedgerError> {
    let found = within(connection, poll)?;
    if !poll.hold.is_zero() {
        let until = now().saturating_add(poll.hold.min(MAX_HOLD)).unix_micros();
        let sql = "UPDATE work SET ready_at = ?1 WHERE tenant_id = ?2 AND id = ?3";
        let mut update = connection.prepare_cached(sql).map_err(from_sqlite)?;
        for work in &found {
            update.execute(params![until, work.tenant_id, work.id.to_string()]).map_err(from_sqlite)?;
        }
    }
    let exact = format!("SELECT pos, {COLUMNS} FROM universal_registry WHERE tenant_id = ?1 AND id = ?2 AND seq = ?3");
    let mut exact = connection.prepare_cached(&exact).map_err(from_sqlite)?;
    let function =
        "SELECT curr_hash, is_deleted FROM universal_registry WHERE tenant_id = ?1 AND id = ?2 ORDER BY seq DESC LIMIT 1";
    let mut function = connection.prepare_cached(function).map_err(from_sqlite)?;
    let (mut due, mut unreadable, mut room) = (Vec::with_capacity(found.len()), Vec::new(), PollBudget::default());
    for work in found {
        let mut rows = exact.query(params![work.tenant_id, work.id.to_string(), work.seq]).map_err(from_sqlite)?;
        let Some(row) = rows.next().map_err(from_sqlite)? else { continue };
        if !room.takes(row::weight_of(row)) {
            continue;
        }
        let request = match row::decode(row, Order::Append)?.0.span {
            Ok(request) => request,
            Err(damaged) => {
                unreadable.push(damaged);
                continue;
            }
        };
        let of = |id: uuid::Uuid| {
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
            function.query_row(params![work.tenant_id, id.to_string()], read).optional().map_err(from_sqlite)
        };
        let function = request.parent_id.map(of).transpose()?.flatten();
        let function = function.filter(|(_, is_deleted)| !is_deleted).and_then(|(hash, _)| hash.parse().ok());
        due.push(Due { request, function });
    }
    Ok(Polled { now: now(), due, unreadable })
}

pub(crate) fn is_due(connection: &Connection, work: &Work) -> Result<bool, LedgerError> {
    let sql = "SELECT count(*) FROM work WHERE tenant_id = ?1 AND id = ?2 AND seq = ?3 AND curr_hash = ?4 AND ready_at <= ?5";
    let row = params![work.tenant_id, work.id.to_string(), work.seq, work.curr_hash.to_string(), now().unix_micros()];
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    select.query_row(row, |row| row.get::<_, i64>(0)).map(|found| found > 0).map_err(from_sqlite)
}

/// Polls the queue. The cost grows with the number of tenants that have open work, not with the work of each.
pub(crate) fn claimable(connection: &Connection, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
    let snapshot = connection.unchecked_transaction().map_err(from_sqlite)?;
    within(&snapshot, poll)
}

/// The same as [`claimable`], within a transaction.
fn within(snapshot: &Connection, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
    let (now, limit, after) = (now().unix_micros(), poll.limit.min(MAX_CLAIMABLE), poll.after.as_deref().unwrap_or_default());
    let next = "SELECT min(tenant_id) FROM work WHERE tenant_id > ?1";
    let mut next = snapshot.prepare_cached(next).map_err(from_sqlite)?;
    let mut next = |after: &str| match &poll.tenants {
        Tenants::Only(tenants) => Ok(tenants.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).next().cloned()),
        _ => next.query_row([after], |row| row.get::<_, Option<String>>(0)).map_err(from_sqlite),
    };
    let due = "SELECT tenant_id, owner_id, id, seq, curr_hash FROM work
        WHERE tenant_id = ?1 AND priority = ?2 AND ready_at <= ?3 ORDER BY ready_at, id LIMIT ?4";
    let mut due = snapshot.prepare_cached(due).map_err(from_sqlite)?;
    let mut tenants: Vec<Vec<Work>> = Vec::new();
    let mut has_wrapped = after.is_empty();
    let mut tenant = next(after)?;
    while tenants.len() < limit {
        let Some(name) = &tenant else {
            if std::mem::replace(&mut has_wrapped, true) {
                break;
            }
            // The tenants up to `after` come last.
            tenant = next("")?.filter(|first| first.as_str() <= after);
            continue;
        };
        let mut found = Vec::new();
        let most = poll.room_of(name).min(limit);
        for priority in (0..=MAX_PRIORITY).rev() {
            let room = i64::try_from(most.saturating_sub(found.len())).unwrap_or(i64::MAX);
            if room == 0 {
                break;
            }
            let rows = due.query_map(params![name, priority, now, room], decode).map_err(from_sqlite)?;
            for row in rows {
                found.push(row.map_err(from_sqlite)?);
            }
        }
        if !found.is_empty() {
            tenants.push(found);
        }
        let following = next(name)?;
        tenant = if has_wrapped && !after.is_empty() { following.filter(|t| t.as_str() <= after) } else { following };
    }
    Ok(in_turns(tenants, limit))
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Work> {
    let text = |n: usize| row.get_ref(n)?.as_str().map(str::to_owned).map_err(rusqlite::Error::from);
    let broken = |n, e: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(n, rusqlite::types::Type::Text, e)
    };
    Ok(Work {
        tenant_id: text(0)?,
        owner_id: text(1)?,
        id: text(2)?.parse().map_err(|e| broken(2, Box::new(e)))?,
        seq: row.get(3)?,
        curr_hash: text(4)?.parse().map_err(|e: logline_core::HexError| broken(4, Box::new(e)))?,
    })
}

pub(crate) fn heartbeat(connection: &Connection, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
    let sql = "UPDATE work SET ready_at = ?1, parked = NULL
        WHERE tenant_id = ?2 AND id = ?3 AND seq = ?4 AND curr_hash = ?5 AND leased";
    let until = now().saturating_add(lease).unix_micros();
    let row = params![until, held.tenant_id, held.id.to_string(), held.seq, held.curr_hash.to_string()];
    connection.execute(sql, row).map(|rows| rows > 0).map_err(from_sqlite)
}

/// `ready_at` of a request that is parked without an end. It is after every time that the ledger can hold.
const NEVER: i64 = i64::MAX;

pub(crate) fn park(connection: &Connection, parkings: &[Parking]) -> Result<(), LedgerError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(from_sqlite)?;
    {
        let sql = "UPDATE work SET ready_at = ?1, parked = ?2 WHERE tenant_id = ?3 AND id = ?4 AND seq = ?5";
        let mut update = transaction.prepare_cached(sql).map_err(from_sqlite)?;
        for parking in parkings {
            let until = parking.until.map_or(NEVER, Timestamp::unix_micros);
            let row = params![until, parking.short_reason(), parking.tenant_id, parking.id.to_string(), parking.seq];
            update.execute(row).map_err(from_sqlite)?;
        }
    }
    transaction.commit().map_err(from_sqlite)
}

pub(crate) fn waiting(connection: &Connection, tenant: &str, id: &str) -> Result<Option<Waiting>, LedgerError> {
    let sql =
        "SELECT tenant_id, owner_id, id, seq, curr_hash, ready_at, leased, parked FROM work WHERE tenant_id = ?1 AND id = ?2";
    let mut select = connection.prepare_cached(sql).map_err(from_sqlite)?;
    select.query_row([tenant, id], decode_waiting).optional().map_err(from_sqlite)
}

fn decode_waiting(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    let due = Timestamp::from_unix_micros(row.get(5)?).ok();
    Ok(Waiting::new(decode(row)?, due, row.get(6)?, row.get(7)?))
}

/// Rebuilds the tables within the transaction of `connection`. A row that cannot be read as a span is skipped; `logline fsck`
/// reports it.
pub(crate) fn rebuild(connection: &Connection) -> Result<Rebuilt, LedgerError> {
    connection.execute_batch("DELETE FROM work; DELETE FROM active; DELETE FROM quota").map_err(from_sqlite)?;
    search::clear(connection)?;
    let now = now();
    let mut uses = Uses::on(now.day());
    let calls = CallKind::ALL.map(|kind| format!("'{}', '{}'", kind.intent(), kind.outcome())).join(", ");
    let sql = format!(
        "SELECT pos, {COLUMNS} FROM universal_registry WHERE entity_type IN ('request', 'function', 'policy', 'memory', {calls}) ORDER BY pos"
    );
    let mut select = connection.prepare(&sql).map_err(from_sqlite)?;
    let mut rows = select.query([]).map_err(from_sqlite)?;
    while let Some(found) = rows.next().map_err(from_sqlite)? {
        if let Ok(span) = row::decode(found, Order::Append)?.0.span {
            update(connection, &span, now)?;
            search::update(connection, &span)?;
            uses.add(&span, &[], |_| Ok(0))?;
        }
    }
    charge(connection, &uses)?;
    let sql = "SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM active), (SELECT count(*) FROM (SELECT DISTINCT tenant_id, id FROM memories))";
    let count = |row: &Row<'_>, n: usize| row.get(n).map(|count: i64| u64::try_from(count).unwrap_or(0));
    let counts = connection.query_row(sql, [], |row| Ok((count(row, 0)?, count(row, 1)?, count(row, 2)?)));
    let (open, active, memories) = counts.map_err(from_sqlite)?;
    Ok(Rebuilt { open, active, counters: uses.units().len().try_into().unwrap_or(u64::MAX), memories })
}

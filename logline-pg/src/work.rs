//! The work queue. The SQL functions in `migrations/0002_work.sql` keep it; this module calls them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::work::{MAX_CLAIMABLE, MAX_HOLD, PollBudget, Rebuilt, in_turns};
use logline_core::ledger::{ActiveKind, Due, LedgerError, MAX_ACTIVE, Polled, Signal, Work, WorkQueue};
use logline_core::request::MAX_LEASE;
use logline_core::{Scope, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use crate::PgLedger;
use crate::error::from_sqlx;
use crate::identity::{Access, Plain};
use crate::row::{self, COLUMNS};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for PgLedger {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let mut plain = Plain::begin(&self.shared.pool, self.link()).await.map_err(from_sqlx)?;
        let query = sqlx::query_scalar(sql).persistent(self.link().keeps_statements());
        let micros = query.fetch_one(plain.connection()).await.map_err(from_sqlx)?;
        plain.end().await.map_err(from_sqlx)?;
        timestamp(micros)
    }

    async fn claimable(&self, limit: usize, after: Option<&str>) -> Result<Vec<Work>, LedgerError> {
        let limit = limit.min(MAX_CLAIMABLE);
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT turn, tenant_id, owner_id, id, seq, curr_hash FROM ledger.claimable($1, $2)";
        let query = sqlx::query(sql).persistent(self.link().keeps_statements());
        let query = query.bind(after.unwrap_or_default()).bind(i32::try_from(limit).unwrap_or(i32::MAX));
        let rows = query.fetch_all(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(in_turns(by_turn(&rows, decode)?, limit))
    }

    async fn take(&self, limit: usize, after: Option<&str>, hold: Duration) -> Result<Polled, LedgerError> {
        // One round trip. It returns a row even if nothing is due, because the row has the server's time. `ledger.take` takes
        // on the identity of each tenant by itself.
        let columns = COLUMNS.split(", ").map(|column| format!("(d.request).{column}")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT d.turn, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, d.function_hash, {columns}
             FROM (SELECT) one LEFT JOIN ledger.take($1, $2, $3) d ON true"
        );
        let link = self.link();
        let mut plain = Plain::begin(&self.shared.pool, link).await.map_err(from_sqlx)?;
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(link.keeps_statements());
        let query = query.bind(after.unwrap_or_default()).bind(i32::try_from(limit.min(MAX_CLAIMABLE)).unwrap_or(i32::MAX));
        let query = query.bind(i64::try_from(hold.min(MAX_HOLD).as_millis()).unwrap_or(i64::MAX));
        let rows = query.fetch_all(plain.connection()).await.map_err(from_sqlx)?;
        plain.end().await.map_err(from_sqlx)?;
        let now = rows.first().map_or(Ok(0), |row| row.try_get(1)).map_err(from_sqlx)?;
        let mut room = PollBudget::default();
        let found = rows.iter().filter(|row| row.try_get::<Option<i32>, _>(0).is_ok_and(|turn| turn.is_some()));
        let found = found.filter(|row| room.takes(row::weight_of(row)));
        let due = by_turn(found, |row| {
            let function: Option<String> = row.try_get(2).map_err(from_sqlx)?;
            let (_, request, _) = row::decode(row, 3)?;
            Ok(Due { request: request?, function: function.and_then(|hash| hash.parse().ok()) })
        })?;
        Ok(Polled { now: timestamp(now)?, due: in_turns(due, limit) })
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        let mut session = self.read(&Scope::runtime(&work.tenant_id), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let is_due = sqlx::query_scalar("SELECT ledger.is_due($1, $2, $3, $4)")
            .persistent(self.link().keeps_statements())
            .bind(&work.tenant_id)
            .bind(work.id)
            .bind(i32::try_from(work.seq).unwrap_or(i32::MAX))
            .bind(work.curr_hash.to_string())
            .fetch_one(connection)
            .await
            .map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(is_due)
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.start_listening();
        Ok(Arc::clone(&self.shared.tail.arrivals))
    }

    async fn active(&self, kind: ActiveKind, after: Option<&Work>, limit: usize) -> Result<Vec<Work>, LedgerError> {
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT 0, tenant_id, owner_id, id, seq, curr_hash FROM ledger.list_active($1, $2, $3, $4)";
        let rows = sqlx::query(sql)
            .persistent(self.link().keeps_statements())
            .bind(kind.as_str())
            .bind(after.map_or("", |work| work.tenant_id.as_str()))
            .bind(after.map_or(Uuid::nil(), |work| work.id))
            .bind(i32::try_from(limit.min(MAX_ACTIVE)).unwrap_or(i32::MAX))
            .fetch_all(connection)
            .await
            .map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(by_turn(&rows, decode)?.into_iter().flatten().collect())
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        let mut session = self.begin(Access::ReadWrite, &Scope::runtime(&held.tenant_id), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let kept = sqlx::query_scalar("SELECT ledger.heartbeat($1, $2, $3, $4, $5)")
            .persistent(self.link().keeps_statements())
            .bind(&held.tenant_id)
            .bind(held.id)
            .bind(i32::try_from(held.seq).unwrap_or(i32::MAX))
            .bind(held.curr_hash.to_string())
            .bind(i64::try_from(lease.min(MAX_LEASE).as_millis()).unwrap_or(i64::MAX))
            .fetch_one(connection)
            .await
            .map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(kept)
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        let mut session = self.read(&Scope::runtime(tenant), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let query = sqlx::query_scalar("SELECT ledger.used($1, $2)").persistent(self.link().keeps_statements());
        let query = query.bind(tenant).bind(key);
        let used: i64 = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(used.try_into().unwrap_or(0))
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        let mut session = self.begin(Access::ReadWrite, &Scope::Operator, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'").await.map_err(from_sqlx)?;
        let query = sqlx::query_as("SELECT open, active, counters FROM ledger.rebuild_work()");
        let query = query.persistent(self.link().keeps_statements());
        let (open, active, counters): (i64, i64, i64) = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        let count = |count: i64| count.try_into().unwrap_or(0);
        Ok(Rebuilt { open: count(open), active: count(active), counters: count(counters) })
    }
}

/// The scope of a host that acts for no tenant: a runtime with an empty tenant name, which sees no row.
fn host() -> Scope {
    Scope::runtime("")
}

fn timestamp(micros: i64) -> Result<Timestamp, LedgerError> {
    Timestamp::from_unix_micros(micros)
        .map_err(|e| LedgerError::Refused { reason: format!("the server's clock gives an invalid time: {e}") })
}

/// Decodes rows and groups those of one turn (column 0). A row that cannot be read is logged and skipped, so that it does not
/// hide the others. `logline doctor` and `logline fsck` report it.
fn by_turn<'a, T>(
    rows: impl IntoIterator<Item = &'a PgRow>,
    decode: impl Fn(&PgRow) -> Result<T, LedgerError>,
) -> Result<Vec<Vec<T>>, LedgerError> {
    let mut turns: Vec<(i32, Vec<T>)> = Vec::new();
    for row in rows {
        let turn = row.try_get(0).map_err(from_sqlx)?;
        match decode(row) {
            Ok(item) => match turns.last_mut() {
                Some((last, items)) if *last == turn => items.push(item),
                _ => turns.push((turn, vec![item])),
            },
            Err(error) => tracing::error!(%error, "a row of open work cannot be read and is skipped: run `logline fsck`"),
        }
    }
    Ok(turns.into_iter().map(|(_, items)| items).collect())
}

fn decode(row: &PgRow) -> Result<Work, LedgerError> {
    let seq: i32 = row.try_get(4).map_err(from_sqlx)?;
    let hash: String = row.try_get(5).map_err(from_sqlx)?;
    let (tenant_id, id) = (row.try_get(1).map_err(from_sqlx)?, row.try_get(3).map_err(from_sqlx)?);
    let damaged = |e: logline_core::HexError| LedgerError::Damaged {
        row: format!("ledger.work {tenant_id}/{id}/{seq}"),
        reason: format!("curr_hash {e}"),
    };
    let curr_hash = hash.parse().map_err(damaged)?;
    Ok(Work { owner_id: row.try_get(2).map_err(from_sqlx)?, tenant_id, id, seq: seq.try_into().unwrap_or(0), curr_hash })
}

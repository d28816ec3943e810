//! The work queue. The SQL functions in `migrations/0002_work.sql` keep it; this module calls them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::work::{MAX_CLAIMABLE, MAX_HOLD, PollBudget, Rebuilt, in_turns};
use logline_core::ledger::{
    ActiveKind, Cursor, Due, LedgerError, MAX_ACTIVE, Parking, Poll, Polled, Signal, Tenants, Touched, Waiting, Work, WorkQueue,
};
use logline_core::request::MAX_LEASE;
use logline_core::{Scope, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use crate::PgLedger;
use crate::error::from_sqlx;
use crate::identity::{Access, Plain};
use crate::position::{self, AppendPosition};
use crate::row::{self, COLUMNS};
use crate::types::{Micros, Xid};

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

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        let limit = poll.limit.min(MAX_CLAIMABLE);
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT turn, tenant_id, owner_id, id, seq, curr_hash FROM ledger.claimable($1, $2, $3, $4, $5::json)";
        let query = sqlx::query(sql).persistent(self.link().keeps_statements());
        let query = query.bind(poll.after.as_deref().unwrap_or_default()).bind(i32::try_from(limit).unwrap_or(i32::MAX));
        let query = query.bind(poll.tenants.names()).bind(per_tenant(poll)).bind(rooms(poll));
        let rows = query.fetch_all(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(in_turns(by_turn(&rows, decode)?, limit))
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        let limit = poll.limit.min(MAX_CLAIMABLE);
        // One round trip. It returns a row even if nothing is due, because the row has the server's time. `ledger.take` takes
        // on the identity of each tenant by itself.
        let columns = COLUMNS.split(", ").map(|column| format!("(d.request).{column}")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT d.turn, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, d.function_hash, {columns}
             FROM (SELECT) one LEFT JOIN ledger.take($1, $2, $3, $4, $5, $6::json) d ON true"
        );
        let link = self.link();
        let mut plain = Plain::begin(&self.shared.pool, link).await.map_err(from_sqlx)?;
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(link.keeps_statements());
        let query = query.bind(poll.after.as_deref().unwrap_or_default()).bind(i32::try_from(limit).unwrap_or(i32::MAX));
        let query = query.bind(i64::try_from(poll.hold.min(MAX_HOLD).as_millis()).unwrap_or(i64::MAX));
        let query = query.bind(poll.tenants.names()).bind(per_tenant(poll)).bind(rooms(poll));
        let rows = query.fetch_all(plain.connection()).await.map_err(from_sqlx)?;
        plain.end().await.map_err(from_sqlx)?;
        let now = rows.first().map_or(Ok(0), |row| row.try_get(1)).map_err(from_sqlx)?;
        let mut room = PollBudget::default();
        let found = rows.iter().filter(|row| row.try_get::<Option<i32>, _>(0).is_ok_and(|turn| turn.is_some()));
        let found = found.filter(|row| room.takes(row::weight_of(row)));
        let (mut turns, mut unreadable) = (Vec::new(), Vec::new());
        for row in found {
            let function: Option<String> = row.try_get(2).map_err(from_sqlx)?;
            match row::decode(row, 3)?.1 {
                Ok(request) => {
                    let due = Due { request, function: function.and_then(|hash| hash.parse().ok()) };
                    add_to_turn(&mut turns, row.try_get(0).map_err(from_sqlx)?, due);
                }
                Err(damaged) => unreadable.push(damaged),
            }
        }
        let turns = turns.into_iter().map(|(_, due)| due);
        Ok(Polled { now: timestamp(now)?, due: in_turns(turns, limit), unreadable })
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        for (tenant, parkings) in by_tenant(parkings, |parking| &parking.tenant_id) {
            let mut session = self.begin(Access::ReadWrite, &Scope::runtime(tenant), None).await?;
            let connection = session.connection().map_err(from_sqlx)?;
            sqlx::query("SELECT ledger.park($1, $2, $3, $4, $5)")
                .persistent(self.link().keeps_statements())
                .bind(tenant)
                .bind(parkings.iter().map(|parking| parking.id).collect::<Vec<_>>())
                .bind(parkings.iter().map(|parking| i32::try_from(parking.seq).unwrap_or(i32::MAX)).collect::<Vec<_>>())
                .bind(parkings.iter().map(|parking| parking.until.map_or(Micros::INFINITY, Micros::from)).collect::<Vec<_>>())
                // The database cannot store this character.
                .bind(parkings.iter().map(|parking| parking.short_reason().replace('\0', "\u{fffd}")).collect::<Vec<_>>())
                .execute(connection)
                .await
                .map_err(from_sqlx)?;
            session.commit().await.map_err(from_sqlx)?;
        }
        Ok(())
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        let mut session = self.read(&Scope::runtime(tenant), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT 0, $1, owner_id, $2, seq, curr_hash, ready_micros, leased, parked FROM ledger.waiting($1, $2)";
        let query = sqlx::query(sql).persistent(self.link().keeps_statements()).bind(tenant).bind(id);
        let row = query.fetch_optional(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        row.as_ref().map(decode_waiting).transpose()
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let (tenant, id) = after.unwrap_or_default();
        let sql = "SELECT 0, tenant_id, owner_id, id, seq, curr_hash, ready_micros, leased, parked
            FROM ledger.list_open($1, $2, $3, $4)";
        let rows = sqlx::query(sql)
            .persistent(self.link().keeps_statements())
            .bind(tenant)
            .bind(id)
            .bind(i32::try_from(limit.min(MAX_ACTIVE)).unwrap_or(i32::MAX))
            .bind(tenants.names())
            .fetch_all(connection)
            .await
            .map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        rows.iter().map(decode_waiting).collect()
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

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let (tenant, id) = after.unwrap_or_default();
        let sql = "SELECT 0, tenant_id, owner_id, id, seq, curr_hash FROM ledger.list_active($1, $2, $3, $4, $5)";
        let rows = sqlx::query(sql)
            .persistent(self.link().keeps_statements())
            .bind(kind.as_str())
            .bind(tenant)
            .bind(id)
            .bind(i32::try_from(limit.min(MAX_ACTIVE)).unwrap_or(i32::MAX))
            .bind(tenants.names())
            .fetch_all(connection)
            .await
            .map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(by_turn(&rows, decode)?.into_iter().flatten().collect())
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        for (tenant, works) in by_tenant(refused, |work| &work.tenant_id) {
            let mut session = self.begin(Access::ReadWrite, &Scope::runtime(tenant), None).await?;
            let connection = session.connection().map_err(from_sqlx)?;
            sqlx::query("SELECT ledger.refuse_active($1, $2, $3, $4)")
                .persistent(self.link().keeps_statements())
                .bind(kind.as_str())
                .bind(tenant)
                .bind(works.iter().map(|work| work.id).collect::<Vec<_>>())
                .bind(works.iter().map(|work| i32::try_from(work.seq).unwrap_or(i32::MAX)).collect::<Vec<_>>())
                .execute(connection)
                .await
                .map_err(from_sqlx)?;
            session.commit().await.map_err(from_sqlx)?;
        }
        Ok(())
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        let mut session = self.begin(Access::ReadWrite, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let query = sqlx::query("SELECT ledger.offer_active($1, $2)").persistent(self.link().keeps_statements());
        query.bind(kind.as_str()).bind(tenants.names()).execute(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        let (epoch, xid) = match after.map(position::of_cursor).transpose()?.map(AppendPosition::resume) {
            // The position after every row of a transaction.
            Some(after) if after.pos == i64::MAX => (after.epoch, Xid(after.xid.0.saturating_add(1))),
            Some(after) => (after.epoch, after.xid),
            None => (i32::MAX, Xid(0)),
        };
        let mut session = self.begin(Access::ReadOnly, &host(), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT epoch, horizon::text, tenants FROM ledger.touched($1, $2::xid8)";
        let query = sqlx::query(sql).persistent(self.link().keeps_statements()).bind(epoch).bind(xid);
        let row = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        let tenants: Option<Vec<String>> = row.try_get(2).map_err(from_sqlx)?;
        let tenants = tenants.map_or(Tenants::All, |tenants| Tenants::Only(tenants.into_iter().collect()));
        let (epoch, horizon) = (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
        Ok(Touched { tenants, cursor: AppendPosition::before(epoch, horizon).to_cursor() })
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        let mut session = self.begin(Access::ReadWrite, &Scope::runtime(&held.tenant_id), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let kept = sqlx::query_scalar("SELECT ledger.hold_claims($1, $2, $3, $4, $5)")
            .persistent(self.link().keeps_statements())
            .bind(&held.tenant_id)
            .bind([held.id])
            .bind([i32::try_from(held.seq).unwrap_or(i32::MAX)])
            .bind([held.curr_hash.to_string()])
            .bind([i64::try_from(lease.min(MAX_LEASE).as_millis()).unwrap_or(i64::MAX)])
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
        let query = sqlx::query_as("SELECT open, active, counters, ledger.rebuild_memories() FROM ledger.rebuild_work()");
        let query = query.persistent(self.link().keeps_statements());
        let (open, active, counters, memories): (i64, i64, i64, i64) = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        let count = |count: i64| count.try_into().unwrap_or(0);
        Ok(Rebuilt { open: count(open), active: count(active), counters: count(counters), memories: count(memories) })
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
            Ok(item) => add_to_turn(&mut turns, turn, item),
            Err(error) => tracing::error!(%error, "a row of open work cannot be read and is skipped: run `logline fsck`"),
        }
    }
    Ok(turns.into_iter().map(|(_, items)| items).collect())
}

/// Groups items by tenant: each tenant's rows are changed with that tenant's identity.
fn by_tenant<T>(items: &[T], tenant: impl Fn(&T) -> &str) -> BTreeMap<&str, Vec<&T>> {
    let mut tenants: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
    for item in items {
        tenants.entry(tenant(item)).or_default().push(item);
    }
    tenants
}

/// Adds an item to the last turn if it has this number, otherwise to a new one.
fn add_to_turn<T>(turns: &mut Vec<(i32, Vec<T>)>, turn: i32, item: T) {
    match turns.last_mut() {
        Some((last, items)) if *last == turn => items.push(item),
        _ => turns.push((turn, vec![item])),
    }
}

fn decode_waiting(row: &PgRow) -> Result<Waiting, LedgerError> {
    let due = row.try_get::<Option<i64>, _>(6).map_err(from_sqlx)?.map(timestamp).transpose()?;
    let (is_leased, parked) = (row.try_get(7).map_err(from_sqlx)?, row.try_get(8).map_err(from_sqlx)?);
    Ok(Waiting::new(decode(row)?, due, is_leased, parked))
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

/// How many requests of a tenant a poll may return if the worker has none of it.
fn per_tenant(poll: &Poll) -> i32 {
    poll.per_tenant.and_then(|most| i32::try_from(most).ok()).unwrap_or(i32::MAX)
}

/// How many requests of the other tenants it may return, as a JSON object.
fn rooms(poll: &Poll) -> String {
    let rooms = poll.running.keys().map(|tenant| (tenant.clone(), serde_json::Value::from(poll.room_of(tenant))));
    serde_json::Value::Object(rooms.collect()).to_string()
}

//! The work queue: calls of the functions that keep it (`migrations/0002_work.sql`).

use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::work::{MAX_CLAIMABLE, MAX_LEASE, Rebuilt, in_turns};
use logline_core::ledger::{LedgerError, Work, WorkQueue};
use logline_core::{Scope, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{Executor as _, Row as _};

use crate::PgLedger;
use crate::error::from_sqlx;
use crate::identity::{Access, Plain};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for PgLedger {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let mut plain = Plain::begin(&self.shared.pool, self.link()).await.map_err(from_sqlx)?;
        let query = sqlx::query_scalar(sql).persistent(self.link().keeps_statements());
        let micros = query.fetch_one(plain.connection()).await.map_err(from_sqlx)?;
        plain.end().await.map_err(from_sqlx)?;
        Timestamp::from_unix_micros(micros)
            .map_err(|e| LedgerError::Refused { reason: format!("the server's clock cannot be used: {e}") })
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
        let mut tenants: Vec<Vec<Work>> = Vec::new();
        for row in rows {
            let work = match decode(&row) {
                Ok(work) => work,
                // One that cannot be claimed must not keep others from being found; doctor and fsck name it.
                Err(error) => {
                    tracing::error!(%error, "an open request cannot be read");
                    continue;
                }
            };
            match tenants.last_mut() {
                Some(tenant) if tenant.first().is_some_and(|first| first.tenant_id == work.tenant_id) => tenant.push(work),
                _ => tenants.push(vec![work]),
            }
        }
        Ok(in_turns(tenants, limit))
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
        let query = sqlx::query_as("SELECT open, counters FROM ledger.rebuild_work()");
        let query = query.persistent(self.link().keeps_statements());
        let (open, counters): (i64, i64) = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(Rebuilt { open: open.try_into().unwrap_or(0), counters: counters.try_into().unwrap_or(0) })
    }
}

/// A host as itself: the runtime of no tenant in particular, which sees no row.
fn host() -> Scope {
    Scope::runtime("")
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

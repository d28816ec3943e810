//! The store of wrapped keys: tables whose rows can be deleted, in a schema of their own.
//!
//! PostgreSQL keeps the bytes of deleted rows until a vacuum, and for longer in its log and in backups. What was wrapped becomes
//! unreadable there when the epoch of the tenant's key ends.

use async_trait::async_trait;
use logline_core::contract::{
    Epoch, Forgetting, Kept, KeyStore, MAX_KEY_PAGE, MAX_RECORDS, MAX_WRAPS, RecordKey, SubjectKey, check_wrapped,
};
use logline_core::ledger::LedgerError;
use logline_core::{Scope, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, Row as _};
use uuid::Uuid;

use crate::PgLedger;
use crate::error::from_sqlx;
use crate::identity::{Access, Identified};
use crate::types::Micros;

/// Rows in one statement that inserts many.
const ROWS: usize = 1000;

/// How a transaction stands to the epochs of its tenant. A key under an epoch that ends meanwhile would be lost.
#[derive(Clone, Copy)]
enum Epochs {
    /// It reads them, and they stay as they are until it ends.
    Held,
    /// It changes them, alone.
    Changed,
}

type Result<T> = std::result::Result<T, LedgerError>;

fn refused(reason: impl Into<String>) -> LedgerError {
    LedgerError::Refused { reason: reason.into() }
}

fn number(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| refused("the number of an epoch is out of range"))
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows.min(MAX_KEY_PAGE)).unwrap_or(i64::MAX)
}

fn unsigned(row: &PgRow, index: usize) -> std::result::Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or(0))
}

fn subject(row: &PgRow) -> std::result::Result<SubjectKey, sqlx::Error> {
    Ok(SubjectKey {
        id: row.try_get(0)?,
        subject: row.try_get(1)?,
        epoch: unsigned(row, 2)?,
        wrapped: row.try_get(3)?,
        added: unsigned(row, 4)?,
    })
}

fn record(row: &PgRow) -> std::result::Result<RecordKey, sqlx::Error> {
    let tag: Option<Vec<u8>> = row.try_get(4)?;
    Ok(RecordKey {
        id: row.try_get(0)?,
        subject_key: row.try_get(1)?,
        span: row.try_get(2)?,
        wrapped: row.try_get(3)?,
        tag: tag.and_then(|tag| tag.try_into().ok()),
        note: row.try_get(5)?,
        added_at: Timestamp::from_unix_micros(row.try_get::<Micros, _>(6)?.0).unwrap_or(Timestamp::EPOCH),
    })
}

fn all<T>(rows: &[PgRow], read: impl Fn(&PgRow) -> std::result::Result<T, sqlx::Error>) -> Result<Vec<T>> {
    rows.iter().map(read).collect::<std::result::Result<_, _>>().map_err(from_sqlx)
}

/// The transaction of a call, with the rights of the tenant's runtime.
struct Keys {
    transaction: Identified,
    tenant: String,
    persistent: bool,
}

impl Keys {
    fn query<'q>(&self, sql: &'static str) -> sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments> {
        sqlx::query(sql).persistent(self.persistent).bind(self.tenant.clone())
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.transaction.connection().map_err(from_sqlx)
    }

    async fn commit(self) -> Result<()> {
        self.transaction.commit().await.map_err(from_sqlx)
    }

    async fn lock(&mut self, epochs: Epochs) -> Result<()> {
        let sql = match epochs {
            Epochs::Held => "SELECT pg_advisory_xact_lock_shared(hashtextextended('logline.memory.' || $1, 0))",
            Epochs::Changed => "SELECT pg_advisory_xact_lock(hashtextextended('logline.memory.' || $1, 0))",
        };
        let query = self.query(sql);
        query.execute(self.connection()?).await.map(drop).map_err(from_sqlx)
    }

    async fn epochs(&mut self) -> Result<Option<(i64, i64)>> {
        let query = self.query("SELECT min(number), max(number) FROM memory.epochs WHERE tenant_id = $1");
        let row = query.fetch_one(self.connection()?).await.map_err(from_sqlx)?;
        let (oldest, newest): (Option<i64>, Option<i64>) =
            (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
        Ok(oldest.zip(newest))
    }

    /// Counts a wrap under an epoch. False if it is not the newest.
    async fn count_wrap(&mut self, epoch: u64) -> Result<bool> {
        let epoch = number(epoch)?;
        if self.epochs().await?.is_none_or(|(_, newest)| newest != epoch) {
            return Ok(false);
        }
        let query =
            self.query("UPDATE memory.epochs SET wraps = wraps + 1 WHERE tenant_id = $1 AND number = $2 RETURNING wraps");
        let row = query.bind(epoch).fetch_one(self.connection()?).await.map_err(from_sqlx)?;
        if unsigned(&row, 0).map_err(from_sqlx)? > MAX_WRAPS {
            return Err(refused("the epoch's key has wrapped as many keys as it may: begin a new epoch"));
        }
        Ok(true)
    }

    /// Inserts a subject's key. False if the subject has one, or the id is taken.
    async fn insert_subject(&mut self, key: &SubjectKey) -> Result<bool> {
        check_wrapped(&key.wrapped)?;
        let sql = "INSERT INTO memory.subject_keys (tenant_id, id, subject, epoch, wrapped) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT DO NOTHING";
        let query = self.query(sql).bind(key.id).bind(key.subject.clone()).bind(number(key.epoch)?).bind(key.wrapped.clone());
        let inserted = query.execute(self.connection()?).await.map_err(from_sqlx)?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Inserts records of one subject's key, counted. False if the key is gone.
    async fn insert_records(&mut self, subject_key: Uuid, keys: &[RecordKey]) -> Result<bool> {
        for key in keys {
            key.check()?;
        }
        let sql = "UPDATE memory.subject_keys SET added = added + $3 WHERE tenant_id = $1 AND id = $2 RETURNING added";
        let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        let query = self.query(sql).bind(subject_key).bind(count);
        let row = query.fetch_optional(self.connection()?).await.map_err(from_sqlx)?;
        let Some(row) = row else { return Ok(false) };
        if unsigned(&row, 0).map_err(from_sqlx)? > MAX_WRAPS {
            return Err(refused("the subject's key has wrapped as many keys as it may: forget something, which replaces it"));
        }
        let sql = "INSERT INTO memory.record_keys (tenant_id, subject_key, id, span, wrapped, tag, note)
            SELECT $1, $2, r.* FROM unnest($3::uuid[], $4::uuid[], $5::bytea[], $6::bytea[], $7::bytea[]) r";
        for keys in keys.chunks(ROWS) {
            let query = self
                .query(sql)
                .bind(subject_key)
                .bind(keys.iter().map(|key| key.id).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.span).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.wrapped.clone()).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.tag.map(Vec::from)).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.note.clone()).collect::<Vec<_>>());
            query.execute(self.connection()?).await.map_err(from_sqlx)?;
        }
        Ok(true)
    }

    async fn destroy(&mut self, forgetting: &Forgetting) -> Result<Kept> {
        let query = self.query("SELECT added, subject FROM memory.subject_keys WHERE tenant_id = $1 AND id = $2 FOR UPDATE");
        let row = query.bind(forgetting.subject_key).fetch_optional(self.connection()?).await.map_err(from_sqlx)?;
        let Some(row) = row else { return Ok(Kept::Stale) };
        let owner: String = row.try_get(1).map_err(from_sqlx)?;
        if unsigned(&row, 0).map_err(from_sqlx)? != forgetting.added {
            return Ok(Kept::Stale);
        }
        // Its records go with it.
        let query = self.query("DELETE FROM memory.subject_keys WHERE tenant_id = $1 AND id = $2").bind(forgetting.subject_key);
        query.execute(self.connection()?).await.map_err(from_sqlx)?;
        let Some(replacement) = &forgetting.replacement else { return Ok(Kept::Stored) };
        let key = &replacement.key;
        let is_foreign = replacement.records.iter().any(|record| record.subject_key != key.id);
        if key.subject != owner || is_foreign || replacement.records.len() > MAX_RECORDS {
            return Err(refused("what replaces a subject's key is of another subject, or has too many records"));
        }
        if !self.count_wrap(key.epoch).await? {
            return Ok(Kept::Stale);
        }
        let is_in = self.insert_subject(key).await? && self.insert_records(key.id, &replacement.records).await?;
        Ok(if is_in { Kept::Stored } else { Kept::Stale })
    }
}

impl PgLedger {
    async fn keys(&self, access: Access, tenant: &str) -> Result<Keys> {
        let transaction = self.begin(access, &Scope::runtime(tenant), None).await?;
        Ok(Keys { transaction, tenant: tenant.to_owned(), persistent: self.link().keeps_statements() })
    }
}

#[async_trait]
impl KeyStore for PgLedger {
    async fn epoch(&self, tenant: &str) -> Result<Option<Epoch>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let found = keys.epochs().await?;
        keys.commit().await?;
        Ok(found.map(|(oldest, newest)| Epoch::new(u64::try_from(oldest).unwrap_or(0), u64::try_from(newest).unwrap_or(0))))
    }

    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<Kept> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        keys.lock(Epochs::Changed).await?;
        let next = keys.epochs().await?.map_or(1, |(_, newest)| newest + 1);
        if number(epoch)? != next {
            return Ok(Kept::Stale);
        }
        let query = keys.query("INSERT INTO memory.epochs (tenant_id, number) VALUES ($1, $2)").bind(next);
        query.execute(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn drop_epoch(&self, tenant: &str, epoch: u64) -> Result<Kept> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        keys.lock(Epochs::Changed).await?;
        let epoch = number(epoch)?;
        let is_oldest = keys.epochs().await?.is_some_and(|(oldest, newest)| oldest == epoch && newest != epoch);
        let query = keys.query("SELECT count(*) FROM memory.subject_keys WHERE tenant_id = $1 AND epoch = $2").bind(epoch);
        let row = query.fetch_one(keys.connection()?).await.map_err(from_sqlx)?;
        if !is_oldest || unsigned(&row, 0).map_err(from_sqlx)? > 0 {
            return Ok(Kept::Stale);
        }
        let query = keys.query("DELETE FROM memory.epochs WHERE tenant_id = $1 AND number = $2").bind(epoch);
        query.execute(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn subject_key(&self, tenant: &str, owner: &str) -> Result<Option<SubjectKey>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys
            .query("SELECT id, subject, epoch, wrapped, added FROM memory.subject_keys WHERE tenant_id = $1 AND subject = $2");
        let row = query.bind(owner.to_owned()).fetch_optional(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        row.as_ref().map(subject).transpose().map_err(from_sqlx)
    }

    async fn subject_keys(&self, tenant: &str, epoch: u64, rows: usize) -> Result<Vec<SubjectKey>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query(
            "SELECT id, subject, epoch, wrapped, added FROM memory.subject_keys WHERE tenant_id = $1 AND epoch = $2
             ORDER BY id LIMIT $3",
        );
        let query = query.bind(number(epoch)?).bind(limit(rows));
        let found = query.fetch_all(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        all(&found, subject)
    }

    async fn add_subject_key(&self, tenant: &str, key: &SubjectKey) -> Result<Kept> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        keys.lock(Epochs::Held).await?;
        if !keys.count_wrap(key.epoch).await? || !keys.insert_subject(key).await? {
            return Ok(Kept::Stale);
        }
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn rewrap_subject_key(&self, tenant: &str, from: u64, key: &SubjectKey) -> Result<Kept> {
        check_wrapped(&key.wrapped)?;
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        keys.lock(Epochs::Held).await?;
        if !keys.count_wrap(key.epoch).await? {
            return Ok(Kept::Stale);
        }
        let query = keys
            .query("UPDATE memory.subject_keys SET epoch = $2, wrapped = $3 WHERE tenant_id = $1 AND id = $4 AND epoch = $5");
        let query = query.bind(number(key.epoch)?).bind(key.wrapped.clone()).bind(key.id).bind(number(from)?);
        let changed = query.execute(keys.connection()?).await.map_err(from_sqlx)?.rows_affected();
        if changed != 1 {
            return Ok(Kept::Stale);
        }
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn add_record_key(&self, tenant: &str, key: &RecordKey) -> Result<Kept> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        let query = keys.query("SELECT count(*) FROM memory.record_keys WHERE tenant_id = $1 AND subject_key = $2");
        let row = query.bind(key.subject_key).fetch_one(keys.connection()?).await.map_err(from_sqlx)?;
        if usize::try_from(unsigned(&row, 0).map_err(from_sqlx)?).unwrap_or(usize::MAX) >= MAX_RECORDS {
            return Err(refused(format!("the subject has {MAX_RECORDS} records, as many as it may: forget some")));
        }
        if !keys.insert_records(key.subject_key, std::slice::from_ref(key)).await? {
            return Ok(Kept::Stale);
        }
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn record_keys(&self, tenant: &str, ids: &[Uuid]) -> Result<Vec<RecordKey>> {
        if ids.len() > MAX_KEY_PAGE {
            return Err(refused(format!("{} keys are asked for at once: at most {MAX_KEY_PAGE} are allowed", ids.len())));
        }
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query(
            "SELECT id, subject_key, span, wrapped, tag, note, added_at FROM memory.record_keys WHERE tenant_id = $1 AND id = ANY($2)",
        );
        let found = query.bind(ids.to_vec()).fetch_all(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        all(&found, record)
    }

    async fn tagged(&self, tenant: &str, subject_key: Uuid, tag: &[u8; 32]) -> Result<Option<RecordKey>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query(
            "SELECT id, subject_key, span, wrapped, tag, note, added_at FROM memory.record_keys
             WHERE tenant_id = $1 AND subject_key = $2 AND tag = $3 ORDER BY id LIMIT 1",
        );
        let query = query.bind(subject_key).bind(tag.to_vec());
        let found = query.fetch_optional(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        found.as_ref().map(record).transpose().map_err(from_sqlx)
    }

    async fn records(&self, tenant: &str, subject_key: Uuid, after: Option<Uuid>, rows: usize) -> Result<Vec<RecordKey>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query(
            "SELECT id, subject_key, span, wrapped, tag, note, added_at FROM memory.record_keys
             WHERE tenant_id = $1 AND subject_key = $2 AND ($3::uuid IS NULL OR id > $3) ORDER BY id LIMIT $4",
        );
        let query = query.bind(subject_key).bind(after).bind(limit(rows));
        let found = query.fetch_all(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        all(&found, record)
    }

    async fn aged_records(
        &self,
        tenant: &str,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        rows: usize,
    ) -> Result<Vec<RecordKey>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query(
            "SELECT id, subject_key, span, wrapped, tag, note, added_at FROM memory.record_keys
             WHERE tenant_id = $1 AND added_at < $2 AND (added_at, id) > ($3, $4) ORDER BY added_at, id LIMIT $5",
        );
        // Nothing was added before the epoch of Unix.
        let (at, id) = after.unwrap_or((Timestamp::EPOCH, Uuid::nil()));
        let query = query.bind(Micros::from(before)).bind(Micros::from(at)).bind(id).bind(limit(rows));
        let found = query.fetch_all(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        all(&found, record)
    }

    async fn drop_records(&self, tenant: &str, ids: &[Uuid], before: Timestamp) -> Result<usize> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        let query = keys.query("DELETE FROM memory.record_keys WHERE tenant_id = $1 AND id = ANY($2) AND added_at < $3");
        let query = query.bind(ids.to_vec()).bind(Micros::from(before));
        let dropped = query.execute(keys.connection()?).await.map_err(from_sqlx)?.rows_affected();
        keys.commit().await?;
        Ok(usize::try_from(dropped).unwrap_or(usize::MAX))
    }

    async fn now(&self, tenant: &str) -> Result<Timestamp> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query("SELECT clock_timestamp() FROM (SELECT $1::text) t");
        let row = query.fetch_one(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        let Micros(micros) = row.try_get(0).map_err(from_sqlx)?;
        Timestamp::from_unix_micros(micros).map_err(|e| refused(format!("the server's time: {e}")))
    }

    async fn forget(&self, tenant: &str, receipt: Uuid, forgetting: &[Forgetting]) -> Result<Kept> {
        let mut keys = self.keys(Access::ReadWrite, tenant).await?;
        keys.lock(Epochs::Held).await?;
        for one in forgetting {
            if keys.destroy(one).await? == Kept::Stale {
                return Ok(Kept::Stale);
            }
        }
        let query = keys.query("INSERT INTO memory.receipts (tenant_id, id) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        query.bind(receipt).execute(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        Ok(Kept::Stored)
    }

    async fn not_forgotten(&self, tenant: &str, receipts: &[Uuid]) -> Result<Vec<Uuid>> {
        let mut keys = self.keys(Access::ReadOnly, tenant).await?;
        let query = keys.query("SELECT id FROM memory.receipts WHERE tenant_id = $1 AND id = ANY($2)").bind(receipts.to_vec());
        let found = query.fetch_all(keys.connection()?).await.map_err(from_sqlx)?;
        keys.commit().await?;
        let known: Vec<Uuid> = all(&found, |row| row.try_get(0))?;
        Ok(receipts.iter().copied().filter(|id| !known.contains(id)).collect())
    }
}

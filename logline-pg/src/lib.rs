#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

mod admit;
mod definitions;
mod doctor;
mod error;
mod identity;
mod keys;
mod migrate;
mod options;
mod position;
mod row;
mod search;
mod select;
mod stopper;
mod tail;
mod types;
mod work;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use logline_core::ledger::{
    AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, Order, Page, Query, Watch, WatchFrom,
    quota, tail as follow,
};
use logline_core::{Scope, SignedSpan, VerifiedSpan};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use definitions::definitions;
pub use doctor::{Finding, Severity, doctor};
pub use migrate::{Migrated, accept_definitions, create_roles, migrate, migrate_to_new_epoch};
pub use options::PgOptions;
pub use tail::Holder;

use error::from_sqlx;
use identity::{Access, Identified, Link, OneStatement};
use position::{After, AppendPosition};
use row::{COLUMNS, EncodedRow};
use select::Select;
use stopper::Stopper;
use tail::Tail;
use types::Xid;
use writer::Append;

const MAX_BATCH: usize = 10_000;
const MAX_PAGE: usize = 1000;

/// Bytes that may wait for the writers. Beyond that an append fails as `Unavailable` and should be retried later.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// How long a scan at the end waits at first before it looks again for transactions that began before it. Each further wait is
/// twice as long.
const SETTLE_STEP: Duration = Duration::from_millis(2);

/// The server ends a transaction that is idle this long: this host may have lost power while it held locks.
const IDLE_TIMEOUT: &str = "SET idle_in_transaction_session_timeout = '30s'";

/// A ledger in PostgreSQL. Clones are handles of the same ledger. Its connections are closed after the last handle is dropped.
#[derive(Clone)]
pub struct PgLedger {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    options: PgOptions,
    jobs: mpsc::UnboundedSender<Append>,
    queued: Arc<AtomicUsize>,
    tail: Arc<Tail>,
    /// The listener. The first watch or worker starts it. `None` behind a pooler, where it would receive nothing.
    listening: OnceLock<Option<Abort>>,
    /// The poller. The first watch starts it.
    polling: OnceLock<Abort>,
    /// `None` behind a pooler.
    stopper: Option<Stopper>,
    _teller: Abort,
}

/// A task that is aborted when this is dropped.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PgLedger {
    /// Connects to a ledger that has been migrated. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`LedgerError::SchemaVersion`] if the schema is missing, older or newer than this library's; [`LedgerError::Refused`] if
    /// the options or the login cannot be used; [`LedgerError::Unavailable`] if the server cannot be reached.
    pub async fn connect(options: PgOptions) -> Result<Self, LedgerError> {
        if options.writers == 0 || options.max_connections as usize <= options.writers {
            return Err(LedgerError::Refused {
                reason: format!(
                    "{} writers and {} connections do not work: use at least one writer, and more connections than writers",
                    options.writers, options.max_connections
                ),
            });
        }
        let timeout = format!("{IDLE_TIMEOUT}; SET statement_timeout = {}", options.statement_timeout.as_millis());
        let link = options.link();
        let connect = options.connect.clone();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // A dead connection is noticed when it is used, not by a round trip before each use.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let timeout = timeout.clone();
                Box::pin(async move {
                    if link == Link::Direct {
                        connection.execute(AssertSqlSafe(timeout)).await?;
                    }
                    // After a restore or a failover this may be another cluster, with its own transaction ids. It then needs a
                    // new epoch.
                    if migrate::version(connection).await.is_ok_and(|version| version > 0) {
                        connection.execute("SELECT ledger.check_epoch()").await?;
                    }
                    Ok(())
                })
            })
            .connect_with(connect)
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => return Err(from_sqlx(identity::cause(&options.connect, error).await)),
        };
        check_schema(&pool).await?;
        let tail = Arc::new(Tail::default());
        let queued = Arc::new(AtomicUsize::new(0));
        let (jobs, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..options.writers {
            // A writer ends by itself when every handle is dropped and all waiting appends are written.
            let (waiting, queued, tail) = (Arc::clone(&waiting), Arc::clone(&queued), Arc::clone(&tail));
            tokio::spawn(writer::run(pool.clone(), link, waiting, queued, tail));
        }
        let teller = Abort(tokio::spawn(tail::tell(pool.clone(), link, Arc::clone(&tail))));
        let stopper = (link == Link::Direct).then(|| Stopper::start(&pool));
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                options,
                jobs,
                queued,
                tail,
                listening: OnceLock::new(),
                polling: OnceLock::new(),
                stopper,
                _teller: teller,
            }),
        })
    }

    /// The transactions that keep new rows from appearing in append order, oldest first, at most 8. Empty if there are none.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub async fn holders(&self) -> Result<Vec<Holder>, LedgerError> {
        tail::holders(&self.shared.pool, self.link()).await
    }

    fn link(&self) -> Link {
        self.shared.options.link()
    }

    /// Begins a read-only transaction as `scope`. It may also read the public rows of the tenant `named`.
    async fn read(&self, scope: &Scope, named: Option<&str>) -> Result<Identified, LedgerError> {
        self.begin(Access::ReadOnly, scope, named).await
    }

    /// Begins a transaction as `scope`. If a pooled connection is dead, another one is tried.
    async fn begin(&self, access: Access, scope: &Scope, named: Option<&str>) -> Result<Identified, LedgerError> {
        let mut tries = 0;
        loop {
            match Identified::begin(&self.shared.pool, self.shared.stopper.as_ref(), access, scope, named).await {
                Err(sqlx::Error::Io(error)) if tries <= self.shared.options.max_connections => {
                    tracing::debug!(%error, "a pooled connection was dead; trying another");
                    tries += 1;
                }
                begun => return begun.map_err(from_sqlx),
            }
        }
    }

    /// Reads one version of a span: the last one, or the first one from `from_seq` on. If a pooled connection is dead, another one is tried.
    async fn version(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: Option<u32>,
    ) -> Result<Option<SignedSpan>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM ledger.version($1, $2, $3, $4, $5, $6)");
        let query = || {
            sqlx::query(AssertSqlSafe(sql.as_str()))
                .persistent(self.link().keeps_statements())
                .bind(identity::role(scope))
                .bind(scope.tenant().unwrap_or_default())
                .bind(identity::user(scope))
                .bind(tenant)
                .bind(id)
                .bind(from_seq.map(|seq| i32::try_from(seq).unwrap_or(i32::MAX)))
        };
        let mut tries = 0;
        let found = loop {
            let mut statement = OneStatement::begin(&self.shared.pool, self.link()).await.map_err(from_sqlx)?;
            match query().fetch_optional(statement.connection().map_err(from_sqlx)?).await {
                Err(sqlx::Error::Io(error)) if tries <= self.shared.options.max_connections => {
                    tracing::debug!(%error, "a pooled connection was dead; trying another");
                    tries += 1;
                }
                Err(error) => return Err(from_sqlx(error)),
                Ok(found) => {
                    statement.end().await.map_err(from_sqlx)?;
                    break found;
                }
            }
        };
        let Some(found) = found else { return Ok(None) };
        let (_, span, _) = row::decode(&found, 0)?;
        Ok(Some(span?))
    }

    /// Reads one page. With `settle` it waits, up to [`PgOptions::settle`], until it can show what was committed before it
    /// began.
    async fn page(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>, settle: bool) -> Result<Page, LedgerError> {
        if scope.is_nobody() {
            return Ok(Page::new(Vec::new(), None));
        }
        let size = query.page_size(MAX_PAGE);
        let deadline = Instant::now() + self.shared.options.settle;
        let mut target = None;
        let mut step = SETTLE_STEP;
        loop {
            let after = cursor.map(|c| After::of(c, query.order)).transpose()?;
            let select = Select::new(scope, query, self.shared.tail.known(), self.link())?;
            let mut reading = self.read(scope, query.tenant.as_deref()).await?;
            let connection = reading.connection().map_err(from_sqlx)?;
            let (page, horizon) = select.page(connection, after, size).await?;
            self.shared.tail.learn(horizon);
            let at_end = settle && query.order == Order::Append && page.next.is_none();
            if at_end && target.is_none() && Instant::now() < deadline {
                target = newest_beyond(connection, scope, query, horizon, self.link()).await?;
            }
            reading.commit().await.map_err(from_sqlx)?;
            match target {
                Some(target) if at_end && horizon.1 <= target && Instant::now() < deadline => {
                    tokio::time::sleep(step.min(deadline.saturating_duration_since(Instant::now()))).await;
                    step *= 2;
                }
                _ => return Ok(page),
            }
        }
    }

    /// Starts the listener if it is not running. Behind a pooler there is none, because `LISTEN` does not work there.
    fn start_listening(&self) {
        let Shared { pool, tail, listening, .. } = &*self.shared;
        let start = || Abort(tokio::spawn(tail::listen(pool.connect_options(), Arc::clone(tail))));
        listening.get_or_init(|| (self.link() == Link::Direct).then(start));
    }

    /// Starts the listener and the poller if they are not running.
    fn start_watching(&self) {
        self.start_listening();
        let Shared { pool, tail, polling, options, .. } = &*self.shared;
        let poll = || tail::poll(pool.clone(), self.link(), Arc::clone(tail), options.poll_interval);
        polling.get_or_init(|| Abort(tokio::spawn(poll())));
    }
}

/// Refuses a database whose schema has another version than this library's.
async fn check_schema(pool: &PgPool) -> Result<(), LedgerError> {
    let mut connection = identity::acquire(pool).await.map_err(from_sqlx)?;
    let found = migrate::version(&mut connection).await?;
    migrate::check_current(found)
}

/// The newest transaction that has committed rows which append order does not show yet. If the scan is of one tenant, only that
/// tenant's rows count.
async fn newest_beyond(
    connection: &mut PgConnection,
    scope: &Scope,
    query: &Query,
    (epoch, horizon): (i32, Xid),
    link: Link,
) -> Result<Option<Xid>, LedgerError> {
    let tenant = query.tenant.as_deref().or(scope.tenant());
    let filter = if tenant.is_some() { "tenant_id = $3" } else { "$3::text IS NULL" };
    let sql = format!(
        "SELECT xid::text FROM ledger.universal_registry r WHERE {filter} AND epoch = $1 AND xid >= $2::xid8
            ORDER BY epoch DESC, r.xid DESC LIMIT 1"
    );
    let newest = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(link.keeps_statements());
    let newest = newest.bind(epoch).bind(horizon).bind(tenant);
    newest.fetch_optional(connection).await.map_err(from_sqlx)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for PgLedger {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        if batch.len() > MAX_BATCH {
            return Err(LedgerError::BatchTooLarge { spans: batch.len(), max: MAX_BATCH });
        }
        for span in &batch {
            scope.check_append(span)?;
        }
        quota::check_limits(&options.limits, batch.iter().map(|span| &***span))?;
        options.held.as_ref().map_or(Ok(()), |held| held.check_scope(scope))?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch: Vec<_> = batch.into_iter().map(EncodedRow::new).collect();
        let bytes = batch.iter().map(EncodedRow::bytes).sum();
        let queued = &self.shared.queued;
        let waiting = queued.fetch_add(bytes, Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(bytes) > MAX_QUEUED_BYTES {
            queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LedgerError::Unavailable {
                reason: format!("{waiting} bytes are already waiting to be written"),
                source: None,
            });
        }
        let (reply, answer) = oneshot::channel();
        let append = Append { scope: scope.clone(), batch, options: options.clone(), bytes, reply };
        self.shared.jobs.send(append).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        let not_found = || LedgerError::NotFound { tenant: tenant.to_owned(), id };
        if scope.is_nobody() {
            return Err(not_found());
        }
        self.version(scope, tenant, id, None).await?.ok_or_else(not_found)
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        let query = Query::chains().tenant(tenant).id(id).limit(limit.clamp(1, MAX_PAGE));
        match limit {
            0 => return Ok(Vec::new()),
            1 if scope.is_nobody() => return Ok(Vec::new()),
            1 => return Ok(self.version(scope, tenant, id, Some(from_seq)).await?.into_iter().collect()),
            _ => {}
        }
        // A cursor names the last version that was read, so this one names the version before `from_seq`.
        let before = logline_core::ledger::Position::Chain {
            tenant_id: tenant.to_owned(),
            id: id.to_string(),
            seq: i64::from(from_seq) - 1,
            number: 0,
        };
        self.page(scope, &query, Some(&before.to_cursor()), false).await?.into_spans()
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.page(scope, query, cursor, true).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.start_watching();
        let signal = self.shared.tail.signal(tail::tenant_hash(&self.shared.pool, self.link(), scope).await?);
        let from = match from {
            WatchFrom::Now => {
                let (epoch, xid) = tail::horizon(&self.shared.pool, self.link()).await?;
                WatchFrom::After(AppendPosition::before(epoch, xid).to_cursor())
            }
            from => from,
        };
        follow(Follower(self.clone()), scope.clone(), from, signal).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        let mut session = self.begin(Access::ReadOnly, &Scope::Operator, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        connection.execute("SET LOCAL statement_timeout = 0").await.map_err(from_sqlx)?;
        let query = sqlx::query_scalar("SELECT ledger.row_count()").persistent(self.link().keeps_statements());
        let rows: i64 = query.fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        let mut connection = identity::acquire(&self.shared.pool).await.map_err(from_sqlx)?;
        let differences = definitions::differences(&mut connection).await?;
        let problem = |difference| {
            format!("definitions: {difference}: somebody changed policies, functions or triggers; run `logline doctor`")
        };
        Ok(Inspection::new(rows.try_into().unwrap_or(0), differences.into_iter().map(problem).collect()))
    }

    fn capability(&self) -> Capability {
        Capability::new(
            "postgres",
            "write-ahead log: an acknowledged append survives a crash of the server unless synchronous_commit or fsync is off",
            MAX_BATCH,
            MAX_PAGE,
        )
    }
}

/// The ledger as a watch reads it. Its scans do not wait for rows that are not final yet: a signal comes when they are.
struct Follower(PgLedger);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for Follower {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        self.0.append(scope, batch, options).await
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        self.0.get(scope, tenant, id).await
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        self.0.history(scope, tenant, id, from_seq, limit).await
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        self.0.page(scope, query, cursor, false).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.0.watch(scope, from).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.0.inspect().await
    }

    fn capability(&self) -> Capability {
        self.0.capability()
    }
}

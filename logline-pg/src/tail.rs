//! Follows the ledger. A host has one listener and one poller, however many watches it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logline_core::ledger::{LedgerError, Signal};
use logline_core::{SYSTEM_TENANT, Scope};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor as _, PgPool, Row as _};
use tokio::sync::Notify;

use crate::error::{READ_ONLY, from_sqlx};
use crate::identity::{Link, Plain};
use crate::types::Xid;

/// The channel on which hosts tell each other that there are new rows. Notifications have no content.
const CHANNEL: &str = "logline";

/// The channel for new requests. It is separate so that other rows do not wake workers.
const REQUESTS_CHANNEL: &str = "logline_requests";

/// The least time between two notifications of a host. Each takes a lock that all notifying transactions of the cluster share.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(4);

/// How often a host checks whether the ledger is in another cluster than before.
const EPOCH_INTERVAL: Duration = Duration::from_secs(30);

/// The poller rests this many times as long as its last poll took, at most [`MAX_REST`]. So on a busy server polls take about
/// one part in twenty of a connection's time, and an idle server is polled again within some milliseconds.
const REST: u32 = 19;

/// The longest rest after a poll.
const MAX_REST: Duration = Duration::from_millis(100);

/// Milliseconds until the next poll while there are rows that are not final yet. The last value repeats.
const UNSETTLED: [u64; 6] = [2, 4, 8, 16, 32, 64];

/// How long the listener waits before it checks again whether a replica has been promoted.
const REPLICA_PAUSE: Duration = Duration::from_secs(60);

/// The pauses of a watch that begins now, while others are still writing rows. It waits no longer than their sum.
const NOW_PAUSES: [Duration; 3] = [Duration::from_millis(2), Duration::from_millis(8), Duration::from_millis(32)];

/// How long append order may stand still while rows wait, before a warning is logged.
const STALLED: Duration = Duration::from_secs(5);

/// What all watches of one host share.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Append order is final below this transaction of this epoch.
    known: Mutex<(i32, Xid)>,
    /// The signals of watches, by the server's hash of the tenant that they follow; `None` for watches of all tenants.
    signals: Mutex<HashMap<Option<i64>, Arc<Signal>>>,
    /// Notified when new requests may have arrived.
    pub(crate) arrivals: Arc<Signal>,
    /// Wakes the poller.
    pub(crate) look: Notify,
    /// Wakes the task that notifies other hosts.
    pub(crate) tell: Notify,
    /// Whether the next notification is also about requests.
    has_requests: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    /// The epoch, and the transaction below which append order is known to be final. It stays final, even if a later and more
    /// careful poll says less.
    pub(crate) fn known(&self) -> (i32, Xid) {
        *lock(&self.known)
    }

    pub(crate) fn learn(&self, horizon: (i32, Xid)) {
        let mut known = lock(&self.known);
        *known = (*known).max(horizon);
    }

    /// Notes that this host has committed rows. `requests` says whether there may be requests among them.
    pub(crate) fn wrote(&self, requests: bool) {
        self.look.notify_one();
        if requests {
            self.has_requests.store(true, Ordering::Relaxed);
            self.arrivals.notify();
        }
        self.tell.notify_one();
    }

    /// The signal for watches of a tenant, which is given by the server's hash of it; `None` for watches of all tenants.
    pub(crate) fn signal(&self, tenant: Option<i64>) -> Arc<Signal> {
        Arc::clone(lock(&self.signals).entry(tenant).or_default())
    }

    fn wake(&self, tenants: &[i64], system: i64) {
        let mut signals = lock(&self.signals);
        // Remove the signals that no watch uses.
        signals.retain(|_, signal| Arc::strong_count(signal) > 1);
        let public = tenants.contains(&system);
        for (tenant, signal) in &*signals {
            if public || tenant.is_none_or(|tenant| tenants.contains(&tenant)) {
                signal.notify();
            }
        }
    }

    fn wake_all(&self) {
        lock(&self.signals).values().for_each(|signal| signal.notify());
    }
}

/// The server's hash of the scope's tenant; `None` if the scope has no tenant.
pub(crate) async fn tenant_hash(pool: &PgPool, link: Link, scope: &Scope) -> Result<Option<i64>, LedgerError> {
    let Some(tenant) = scope.tenant() else { return Ok(None) };
    hash(pool, link, tenant).await.map(Some).map_err(from_sqlx)
}

async fn hash(pool: &PgPool, link: Link, tenant: &str) -> Result<i64, sqlx::Error> {
    let mut plain = Plain::begin(pool, link).await?;
    let query = sqlx::query_scalar("SELECT hashtextextended($1 COLLATE \"C\", 0)").persistent(link.keeps_statements());
    let hash = query.bind(tenant).fetch_one(plain.connection()).await?;
    plain.end().await?;
    Ok(hash)
}

/// Notifies other hosts, in transactions of its own. In writing transactions, notifications would make all commits wait for
/// each other.
pub(crate) async fn tell(pool: PgPool, link: Link, tail: Arc<Tail>) {
    let mut epoch_due = tokio::time::Instant::now() + EPOCH_INTERVAL;
    loop {
        tokio::select! {
            // This branch comes first. On a busy host the other one is always ready, so this one would never run.
            biased;
            () = tokio::time::sleep_until(epoch_due) => {
                check_epoch(&pool).await;
                epoch_due = tokio::time::Instant::now() + EPOCH_INTERVAL;
                continue;
            }
            () = tail.tell.notified() => {}
        }
        let told = async {
            let mut plain = Plain::begin(&pool, link).await?;
            // A crash that loses this notification also disconnects its listeners, so the commit does not wait for the disk.
            let requests = tail.has_requests.swap(false, Ordering::Relaxed);
            let notify = sqlx::query(
                "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, ''), CASE WHEN $2 THEN pg_notify($3, '') END",
            );
            let notify = notify.persistent(link.keeps_statements()).bind(CHANNEL).bind(requests).bind(REQUESTS_CHANNEL);
            notify.execute(plain.connection()).await?;
            plain.end().await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "other hosts could not be notified of new rows; their polls will find them");
        }
        tokio::time::sleep(NOTIFY_INTERVAL).await;
    }
}

/// Checks whether the ledger has moved to another cluster. New connections check it as well, but behind a pooler, or on a
/// replica that is promoted, there may be none.
async fn check_epoch(pool: &PgPool) {
    if let Err(error) = pool.execute("SELECT ledger.check_epoch()").await {
        tracing::debug!(%error, "cannot check which cluster this is");
    }
}

/// Receives the notifications of other hosts and passes them on. It has a connection of its own and reconnects by itself.
pub(crate) async fn listen(options: Arc<PgConnectOptions>, tail: Arc<Tail>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.as_ref().clone());
    let mut pause = Duration::from_millis(50);
    loop {
        let heard = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen_all([CHANNEL, REQUESTS_CHANNEL]).await?;
            // Earlier notifications were not received, so poll once.
            tail.look.notify_one();
            tail.arrivals.notify();
            loop {
                // `None` means that the connection was lost and replaced. Notifications in between were not received.
                let heard = listener.try_recv().await?;
                if heard.is_none_or(|heard| heard.channel() == REQUESTS_CHANNEL) {
                    tail.arrivals.notify();
                } else {
                    tail.look.notify_one();
                }
            }
        };
        let Err::<(), sqlx::Error>(error) = heard.await else { return };
        if error.as_database_error().and_then(|e| e.code()).as_deref() == Some(READ_ONLY) {
            // This is a replica, where nobody can notify. It may be promoted later.
            tracing::debug!(%error, "not listening for new rows; polling");
            tokio::time::sleep(REPLICA_PAUSE).await;
            continue;
        }
        tracing::warn!(%error, "not listening for new rows; polling until listening works again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// The result of one poll.
struct News {
    epoch: i32,
    horizon: Xid,
    /// Hashes of the tenants that have new rows; `None` if any tenant may have some.
    tenants: Option<Vec<i64>>,
    unsettled: bool,
}

async fn news(pool: &PgPool, link: Link, after: (i32, Xid)) -> Result<News, sqlx::Error> {
    let sql = "SELECT epoch, horizon::text, tenants, unsettled FROM ledger.news($1, $2::xid8)";
    let mut plain = Plain::begin(pool, link).await?;
    let query = sqlx::query(sql).persistent(link.keeps_statements()).bind(after.0).bind(after.1);
    let row = query.fetch_one(plain.connection()).await?;
    plain.end().await?;
    Ok(News { epoch: row.try_get(0)?, horizon: row.try_get(1)?, tenants: row.try_get(2)?, unsettled: row.try_get(3)? })
}

/// The epoch, and the transaction below which append order is final now.
///
/// `ledger.horizon` reads the server's state in two steps. If a transaction of another database ends between them, it counts as
/// one of this database. Rows that were acknowledged long ago then seem to come after now. So this polls again if there are
/// rows that are not final.
pub(crate) async fn horizon(pool: &PgPool, link: Link) -> Result<(i32, Xid), LedgerError> {
    let mut pauses = NOW_PAUSES.into_iter();
    loop {
        let news = news(pool, link, (i32::MAX, Xid(0))).await.map_err(from_sqlx)?;
        match pauses.next().filter(|_| news.unsettled) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok((news.epoch, news.horizon)),
        }
    }
}

/// Polls for rows that have become final, and wakes the watches that wait for them.
pub(crate) async fn poll(pool: PgPool, link: Link, tail: Arc<Tail>, interval: Duration) {
    let mut after: Option<(i32, Xid)> = None;
    let mut unsettled = 0;
    let mut moved = Instant::now();
    let mut system = None;
    loop {
        if system.is_none() {
            system = hash(&pool, link, SYSTEM_TENANT).await.ok();
        }
        let mut pause = interval;
        let began = Instant::now();
        match news(&pool, link, after.unwrap_or((i32::MAX, Xid(0)))).await {
            Ok(news) => {
                let horizon = (news.epoch, news.horizon);
                tail.learn(horizon);
                match (news.tenants, system) {
                    // The first poll has nothing to compare with, so it wakes all.
                    (Some(tenants), Some(system)) if after.is_some() => tail.wake(&tenants, system),
                    _ => tail.wake_all(),
                }
                if after.is_none_or(|after| after < horizon) {
                    (after, moved, unsettled) = (Some(horizon), Instant::now(), 0);
                }
                if news.unsettled {
                    let step = UNSETTLED.get(unsettled).or(UNSETTLED.last()).copied().unwrap_or(64);
                    pause = Duration::from_millis(step).min(interval);
                    unsettled += 1;
                    if moved.elapsed() > STALLED {
                        report_stall(&pool, link).await;
                        moved = Instant::now();
                    }
                }
            }
            // Waking for nothing is harmless; missing a row is not.
            Err(error) => {
                tracing::warn!(%error, "cannot poll for new rows");
                tail.wake_all();
            }
        }
        let rest = (began.elapsed() * REST).min(MAX_REST);
        tokio::time::sleep(rest).await;
        tokio::select! {
            () = tail.look.notified() => {}
            () = tokio::time::sleep(pause.saturating_sub(rest)) => {}
        }
    }
}

/// Logs which transactions keep append order from being final.
async fn report_stall(pool: &PgPool, link: Link) {
    match holders(pool, link).await {
        Ok(holders) => {
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            tracing::warn!(
                holders = holders.join("; "),
                "new rows wait for transactions that began before them: end those, or `select pg_terminate_backend(pid)`"
            );
        }
        Err(error) => tracing::warn!(%error, "new rows wait for transactions that began before them"),
    }
}

/// A transaction that keeps append order from being final.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The backend's process id; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// Its transaction id, as a decimal number.
    pub xid: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "backend {pid} (transaction {})", self.xid),
            None => write!(f, "prepared transaction {}: see pg_prepared_xacts", self.xid),
        }
    }
}

/// The transactions that keep append order from being final now, oldest first, at most 8.
pub(crate) async fn holders(pool: &PgPool, link: Link) -> Result<Vec<Holder>, LedgerError> {
    let mut plain = Plain::begin(pool, link).await.map_err(from_sqlx)?;
    let query = sqlx::query("SELECT pid, xid FROM ledger.holders()").persistent(link.keeps_statements());
    let rows = query.fetch_all(plain.connection()).await.map_err(from_sqlx)?;
    plain.end().await.map_err(from_sqlx)?;
    let holder = |row: &sqlx::postgres::PgRow| Ok(Holder { pid: row.try_get(0)?, xid: row.try_get(1)? });
    rows.iter().map(holder).collect::<Result<_, sqlx::Error>>().map_err(from_sqlx)
}

#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

mod error;
mod inspect;
mod keys;
mod options;
mod place;
mod readers;
mod row;
mod schema;
mod search;
mod select;
mod turns;
mod watcher;
mod work;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use logline_core::ledger::search::{Hit, Pending, Search, SearchQuery, Vector, VectorModel, VectorSupport, runtime_of};
use logline_core::ledger::work::Rebuilt;
use logline_core::ledger::{
    ActiveKind, AppendOptions, AppendReceipt, Capability, Cursor, Inspection, Ledger, LedgerError, MAX_ACTIVE, Order, Page,
    Parking, Poll, Polled, Position, Query, Signal, Tenants, Touched, Waiting, Watch, WatchFrom, Work, WorkQueue, quota, tail,
};
use logline_core::request::MAX_LEASE;
use logline_core::{Scope, SignedSpan, Timestamp, VerifiedSpan};
use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

pub use keys::SqliteKeys;
pub use options::{SqliteOptions, Synchronous};

use error::from_sqlite;
use place::Place;
use readers::Readers;
use row::EncodedRow;
use select::Select;
use watcher::Watcher;
use writer::{Append, Job};

const MAX_BATCH: usize = 10_000;
const MAX_PAGE: usize = 1000;

/// Bytes that may wait for the writer. Beyond that an append fails as `Unavailable` and should be retried later.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// A ledger in one SQLite file. Clones are handles of the same ledger. The file is closed when the last handle is dropped.
#[derive(Clone)]
pub struct SqliteLedger {
    shared: Arc<Shared>,
}

/// What closes is dropped in this order: the connection that closes last copies the write-ahead log into the file, and only the writer can.
struct Shared {
    watcher: Watcher,
    readers: Readers,
    /// `None` if the ledger was opened read-only.
    writer: Option<Writer>,
    options: SqliteOptions,
    place: Place,
    signal: Arc<Signal>,
}

struct Writer {
    jobs: Option<Sender<Job>>,
    queued: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens the ledger in this file, and creates the file if it does not exist.
    ///
    /// # Errors
    /// As [`SqliteLedger::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        Self::open_with(SqliteOptions::new(path))
    }

    /// Opens a ledger with these options.
    ///
    /// # Errors
    /// [`LedgerError::SchemaVersion`] if the file's schema is of another version of this library;
    /// [`LedgerError::NotALedger`] if the file is not a ledger; [`LedgerError::Corrupt`] if it is damaged;
    /// [`LedgerError::ReadOnly`] if it cannot be written; [`LedgerError::Unavailable`] if it cannot be opened now.
    pub fn open_with(options: SqliteOptions) -> Result<Self, LedgerError> {
        let signal = Arc::new(Signal::default());
        let connection = if options.read_only { None } else { Some(schema::open_writer(&options)?) };
        let place = Place::of(&options.path);
        let writer = connection.map(|connection| Writer::start(connection, Arc::clone(&signal))).transpose()?;
        let connections = (0..options.readers.max(1)).map(|_| schema::open_reader(&options)).collect::<Result<_, _>>()?;
        let readers = Readers::start(connections)?;
        let watcher = Watcher::new(Arc::clone(&signal));
        Ok(Self { shared: Arc::new(Shared { options, readers, writer, place, signal, watcher }) })
    }

    /// Copies the ledger as it is now to a new file. Reads go on meanwhile. Appends of this handle wait until the copy is done.
    ///
    /// # Errors
    /// If the file exists or cannot be written, or if this ledger was opened read-only.
    pub async fn copy_to(&self, path: impl AsRef<Path>) -> Result<(), LedgerError> {
        let path = path.as_ref();
        let text = path.to_str().ok_or_else(|| LedgerError::Unavailable {
            reason: format!("the path `{}` is not UTF-8: choose another path", path.display()),
            source: None,
        })?;
        let path = text.to_owned();
        self.write(move |connection| writer::copy(connection, &path)).await
    }

    /// Writes the write-ahead log back into the file and empties it. Until then it may have what was removed from the index of memories:
    /// call this after a memory was forgotten. False if a reader kept it from being emptied; repeat it then.
    ///
    /// # Errors
    /// If the file cannot be written, or if this ledger was opened read-only.
    pub async fn checkpoint(&self) -> Result<bool, LedgerError> {
        self.write(|connection| {
            let busy: i64 =
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(from_sqlite)?;
            Ok(busy == 0)
        })
        .await
    }

    /// Runs `work` on the writing connection, between two groups of appends.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Other(Box::new(move |connection| {
            // The caller may no longer wait for the result.
            let _ = reply.send(work(connection));
        }));
        self.writer()?.send(job)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    fn writer(&self) -> Result<&Writer, LedgerError> {
        self.shared.writer.as_ref().ok_or_else(|| LedgerError::ReadOnly { reason: "it was opened read-only".to_owned() })
    }
}

impl Writer {
    fn start(connection: Connection, signal: Arc<Signal>) -> Result<Self, LedgerError> {
        let (jobs, queue) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queued);
        let thread = std::thread::Builder::new()
            .name("logline-sqlite-write".to_owned())
            .spawn(move || writer::run(connection, &queue, &counter, &signal))
            .map_err(readers::no_thread)?;
        Ok(Self { jobs: Some(jobs), queued, thread: Some(thread) })
    }

    fn send(&self, job: Job) -> Result<(), LedgerError> {
        let jobs = self.jobs.as_ref().ok_or(LedgerError::Closed)?;
        jobs.send(job).map_err(|_| LedgerError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread writes the appends that wait, and then ends.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            readers::join(thread);
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Ledger for SqliteLedger {
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
        let writer = self.writer()?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let encode = |span: VerifiedSpan| {
            let encoded = EncodedRow::new(&span);
            (span, encoded)
        };
        let batch: Arc<Vec<_>> = Arc::new(batch.into_iter().map(encode).collect());
        let bytes = batch.iter().map(|(span, encoded)| encoded.bytes(span)).sum();
        let independent = writer::is_independent(&batch);
        let waiting = writer.queued.fetch_add(bytes, Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(bytes) > MAX_QUEUED_BYTES {
            writer.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LedgerError::Unavailable {
                reason: format!("{waiting} bytes are already waiting to be written"),
                source: None,
            });
        }
        let (reply, answer) = oneshot::channel();
        writer.send(Job::Append(Append { independent, batch: Arc::clone(&batch), options: options.clone(), bytes, reply }))?;
        let appended = answer.await.map_err(|_| LedgerError::Closed)?;
        if appended.as_ref().err().is_none_or(|error| !error.is_verdict()) {
            // What was stored in a file that was moved away is gone with it.
            self.shared.place.check()?;
        }
        appended
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        let not_found = || LedgerError::NotFound { tenant: tenant.to_owned(), id };
        // Newest first, because append order also looks up where the ledger ends.
        let query = Query::new().tenant(tenant).id(id).order(Order::Newest).limit(1);
        self.scan(scope, &query, None).await?.into_spans()?.into_iter().next().ok_or_else(not_found)
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let query = Query::chains().tenant(tenant).id(id).limit(limit);
        let before = Position::Chain {
            tenant_id: tenant.to_owned(),
            id: id.to_string(),
            seq: i64::from(from_seq) - 1,
            number: i64::MAX,
        };
        self.scan(scope, &query, Some(&before.to_cursor())).await?.into_spans()
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        let after = cursor.map(|c| Position::of(c, query.order)).transpose()?;
        match Select::new(scope, query, after.as_ref(), MAX_PAGE)? {
            Some(select) => {
                self.shared.place.check()?;
                self.shared.readers.read_for(scope.tenant(), move |connection| select.page(connection)).await
            }
            None => Ok(Page::new(Vec::new(), None)),
        }
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        self.shared.watcher.start(&self.shared.options)?;
        tail(self.clone(), scope.clone(), from, Arc::clone(&self.shared.signal)).await
    }

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        self.shared.readers.read(inspect::inspect).await
    }

    fn capability(&self) -> Capability {
        let durability = match (self.shared.options.read_only, self.shared.options.synchronous) {
            (true, _) => "read-only",
            (false, Synchronous::Full) => "WAL, synchronous=FULL: an acknowledged append survives a crash of the machine",
            (false, Synchronous::Normal) => {
                "WAL, synchronous=NORMAL: an acknowledged append survives a crash of the process, maybe not of the machine"
            }
        };
        Capability::new("sqlite", durability, MAX_BATCH, MAX_PAGE)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl WorkQueue for SqliteLedger {
    async fn now(&self) -> Result<Timestamp, LedgerError> {
        Ok(work::now())
    }

    async fn claimable(&self, poll: &Poll) -> Result<Vec<Work>, LedgerError> {
        let poll = poll.clone();
        self.shared.readers.read(move |connection| work::claimable(connection, &poll)).await
    }

    async fn take(&self, poll: &Poll) -> Result<Polled, LedgerError> {
        let (poll, holds) = (poll.clone(), !poll.hold.is_zero());
        if holds {
            // Most polls find nothing. A reader answers them, so they do not wait for the writer.
            let mut one = poll.clone();
            one.limit = 1;
            let found = self.shared.readers.read(move |connection| work::claimable(connection, &one)).await?;
            if found.is_empty() {
                return Ok(Polled { now: work::now(), due: Vec::new(), unreadable: Vec::new() });
            }
        }
        let take = move |connection: &Connection| work::take(connection, &poll);
        if holds { self.write(move |connection| take(connection)).await } else { self.shared.readers.read(take).await }
    }

    async fn park(&self, parkings: &[Parking]) -> Result<(), LedgerError> {
        let parkings = parkings.to_vec();
        self.write(move |connection| work::park(connection, &parkings)).await
    }

    async fn waiting(&self, tenant: &str, id: Uuid) -> Result<Option<Waiting>, LedgerError> {
        let (tenant, id) = (tenant.to_owned(), id.to_string());
        self.shared.readers.read(move |connection| work::waiting(connection, &tenant, &id)).await
    }

    async fn open_requests(
        &self,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        let after = after.map_or_else(Default::default, |(tenant, id)| (tenant.to_owned(), id.to_string()));
        let (tenants, limit) = (tenants.clone(), limit.min(MAX_ACTIVE));
        self.shared.readers.read(move |connection| work::open_requests(connection, &tenants, &after, limit)).await
    }

    async fn is_due(&self, work: &Work) -> Result<bool, LedgerError> {
        let work = work.clone();
        self.shared.readers.read(move |connection| work::is_due(connection, &work)).await
    }

    async fn arrivals(&self) -> Result<Arc<Signal>, LedgerError> {
        self.shared.watcher.start(&self.shared.options)?;
        Ok(Arc::clone(&self.shared.signal))
    }

    async fn active(
        &self,
        kind: ActiveKind,
        tenants: &Tenants,
        after: Option<(&str, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Work>, LedgerError> {
        let after = after.map_or_else(Default::default, |(tenant, id)| (tenant.to_owned(), id.to_string()));
        let (tenants, limit) = (tenants.clone(), limit.min(MAX_ACTIVE));
        self.shared.readers.read(move |connection| work::active(connection, kind, &tenants, &after, limit)).await
    }

    async fn refuse_active(&self, kind: ActiveKind, refused: &[Work]) -> Result<(), LedgerError> {
        let refused = refused.to_vec();
        self.write(move |connection| work::refuse_active(connection, kind, &refused)).await
    }

    async fn offer_active(&self, kind: ActiveKind, tenants: &Tenants) -> Result<(), LedgerError> {
        let tenants = tenants.clone();
        self.write(move |connection| work::offer_active(connection, kind, &tenants)).await
    }

    async fn touched(&self, after: Option<&Cursor>) -> Result<Touched, LedgerError> {
        let after = match after.map(|cursor| Position::of(cursor, Order::Append)).transpose()? {
            Some(Position::Append(number)) => Some(number),
            _ => None,
        };
        self.shared.readers.read(move |connection| work::touched(connection, after)).await
    }

    async fn heartbeat(&self, held: &Work, lease: Duration) -> Result<bool, LedgerError> {
        let (held, lease) = (held.clone(), lease.min(MAX_LEASE));
        self.write(move |connection| work::heartbeat(connection, &held, lease)).await
    }

    async fn used(&self, tenant: &str, key: &str) -> Result<u64, LedgerError> {
        let (tenant, key) = (tenant.to_owned(), key.to_owned());
        let read = move |connection: &Connection| work::used(connection, &work::now().day().to_string(), &tenant, &key);
        self.shared.readers.read(read).await
    }

    async fn rebuild(&self) -> Result<Rebuilt, LedgerError> {
        self.write(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
            let rebuilt = work::rebuild(&transaction)?;
            transaction.commit().map_err(from_sqlite)?;
            Ok(rebuilt)
        })
        .await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Search for SqliteLedger {
    async fn search_text(&self, scope: &Scope, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError> {
        let Some(searched) = query.searched(scope)? else { return Ok(Vec::new()) };
        let query = query.clone();
        self.shared.readers.read_for(scope.tenant(), move |connection| search::by_text(connection, &searched, &query)).await
    }

    async fn search_vector(&self, scope: &Scope, query: &SearchQuery, vector: &Vector) -> Result<Vec<Hit>, LedgerError> {
        let Some(searched) = query.searched(scope)? else { return Ok(Vec::new()) };
        let (query, vector) = (query.clone(), vector.clone());
        self.shared
            .readers
            .read_for(scope.tenant(), move |connection| search::by_vector(connection, &searched, &query, &vector))
            .await
    }

    async fn put_vector(&self, scope: &Scope, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError> {
        let (tenant, vector) = (runtime_of(scope)?.to_owned(), vector.clone());
        self.write(move |connection| search::put(connection, &tenant, id, seq, &vector)).await
    }

    async fn pending(
        &self,
        scope: &Scope,
        model: &VectorModel,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Pending>, LedgerError> {
        let (tenant, model) = (runtime_of(scope)?.to_owned(), model.clone());
        self.shared.readers.read(move |connection| search::pending(connection, &tenant, &model, after, limit)).await
    }

    async fn vector_support(&self) -> Result<VectorSupport, LedgerError> {
        Ok(VectorSupport::Flat)
    }
}

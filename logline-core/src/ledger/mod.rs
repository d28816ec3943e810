//! The contract of a ledger, which every backend implements and the conformance suite holds it to.

mod active;
pub mod chain;
pub(crate) mod error;
pub(crate) mod in_memory;
mod position;
mod query;
pub mod quota;
pub(crate) mod scope;
mod signal;
mod tail;
pub mod work;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::Stream;
use uuid::Uuid;

pub use active::{ActiveKind, Activity, MAX_ACTIVE};
pub use error::{Conflict, LedgerError, Retry};
pub use position::Position;
pub use query::{Order, Query, Versions, weight};
pub use quota::Limit;
pub use signal::Signal;

pub use tail::tail;
pub use work::{Due, Polled, Work, WorkQueue};

use crate::ledger::scope::Scope;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey};
use crate::value::hex::Hash;

/// A stream of new rows, endless until the ledger is closed or the stream is dropped.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Watched, LedgerError>> + Send>>;

/// An append-only store of signed spans.
///
/// # Contract
/// - Row identity is (tenant, id, seq). The first version of an id may have any `seq` and has no `prev_hash`; every other has
///   exactly the last `seq + 1` and its `curr_hash` as `prev_hash`, and keeps its owner and type. Of two writers of the same
///   version one wins. [`chain::decide`] is this rule.
/// - A batch is stored whole or not at all, in its order; it may hold several versions of one id.
/// - What is read back is what was appended, column by column, so that it verifies.
/// - Every call is confined to its [`Scope`] ([`Scope::may_read`], [`Scope::check_append`]); a scope without identity sees and
///   writes nothing.
/// - `get` and a scan of [`Versions::Latest`] show the last version of an id where that version is visible to the scope and not
///   a tombstone, and nothing of the id otherwise: an older version never stands in for a hidden one.
/// - Once an append has returned, every later read sees it, and a durable ledger still has it after a crash. Only a scan in
///   append order may end before it while an earlier writer is under way: its place is not final then.
/// - No reader that follows cursors ever skips a committed row, however late it commits; versions of one id come in order.
/// - Cancelling any call (dropping its future) leaves the ledger consistent; an append cancelled under way is stored whole or
///   not at all.
///
/// # Errors
/// [`LedgerError`] by meaning. Nothing of a failed batch is stored.
///
/// # Cloning
/// Backends are handles: cheap to clone, all clones are one ledger. `Arc<dyn Ledger>` is one as well.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Appends a batch atomically and returns one receipt per span, in order.
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError>;

    /// The last version of an id.
    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError>;

    /// Up to `limit` versions of an id from `from_seq` on, oldest first, tombstones included; empty if there are none.
    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError>;

    /// One page of the rows that match, after `cursor`.
    ///
    /// A page may hold fewer rows than asked for (backends bound its bytes); the end is reached when `next` is `None`.
    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError>;

    /// Follows the ledger: every version of everything the scope may see, in append order.
    ///
    /// Delivery is at least once with respect to the cursor that the caller keeps: store it with the effects.
    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError>;

    /// What this backend promises.
    fn capability(&self) -> Capability;
}

/// How an append treats what exists already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AppendOptions {
    /// What to do where a version of the same `seq` exists.
    pub on_existing: OnExisting,
    /// What the claims of the batch must not exceed. Each claim that is stored anew uses one unit of every quota it names
    /// ([`Charges`](crate::request::Charges)), with or without a limit; where one is exceeded nothing of the batch is stored. Claims of other tenants than a
    /// limit's are not held to it.
    pub limits: Vec<Limit>,
}

impl AppendOptions {
    /// Keep what a racing host wrote first under the same deterministic id.
    #[must_use]
    pub fn keep() -> Self {
        Self { on_existing: OnExisting::Keep, ..Self::default() }
    }

    /// Holds the batch's claims to `limits`.
    #[must_use]
    pub fn limits(mut self, limits: Vec<Limit>) -> Self {
        self.limits = limits;
        self
    }
}

/// What to do where a version of the same `seq` exists. The identical bytes are success either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnExisting {
    /// Refuse the batch.
    #[default]
    Conflict,
    /// Leave the existing one if it has the same digest over the draft without time, duration and signer, item by item.
    Keep,
}

/// What became of one span of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendReceipt {
    /// Which.
    pub key: SpanKey,
    /// The hash of the row that now stands there.
    pub curr_hash: Hash,
    /// Whether this call put it there.
    pub outcome: Outcome,
}

impl AppendReceipt {
    /// A receipt; backends make them.
    #[must_use]
    pub fn new(key: SpanKey, curr_hash: Hash, outcome: Outcome) -> Self {
        Self { key, curr_hash, outcome }
    }
}

/// Whether an append wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It wrote the row.
    Appended,
    /// The identical row was there.
    Existing,
    /// Another row with the same draft digest was there and stays.
    Kept,
}

/// A position in one ledger: opaque, resumable, to be stored as its text.
///
/// Positions of append order are the same whichever way they are scanned ([`Order::Append`], [`Order::Newest`], a watch); those
/// of [`Order::Chain`] are apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// A cursor from the text of one. Whether it is any good shows when it is used.
    pub fn from_text(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The rows, in the query's order.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
    /// At the end of append order: a position up to which every row was looked at, shown or not; never before the page's last
    /// row. What is appended later comes after it.
    pub reached: Option<Cursor>,
}

impl Page {
    /// A page; backends make them.
    #[must_use]
    pub fn new(rows: Vec<Row>, next: Option<Cursor>) -> Self {
        Self { rows, next, reached: None }
    }

    /// Sets how far the last page has looked.
    #[must_use]
    pub fn reached(mut self, position: Cursor) -> Self {
        self.reached = Some(position);
        self
    }

    /// Its spans.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] for the first row that cannot be read.
    pub fn into_spans(self) -> Result<Vec<SignedSpan>, LedgerError> {
        self.rows.into_iter().map(|row| row.span.map_err(LedgerError::from)).collect()
    }
}

/// One row of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its position: a scan that continues from here yields what comes after it.
    pub cursor: Cursor,
    /// The row, or what is left of it.
    pub span: Result<SignedSpan, DamagedRow>,
}

/// A stored row that is no span any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// `tenant_id` as stored.
    pub tenant_id: String,
    /// `id` as stored.
    pub id: String,
    /// `seq` as stored.
    pub seq: String,
    /// Why it cannot be read.
    pub reason: String,
}

impl From<DamagedRow> for LedgerError {
    fn from(row: DamagedRow) -> Self {
        Self::Damaged { row: format!("{}/{}/{}", row.tenant_id, row.id, row.seq), reason: row.reason }
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WatchFrom {
    /// At the first row.
    #[default]
    Beginning,
    /// After the last row of now.
    Now,
    /// After this position of append order.
    After(Cursor),
}

/// One row of a watch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Watched {
    /// The row.
    pub span: SignedSpan,
    /// Its position, to resume after it.
    pub cursor: Cursor,
}

/// What a backend promises.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Its name, for messages.
    pub name: &'static str,
    /// Whether an acknowledged append survives a crash of the process and of the machine, and by which means.
    pub durability: String,
    /// The most spans in one append.
    pub max_batch: usize,
    /// The most rows in one page.
    pub max_page: usize,
}

impl Capability {
    /// A capability; backends make them.
    #[must_use]
    pub fn new(name: &'static str, durability: impl Into<String>, max_batch: usize, max_page: usize) -> Self {
        Self { name, durability: durability.into(), max_batch, max_page }
    }
}

/// Forwards every call, so that a shared ledger is a ledger.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: Ledger + ?Sized> Ledger for Arc<L> {
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError> {
        (**self).append(scope, batch, options).await
    }

    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError> {
        (**self).get(scope, tenant, id).await
    }

    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError> {
        (**self).history(scope, tenant, id, from_seq, limit).await
    }

    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError> {
        (**self).scan(scope, query, cursor).await
    }

    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError> {
        (**self).watch(scope, from).await
    }

    fn capability(&self) -> Capability {
        (**self).capability()
    }
}

/// What callers want besides the contract; every ledger has it.
#[async_trait]
pub trait LedgerExt: Ledger {
    /// Appends one span under the default options.
    async fn append_one(&self, scope: &Scope, span: VerifiedSpan) -> Result<AppendReceipt, LedgerError> {
        let key = span.key();
        let receipts = self.append(scope, vec![span], &AppendOptions::default()).await?;
        // A backend that returns no receipt for one span breaks the contract; say which span is in doubt.
        receipts.into_iter().next().ok_or_else(|| LedgerError::Unavailable {
            reason: format!("the backend returned no receipt for {key}"),
            source: None,
        })
    }

    /// The last version of an id, `None` where there is none to see.
    async fn find(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
        match self.get(scope, tenant, id).await {
            Ok(span) => Ok(Some(span)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All rows that match, page after page, collected. For results known to be small; `max` bounds them.
    async fn collect(&self, scope: &Scope, query: &Query, max: usize) -> Result<Vec<SignedSpan>, LedgerError> {
        let mut spans = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.scan(scope, query, cursor.as_ref()).await?;
            cursor = page.next.clone();
            spans.extend(page.into_spans()?);
            if spans.len() >= max || cursor.is_none() {
                spans.truncate(max);
                return Ok(spans);
            }
        }
    }
}

impl<L: Ledger + ?Sized> LedgerExt for L {}

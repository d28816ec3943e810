//! The contract of a ledger. Every backend implements it, and the conformance suite checks it.

mod active;
pub mod chain;
mod claim;
pub(crate) mod error;
pub(crate) mod in_memory;
mod position;
mod premise;
mod query;
pub mod quota;
pub(crate) mod scope;
pub mod search;
mod signal;
mod tail;
pub mod work;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

pub use active::{ActiveKind, Activity, MAX_ACTIVE};
pub use claim::HeldClaim;
pub use error::{Conflict, LedgerError, Retry};
pub use position::Position;
pub use premise::{PREMISES, Premise};
pub use query::{Memories, Narrow, Order, Query, Versions, weight};
pub use quota::Limit;
pub use search::{Hit, Search, SearchEntry, SearchQuery, SearchScope};
pub use signal::Signal;

pub use tail::tail;
pub use work::{Due, Parking, Poll, Polled, Tenants, Touched, Waiting, Work, WorkQueue};

use crate::ledger::scope::Scope;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey};
use crate::value::hex::Hash;

/// A stream of rows as they are appended. It has no end of its own: it runs until the ledger is closed or the stream is
/// dropped.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Watched, LedgerError>> + Send>>;

/// An append-only store of signed spans.
///
/// # Contract
/// - A row is identified by (tenant, id, seq). The first version of an id may have any `seq` and has no `prev_hash`. Every
///   later version has the `seq` of the last version plus one and the `curr_hash` of the last version as its `prev_hash`, and
///   it keeps the owner and the type. If two writers append the same version, one wins. [`chain::decide`] implements this rule.
/// - A batch is stored whole or not at all, in its order. It may hold several versions of one id.
/// - A row is read back exactly as it was appended, column by column, so that its seal verifies.
/// - Every call is limited to its [`Scope`] ([`Scope::may_read`], [`Scope::check_append`]). A scope without identity reads and
///   writes nothing.
/// - `get` and a scan of [`Versions::Latest`] return the last version of an id if that version is visible to the scope and is
///   not a tombstone. Otherwise they return nothing for this id: they never return an older version in its place.
/// - After an append has returned, every later read sees it, and a durable ledger still has it after a crash. The only
///   exception is a scan in append order: while an earlier writer has not committed yet, the position of the new row is not
///   final, and the scan may end before it.
/// - A reader that follows cursors never skips a committed row, however late it was committed. It receives the versions of one
///   id in order.
/// - If the caller cancels a call (drops its future), the ledger stays consistent. An append that is cancelled while it runs is
///   stored whole or not at all.
///
/// # Errors
/// [`LedgerError`] has one variant for each cause. If an append is refused, nothing of its batch is stored. After
/// [`LedgerError::Unavailable`] the whole batch may be stored, for example if the connection was lost during the commit.
/// Repeat the append: identical bytes are stored once.
///
/// # Cloning
/// A backend is a handle. It is cheap to clone, and all clones use the same ledger. `Arc<dyn Ledger>` is a ledger too.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Appends a batch atomically and returns one receipt per span, in order.
    async fn append(
        &self,
        scope: &Scope,
        batch: Vec<VerifiedSpan>,
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, LedgerError>;

    /// The last version of an id. [`LedgerError::NotFound`] if it does not exist, is not visible, or is a tombstone.
    async fn get(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<SignedSpan, LedgerError>;

    /// Up to `limit` versions of an id that the scope may see, from `from_seq` on, oldest first, with tombstones. If they are long it may
    /// return fewer, but at least one: whoever wants all goes on after the last one until the answer is empty.
    async fn history(
        &self,
        scope: &Scope,
        tenant: &str,
        id: Uuid,
        from_seq: u32,
        limit: usize,
    ) -> Result<Vec<SignedSpan>, LedgerError>;

    /// One page of the rows that match, after `cursor`, or from the start without one.
    ///
    /// A page may hold fewer rows than asked for, because backends limit its bytes, and none at all, if the query limits how many
    /// rows it looks at. The scan is at its end when `next` is `None`.
    async fn scan(&self, scope: &Scope, query: &Query, cursor: Option<&Cursor>) -> Result<Page, LedgerError>;

    /// Follows the ledger: yields every version of every span that the scope may see, in append order.
    ///
    /// Delivery is at least once: after a restart, the rows after the caller's stored cursor are delivered again. Store the
    /// cursor together with the effects of the rows.
    async fn watch(&self, scope: &Scope, from: WatchFrom) -> Result<Watch, LedgerError>;

    /// Checks the store itself, without its access paths: what an audit must know so that nobody can show it other rows than the
    /// users. It may read the whole store. Only an operator's login may be able to.
    async fn inspect(&self) -> Result<Inspection, LedgerError>;

    /// The durability and the limits of this backend.
    fn capability(&self) -> Capability;
}

/// What [`Ledger::inspect`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// The number of rows in the table. A scan as [`Scope::Operator`] that begins later must return at least as many.
    pub rows: u64,
    /// What is wrong with the store: indexes that do not agree with the table, definitions that are not the library's.
    pub problems: Vec<String>,
}

impl Inspection {
    /// What was found. Only backends need this.
    #[must_use]
    pub fn new(rows: u64, problems: Vec<String>) -> Self {
        Self { rows, problems }
    }
}

/// How an append treats versions that exist already, which quota limits apply to it, and what must hold when it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AppendOptions {
    /// What to do if a version with the same `seq` exists.
    pub on_existing: OnExisting,
    /// The quota limits that the claims of the batch must keep. Each claim that this append stores uses one unit of every quota
    /// that it names ([`Charges`](crate::request::Charges)), with or without a limit. If a limit is exceeded, nothing of the
    /// batch is stored. A limit applies to the claims of its own tenant only.
    pub limits: Vec<Limit>,
    /// Versions of other spans that the batch relies on. If this append stores anything, each of them is the last version of its id at
    /// that moment, and the next one, if it ever comes, comes later in append order. Otherwise it fails with [`Conflict::Premise`].
    pub premises: Vec<Premise>,
    /// The claim for which the batch is appended. If this append stores anything, the claim is held at that moment and its lease is
    /// extended. Otherwise it fails with [`Conflict::ClaimLost`]. So whoever has taken the request over sees the batch.
    pub held: Option<HeldClaim>,
}

impl AppendOptions {
    /// Options with [`OnExisting::Keep`]: if another host has written the same deterministic id first, its version is kept.
    #[must_use]
    pub fn keep() -> Self {
        Self { on_existing: OnExisting::Keep, ..Self::default() }
    }

    /// Sets what the batch relies on.
    #[must_use]
    pub fn premises(mut self, premises: Vec<Premise>) -> Self {
        self.premises = premises;
        self
    }

    /// Sets the claim for which the batch is appended.
    #[must_use]
    pub fn held(mut self, claim: HeldClaim) -> Self {
        self.held = Some(claim);
        self
    }

    /// Sets the quota limits that apply to the claims of the batch.
    #[must_use]
    pub fn limits(mut self, limits: Vec<Limit>) -> Self {
        self.limits = limits;
        self
    }
}

/// What to do if a version with the same `seq` exists. If it is identical (same `curr_hash`), the append succeeds in both
/// cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnExisting {
    /// Refuse the batch with [`Conflict::Exists`].
    #[default]
    Conflict,
    /// Keep the existing version if both have the same digest over their drafts without time, duration and signer. Otherwise
    /// refuse the batch with [`LedgerError::KeepMismatch`]. Each span of the batch is compared separately.
    Keep,
}

/// The result of an append for one span of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendReceipt {
    /// The span that was to be appended.
    pub key: SpanKey,
    /// The hash of the row that is stored under `key`: the new row, or the one that existed before.
    pub curr_hash: Hash,
    /// Whether this call stored that row.
    pub outcome: Outcome,
}

impl AppendReceipt {
    /// Makes a receipt. Only backends need this.
    #[must_use]
    pub fn new(key: SpanKey, curr_hash: Hash, outcome: Outcome) -> Self {
        Self { key, curr_hash, outcome }
    }
}

/// Whether an append stored the row of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// This append stored the row.
    Appended,
    /// The identical row existed already. Nothing was written.
    Existing,
    /// Another row with the same draft digest existed already and is kept ([`OnExisting::Keep`]).
    Kept,
}

/// A position in one ledger from which a reader goes on. Callers store it as text and must not parse it.
///
/// [`Order::Append`], [`Order::Newest`] and watches use the same cursors. [`Order::Chain`] has cursors of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// Makes a cursor from its text. The text is not checked here: a ledger that gets an invalid cursor returns
    /// [`LedgerError::InvalidCursor`].
    pub fn from_text(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The cursor as text, to be stored.
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
    /// The cursor for the next page. `None` if this is the last page.
    pub next: Option<Cursor>,
    /// Set on the last page of [`Order::Append`] only: the position up to which the scan has read every row, whether the rows
    /// matched or not. It is never before the last row of the page. Rows that are appended later come after it.
    pub reached: Option<Cursor>,
    /// How many rows the scan looked at for this page, whether it returns them or not. Set if the query limits them
    /// ([`Query::max_visited`]).
    pub visited: Option<usize>,
}

impl Page {
    /// Makes a page without `reached` and `visited`. Only backends need this.
    #[must_use]
    pub fn new(rows: Vec<Row>, next: Option<Cursor>) -> Self {
        Self { rows, next, reached: None, visited: None }
    }

    /// Ends a page at the limit of rows that it may look at: it has looked at `visited` rows. `end` is the position of the last
    /// of them if the limit was reached there, so that a page without a next one continues from it. Only backends need this.
    #[must_use]
    pub fn visited(mut self, visited: usize, end: Option<Cursor>) -> Self {
        self.visited = Some(visited);
        if self.next.is_none() && end.is_some() {
            (self.next, self.reached) = (end, None);
        }
        self
    }

    /// Sets the position up to which the scan has read.
    #[must_use]
    pub fn reached(mut self, position: Cursor) -> Self {
        self.reached = Some(position);
        self
    }

    /// The spans of the page, in its order.
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
    /// The position of the row. A scan from this cursor continues with the row after it.
    pub cursor: Cursor,
    /// The span, or a description of the stored row if it cannot be read.
    pub span: Result<SignedSpan, DamagedRow>,
}

/// A stored row that can no longer be read as a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// The column `tenant_id` as it is stored.
    pub tenant_id: String,
    /// The column `id` as it is stored, even if it is not a valid UUID.
    pub id: String,
    /// The column `seq` as it is stored, even if it is not a number.
    pub seq: String,
    /// Why the row cannot be read.
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
    /// With the first row.
    #[default]
    Beginning,
    /// After the row that is the last one when the watch starts.
    Now,
    /// After this position. The cursor must be one of append order.
    After(Cursor),
}

/// One row of a watch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Watched {
    /// The span that was appended.
    pub span: SignedSpan,
    /// Its position. A watch from [`WatchFrom::After`] this cursor continues with the next row.
    pub cursor: Cursor,
}

/// The durability and the limits of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The name of the backend, for messages: `memory`, `sqlite` or `postgres` for those of this project.
    pub name: &'static str,
    /// Whether an acknowledged append survives a crash of the process and of the machine, and how. A text for people.
    pub durability: String,
    /// The largest number of spans in one append.
    pub max_batch: usize,
    /// The largest number of rows in one page.
    pub max_page: usize,
}

impl Capability {
    /// Makes a capability. Only backends need this.
    #[must_use]
    pub fn new(name: &'static str, durability: impl Into<String>, max_batch: usize, max_page: usize) -> Self {
        Self { name, durability: durability.into(), max_batch, max_page }
    }
}

/// Forwards every call, so that an `Arc` of a ledger can be used as a ledger.
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

    async fn inspect(&self) -> Result<Inspection, LedgerError> {
        (**self).inspect().await
    }

    fn capability(&self) -> Capability {
        (**self).capability()
    }
}

/// Convenience methods for callers. Every [`Ledger`] has them.
#[async_trait]
pub trait LedgerExt: Ledger {
    /// Appends one span with the default options.
    async fn append_one(&self, scope: &Scope, span: VerifiedSpan) -> Result<AppendReceipt, LedgerError> {
        let key = span.key();
        let receipts = self.append(scope, vec![span], &AppendOptions::default()).await?;
        // A backend that returns no receipt breaks the contract. Name the span, because it may be stored or not.
        receipts.into_iter().next().ok_or_else(|| LedgerError::Unavailable {
            reason: format!("the backend returned no receipt for {key}"),
            source: None,
        })
    }

    /// As [`Ledger::get`], but `None` instead of [`LedgerError::NotFound`].
    async fn find(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
        match self.get(scope, tenant, id).await {
            Ok(span) => Ok(Some(span)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The last version of an id, also if it is a tombstone. `None` if the scope may see none.
    async fn head(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
        let query = Query::timeline().tenant(tenant).id(id).order(Order::Newest).limit(1);
        let rows = self.scan(scope, &query, None).await?.into_spans()?;
        Ok(rows.into_iter().next())
    }

    /// The spans of all rows that match, page after page, in the query's order. Memory does not grow with their number. After an
    /// error the stream is at its end.
    fn stream(&self, scope: Scope, query: Query) -> BoxStream<'_, Result<SignedSpan, LedgerError>> {
        let pages = stream::try_unfold(Some(None::<Cursor>), move |at| {
            let (scope, query) = (scope.clone(), query.clone());
            async move {
                let Some(cursor) = at else { return Ok::<_, LedgerError>(None) };
                let mut page = self.scan(&scope, &query, cursor.as_ref()).await?;
                let next = page.next.take().map(Some);
                Ok(Some((page.rows, next)))
            }
        });
        let rows = pages.map_ok(|rows| stream::iter(rows).map(|row| row.span.map_err(LedgerError::from)));
        rows.try_flatten().boxed()
    }

    /// Reads page after page and returns the spans of all rows that match, at most `max`. Use it for small results only.
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

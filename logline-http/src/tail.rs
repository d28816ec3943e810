//! One tail of the ledger for all streams of a tenant, and followers that resume at any position without gap or repeat.
//!
//! A follower has one position. As long as it keeps up, it takes rows from a ring that the tail fills; otherwise it reads pages of its
//! own. Those of all followers of a tenant have a limit together: the oldest page is dropped, and read again when its turn comes. However
//! many clients are slow, memory does not grow.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use logline_core::ledger::{Cursor, Ledger, LedgerError, Order, Query, Versions, WatchFrom, WorkQueue};
use logline_core::request::Phase;
use logline_core::{Clock as _, Scope, SignedSpan, Span, SystemClock};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

/// The most rows in a ring.
const RING_ROWS: usize = 1024;
/// The most bytes of rows in a ring.
const RING_BYTES: usize = 16 << 20;
/// The rows and bytes of a page of a follower that has fallen behind.
const PAGE_ROWS: usize = 64;
const PAGE_BYTES: usize = 128 << 10;
/// How many followers of a tenant read pages at the same time.
const CATCHING_UP: usize = 2;
/// The most bytes of pages that all followers of a tenant hold.
const PAGES_BYTES: usize = 16 << 20;
/// How many of the newest rows [`end`] begins before.
const NEWEST: usize = 256;
/// The pause before a tail begins again after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// What an entry takes besides its line, in bytes: less than this.
const COLUMNS: usize = 3 << 10;

/// A row of a tail. Its content is held as text: parsed, many small values take twenty times the memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) cursor: Cursor,
    /// The columns that readers filter by. The others are left out, and are in the line alone.
    pub(crate) columns: Span,
    /// The row as canonical JSON, without a line end.
    pub(crate) line: Bytes,
}

impl Entry {
    fn new(cursor: Cursor, span: &SignedSpan) -> Self {
        let columns = Span {
            id: span.id,
            seq: span.seq,
            entity_type: span.entity_type.clone(),
            owner_id: span.owner_id.clone(),
            tenant_id: span.tenant_id.clone(),
            visibility: span.visibility,
            status: span.status.clone(),
            parent_id: span.parent_id,
            trace_id: span.trace_id.clone(),
            at: span.at,
            is_deleted: span.is_deleted,
            duration_ms: span.duration_ms,
            prev_hash: span.prev_hash,
            who: String::new(),
            this: String::new(),
            did: None,
            related_to: Vec::new(),
            name: None,
            description: None,
            code: None,
            language: None,
            runtime: None,
            input: None,
            output: None,
            error: None,
            content: None,
            metadata: None,
        };
        Self { cursor, columns, line: span.to_line().into() }
    }

    fn bytes(&self) -> usize {
        COLUMNS + self.line.len()
    }
}

/// The tails of a host. Each exists as long as somebody follows it.
pub(crate) struct Tails {
    ledger: Arc<dyn WorkQueue>,
    tenants: Mutex<HashMap<String, Weak<Tail>>>,
}

impl Tails {
    pub(crate) fn new(ledger: Arc<dyn WorkQueue>) -> Self {
        Self { ledger, tenants: Mutex::default() }
    }

    /// Follows the rows of a tenant, and the public rows of `system`, from the present end.
    pub(crate) async fn follow_now(&self, tenant: &str) -> Result<Follower, LedgerError> {
        if let Some(tail) = self.living(tenant) {
            let at = lock(&tail.ring).last();
            return Ok(Follower::new(tail, at));
        }
        let at = end(&*self.ledger, &Scope::runtime(tenant)).await?;
        Ok(Follower::new(self.begun(tenant, at.clone()), at))
    }

    /// Follows them from after `at`, or from the first row. A tail begins at the end all the same: who comes from far behind reads pages
    /// of their own until they have caught up.
    pub(crate) async fn follow(&self, tenant: &str, at: Option<Cursor>) -> Result<Follower, LedgerError> {
        let tail = match self.living(tenant) {
            Some(tail) => tail,
            None => self.begun(tenant, end(&*self.ledger, &Scope::runtime(tenant)).await?),
        };
        Ok(Follower::new(tail, at))
    }

    /// Waits for the end of a request of the tenant, from now on. However many others wait, only those of this request are woken.
    pub(crate) async fn ending(&self, tenant: &str, id: Uuid) -> Result<Ending, LedgerError> {
        let tail = match self.living(tenant) {
            Some(tail) => tail,
            None => self.begun(tenant, end(&*self.ledger, &Scope::runtime(tenant)).await?),
        };
        let ended = lock(&tail.endings).entry(id).or_default().subscribe();
        Ok(Ending { tail, id, ended: Some(ended) })
    }

    fn living(&self, tenant: &str) -> Option<Arc<Tail>> {
        lock(&self.tenants).get(tenant).and_then(Weak::upgrade)
    }

    /// The tail of a tenant; a new one begins after `at`.
    fn begun(&self, tenant: &str, at: Option<Cursor>) -> Arc<Tail> {
        let mut tenants = lock(&self.tenants);
        tenants.get(tenant).and_then(Weak::upgrade).unwrap_or_else(|| {
            tenants.retain(|_, tail| tail.strong_count() > 0);
            let tail = Arc::new(Tail::start(Arc::clone(&self.ledger), Scope::runtime(tenant), at));
            tenants.insert(tenant.to_owned(), Arc::downgrade(&tail));
            tail
        })
    }

    /// How many tails there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.tenants).values().filter(|tail| tail.strong_count() > 0).count()
    }
}

/// The end of the ledger for `scope`: a position before which all rows are final. `None` if there are no rows.
async fn end(ledger: &dyn WorkQueue, scope: &Scope) -> Result<Option<Cursor>, LedgerError> {
    let newest = Query::new().versions(Versions::All).order(Order::Newest).limit(NEWEST).max_bytes(PAGE_BYTES);
    let newest = ledger.scan(scope, &newest, None).await?;
    // The newest rows may not be final yet, so the end is looked for in append order, which ends before such rows.
    let Some(mut at) = newest.rows.into_iter().next_back().map(|row| row.cursor) else { return Ok(None) };
    loop {
        let page = ledger.scan(scope, &Query::timeline().limit(NEWEST).max_bytes(PAGE_BYTES), Some(&at)).await?;
        match (page.next, page.reached) {
            (Some(next), _) => at = next,
            (None, Some(reached)) => return Ok(Some(reached)),
            (None, None) => return Ok(Some(page.rows.into_iter().next_back().map_or(at, |row| row.cursor))),
        }
    }
}

/// One tail. It ends when the last follower is dropped.
struct Tail {
    ledger: Arc<dyn WorkQueue>,
    scope: Scope,
    ring: Arc<Mutex<Ring>>,
    /// Changes when the ring does.
    news: watch::Sender<()>,
    endings: Arc<Endings>,
    task: AbortHandle,
    /// Turns of those who read pages of their own.
    catching_up: Semaphore,
    /// The pages of those who have read them.
    pages: Mutex<Pages>,
}

/// The requests whose end somebody waits for; each changes when a version comes that has ended. There are as many as waits at most.
type Endings = Mutex<HashMap<Uuid, watch::Sender<()>>>;

/// Waits for the end of one request.
pub(crate) struct Ending {
    tail: Arc<Tail>,
    id: Uuid,
    /// `None` only while this is being dropped.
    ended: Option<watch::Receiver<()>>,
}

impl Ending {
    /// Until it has ended since this was made, or since the last call. It may have been revived again.
    pub(crate) async fn wait(&mut self) {
        if let Some(ended) = &mut self.ended {
            // The tail, and with it the sender, lives as long as this.
            let _ = ended.changed().await;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut endings = lock(&self.tail.endings);
        self.ended = None;
        if endings.get(&self.id).is_some_and(|ended| ended.receiver_count() == 0) {
            endings.remove(&self.id);
        }
    }
}

/// Whether a version of a request is its end, unless it is revived.
pub(crate) fn has_ended(request: &Span) -> bool {
    !matches!(Phase::of(request), Some(Phase::Scheduled | Phase::Running))
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tail {
    fn start(ledger: Arc<dyn WorkQueue>, scope: Scope, from: Option<Cursor>) -> Self {
        let (ring, news) = (Arc::new(Mutex::new(Ring { before: from, ..Ring::default() })), watch::Sender::new(()));
        let endings = Arc::<Endings>::default();
        let filling = Filling { ring: Arc::clone(&ring), news: news.clone(), endings: Arc::clone(&endings) };
        let task = tokio::spawn(fill(Arc::clone(&ledger), scope.clone(), filling)).abort_handle();
        Self { ledger, scope, ring, news, endings, task, catching_up: Semaphore::new(CATCHING_UP), pages: Mutex::default() }
    }
}

/// Pages of followers, oldest first. INVARIANT: they have at most [`PAGES_BYTES`], or there is one.
#[derive(Default)]
struct Pages {
    held: VecDeque<HeldPage>,
    bytes: usize,
    /// The number of the next page.
    next: u64,
}

struct HeldPage {
    number: u64,
    rows: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Pages {
    /// Holds a page for a follower. Others may lose theirs.
    fn hold(&mut self, rows: VecDeque<Arc<Entry>>) -> u64 {
        let number = self.next;
        self.next += 1;
        let bytes = rows.iter().map(|entry| entry.bytes()).sum();
        self.bytes += bytes;
        self.held.push_back(HeldPage { number, rows, bytes });
        while self.bytes > PAGES_BYTES && self.held.len() > 1 {
            self.held.pop_front().inspect(|oldest| self.bytes -= oldest.bytes);
        }
        number
    }

    /// The next row of a page; `None` if it has no more, or was dropped.
    fn take(&mut self, number: u64) -> Option<Arc<Entry>> {
        let index = self.held.binary_search_by_key(&number, |page| page.number).ok()?;
        let page = self.held.get_mut(index)?;
        let row = page.rows.pop_front();
        if row.is_none() || page.rows.is_empty() {
            self.held.remove(index).inspect(|page| self.bytes -= page.bytes);
        }
        row
    }

    fn drop_page(&mut self, number: u64) {
        if let Ok(index) = self.held.binary_search_by_key(&number, |page| page.number) {
            self.held.remove(index).inspect(|page| self.bytes -= page.bytes);
        }
    }
}

/// What a tail fills, and whom it wakes.
struct Filling {
    ring: Arc<Mutex<Ring>>,
    news: watch::Sender<()>,
    endings: Arc<Endings>,
}

impl Filling {
    fn push(&self, entry: Entry) {
        let columns = &entry.columns;
        let ended = (columns.entity_type == "request" && has_ended(columns)).then_some(columns.id);
        lock(&self.ring).push(Arc::new(entry));
        self.news.send_replace(());
        if let Some(waiting) = ended.and_then(|id| lock(&self.endings).get(&id).cloned()) {
            waiting.send_replace(());
        }
    }
}

/// Fills a ring, and begins again after errors where it was.
async fn fill(ledger: Arc<dyn WorkQueue>, scope: Scope, filling: Filling) {
    loop {
        let at = lock(&filling.ring).last();
        match ledger.watch(&scope, at.map_or(WatchFrom::Beginning, WatchFrom::After)).await {
            Ok(mut watch) => {
                while let Some(row) = watch.next().await {
                    match row {
                        Ok(row) => {
                            let lag = SystemClock.now().since(row.span.at);
                            metrics::histogram!("logline_tail_lag_seconds").record(lag.as_secs_f64());
                            filling.push(Entry::new(row.cursor, &row.span));
                        }
                        // The watch goes on after it.
                        Err(error @ LedgerError::Damaged { .. }) => tracing::error!(%error, "streams leave out a damaged row"),
                        Err(error) => {
                            tracing::warn!(%error, "a tail begins again");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "a tail cannot begin"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The last rows of a tail, without gaps.
#[derive(Default)]
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    /// The number of the first entry.
    first: u64,
    /// The position before the first entry.
    before: Option<Cursor>,
    numbers: HashMap<Cursor, u64>,
    bytes: usize,
}

/// What a ring has at a number.
enum Place {
    Row(Arc<Entry>),
    /// It comes next.
    Ahead,
    /// It has been removed.
    Gone,
}

impl Ring {
    fn push(&mut self, entry: Arc<Entry>) {
        let number = self.first + self.entries.len() as u64;
        self.numbers.insert(entry.cursor.clone(), number);
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > RING_ROWS || (self.bytes > RING_BYTES && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.numbers.remove(&oldest.cursor);
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
            self.before = Some(oldest.cursor.clone());
            self.first += 1;
        }
    }

    fn last(&self) -> Option<Cursor> {
        self.entries.back().map(|entry| entry.cursor.clone()).or_else(|| self.before.clone())
    }

    /// The number of the row after `cursor`, if it is known.
    fn after(&self, cursor: Option<&Cursor>) -> Option<u64> {
        if cursor == self.before.as_ref() {
            return Some(self.first);
        }
        cursor.and_then(|cursor| self.numbers.get(cursor)).map(|number| number + 1)
    }

    fn at(&self, number: u64) -> Place {
        let Some(index) = number.checked_sub(self.first) else { return Place::Gone };
        let entry = usize::try_from(index).ok().and_then(|index| self.entries.get(index));
        entry.map_or(Place::Ahead, |entry| Place::Row(Arc::clone(entry)))
    }
}

/// Follows a tail from a position. Its rows are those that the runtime of the tenant sees: the caller filters them by scope.
pub(crate) struct Follower {
    tail: Arc<Tail>,
    news: watch::Receiver<()>,
    /// The position of the last row that was returned.
    at: Option<Cursor>,
    /// The position before that row.
    before: Option<Cursor>,
    /// The number of the next row in the ring, if it is known.
    joined: Option<u64>,
    /// The number of its page, if it has one.
    page: Option<u64>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            lock(&self.tail.pages).drop_page(page);
        }
    }
}

impl Follower {
    fn new(tail: Arc<Tail>, at: Option<Cursor>) -> Self {
        let news = tail.news.subscribe();
        Self { tail, news, before: at.clone(), at, joined: None, page: None }
    }

    /// The position after the last row that was returned.
    pub(crate) fn position(&self) -> Option<&Cursor> {
        self.at.as_ref()
    }

    /// Takes the last row back: it is returned again by the next call.
    pub(crate) fn put_back(&mut self) {
        (self.at, self.joined) = (self.before.clone(), None);
        if let Some(page) = self.page.take() {
            lock(&self.tail.pages).drop_page(page);
        }
    }

    /// The next row. If the caller drops the future, nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Arc<Entry>, LedgerError> {
        loop {
            let held = self.page.and_then(|page| lock(&self.tail.pages).take(page));
            if let Some(entry) = held {
                self.before = self.at.replace(entry.cursor.clone());
                return Ok(entry);
            }
            self.page = None;
            // Before the ring and the ledger are looked at, so that no change is missed.
            self.news.borrow_and_update();
            if self.joined.is_none() {
                self.joined = lock(&self.tail.ring).after(self.at.as_ref());
            }
            if let Some(number) = self.joined {
                let place = lock(&self.tail.ring).at(number);
                match place {
                    Place::Row(entry) => {
                        self.joined = Some(number + 1);
                        self.before = self.at.replace(entry.cursor.clone());
                        return Ok(entry);
                    }
                    Place::Ahead => self.wait().await,
                    Place::Gone => self.joined = None,
                }
                continue;
            }
            let query = Query::timeline().limit(PAGE_ROWS).max_bytes(PAGE_BYTES);
            let page = {
                // However many streams of a tenant come from far behind, few of them read at the same time.
                let tail = Arc::clone(&self.tail);
                let _turn = tail.catching_up.acquire().await;
                tail.ledger.scan(&tail.scope, &query, self.at.as_ref()).await?
            };
            let (next, has_rows, mut rows) = (page.next, !page.rows.is_empty(), VecDeque::new());
            for row in page.rows {
                match row.span {
                    Ok(span) => rows.push_back(Arc::new(Entry::new(row.cursor, &span))),
                    Err(damaged) => {
                        let error = LedgerError::from(damaged);
                        tracing::error!(%error, "streams leave out a damaged row");
                    }
                }
            }
            if rows.is_empty() {
                match next {
                    Some(next) => self.at = Some(next),
                    // Rows that come later come through the tail, which then wakes this follower.
                    None if !has_rows => self.wait().await,
                    None => {
                        self.at = page.reached.or(self.at.take());
                        self.wait().await;
                    }
                }
            } else {
                self.page = Some(lock(&self.tail.pages).hold(rows));
            }
        }
    }

    async fn wait(&mut self) {
        // The tail, and with it the sender, lives as long as this follower.
        let _ = self.news.changed().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use logline_core::ledger::LedgerExt as _;
    use logline_core::{Draft, KeyPair, MemoryLedger, SystemClock, SystemIds};

    use super::*;

    async fn append(ledger: &MemoryLedger, key: &KeyPair, tenant: &str, number: usize) {
        let note = Draft::new("note").tenant(tenant).owner("alice").who("user:alice").this("note");
        let note = note.content(number.into()).stamp(&SystemClock, &SystemIds).seal_local(key).unwrap();
        ledger.append_one(&Scope::Operator, note).await.unwrap();
    }

    async fn numbers(follower: &mut Follower, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(Duration::from_secs(30), follower.next()).await;
            let row = logline_core::json::parse(&next.unwrap().unwrap().line).unwrap();
            found.push(row["content"].as_u64().unwrap());
        }
        found
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_the_ring_misses_nothing_and_joins_again() {
        let (ledger, key) = (MemoryLedger::new(), KeyPair::generate().unwrap());
        let tails = Tails::new(Arc::new(ledger.clone()));
        let (mut quick, mut slow) = (tails.follow_now("acme").await.unwrap(), tails.follow_now("acme").await.unwrap());
        assert_eq!(tails.count(), 1);
        let count = RING_ROWS + 300;
        append(&ledger, &key, "acme", 0).await;
        assert_eq!(numbers(&mut slow, 1).await, [0]);
        for number in 1..count {
            append(&ledger, &key, "acme", number).await;
        }
        let all: Vec<_> = (0..count as u64).collect();
        assert_eq!(numbers(&mut quick, count).await, all);
        assert_eq!(numbers(&mut slow, count - 1).await, all[1..]);
        append(&ledger, &key, "acme", count).await;
        assert_eq!((numbers(&mut quick, 1).await, numbers(&mut slow, 1).await), (vec![count as u64], vec![count as u64]));
        assert!(quick.joined.is_some() && slow.joined.is_some(), "both take rows from the ring");
        let ring = quick.tail.ring.lock().unwrap();
        assert!(ring.entries.len() <= RING_ROWS && ring.numbers.len() == ring.entries.len());
        drop(ring);
        drop((quick, slow));
        assert_eq!(tails.count(), 0);
    }

    #[tokio::test]
    async fn slow_streams_together_hold_no_more_than_their_tenants_share_and_miss_nothing() {
        let (ledger, key) = (MemoryLedger::new(), KeyPair::generate().unwrap());
        let tails = Tails::new(Arc::new(ledger.clone()));
        let long = "x".repeat(1000);
        for number in 0..100 {
            let note =
                Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note").description(long.clone());
            let note = note.content(number.into()).stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap();
            ledger.append_one(&Scope::Operator, note).await.unwrap();
        }
        let mut slow = Vec::new();
        for _ in 0..400 {
            slow.push(tails.follow("acme", None).await.unwrap());
        }
        // Each reads a page and takes one row of it.
        for follower in &mut slow {
            assert_eq!(numbers(follower, 1).await, [0]);
        }
        let held = |of: &Follower| {
            let pages = of.tail.pages.lock().unwrap();
            let bytes: usize = pages.held.iter().map(|page| page.bytes).sum();
            assert_eq!(bytes, pages.bytes);
            (pages.held.len(), bytes)
        };
        let (pages, bytes) = held(&slow[0]);
        assert!(pages < 400 && bytes <= PAGES_BYTES, "{pages} pages, {bytes} bytes");
        let rest: Vec<_> = (1..100).collect();
        for follower in slow.iter_mut().take(20) {
            assert_eq!(numbers(follower, 99).await, rest);
        }
        let last = slow.pop().unwrap();
        drop(slow);
        assert!(held(&last).0 <= 1, "who leaves holds nothing");
    }

    #[tokio::test]
    async fn whoever_waits_for_one_request_is_not_woken_by_the_rows_of_others() {
        use futures_util::FutureExt as _;

        let (ledger, key) = (MemoryLedger::new(), KeyPair::generate().unwrap());
        let tails = Tails::new(Arc::new(ledger.clone()));
        let [mine, other] = [1, 2].map(Uuid::from_u128);
        let (mut waits, mut again) = (tails.ending("acme", mine).await.unwrap(), tails.ending("acme", mine).await.unwrap());
        let mut follower = tails.follow_now("acme").await.unwrap();
        let request = |id, status: &str| {
            let request = Draft::new("request").tenant("acme").owner("alice").who("user:alice").this("x").id(id).status(status);
            request.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap()
        };
        let first = request(mine, "scheduled");
        let next = Draft::next_version(&first).who("host").status("complete");
        for row in [request(other, "complete"), first] {
            ledger.append_one(&Scope::Operator, row).await.unwrap();
            // The tail has told everybody of it.
            tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap();
            assert!(waits.wait().now_or_never().is_none(), "it has not ended");
        }
        let next = next.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap();
        ledger.append_one(&Scope::Operator, next).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), waits.wait()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), again.wait()).await.unwrap();
        assert_eq!(lock(&follower.tail.endings).len(), 1);
        drop((waits, again));
        assert!(lock(&follower.tail.endings).is_empty(), "nobody waits any more");
    }

    #[tokio::test]
    async fn rows_of_many_numbers_are_held_as_text_and_counted_as_held() {
        let (ledger, key) = (MemoryLedger::new(), KeyPair::generate().unwrap());
        let tails = Tails::new(Arc::new(ledger.clone()));
        let mut follower = tails.follow_now("acme").await.unwrap();
        let numbers = serde_json::Value::from(vec![1; 50_000]);
        let note = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note").metadata(numbers.clone());
        let note = note.input(numbers.clone()).output(numbers.clone()).content(numbers).description("x".repeat(1000));
        let note = note.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap();
        ledger.append_one(&Scope::Operator, note.clone()).await.unwrap();
        let entry = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap();
        assert_eq!(entry.line, note.to_line(), "the row is whole");
        let Span { input, output, error, content, metadata, code, description, related_to, .. } = &entry.columns;
        assert!([input, output, error, content, metadata].iter().all(|value| value.is_none()));
        assert!([code, description].iter().all(|text| text.is_none()) && related_to.is_empty());
        assert_eq!(follower.tail.ring.lock().unwrap().bytes, entry.line.len() + COLUMNS);
        // Five columns are names, which have a longest length.
        assert!(size_of::<Entry>() + 5 * logline_core::MAX_NAME_BYTES < COLUMNS);
    }

    #[tokio::test]
    async fn a_follower_of_one_tenant_gets_no_rows_of_another() {
        let (ledger, key) = (MemoryLedger::new(), KeyPair::generate().unwrap());
        let tails = Tails::new(Arc::new(ledger.clone()));
        let mut beta = tails.follow("beta", None).await.unwrap();
        append(&ledger, &key, "acme", 1).await;
        append(&ledger, &key, "beta", 2).await;
        assert_eq!(numbers(&mut beta, 1).await, [2]);
    }
}

//! Trials of scans, histories, cursors and tombstones.

use super::{Expect as _, TENANT, USER, append, append_all, at, fail, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, LedgerExt as _, Order, Query, Versions};
use crate::span::draft::Draft;
use crate::span::{SYSTEM_TENANT, SignedSpan, Visibility};

/// A tombstone hides the id from `get` and from scans of last versions. The history and the timeline still show all versions.
pub async fn a_tombstone_hides_the_id_but_not_its_history<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    let deleted = seal(next(&first).deleted());
    append_all(ledger, vec![first, deleted.clone()]).await.or_fail("append");
    for scope in [Scope::Operator, Scope::runtime(TENANT)] {
        let got = ledger.find(&scope, TENANT, id(1)).await.or_fail("find");
        same(&got, &None, "get of a deleted id");
        let latest = ledger.collect(&scope, &Query::new(), 10).await.or_fail("scan");
        hold(latest.is_empty(), "a scan of last versions must not show a deleted id");
        let last = ledger.collect(&scope, &Query::new().versions(Versions::Last), 10).await.or_fail("scan");
        same(&last, &vec![deleted.clone().into_signed()], "the last version, whatever it is");
        let history = ledger.history(&scope, TENANT, id(1), 0, 10).await.or_fail("history");
        same(&history.len(), &2, "versions in the history");
        let all = ledger.collect(&scope, &Query::timeline(), 10).await.or_fail("scan");
        same(&all.len(), &2, "versions in the timeline");
    }
    let mut revived = next(&deleted);
    revived.columns_mut().is_deleted = false;
    append(ledger, seal(revived)).await;
    ledger.get(&Scope::Operator, TENANT, id(1)).await.or_fail("get after a version that is not deleted was appended");
}

/// Reads all pages of `query`, `size` rows at a time, and returns the spans.
async fn walk<L: Ledger>(ledger: &L, query: &Query, size: usize) -> Vec<SignedSpan> {
    let query = query.clone().limit(size);
    let mut found = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = ledger.scan(&Scope::Operator, &query, cursor.as_ref()).await.or_fail("scan");
        hold(page.rows.len() <= size, "a page must not have more rows than asked for");
        // Goes through text, because callers store cursors as text.
        cursor = page.next.as_ref().map(|c| Cursor::from_text(c.to_string()));
        found.extend(page.into_spans().or_fail("rows"));
        if cursor.is_none() {
            return found;
        }
    }
}

async fn fill<L: Ledger>(ledger: &L, ids: u128, versions: u32) {
    let mut last: Vec<_> = Vec::new();
    for version in 0..versions {
        let batch: Vec<_> = match version {
            // Append the largest id first, so that append order and chain order differ.
            0 => (0..ids).rev().map(|n| seal(note(n))).collect(),
            _ => last.iter().map(|span: &crate::span::seal::VerifiedSpan| seal(next(span))).collect(),
        };
        append_all(ledger, batch.clone()).await.or_fail("fill");
        last = batch;
    }
}

/// For every page size, the pages together have all rows, in order and without repeats.
pub async fn pages_resume_where_they_ended<L: Ledger>(ledger: &L) {
    fill(ledger, 7, 3).await;
    for query in [Query::timeline(), Query::new(), Query::chains(), Query::timeline().order(Order::Newest)] {
        let whole = walk(ledger, &query, 1000).await;
        for size in [1, 2, 3, 20, 21, 22] {
            same(&walk(ledger, &query, size).await, &whole, &format!("{query:?} in pages of {size}"));
        }
    }
}

/// Pages with a byte limit show the same rows in total. The limit counts the approximate size in memory, not only the text.
pub async fn a_page_ends_with_the_row_that_reaches_its_bytes<L: Ledger>(ledger: &L) {
    let small = serde_json::Value::Array(vec![serde_json::json!({"": 0}); 1000]);
    for n in 0..40 {
        let content = if n < 20 { serde_json::json!("x".repeat(10_000)) } else { small.clone() };
        append(ledger, seal(note(n).content(content))).await;
    }
    for query in [Query::timeline(), Query::new(), Query::chains(), Query::timeline().order(Order::Newest)] {
        let whole = walk(ledger, &query, 1000).await;
        same(&whole.len(), &40, "rows");
        let bounded = query.clone().max_bytes(35_000);
        same(&walk(ledger, &bounded, 1000).await, &whole, &format!("{query:?} in pages of 35,000 bytes"));
        let first = ledger.scan(&Scope::Operator, &bounded.limit(1000), None).await.or_fail("scan");
        hold((1..=4).contains(&first.rows.len()) && first.next.is_some(), "there must be pages of at most four rows");
        // The text of a small object has 7 bytes with its comma. The ledger counts about ten times as much for it.
        let heavy = query.clone().max_bytes(100_000).limit(1000);
        let page = ledger.scan(&Scope::Operator, &heavy, Some(&cursor_after(ledger, &query, 25).await)).await.or_fail("scan");
        hold(page.rows.len() <= 10, "a page of 100,000 bytes must have at most ten rows");
    }
    let one = Query::timeline().max_bytes(1).limit(10);
    same(&ledger.scan(&Scope::Operator, &one, None).await.or_fail("scan").rows.len(), &1, "a page has at least one row");
}

async fn cursor_after<L: Ledger>(ledger: &L, query: &Query, rows: usize) -> Cursor {
    let page = ledger.scan(&Scope::Operator, &query.clone().limit(rows), None).await.or_fail("scan");
    page.rows.into_iter().last().or_fail("a row").cursor
}

/// With [`Versions::Latest`], filters are compared with the last version of an id. With [`Versions::All`], with every version.
pub async fn filters_match_the_last_version<L: Ledger>(ledger: &L) {
    let open = seal(note(1).status("open").parent(id(50)).trace("t1"));
    let closed = seal(next(&open).status("closed"));
    let other = seal(note(2).status("open").owner("bob"));
    append_all(ledger, vec![open, closed, other]).await.or_fail("append");
    let count = async |query: Query| ledger.collect(&Scope::Operator, &query, 10).await.or_fail("scan").len();
    same(&count(Query::new().status("open")).await, &1, "open now");
    same(&count(Query::timeline().status("open")).await, &2, "ever open");
    same(&count(Query::new().parent_id(id(50))).await, &1, "by parent");
    same(&count(Query::new().trace_id("t1")).await, &1, "by trace");
    same(&count(Query::new().owner("bob")).await, &1, "by owner");
    same(&count(Query::new().shared()).await, &0, "those that are shared");
    same(&count(Query::new().entity_type("note")).await, &2, "by type");
    same(&count(Query::new().entity_type("function")).await, &0, "by another type");
    same(&count(Query::new().id(id(2)).tenant(TENANT)).await, &1, "by id and tenant");
    same(&count(Query::new().versions(Versions::All).id(id(1))).await, &2, "all versions by id");
}

/// A scan newest first has the rows of append order, reversed.
pub async fn newest_first_is_append_order_reversed<L: Ledger>(ledger: &L) {
    fill(ledger, 5, 2).await;
    let mut forward = walk(ledger, &Query::timeline(), 100).await;
    let backward = walk(ledger, &Query::timeline().order(Order::Newest), 100).await;
    forward.reverse();
    same(&backward, &forward, "newest first");
}

/// Chain order is sorted by (tenant, id, seq). An audit reads in this order.
pub async fn chain_order_yields_whole_chains<L: Ledger>(ledger: &L) {
    fill(ledger, 5, 3).await;
    append(ledger, seal(note(9).tenant("a tenant: with\" marks"))).await;
    append(ledger, seal(note(2).tenant("zeta"))).await;
    let found = walk(ledger, &Query::chains(), 2).await;
    let keys: Vec<_> = found.iter().map(|span| (span.tenant_id.clone(), span.id.to_string(), span.seq)).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    same(&keys, &sorted, "chain order");
    same(&keys.len(), &17, "rows");
}

/// A scan with `until` leaves out rows that were appended later.
pub async fn until_shows_what_was_there<L: Ledger>(ledger: &L) {
    fill(ledger, 4, 1).await;
    let page = ledger.scan(&Scope::Operator, &Query::timeline(), None).await.or_fail("scan");
    let end = page.rows.last().map(|row| row.cursor.clone()).or_fail("a row");
    append(ledger, seal(note(100))).await;
    for query in [Query::timeline(), Query::chains()] {
        let found = walk(ledger, &query.until(end.clone()), 3).await;
        same(&found.len(), &4, "rows until then");
    }
}

/// A page looks at no more rows than its query allows, and says how many. An empty page has a cursor, so that a scan of rows that
/// never match still ends. Rows of another tenant count only if they are public.
pub async fn a_page_ends_with_the_last_row_that_it_may_look_at<L: Ledger>(ledger: &L) {
    use crate::span::Visibility::{Private, Public};
    let mut batch = Vec::new();
    for n in 0..30 {
        let of_bob = note(n).owner("bob").visibility(Private).parent(id(900 + n % 2)).trace(if n % 3 == 0 { "t" } else { "u" });
        batch.push(seal(of_bob));
        batch.push(seal(note(100 + n).tenant("globex").visibility(Private)));
    }
    batch.push(seal(note(200).tenant("globex").visibility(Public)));
    batch.push(seal(note(201).tenant(SYSTEM_TENANT).visibility(Public)));
    batch.push(seal(note(202)));
    append_all(ledger, batch).await.or_fail("append");
    // The runtime waits until append order is final. Alice does not see most of what she would wait for.
    ledger.collect(&Scope::runtime(TENANT), &Query::new(), 100).await.or_fail("scan");
    let alice = Scope::user(TENANT, "alice");
    let own = || Query::new().tenant(TENANT);
    // (query, rows that it finds, rows that it looks at)
    let cases = [
        (Query::new(), 2, 32),
        (own(), 1, 31),
        (own().entity_type("note"), 1, 31),
        (own().entity_type("function"), 0, 0),
        (own().parent_id(id(900)), 0, 15),
        (own().parent_id(id(900)).entity_type("function"), 0, 15),
        (own().trace_id("t"), 0, 10),
        (own().status("open"), 0, 31),
        (own().id(id(1)), 0, 1),
        (Query::new().id(id(202)), 1, 1),
        (Query::new().tenant("globex"), 1, 1),
        (Query::new().tenant("globex").entity_type("function"), 0, 1),
        (Query::new().tenant("globex").parent_id(id(900)), 0, 1),
        (Query::new().tenant("globex").id(id(101)), 0, 0),
    ];
    for (query, finds, looks_at) in cases {
        for (most, order) in [1, 4, 1000].into_iter().flat_map(|most| [(most, Order::Append), (most, Order::Newest)]) {
            let query = query.clone().order(order).max_visited(most);
            let (mut found, mut visited, mut cursor) = (0, 0, None::<Cursor>);
            loop {
                let page = ledger.scan(&alice, &query, cursor.as_ref()).await.or_fail("scan");
                let here = page.visited.or_fail("the number of rows that the page looked at");
                hold(page.rows.len() <= here && here <= most, &format!("{query:?}: a page looked at {here} rows"));
                (found, visited) = (found + page.rows.len(), visited + here);
                cursor = page.next.as_ref().map(|c| Cursor::from_text(c.to_string()));
                if cursor.is_none() {
                    break;
                }
            }
            same(&(found, visited), &(finds, looks_at), &format!("{query:?}: rows found, rows looked at"));
        }
    }
    let page = ledger.scan(&alice, &own(), None).await.or_fail("scan");
    same(&page.visited, &None, "rows that a page without a limit says it looked at");
}

/// What is appended between counting the rows of a page and reading them is neither counted nor returned.
pub async fn a_page_returns_no_more_rows_than_it_looked_at<L: Ledger>(ledger: &L) {
    let writer = async {
        for n in 0..60 {
            append_all(ledger, (0..5).map(|k| seal(note(n * 5 + k))).collect()).await.or_fail("append");
            let_others_run().await;
        }
    };
    let reader = async {
        let (mut found, mut cursor) = (0, None::<Cursor>);
        let query = Query::new().tenant(TENANT).limit(100).max_visited(1000);
        while found < 300 {
            let page = ledger.scan(&Scope::runtime(TENANT), &query, cursor.as_ref()).await.or_fail("scan");
            let visited = page.visited.or_fail("the number of rows that the page looked at");
            hold(page.rows.len() <= visited, &format!("{} rows of {visited} that it looked at", page.rows.len()));
            found += page.rows.len();
            cursor = page.next.or(page.reached).or(cursor);
            let_others_run().await;
        }
        found
    };
    let (found, ()) = futures_util::future::join(reader, writer).await;
    same(&found, &300, "rows, none skipped or repeated");
}

/// Lets the other futures of the same task run once. A ledger in memory never waits.
async fn let_others_run() {
    let mut has_waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A hot document has thousands of versions. To read its last version is to look at one row.
pub async fn the_last_version_of_a_long_chain_is_one_row<L: Ledger>(ledger: &L) {
    fill(ledger, 1, 50).await;
    // The runtime reads first: it waits until append order is final.
    for (scope, finds) in [(Scope::runtime(TENANT), 1), (Scope::user(TENANT, "mallory"), 0)] {
        for query in [Query::new().id(id(0)), Query::new().id(id(0)).tenant(TENANT)] {
            let query = query.max_visited(2);
            let mut page = ledger.scan(&scope, &query, None).await.or_fail("scan");
            // Append order may be final a little later, or be held back once more by transactions of others.
            for _ in 0..1_000 {
                if page.visited != Some(0) {
                    break;
                }
                page = ledger.scan(&scope, &query, None).await.or_fail("scan");
            }
            same(&(page.visited, page.rows.len()), &(Some(1), finds), "rows looked at, rows found");
            hold(page.next.is_none(), "the page must be the last");
        }
    }
    // The operator need not name a tenant.
    let page = ledger.scan(&Scope::Operator, &Query::new().id(id(0)).max_visited(5), None).await.or_fail("scan");
    same(&(page.visited, page.rows.len(), page.next.is_none()), &(Some(1), 1, true), "rows looked at, rows found, last page");
    let all = walk(ledger, &Query::timeline().id(id(0)).max_visited(7), 100).await;
    same(&all.len(), &50, "versions in pages of 7");
    let page = ledger.scan(&Scope::Operator, &Query::timeline().max_visited(usize::MAX), None).await.or_fail("scan");
    same(&page.visited, &Some(50), "rows looked at without a limit");
}

/// An invalid cursor, or one of another order, is an error. It must not be taken for the start of a scan.
pub async fn a_foreign_cursor_is_refused<L: Ledger>(ledger: &L) {
    fill(ledger, 3, 1).await;
    let chain = ledger.scan(&Scope::Operator, &Query::chains().limit(1), None).await.or_fail("scan");
    let chain = chain.next.or_fail("a next page").to_string();
    for text in ["", "x", "a:", "a:one", "a:99999999999999999999999", "c:1:2:3", "c:1:1:99999:x", "\u{1f600}", &chain] {
        let cursor = Cursor::from_text(text);
        let scanned = ledger.scan(&Scope::Operator, &Query::timeline(), Some(&cursor)).await;
        match scanned {
            Err(LedgerError::InvalidCursor { .. }) => {}
            other => fail(format_args!("cursor `{text}`: {other:?}")),
        }
    }
}

/// A history can be read from any `seq`, with a limit.
pub async fn history_starts_where_asked<L: Ledger>(ledger: &L) {
    fill(ledger, 1, 5).await;
    let history = ledger.history(&Scope::Operator, TENANT, id(0), 2, 2).await.or_fail("history");
    let seqs: Vec<_> = history.iter().map(|span| span.seq).collect();
    same(&seqs, &vec![2, 3], "versions");
    let none = ledger.history(&Scope::Operator, TENANT, id(77), 0, 10).await.or_fail("history");
    hold(none.is_empty(), "an id that does not exist must have an empty history");
}

/// Memories are found by who owns them, and by whether others may read them, among many that are neither.
pub async fn memories_are_found_by_owner_and_by_who_may_read_them<L: Ledger>(ledger: &L) {
    let memory = |n: u128, owner: &str, visibility| {
        let draft =
            Draft::new("memory").id(id(n)).tenant(TENANT).owner(owner).who("kernel:memory").this("memory.note").at(at(n));
        seal(draft.visibility(visibility))
    };
    let mut rows: Vec<_> = (0..40).map(|n| memory(n, "bob", Visibility::Private)).collect();
    rows.push(memory(50, USER, Visibility::Private));
    rows.push(memory(51, "bob", Visibility::Tenant));
    rows.push(memory(52, USER, Visibility::Public));
    rows.push(seal(note(60).visibility(Visibility::Public)));
    append_all(ledger, rows).await.or_fail("append");
    let found = async |query: Query| {
        let rows = ledger.collect(&Scope::runtime(TENANT), &query.tenant(TENANT).limit(1), 10).await.or_fail("scan");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let memories = || Query::new().entity_type("memory");
    let cases = [
        (memories().owner(USER), vec![id(50), id(52)]),
        (memories().owner(USER).order(Order::Newest), vec![id(52), id(50)]),
        (memories().shared(), vec![id(51), id(52)]),
        (memories().shared().versions(Versions::All).order(Order::Newest), vec![id(52), id(51)]),
        (memories().shared().owner(USER), vec![id(52)]),
        (memories().shared().max_visited(100), vec![id(51), id(52)]),
        (Query::new().shared(), vec![id(51), id(52), id(60)]),
        (memories().owner("nobody"), Vec::new()),
    ];
    for (query, expected) in cases {
        same(&found(query.clone()).await, &expected, &format!("{query:?}"));
    }
}
